"""The simulator's process: world, instruments, transports, truth and control under one task group."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import msgspec
import structlog
import uvloop

from firmware_sim.cable import Cable
from firmware_sim.control import Control
from firmware_sim.instruments import Instruments
from firmware_sim.line import Line
from firmware_sim.modbus import Bus, Port, Transport, buses_of
from firmware_sim.mqtt import Radio
from firmware_sim.recording import Recorded, load_recordings
from firmware_sim.scenario import Scenario, check, load_scenario
from firmware_sim.street import Street, put_back
from firmware_sim.telling.telling import Telling
from firmware_sim.truth import TruthFile
from firmware_sim.wirefaults import cut_cable
from firmware_sim.world import World
from rules.declared import Refused, decode, nearest
from rules.district import District, Modbus, load_district
from wire.clock import Clock
from wire.files import read
from wire.refusing import refusing
from wire.session import Broker, Session

log = structlog.get_logger(__name__)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one simulated district needs to know. A port of 0, or a bus that is not named, gets a free one.

    ``scenario`` is a shipped scenario's name or a path; ``truth`` is where the truth file goes; ``sensors`` is the
    broker that covers and cameras publish to (none: they stay silent); ``broker`` is where the gateways' cables lead,
    ``cable`` the port that each gateway dials instead of it. Scenario time 0 is ``clock.city``.

    ``transport`` says how a bus is spoken to, if not by Modbus TCP on the port of ``bus``: by RTU frames on that port
    (``rtu_over_tcp``), or on a pseudo-terminal (``rtu``), to which ``line`` may name a symbolic link. ``device`` gives
    single devices a port of their own, beside that of their bus.
    """

    district: str
    seed: int
    truth: str
    scenario: str = "storm"
    clock: Clock = Clock()
    bus: dict[str, int] = {}
    device: dict[str, int] = {}
    transport: dict[str, Transport] = {}
    line: dict[str, str] = {}
    sensors: Broker | None = None
    broker: Broker | None = None
    cable: dict[str, int] = {}
    control_port: int = 0
    host: str = "127.0.0.1"


def load_config(path: Path) -> Config:
    """Read a configuration; ``Refused`` names the file and the key."""
    config = decode(read(path), Config, str(path))
    if config.cable and config.broker is None:
        raise Refused(f"{path}: cable", "a cable needs a `broker` to lead to")
    district, *_ = _declared(config)
    _check_names(config, district, str(path))
    return config


async def run(config: Config) -> None:
    """Run the district until cancelled; ``Refused`` when what is declared does not fit together."""
    district, scenario, recordings = _declared(config)
    start = config.clock.city or config.clock.now()
    world = World(district, scenario, config.seed, start, recordings)
    instruments = Instruments(world)
    buses = buses_of(district, instruments, config.clock, config.district)
    cables = [Cable(name, config.broker.host, config.broker.port) for name in config.cable if config.broker]

    async with AsyncExitStack() as opened, asyncio.TaskGroup() as tasks:
        ports, own, lines = _ways_in(config, buses)
        for name, port in ports.items():
            await opened.enter_async_context(port.door.open(config.bus.get(name, 0), config.host))
        for name, port in own.items():
            await opened.enter_async_context(port.door.open(config.device[name], config.host))
        for name, line in lines.items():
            link = Path(config.line[name]) if name in config.line else None
            await opened.enter_async_context(line.open(link))
        for cable in cables:
            await opened.enter_async_context(cable.door.open(config.cable[cable.gateway], config.host))
            tasks.create_task(cut_cable(cable, world, config.clock), name=f"cuts of the cable of {cable.gateway}")

        def spawn(cable: Cable) -> None:
            tasks.create_task(put_back(cable), name=f"put back the cable of {cable.gateway}")

        radio: Radio | None = None
        talking: asyncio.Task[None] | None = None
        if config.sensors is not None:
            session = Session(config.sensors, f"sensors-{district.id}", (), clean=True)
            radio = Radio(
                Telling(district, instruments, start), await opened.enter_async_context(session), config.clock
            )
            talking = tasks.create_task(radio.run(), name="radio")
        truth = TruthFile(Path(config.truth), world, config.clock, lambda: _emitted(buses, radio))

        def hush() -> None:
            for port in (*ports.values(), *own.values()):
                port.bus.hushed = True
                port.door.hang_up()
            for line in lines.values():
                line.bus.hushed = True
            if talking is not None:
                talking.cancel()
            truth.write()

        control = Control(Street(world, config.clock, cables, spawn), hush)
        await opened.enter_async_context(control.door.open(config.control_port))
        tasks.create_task(truth.run(), name="truth")
        opened.callback(truth.write)  # the last word, however the run ends
        log.info(
            "simulator ready",
            devices=len(district.device),
            bus={name: port.door.port for name, port in ports.items()},
            device={name: port.door.port for name, port in own.items()},
            line={name: line.path for name, line in lines.items()},
            cable={cable.gateway: cable.door.port for cable in cables},
            control=control.door.port,
            scenario=scenario.name,
            seed=config.seed,
        )


def _declared(config: Config) -> tuple[District, Scenario, dict[str, Recorded]]:
    district = load_district(read(Path(config.district)), config.district)
    scenario, place = load_scenario(config.scenario)
    check(scenario, district, place)
    return district, scenario, load_recordings(scenario, place)


def _ways_in(config: Config, buses: list[Bus]) -> tuple[dict[str, Port], dict[str, Port], dict[str, Line]]:
    """Make the ports of buses, the ports of single devices, and the serial lines, by bus and by device."""
    ports: dict[str, Port] = {}
    own: dict[str, Port] = {}
    lines: dict[str, Line] = {}
    for bus in buses:
        transport = config.transport.get(bus.name, "modbus_tcp")
        if transport == "rtu":
            lines[bus.name] = Line(bus)
        else:
            ports[bus.name] = Port(bus, transport)
            for name in sorted(config.device.keys() & bus.units.keys()):
                own[name] = Port(Bus(bus.name, [bus.units[name]], bus.world, bus.clock), transport)
    return ports, own, lines


def _check_names(config: Config, district: District, place: str) -> None:
    buses = {bus.id for bus in district.bus}
    bus_of = {device.id: device.wire.bus for device in district.device if isinstance(device.wire, Modbus)}
    gateways = {gateway.id for gateway in district.gateway}
    tables: tuple[tuple[str, Iterable[str], set[str]], ...] = (
        ("bus", config.bus, buses),
        ("transport", config.transport, buses),
        ("line", config.line, buses),
        ("device", config.device, set(bus_of)),
        ("cable", config.cable, gateways),
    )
    for what, named, known in tables:
        for name in named:
            if name not in known:
                why = f"{config.district} declares none of that id{nearest(name, known)}"
                raise Refused(f"{place}: {what}.{name}", why)
    serial = {bus for bus, transport in config.transport.items() if transport == "rtu"}
    for bus in config.line.keys() - serial:
        raise Refused(f"{place}: line.{bus}", 'only a bus with `transport` = "rtu" is a serial line')
    for bus in config.bus.keys() & serial:
        raise Refused(f"{place}: bus.{bus}", "a serial line has no port")
    for device in config.device:
        if bus_of[device] in serial:
            raise Refused(f"{place}: device.{device}", f"its bus {bus_of[device]} is a serial line and has no port")


def _emitted(buses: list[Bus], radio: Radio | None) -> dict[str, dict[str, int]]:
    emitted = {device: counts for bus in buses for device, counts in bus.counters().items()}
    if radio is not None:
        emitted |= {device: {"uplinks": count} for device, count in radio.published.items()}
    return dict(sorted(emitted.items()))


async def _until_signalled(config: Config) -> None:
    task = cast("asyncio.Task[None]", asyncio.current_task())

    def stop() -> None:
        if not task.cancelling():  # a second signal must not cut the clean-up short
            task.cancel()

    for signal_ in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await run(config)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``python -m firmware_sim.process CONFIG.toml``."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        sys.exit("usage: python -m firmware_sim.process CONFIG.toml")
    with refusing():
        uvloop.run(_until_signalled(load_config(Path(given[0]))))


if __name__ == "__main__":
    main()
