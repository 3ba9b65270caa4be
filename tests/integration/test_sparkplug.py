"""Edge nodes that are not ours, behind a real broker: births, losses, deaths, and who waits for whom."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import numpy as np
import pytest

from edge.decoders import sparkplug
from edge.decoding import Decoding
from edge.installed import Installed
from edge.profile import Field, Head, Profile
from edge.reading import Reading
from edge.sources import MqttSource
from rules.district import Device, Sparkplug
from rules.samples import BAD, Quality
from tests.servers import Server, mosquitto
from tests.sparkplug_node import EdgeNode, Value
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted
from wire.session import Broker, Session

LIMIT_S = 30.0
STATE = "spBv1.0/STATE/gw-1"
METRICS: dict[str, dict[str, Value]] = {"d1": {"Level": 0, "Power": 0.0, "Door": "shut"}}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Server]:
    with mosquitto(tmp_path) as running:
        yield running


def place(device: str, first_row: int) -> Installed:
    fields = (
        Field("level", "m", "Level", scale=0.001),
        Field("power", "W", "Power"),
        Field("door", "1", "Door", words={"open": 1.0, "shut": 0.0}),
    )
    profile = Profile(Head("pump", "power_meter", "M", "X", "none", "sparkplug", 60.0), field=fields)
    there = Device(device, "power_meter", "pump", "gw", "s", "a", "0120", 0, 0, Sparkplug("city", "n1", device))
    return Installed(there, profile, np.arange(first_row, first_row + 3, dtype="i4"))


class Gateway:
    """A source on its session; ``next`` says what comes next: values by row of the point table, or what is wrong."""

    def __init__(self, broker: Server) -> None:
        self.counted = Counted()
        self._source = MqttSource([place("d1", 0), place("d2", 3)], Clock(), self.counted, host_id="gw-1")
        at = Broker("127.0.0.1", broker.port)
        self.session = Session(at, "gw-1", self._source.subscriptions, will=self._source.will)
        self._readings: asyncio.Queue[Reading] = asyncio.Queue(1000)

    async def run(self) -> None:
        async with self.session:
            await self._source.run(self.session, self._readings.put)

    async def next(self) -> dict[int, float | Quality]:
        async with asyncio.timeout(LIMIT_S):
            block = Decoding().block([await self._readings.get()])
        samples = zip(block.point.tolist(), block.value.tolist(), block.quality.tolist(), strict=True)
        return {row: Quality(quality) if quality >= BAD else value for row, value, quality in samples}


def test_a_node_is_heard_from_its_birth_to_its_death_and_after(broker: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparkplug, "PAUSE", NANOSECONDS)
    monkeypatch.setattr(sparkplug, "ANSWER", 3600 * NANOSECONDS)  # however slow the machine, nobody is given up

    async def scenario() -> None:
        gateway = Gateway(broker)
        async with asyncio.TaskGroup() as tasks:
            async with EdgeNode(broker.port, "n1", METRICS) as node:
                # Its birth was not heard: it is asked for another.
                running = tasks.create_task(gateway.run())
                assert await gateway.next() == {0: 0.0, 1: 0.0, 2: 0.0}
                async with asyncio.timeout(LIMIT_S):
                    await node.rebirths.get()
                await node.tell("d1", Level=-1500)
                assert await gateway.next() == {0: -1.5}
                await node.tell("d1", Power=60.5, Door="open")
                assert await gateway.next() == {1: 60.5, 2: 1.0}
                # What follows a loss is not read: a birth might be among what is missing.
                await node.tell("d1", is_lost=True, Level=7)
                await node.tell("d1", Level=8)
                async with asyncio.timeout(LIMIT_S):
                    await node.rebirths.get()
                assert await gateway.next() == {0: 0.008, 1: 60.5, 2: 1.0}
                await node.vanish()
                assert await gateway.next() == dict.fromkeys(range(3), Quality.BAD_STALE)
                assert await gateway.next() == dict.fromkeys(range(3, 6), Quality.BAD_STALE)
            async with EdgeNode(broker.port, "n1", {**METRICS, "d2": {"Level": 9}}, bd_seq=1):
                assert await gateway.next() == {0: 0.0, 1: 0.0, 2: 0.0}
                assert await gateway.next() == {3: pytest.approx(0.009)}
            running.cancel()
        assert gateway.counted["edge_sparkplug_dropped_messages_total"] == 1

    asyncio.run(scenario())


def test_nodes_see_their_host_come_and_go(broker: Server) -> None:
    async def scenario() -> None:
        async with aiomqtt.Client("127.0.0.1", broker.port) as observer:
            await observer.subscribe(STATE, qos=1)

            async def stamp_of(online: bool) -> int:
                """Wait for a state (births may come twice: for the connection, and for the will before it)."""
                async with asyncio.timeout(LIMIT_S):
                    async for message in observer.messages:
                        state = json.loads(message.payload)
                        if state["online"] is online:
                            break
                return int(state["timestamp"])

            async with asyncio.TaskGroup() as tasks:
                gateway = Gateway(broker)
                running = tasks.create_task(gateway.run())
                stamp = await stamp_of(online=True)
                # As in a power cut: the broker tells.
                connection = gateway.session._connection
                assert connection is not None
                tcp = connection._client.socket()
                assert isinstance(tcp, socket.socket)
                tcp.shutdown(socket.SHUT_RDWR)
                assert [await stamp_of(online=False), await stamp_of(online=True)] == [stamp, stamp]
                running.cancel()
                assert await stamp_of(online=False) == stamp

    asyncio.run(scenario())
