"""A small city of real processes that takes bad input on purpose: a broker, a simulator, a cloud and two gateways.

The test itself is two of its parts: the device ``level-1`` on a bus that answers as it is told, and the gateway
``gw-lab``, of which no process runs: its client is free to say anything.
"""

import asyncio
import struct
import sys
import threading
import time
import tomllib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import tomli_w
from prometheus_client.parser import text_string_to_metric_families

from rules.samples import Point, PointTable
from streetwarden.assembly import City, assemble
from tests.modbus_server import Asked, Bus, reply
from tests.servers import Server, mosquitto
from wire.clock import Clock, from_iso
from wire.session import Broker

ROOT = Path(__file__).parents[1]
START = from_iso("2026-06-18T11:30:00Z")
SPEED = 30.0
WITHIN_S = 15.0
LAB = "gw-lab"
TABLE = PointTable(LAB, (Point("lab-1", "level_sensor", "level", "m", 10.0),))
APPLICATION = "application/street/device"
COVER, CAMERA = f"{APPLICATION}/24e1240000000001/event/up", "camera-1/onvif-ej/RuleEngine/FieldDetector/ObjectsInside"
# What counts the work done, or waits of a loaded machine, rather than bad input.
NOT_ERRORS = {
    "ingest_samples_total",
    "ingest_sample_batches_total",
    "ingest_alert_batches_total",
    "edge_polls_skipped_total",
    "uplink_late_receipts_total",
    "lab_heard_total",
}

_HEAD = """
id = "small"
name = { zh = "小区", en = "Small" }
[[unit]]
id = "everything"
name = { zh = "综合养护组", en = "Everything" }
functions = ["drainage", "covers", "lighting", "gas", "sensing"]
[[site]]
id = "field"
name = { zh = "试验场", en = "Test field" }
kind = "road"
territory = "all"
outline = [[121.38, 31.24], [121.41, 31.24], [121.41, 31.26], [121.38, 31.26], [121.38, 31.24]]
"""
CALM = """
name = "calm"
title = { zh = "平静", en = "Calm" }
length = "2h"
[hazard.flood]
deeper_than_m = 0.15
larger_than_m2 = 100
over_below_m = 0.10
level = []
[hazard.cover]
gap_from_deg = 5
"""
_DEVICES = [
    # id, kind, profile, gateway, wire, install
    ("cover-1", "manhole_cover", "milesight_em310_tilt", "gw-1",
     'by = "chirpstack", application = "street", dev_eui = "24e1240000000001"',
     "background_x_deg = 0.0, background_y_deg = 0.0"),
    ("camera-1", "camera", "onvif_profile_m", "gw-1", 'by = "onvif", prefix = "camera-1"', ""),
    ("level-1", "level_sensor", "dfrobot_sen0492", "gw-2", 'by = "modbus", bus = "bus-2", unit = 1',
     "mounting_height_m = 3.0"),
    ("level-2", "level_sensor", "dfrobot_sen0492", "gw-2", 'by = "modbus", bus = "bus-2", unit = 2',
     "mounting_height_m = 3.0"),
    ("monitor-1", "manhole_monitor", "reference_manhole_monitor", "gw-3", 'by = "modbus", bus = "bus-3", unit = 1',
     "background_tilt_deg = 1.0, shaft_depth_m = 3.0"),
    ("monitor-2", "manhole_monitor", "reference_manhole_monitor", "gw-3", 'by = "modbus", bus = "bus-3", unit = 2',
     "background_tilt_deg = 1.0, shaft_depth_m = 3.0"),
    ("lab-1", "level_sensor", "dfrobot_sen0492", LAB, 'by = "modbus", bus = "bus-lab", unit = 1',
     "mounting_height_m = 3.0"),
]  # fmt: skip
_BUSES = {"bus-2": "gw-2", "bus-3": "gw-3", "bus-lab": LAB}


def district_text() -> str:
    """The district of this city as a file's text."""
    gateways = ("gw-1", "gw-2", "gw-3", LAB)
    parts = [_HEAD, *(f'[[gateway]]\nid = "{name}"\nname = {{ zh = "{name}", en = "{name}" }}\n' for name in gateways)]
    parts += [f'[[bus]]\nid = "{bus}"\ngateway = "{gateway}"\n' for bus, gateway in _BUSES.items()]
    parts += [
        f'[[device]]\nid = "{name}"\nkind = "{kind}"\nprofile = "{profile}"\ngateway = "{gateway}"\nsite = "field"\n'
        f'asset = "{name}"\ncomponent = "0102"\nlon = 121.39\nlat = 31.25\nwire = {{ {wire} }}\n'
        f"install = {{ {install} }}\n"
        for name, kind, profile, gateway, wire, install in _DEVICES
    ]
    return "\n".join(parts)


Answer = Callable[[Asked], bytes]


class BentBus:
    """Both level sensors, on a thread of their own; ``spoilt`` holds the next answers of ``level-1``."""

    def __init__(self) -> None:
        self.spoilt: deque[Answer] = deque()
        self.port = 0
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="bent bus")

    def __enter__(self) -> Self:
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = Bus(self._answer)
        await server.start()
        self.port = server.port
        self._up.set()
        await self._stop.wait()
        await server.stop()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.unit == 1 and self.spoilt:
            writer.write(self.spoilt.popleft()(asked))
        else:
            # A live sensor never stands still: 2.9 m and some millimetres, so the road is 0.1 m deep at most.
            writer.write(reply(asked, struct.pack(">H", 2900 + 5 * (asked.transaction % 8))))


class SmallCity:
    """Where its parts can be reached. ``edit`` and ``process`` are for gateways that a test starts by itself."""

    def __init__(self, folder: Path, clock: Clock, broker: Broker, url: str, bus: BentBus) -> None:
        self.folder = folder
        self.clock = clock
        self.broker = broker
        self.url = url
        self.bus = bus
        self._seq = 0

    def seq(self) -> int:
        """A number for the lab's next batch."""
        self._seq += 1
        return self._seq

    def edit(self, name: str, **changes: Any) -> Path:
        """Change a configuration file that ``assemble`` wrote; its path."""
        path = self.folder / f"{name}.toml"
        path.write_text(tomli_w.dumps(tomllib.loads(path.read_text("utf-8")) | changes), "utf-8")
        return path

    def process(self, name: str, module: str, *arguments: str) -> Server:
        """A part as a process with a log of its own; ready when its log says something."""
        log = self.folder / f"{name}.log"
        # Its folder is not a place to import from: the work tree is named.
        command = ["/usr/bin/env", f"PYTHONPATH={ROOT}", sys.executable, "-m", module, *arguments]
        return Server(name, command, 0, self.folder, lambda _: log.exists() and log.stat().st_size > 0)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text("utf-8", errors="replace")

    async def get(self, path: str, **query: str | int) -> Any:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            return (await client.get(path, params=query)).raise_for_status().json()

    async def errors(self) -> dict[tuple[str, str], int]:
        """Every error counter by (gateway, or "cloud"; name), from the cloud's ``/metrics``."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            text = (await client.get("/metrics")).raise_for_status().text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {
            (sample.labels.get("gateway", "cloud"), name): int(sample.value)
            for sample in samples
            if (name := sample.name.removeprefix("streetwarden_")) not in NOT_ERRORS
        }

    async def newest(self, device: str, metric: str) -> dict[str, Any]:
        """The newest sample of a point as the API shows it; empty while there is none."""
        (shown,) = [item for item in (await self.get("/api/v1/devices"))["items"] if item["id"] == device]
        latest: dict[str, Any] = shown["latest"].get(metric, {})
        return latest

    async def line(self, gateway: str) -> dict[str, Any]:
        """A gateway's line of the balance."""
        (line,) = [line for line in (await self.get("/api/v1/balance"))["gateways"] if line["id"] == gateway]
        found: dict[str, Any] = line
        return found

    async def told(self, gateway: str) -> None:
        """Wait for a gateway's own account of after this call."""
        now = self.clock.now()

        async def later() -> bool:
            seen = (await self.line(gateway))["last_seen_at"]
            return seen is not None and from_iso(seen) > now

        await until(later)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Look again until something holds; ``TimeoutError`` when it does not."""
    async with asyncio.timeout(WITHIN_S):
        while not await holds():  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.05)


@contextmanager
def small_city(folder: Path) -> Iterator[SmallCity]:
    """Start every process but ``gw-3`` and the lab's, and end them."""
    district, scenario = folder / "small.toml", folder / "calm.toml"
    district.write_text(district_text(), "utf-8")
    scenario.write_text(CALM, "utf-8")
    clock = Clock(time.time_ns(), START, SPEED)
    with ExitStack() as stack:
        broker, bus = stack.enter_context(mosquitto(folder)), stack.enter_context(BentBus())
        city = City(folder / "city", district, clock, scenario=str(scenario), broker_port=broker.port)
        assembly = assemble(city)
        made = SmallCity(city.folder, clock, Broker("127.0.0.1", broker.port), assembly.url, bus)
        for gateway in ("gw-1", "gw-2", "gw-3"):  # patient, so that a loaded machine looks like no fault
            buses = tomllib.loads((city.folder / f"{gateway}.toml").read_text("utf-8"))["buses"]
            made.edit(gateway, buses={name: {**address, "timeout_s": 1.0} for name, address in buses.items()})
        made.edit("gw-2", buses={"bus-2": {"host": "127.0.0.1", "port": bus.port, "timeout_s": 1.0}})
        for part in assembly.parts:
            if part.name in ("simulator", "cloud", "gw-1", "gw-2"):
                stack.enter_context(made.process(part.name, part.module, *part.arguments))
        asyncio.run(_up(made))
        yield made


async def _up(city: SmallCity) -> None:
    """Wait until the page is served and both gateways have told their account and their first samples."""

    async def answers() -> bool:
        try:
            await city.get("/readyz")
        except httpx.HTTPError:
            return False
        return True

    async def complete() -> bool:
        return all([await city.newest(*point) for point in (("level-1", "level"), ("level-2", "level"))])

    await until(answers)
    await until(complete)
    await asyncio.gather(city.told("gw-1"), city.told("gw-2"))
