"""Puts a whole city together on one machine: free ports, one folder, a configuration file for each process."""

import random
import secrets
import shutil
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from firmware_sim.scenario import EVENING
from rules.declared import Refused
from rules.district import District, load_district
from streetwarden.supervisor import Part
from wire.clock import NANOSECONDS, Clock, from_iso

LOOPBACK = "127.0.0.1"
LEAD_S = 5.0  # wall: the scenario begins when every process is up


@dataclass(frozen=True, slots=True)
class City:
    """What a city is made of. ``rules`` replaces the shipped catalog, ``broker_port`` our own embedded broker."""

    folder: Path
    district: Path
    clock: Clock
    seed: int = 1
    scenario: str = "storm"
    timeseries: str = ""
    rules: Path | None = None
    http_port: int = 0
    lan_host: str | None = None
    broker_port: int | None = None
    cloud_module: str = "streetwarden.centre_process"


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of a city, in the order in which they start, and where they can be reached."""

    parts: tuple[Part, ...]
    url: str
    control: str
    truth: Path
    broker_port: int
    ready: dict[str, int] = field(default_factory=dict)  # part → a port that it listens on once it is ready


def assemble(city: City) -> Assembly:
    """Write every configuration file into the city's folder; ``Refused`` when the district is not in order."""
    folder = city.folder
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(city.district, folder / "district.toml")
    district = load_district((folder / "district.toml").read_text(encoding="utf-8"), str(city.district))
    broker = city.broker_port or free_port()
    http, control = _asked(city.http_port), free_port()
    buses = {bus.id: free_port() for bus in district.bus}
    cables = {gateway.id: free_port() for gateway in district.gateway}
    clock = {"wall": city.clock.wall, "city": city.clock.city, "speed": city.clock.speed}
    truth = folder / "truth.json"
    rules = {"rules": str(city.rules)} if city.rules else {}
    lan, crew_url = _lan(city.lan_host)

    _write(
        folder / "simulator.toml",
        {
            "district": str(folder / "district.toml"),
            "seed": city.seed,
            "scenario": city.scenario,
            "truth": str(truth),
            "clock": clock,
            "bus": buses,
            "cable": cables,
            "broker": _address(broker),
            "sensors": _address(broker),
            "control_port": control,
        },
    )
    _write(
        folder / "cloud.toml",
        {
            "district": "district.toml",
            "data": "cloud",
            "broker": _address(broker),
            "clock": clock,
            "http": _address(http),
            **lan,
            **({"timeseries": city.timeseries} if city.timeseries else {}),
            **rules,
        },
    )
    for gateway in district.gateway:
        _write_gateway(city, district, gateway.id, broker, buses, cables[gateway.id], clock, rules)

    parts = [Part("broker", "streetwarden.broker", ["--port", str(broker)], folder / "broker.log")]
    if city.broker_port is not None:
        parts.clear()
    simulator = [str(folder / "simulator.toml")]
    parts.append(Part("simulator", "firmware_sim.process", simulator, folder / "simulator.log"))
    street = f"http://{LOOPBACK}:{control}"
    parts.append(
        Part("cloud", city.cloud_module, [str(folder / "cloud.toml"), street, *crew_url], folder / "cloud.log")
    )
    parts += [
        Part(gateway.id, "gateway.process", [str(folder / f"{gateway.id}.toml")], folder / f"{gateway.id}.log")
        for gateway in district.gateway
    ]
    return Assembly(
        tuple(parts),
        f"http://{LOOPBACK}:{http}",
        street,
        truth,
        broker,
        {"broker": broker, "simulator": control, "cloud": http},
    )


def _write_gateway(
    city: City,
    district: District,
    gateway: str,
    broker: int,
    buses: dict[str, int],
    cable: int,
    clock: dict[str, float],
    rules: dict[str, str],
) -> None:
    own = [bus.id for bus in district.bus if bus.gateway == gateway]
    _write(
        city.folder / f"{gateway}.toml",
        {
            "gateway": gateway,
            "district": "district.toml",
            "data": gateway,
            "broker": _address(cable),
            "sensors": _address(broker),
            "clock": clock,
            "buses": {bus: _address(buses[bus]) for bus in own},
            **rules,
        },
    )


def _lan(host: str | None) -> tuple[dict[str, Any], list[str]]:
    """The crew's door in the cloud's configuration, and the link that opens it once; nothing without a host."""
    if host is None:
        return {}, []
    port, token = free_port(), secrets.token_urlsafe(16)
    return {"lan": {"host": host, "port": port, "token": token}}, [f"http://{host}:{port}/crew?token={token}"]


def evening(speed: float, starts: str = EVENING) -> Clock:
    """Make a clock by which a scenario that ``starts`` so begins in a moment, at ``speed`` city seconds a second."""
    return Clock(time.time_ns() + int(LEAD_S * NANOSECONDS), from_iso(starts), speed)


def _asked(port: int) -> int:
    """Check the port that a person asked for (0: a free one); ``Refused`` when somebody has it."""
    if port == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise Refused(f"--port {port}", f"{error.strerror}; name another, or 0 for a free one") from error
    return port


def free_port() -> int:
    """A loopback port below those that the system hands to clients, so that none takes it while a part is down."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port


def _address(port: int) -> dict[str, Any]:
    return {"host": LOOPBACK, "port": port}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
