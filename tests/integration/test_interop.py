"""Against Modbus servers that are not ours: libmodbus in C and npm's modbus-serial, with words of their own.

Words are typed into ``interop/libmodbus_server.c`` and ``interop/modbus_serial_server.js`` as the manuals have them;
nothing of ours computes them. ``.ci/servers`` installs what this needs.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge.decoding import Decoding
from edge.drivers.address import Address
from edge.drivers.modbus import Connection, Declined, NoAnswer, Write
from edge.installed import installed, table_of
from edge.plan import Request
from edge.poller import ModbusBus
from edge.profile import Profile, load_profile, load_profiles
from edge.reading import Reading
from rules.district import Bus, Device, District, Gateway, Modbus, Site, Text
from rules.samples import Quality
from tests.servers import Missing, Server, free_port, mosquitto
from wire.batch import Batch, decode
from wire.clock import Clock
from wire.session import Broker, Session
from wire.topics import Lane, up

HERE = Path(__file__).parent / "interop"
MODULES = Path(__file__).parents[2] / "build" / "interop" / "node_modules"
LIMIT_S = 20.0
ANSWER_S = 5.0  # of a busy machine
TRIES = 5
GATEWAY = "gw"
EVERY_TYPE = """
point = [
  { metric = "total", unit = "count", function = 4, register = 100, type = "u64" },
  { metric = "below", unit = "m", function = 4, register = 104, type = "s64", order = "CDAB" },
  { metric = "long_float", unit = "V", function = 4, register = 108, type = "f64", order = "BADC" },
  { metric = "digits_4", unit = "1", function = 4, register = 114, type = "bcd16" },
  { metric = "digits_8", unit = "1", function = 4, register = 115, type = "bcd32" },
  { metric = "float", unit = "V", function = 4, register = 117, type = "f32", order = "DCBA" },
  { metric = "bit_0", unit = "1", function = 4, register = 119, type = "bit" },
  { metric = "bit_1", unit = "1", function = 4, register = 119, type = "bit", bit = 1 },
  { metric = "bits_13_to_15", unit = "1", function = 4, register = 119, type = "bit", bit = 13, width = 3 },
  { metric = "not_there", unit = "1", function = 4, register = 122, type = "u16" }, # the device refuses a read of it
  { metric = "coil_8", unit = "1", function = 1, register = 8, type = "bit" },
  { metric = "coil_9", unit = "1", function = 1, register = 9, type = "bit" },
  { metric = "coil_18", unit = "1", function = 1, register = 18, type = "bit" },
  { metric = "contact_16", unit = "1", function = 2, register = 16, type = "bit" },
  { metric = "contact_26", unit = "1", function = 2, register = 26, type = "bit" },
]
[profile]
id = "every_type"
kind = "level_sensor"
maker = "nobody"
model = "every type"
manual = "none"
protocol = "modbus"
interval_s = 10
"""
# By unit: kind, profile, base, and what the samples must be.
Sample = tuple[float, str] | Quality  # a value and its unit, or why it is bad
Wanted = dict[str, Sample]
DEVICES: dict[int, tuple[str, str, int, Wanted]] = {
    1: (
        "power_meter",
        "pzem_016",
        0,
        {
            "voltage": (230.2, "V"),
            "current": (123.456, "A"),
            "power": (29056.2, "W"),
            "energy": (0.007, "kW.h"),
            "frequency": (50.0, "Hz"),
            "power_factor": (0.95, "1"),
        },
    ),
    2: (
        "power_meter",
        "eastron_sdm120",
        0,
        {
            "voltage": (230.2, "V"),
            "current": (0.5, "A"),
            "power": (115.1, "W"),
            "power_factor": (0.95, "1"),
            "frequency": (50.0, "Hz"),
            "energy": (1234.5, "kW.h"),
        },
    ),
    3: ("rain_gauge", "xunchip_xm9505", 0, {"rain_total": (53.6, "mm")}),
    4: ("level_sensor", "dfrobot_sen0492", 0, {"distance": (1.803, "m"), "level": (1.697, "m")}),
    5: (
        "power_meter",
        "hiking_dds238",
        0,
        {
            "energy": (1234.56, "kW.h"),
            "voltage": (230.0, "V"),
            "current": (1.0, "A"),
            "power": (-200.0, "W"),
            "power_factor": (0.999, "1"),
            "frequency": (50.0, "Hz"),
        },
    ),
    6: (
        "level_sensor",
        "every_type",
        0,
        {
            "total": (4294967298.0, "count"),
            "below": (-2.0, "m"),
            "long_float": (230.2, "V"),
            "digits_4": (9876.0, "1"),
            "digits_8": (12345678.0, "1"),
            "float": (230.2, "V"),
            "bit_0": (1.0, "1"),
            "bit_1": (0.0, "1"),
            "bits_13_to_15": (4.0, "1"),
            "coil_8": (1.0, "1"),
            "coil_9": (0.0, "1"),
            "coil_18": (1.0, "1"),
            "contact_16": (0.0, "1"),
            "contact_26": (1.0, "1"),
        },
    ),
    7: ("level_sensor", "dfrobot_sen0492", 0, {"distance": Quality.BAD_SENTINEL, "level": Quality.BAD_SENTINEL}),
    8: ("level_sensor", "dfrobot_sen0492", 0, {"distance": Quality.BAD_RANGE, "level": Quality.BAD_RANGE}),
    10: (
        "lamp_controller",
        "ecodim_dali_gw2",
        315,
        {"gear_available": (2.0, "1"), "gear_status": (0.0, "1"), "dim_level": (50.0, "%")},
    ),
    11: (
        "rain_gauge",
        "deltaohm_hd2013_3",
        0,
        {
            "raining": (1.0, "1"),
            "raining_valid": (1.0, "1"),
            "snowing": (0.0, "1"),
            "supply_voltage": (24.1, "V"),
            "temperature": (-3.5, "Cel"),
            "heater_temperature": (31.2, "Cel"),
            "heater_power": (60.0, "%"),
        },
    ),
}


def libmodbus(folder: Path) -> Server:
    port = free_port()
    return Server("libmodbus", [str(compiled(folder)), "tcp", str(port)], port, folder)


def modbus_serial(folder: Path) -> Server:
    node, port = shutil.which("node"), free_port()
    if node is None or not (MODULES / "modbus-serial").is_dir():
        raise Missing("node or its modbus-serial is not installed; run: .ci/servers")
    script = str(HERE / "modbus_serial_server.js")
    return Server("modbus-serial", ["env", f"NODE_PATH={MODULES}", node, script, str(port)], port, folder)


def compiled(folder: Path) -> Path:
    """Compile the C server; ``Missing`` says what to install."""
    program = folder / "libmodbus_server"
    gcc = shutil.which("gcc")
    if gcc is None or not Path("/usr/include/modbus/modbus.h").exists():
        raise Missing("gcc or libmodbus-dev is not installed; run: .ci/servers")
    source = str(HERE / "libmodbus_server.c")
    subprocess.run([gcc, "-Wall", "-Werror", "-I/usr/include/modbus", source, "-lmodbus", "-o", program], check=True)
    return program


def assert_same(found: Sample, wanted: Sample, name: str) -> None:
    if isinstance(found, Quality) or isinstance(wanted, Quality):
        assert found is wanted, name
    else:
        assert found[0] == pytest.approx(wanted[0], rel=1e-6), name
        assert found[1] == wanted[1], name


servers = pytest.mark.parametrize("server", [libmodbus, modbus_serial], ids=lambda server: server.__name__)


def district() -> District:
    def device(unit: int, kind: str, profile: str, base: int) -> Device:
        wire, install = Modbus("bus", unit, base), {"mounting_height_m": 3.5}
        return Device(
            f"unit-{unit}", kind, profile, GATEWAY, "site", f"a{unit}", "0120", 0.0, 0.0, wire, install, interval_s=0.5
        )

    devices = tuple(device(unit, kind, profile, base) for unit, (kind, profile, base, _) in DEVICES.items())
    name = Text("区", "district")
    return District(
        "district",
        name,
        (),
        (Site("site", name, "road", "all", ()),),
        (Gateway(GATEWAY, name),),
        (Bus("bus", GATEWAY),),
        devices,
    )


def profiles() -> dict[str, Profile]:
    return load_profiles() | {"every_type": load_profile(EVERY_TYPE, "every_type.toml")}


async def first_readings(address: Address, count: int = len(DEVICES)) -> list[Reading]:
    """Poll the devices until each has given a reading."""
    places = installed(district(), GATEWAY, profiles())
    found: dict[str, Reading] = {}
    complete = asyncio.Event()

    async def put(reading: Reading) -> None:
        found.setdefault(reading.place.device.id, reading)
        if len(found) == count:
            complete.set()

    polling = asyncio.create_task(ModbusBus("bus", address, places, Clock()).run(put), name="bus")
    try:
        async with asyncio.timeout(LIMIT_S):
            await complete.wait()
    finally:
        polling.cancel()
        await asyncio.wait([polling])
    return list(found.values())


def samples(readings: list[Reading]) -> dict[int, Wanted]:
    """What the readings say, by unit: value and unit of what is good, and the quality of what is not."""
    points = table_of(district(), GATEWAY, profiles()).points
    block = Decoding().block(readings)
    said: dict[int, Wanted] = {}
    for row, value, quality in zip(block.point, block.value.tolist(), block.quality.tolist(), strict=True):
        point = points[row]
        sample = Quality(quality) if quality else (value, point.unit)
        said.setdefault(int(point.device.removeprefix("unit-")), {})[point.metric] = sample
    return said


@servers
def test_every_device_is_read_as_its_manual_says(server: Callable[[Path], Server], tmp_path: Path) -> None:
    with server(tmp_path) as running:
        said = samples(asyncio.run(first_readings(Address("127.0.0.1", running.port, timeout_s=ANSWER_S))))
    assert said.keys() == DEVICES.keys()
    for unit, (_, profile, _, wanted) in DEVICES.items():
        assert said[unit].keys() == wanted.keys(), profile
        for metric, sample in wanted.items():
            assert_same(said[unit][metric], sample, f"{profile} {metric}")


@servers
def test_the_longest_reads_come_whole(server: Callable[[Path], Server], tmp_path: Path) -> None:
    async def read(port: int) -> tuple[bytes, bytes]:
        async with Connection(Address("127.0.0.1", port, timeout_s=ANSWER_S)) as connection:
            return await connection.read(9, Request(3, 0, 125, ())), await connection.read(9, Request(1, 0, 2000, ()))

    with server(tmp_path) as running:
        registers, coils = asyncio.run(read(running.port))
    assert registers == b"".join((0xA500 + place).to_bytes(2, "big") for place in range(125))
    assert np.unpackbits(np.frombuffer(coils, np.uint8), bitorder="little").tolist() == [1, 0, 0] * 666 + [1, 0]


@servers
def test_what_a_device_declines_has_its_code_and_the_next_question_an_answer(
    server: Callable[[Path], Server], tmp_path: Path
) -> None:
    async def read(port: int) -> None:
        async with Connection(Address("127.0.0.1", port, timeout_s=ANSWER_S)) as connection:
            for unit, request, code in (
                (1, Request(4, 9, 2, ()), 2),  # one register further than it has
                (1, Request(3, 0, 1, ()), 2),  # it has no holding registers
                (3, Request(1, 0, 1, ()), 2),  # nor this one coils
                (99, Request(3, 0, 1, ()), 0x0B),  # nobody has this unit
            ):
                with pytest.raises(Declined) as declined:
                    await connection.read(unit, request)
                assert declined.value.code == code
                assert await connection.read(3, Request(3, 0, 1, ())) == b"\x02\x18"
                assert await connection.read(4, Request(3, 0x34, 1, ())) == b"\x07\x0b"

    with server(tmp_path) as running:
        asyncio.run(read(running.port))


@servers
def test_what_is_written_is_what_is_read_back(server: Callable[[Path], Server], tmp_path: Path) -> None:
    async def write(port: int) -> None:
        async with Connection(Address("127.0.0.1", port, timeout_s=ANSWER_S)) as connection:
            await connection.write(12, Write(5, 1, 1))
            assert await connection.read(12, Request(1, 0, 2, ())) == b"\x02"
            await connection.write(12, Write(5, 1, 0))
            assert await connection.read(12, Request(1, 0, 2, ())) == b"\x00"
            await connection.write(12, Write(6, 2, 0x0203))
            await connection.write(12, Write(16, 3, 0xFFFE))
            assert await connection.read(12, Request(3, 0, 4, ())) == bytes.fromhex("0000 0000 0203 FFFE")
            with pytest.raises(Declined, match="exception 02"):
                await connection.write(12, Write(6, 4, 1))

    with server(tmp_path) as running:
        asyncio.run(write(running.port))


def _carry(here: int, there: int) -> None:
    os.write(there, os.read(here, 4096))


@asynccontextmanager
async def cable() -> AsyncIterator[tuple[str, str]]:
    """Join two terminals: what is written to one is read from the other."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        ends = [os.openpty(), os.openpty()]
        for near, far in ends:
            tty.setraw(far)
            stack.callback(os.close, near)
            stack.callback(os.close, far)
        (a, path_a), (b, path_b) = ((near, os.ttyname(far)) for near, far in ends)
        for here, there in ((a, b), (b, a)):
            loop.add_reader(here, _carry, here, there)
            stack.callback(loop.remove_reader, here)
        yield path_a, path_b


@asynccontextmanager
async def on_a_line(folder: Path, terminal: str, unit: int) -> AsyncIterator[None]:
    """Let libmodbus serve one unit on a terminal."""
    command = [str(await asyncio.to_thread(compiled, folder)), "rtu", terminal, str(unit)]
    server = Server("libmodbus", command, 0, folder, lambda _: "ready" in server.output())
    await asyncio.to_thread(server.start)
    try:
        yield
    finally:
        await asyncio.to_thread(server.stop)


@asynccontextmanager
async def serial_server(terminal: str) -> AsyncIterator[int]:
    """Pass the bytes of a terminal on to whoever connects, as transparent serial servers do; its port."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        descriptor = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, lambda: writer.write(os.read(descriptor, 4096)))
        try:
            with suppress(ConnectionResetError):  # whoever gives up on an answer hangs up at once
                while data := await reader.read(4096):
                    os.write(descriptor, data)
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            writer.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def talk_over_a_line(address: Address) -> None:
    async with Connection(address) as connection:
        for request, words in (
            (Request(4, 100, 4, ()), "0000 0001 0000 0002"),
            (Request(4, 114, 3, ()), "9876 1234 5678"),
            (Request(1, 8, 11, ()), "8D 05"),
            (Request(2, 16, 11, ()), "74 06"),
        ):
            assert await connection.read(6, request) == bytes.fromhex(words)
        with pytest.raises(Declined, match="exception 02"):
            await connection.read(6, Request(4, 119, 2, ()))
        await connection.write(6, Write(5, 9, 1))
        assert await connection.read(6, Request(1, 8, 11, ())) == bytes.fromhex("8F 05")
    async with Connection(msgspec.structs.replace(address, timeout_s=0.7)) as connection:
        with pytest.raises(NoAnswer):
            await connection.read(7, Request(4, 100, 1, ()))  # the only unit on this line is 6
        # libmodbus waits for what unit 7 says, takes our next question for it, and wakes up half a second later.
        assert await until_answered(connection, 6, Request(4, 119, 1, ())) == bytes.fromhex("8005")


async def until_answered(connection: Connection, unit: int, request: Request) -> bytes:
    for _ in range(TRIES):
        with suppress(NoAnswer):
            return await connection.read(unit, request)
    pytest.fail(f"unit {unit} has not answered {TRIES} times")


@pytest.mark.parametrize("way", ["serial", "rtu over tcp"])
def test_rtu_is_what_libmodbus_takes_it_for(way: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cable() as (ours, theirs), on_a_line(tmp_path, theirs, 6):
            if way == "serial":
                await talk_over_a_line(Address(serial=ours, timeout_s=ANSWER_S))
            else:
                async with serial_server(ours) as port:
                    await talk_over_a_line(Address("127.0.0.1", port, framing="rtu", timeout_s=ANSWER_S))

    asyncio.run(scenario())


def test_the_whole_gateway_brings_what_they_say_to_the_broker(tmp_path: Path) -> None:
    """Nothing is sent that did not come out of the outbox."""
    shipped = msgspec.structs.replace(
        district(), device=tuple(device for device in district().device if device.profile != "every_type")
    )
    (tmp_path / "district.toml").write_bytes(msgspec.toml.encode(shipped))

    async def scenario(broker: Server, devices: Server) -> Wanted:
        address = {"host": "127.0.0.1", "port": devices.port, "timeout_s": ANSWER_S}
        configuration = tmp_path / "gateway.toml"
        configuration.write_bytes(
            msgspec.toml.encode(
                {
                    "gateway": GATEWAY,
                    "district": "district.toml",
                    "data": "data",
                    "broker": {"host": "127.0.0.1", "port": broker.port},
                    "buses": {"bus": address},
                }
            )
        )
        points = table_of(shipped, GATEWAY, load_profiles()).points
        said: Wanted = {}
        async with Session(Broker("127.0.0.1", broker.port), "watcher", [up(GATEWAY, Lane.LIVE)]) as watcher:
            await watcher.wait_connected()
            command = [sys.executable, "-m", "gateway.process", str(configuration)]
            gateway = await asyncio.to_thread(subprocess.Popen, command, cwd=tmp_path)
            try:
                async with asyncio.timeout(LIMIT_S):
                    while len(said) < len(points):
                        delivery = await watcher.receive()
                        watcher.acknowledge(delivery)
                        block = decode(delivery.payload, Batch).block()
                        for row, value, quality in zip(block.point, block.value, block.quality, strict=True):
                            name = f"{points[row].device} {points[row].metric}"
                            said[name] = Quality(quality) if quality else (float(value), points[row].unit)
            finally:
                gateway.terminate()
                await asyncio.to_thread(gateway.wait)
        return said

    with libmodbus(tmp_path) as devices, mosquitto(tmp_path) as broker:
        said = asyncio.run(scenario(broker, devices))
    for device in shipped.device:
        for metric, sample in DEVICES[int(device.id.removeprefix("unit-"))][3].items():
            assert_same(said[f"{device.id} {metric}"], sample, f"{device.id} {metric}")
