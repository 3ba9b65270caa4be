"""Outbox and uplink against a real broker that is killed under them: every batch gets its receipt in the end."""

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.outbox import Outbox
from gateway.uplink import Uplink
from tests.gateways import GATEWAY, START, TABLE, accepted, tick
from tests.servers import Server, iotcore_broker, mosquitto
from wire.batch import Batch, decode, encode
from wire.clock import Clock
from wire.session import Broker, NotConnected, Session
from wire.topics import Lane, parse_up, receipt, up

LIMIT_S = 60.0
TICKS = 400


@pytest.fixture(params=["mosquitto", "iotcore"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    start = mosquitto if request.param == "mosquitto" else iotcore_broker
    with start(tmp_path) as running:
        yield running


class ToyCloud:
    """Commits to a dictionary, then sends a receipt, then acknowledges; now and then it forgets the receipt."""

    def __init__(self, session: Session, forgets: float) -> None:
        self._session = session
        self._forgets = forgets
        self._luck = random.Random(7)
        self.payloads: dict[int, bytes] = {}
        self.repeats = 0

    async def run(self) -> None:
        while True:
            delivery = await self._session.receive()
            _, lane = parse_up(delivery.topic)
            if lane in (Lane.ALERT, Lane.LIVE, Lane.BACKFILL):
                await self._take(delivery.payload)
            self._session.acknowledge(delivery)

    async def _take(self, payload: bytes) -> None:
        seq = decode(payload, Batch).seq
        self.repeats += seq in self.payloads
        assert self.payloads.setdefault(seq, payload) == payload, "sent again, but not byte for byte"
        if self._luck.random() >= self._forgets:
            try:
                await self._session.publish(receipt(GATEWAY), encode(accepted([seq])))
            except NotConnected:
                return  # the batch comes again


def test_every_batch_is_received_though_the_broker_is_killed_again_and_again(server: Server, tmp_path: Path) -> None:
    clock = Clock(wall=time.time_ns(), city=START, speed=1.0)

    async def append(outbox: Outbox) -> None:
        for number in range(TICKS):
            await outbox.append(tick(samples=number % 7, alerts=int(number % 10 == 0), filtered=1))
            await asyncio.sleep(0.005)

    async def kill() -> None:
        for _ in range(3):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.start)

    async def scenario() -> None:
        broker = Broker("127.0.0.1", server.port)
        async with (
            Outbox(tmp_path / "data", TABLE, clock) as outbox,
            Session(broker, "cloud", [up("+", Lane.ALERT), up("+", Lane.LIVE), up("+", Lane.BACKFILL)]) as far,
            Session(broker, "gateway", [receipt(GATEWAY)]) as near,
        ):
            cloud = ToyCloud(far, forgets=0.05)
            uplink = Uplink(GATEWAY, outbox, near, clock, receipt_s=0.5)
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(cloud.run(), name="toy cloud"),
                    tasks.create_task(uplink.run(), name="uplink under test"),
                ]
                async with asyncio.timeout(LIMIT_S):
                    await asyncio.gather(append(outbox), kill())
                    while (await outbox.report()).batches:  # noqa: ASYNC110 - its one event belongs to the uplink
                        await asyncio.sleep(0.02)
                for task in running:
                    task.cancel()
            report = await outbox.report()
            samples = sum(len(decode(payload, Batch).block()) for payload in cloud.payloads.values())
            assert samples == sum(tally.sent for tally in report.tallies) == sum(number % 7 for number in range(TICKS))
            assert sum(tally.acquired for tally in report.tallies) == samples + TICKS
            transitions = sum(len(decode(payload, Batch).transitions) for payload in cloud.payloads.values())
            assert transitions == TICKS // 10
            assert cloud.repeats > 0  # else nothing was tried here

    asyncio.run(scenario())


def test_an_alert_reaches_the_cloud_within_milliseconds(tmp_path: Path) -> None:
    clock = Clock(wall=time.time_ns(), city=START, speed=1.0)

    async def scenario(broker: Broker) -> list[float]:
        async with (
            Outbox(tmp_path / "data", TABLE, clock) as outbox,
            Session(broker, "cloud", [up("+", Lane.ALERT)]) as far,
            Session(broker, "gateway", [receipt(GATEWAY)]) as near,
            asyncio.TaskGroup() as tasks,
        ):
            running = tasks.create_task(Uplink(GATEWAY, outbox, near, clock).run(), name="uplink under test")
            await far.wait_connected()
            await near.wait_connected()
            spent = []
            for _ in range(20):
                began = time.perf_counter()
                await outbox.append(tick(samples=5, alerts=1))
                far.acknowledge(await far.receive())
                spent.append(time.perf_counter() - began)
            running.cancel()
        return sorted(spent)

    with mosquitto(tmp_path) as server:
        spent = asyncio.run(scenario(Broker("127.0.0.1", server.port)))
    print(f"append to cloud: median {spent[10] * 1000:.1f} ms, worst {spent[-1] * 1000:.1f} ms")  # noqa: T201 - pytest shows it on failure
    assert spent[10] < 0.1
