"""The MQTT source on real brokers: one that dies with messages under way, and one that speaks MQTT 3.1.1."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from edge.agent import Agent, Tick
from edge.installed import Installed
from edge.profile import load_profiles
from edge.reading import Reading
from edge.sources import MqttSource
from edge.watermark import Watermark
from rules.district import Chirpstack, Device, ThingsStack
from rules.engine import Engine
from rules.samples import Point, PointTable
from tests.servers import Server, mosquitto
from wire.clock import NANOSECONDS, Clock, iso
from wire.counted import Counted
from wire.session import Broker, NotConnected, Session

LIMIT_S = 60.0
PROFILE = load_profiles()["milesight_em310_tilt"]
WIDTH = len(PROFILE.quantities)
DEVICES, UPLINKS = 20, 30


def place(number: int, wire: Chirpstack | ThingsStack) -> Installed:
    install = dict.fromkeys(PROFILE.install_names(), 0.0)
    device = Device(f"lid-{number}", "manhole_cover", PROFILE.id, "gw", "s", "a", "0", 0.0, 0.0, wire, install)
    return Installed(device, PROFILE, np.arange(number * WIDTH, (number + 1) * WIDTH, dtype="i4"))


def table(places: list[Installed]) -> PointTable:
    return PointTable(
        "gw",
        tuple(
            Point(of.device.id, of.device.kind, quantity.metric, quantity.unit, 600.0, reports_on_change=True)
            for of in places
            for quantity in PROFILE.quantities
        ),
    )


class Gateway:
    """A source and its agent; ``taken`` counts what was made safe, by device and (time, angle)."""

    def __init__(self, places: list[Installed], broker: Broker) -> None:
        self.counted = Counted()
        self.taken: Counter[tuple[int, int, float]] = Counter()
        self._clock = Clock()
        self._source = MqttSource(places, self._clock, self.counted)
        self.session = Session(broker, "gw-sensors", self._source.subscriptions, counted=self.counted)
        self._table = table(places)

    async def append(self, tick: Tick) -> None:
        block = tick.block
        for point, at, value in zip(block.point.tolist(), block.taken_at.tolist(), block.value.tolist(), strict=True):
            if point % WIDTH == 0:
                self.taken[point // WIDTH, at, value] += 1

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        intake: asyncio.Queue[Reading] = asyncio.Queue(64)
        agent = Agent(self._table, Engine(self._table, ()), intake, self.append, self._clock, 0.02)
        async with self.session, asyncio.TaskGroup() as tasks:
            watermark = Watermark(self.session, self._clock)
            running = [
                tasks.create_task(self._source.run(self.session, intake.put, watermark)),
                tasks.create_task(agent.run()),
            ]
            await self.session.wait_connected()
            yield
            for task in running:
                task.cancel()


async def tell(session: Session, topic: str, payload: bytes) -> None:
    """Publish as a network server does: until the broker has it, whatever becomes of connections."""
    while True:
        generation = await session.wait_connected()
        try:
            return await session.publish(topic, payload)
        except NotConnected:
            await session.wait_connected(generation)


def test_a_broker_that_dies_under_way_costs_no_uplink_and_doubles_none(tmp_path: Path) -> None:
    """Every device tells its number and that of the uplink; what the broker's death leaves in doubt is sent again."""
    places = [place(number, Chirpstack("app", f"24e124136b{number:06x}")) for number in range(DEVICES)]
    start = Clock().now() // NANOSECONDS * NANOSECONDS - 3600 * NANOSECONDS

    async def scenario(server: Server) -> None:
        broker = Broker("127.0.0.1", server.port)
        gateway = Gateway(places, broker)
        expected = set()
        async with gateway.running(), Session(broker, "network", []) as network, asyncio.TaskGroup() as tasks:
            for uplink in range(UPLINKS):
                for number in range(DEVICES):
                    at = start + uplink * NANOSECONDS
                    fields = {"angle_x": number + uplink / 100, "battery": 90}
                    topic = f"application/app/device/24e124136b{number:06x}/event/up"
                    payload = json.dumps({"time": iso(at), "object": fields}).encode()
                    expected.add((number, at, fields["angle_x"]))
                    tasks.create_task(tell(network, topic, payload))
                await asyncio.sleep(0.01)
                if uplink == UPLINKS // 2:
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
            async with asyncio.timeout(LIMIT_S):
                while len(gateway.taken) < len(expected):  # noqa: ASYNC110 - looks from outside
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)  # for what would be too much
        assert gateway.taken == Counter(expected)
        assert gateway.session.generation > 1
        assert gateway.counted["edge_malformed_messages_total"] == 0

    with mosquitto(tmp_path, persistent=True) as server:
        asyncio.run(scenario(server))


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_the_things_stack_is_heard_over_mqtt_of_either_version(tmp_path: Path, version: str) -> None:
    wire = ThingsStack("covers", "city", "mh-0042", "24e124136b000042")
    at = Clock().now() // NANOSECONDS * NANOSECONDS - 5 * NANOSECONDS

    async def scenario(server: Server) -> None:
        gateway = Gateway([place(0, wire)], Broker("127.0.0.1", server.port, version=version))  # type: ignore[arg-type]
        older = Broker("127.0.0.1", server.port, version="3.1.1")
        async with gateway.running(), Session(older, "stack", []) as stack:
            await stack.wait_connected()
            for number in range(2):
                message = {"received_at": iso(at + number * NANOSECONDS), "decoded_payload": {"angle_x": 3.0 + number}}
                payload = json.dumps({"uplink_message": message}).encode()
                await stack.publish("v3/covers@city/devices/mh-0042/up", payload, qos=number)
            await stack.publish("v3/covers@city/devices/stranger/up", b"{}")
            async with asyncio.timeout(LIMIT_S):
                while not (len(gateway.taken) == 2 and gateway.counted["edge_unknown_device_messages_total"]):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert gateway.taken == Counter({(0, at, 3.0): 1, (0, at + NANOSECONDS, 4.0): 1})

    with mosquitto(tmp_path) as server:
        asyncio.run(scenario(server))
