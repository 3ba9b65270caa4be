"""The simulated bus at the end of a serial line: RTU frames over a real pseudo-terminal."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from pymodbus.framer.rtu import FramerRTU

from firmware_sim.instruments import Instruments
from firmware_sim.line import SILENCE_S, Line
from firmware_sim.modbus import Bus, buses_of
from firmware_sim.scenario import Event
from tests.city import DISTRICT, START, district, storm
from tests.servers import free_port
from wire.clock import Clock

COUNTER = bytes.fromhex("04 03 0005 0002")
PATIENCE_S = 0.2


class StandingClock(Clock, frozen=True):
    """City time that stands at one instant."""

    def now(self) -> int:
        return self.city


def bus_with(*events: Event) -> Bus:
    world = storm()
    for event in events:
        world.add(event)
    clock = StandingClock(city=START + 60_000_000_000)
    (bus,) = (bus for bus in buses_of(district(), Instruments(world), clock) if bus.name == "north-1")
    return bus


class Master:
    """A master's end of the line, opened by its path as pyserial would."""

    def __init__(self, path: str) -> None:
        self.port = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self._came = asyncio.Event()
        self._heard = b""
        asyncio.get_running_loop().add_reader(self.port, self._hear)

    def _hear(self) -> None:
        self._heard += os.read(self.port, 4096)
        self._came.set()

    def send(self, data: bytes) -> None:
        assert os.write(self.port, data) == len(data)

    async def hears(self, size: int, patience_s: float = 2.0) -> bytes:
        """Wait for so many bytes; fewer if no more come."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while len(self._heard) < size:
                    self._came.clear()
                    await self._came.wait()
        heard, self._heard = self._heard, b""
        return heard

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.port)
        os.close(self.port)


@asynccontextmanager
async def master_of(line: Line) -> AsyncIterator[Master]:
    master = Master(line.path)
    try:
        yield master
    finally:
        master.close()


def rtu(body: bytes) -> bytes:
    return body + FramerRTU.compute_CRC(body).to_bytes(2, "big")


def counted(count: int) -> bytes:
    return rtu(bytes.fromhex("04 03 04") + count.to_bytes(4, "big"))


def test_every_unit_of_the_line_answers_with_its_checksum() -> None:
    async def scenario() -> None:
        async with Line(bus_with()).open() as line, master_of(line) as master:
            for count in (1, 2, 3):
                master.send(rtu(COUNTER))
                assert await master.hears(9) == counted(count)
            master.send(rtu(bytes.fromhex("05 03 0000 0007")))
            answer = await master.hears(19)
            assert answer[:3] == bytes.fromhex("05 03 0e")
            assert FramerRTU.check_CRC(answer[:-2], int.from_bytes(answer[-2:], "big"))
            master.send(rtu(bytes.fromhex("04 03 0008 0001")))
            assert await master.hears(5) == rtu(bytes.fromhex("04 83 02"))
            master.send(rtu(bytes.fromhex("04 42 00")))  # a function that nobody knows
            assert await master.hears(5) == rtu(bytes.fromhex("04 c2 01"))

    asyncio.run(scenario())


def test_bytes_pass_as_they_are() -> None:
    """A terminal that was not raw would echo, or turn 0x0D into 0x0A and 0x03 into a signal."""

    async def scenario() -> None:
        bus = bus_with()
        bus.units["manhole-n1"].polls = 0x0A0D0310
        async with Line(bus).open() as line, master_of(line) as master:
            master.send(rtu(COUNTER))
            assert await master.hears(18, PATIENCE_S) == counted(0x0A0D0311)

    asyncio.run(scenario())


def test_a_frame_ends_with_silence_and_not_before() -> None:
    async def scenario() -> None:
        bus = bus_with()
        async with Line(bus).open() as line, master_of(line) as master:
            question = rtu(COUNTER)
            master.send(question[:3])
            master.send(question[3:])  # at once, so it is one frame
            assert await master.hears(9) == counted(1)
            master.send(question[:3])
            await asyncio.sleep(10 * SILENCE_S)
            master.send(question[3:])  # two halves, neither of them a frame
            assert await master.hears(1, PATIENCE_S) == b""
            assert bus.ignored["modbus_garbled_frames_total"] == 2
            master.send(question)
            assert await master.hears(9) == counted(2)

    asyncio.run(scenario())


def test_noise_and_a_wrong_checksum_are_not_answered_and_harm_nothing() -> None:
    async def scenario() -> None:
        bus = bus_with()
        async with Line(bus).open() as line, master_of(line) as master:
            for noise in (b"\x00", b"\xff" * 300, COUNTER + b"\x00\x00"):
                master.send(noise)
                assert await master.hears(1, PATIENCE_S) == b""
            assert bus.ignored["modbus_garbled_frames_total"] == 3
            master.send(rtu(COUNTER))
            assert await master.hears(9) == counted(1)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("what", "heard"),
    [
        ("no_answer", b""),
        ("exception_06", rtu(bytes.fromhex("04 83 06"))),
        ("wrong_transaction", rtu(bytes.fromhex("05 03 04 00000000"))),
        ("partial_frame", counted(0)[:4]),
    ],
)
def test_the_faults_of_the_wire_are_those_of_every_wire(what: str, heard: bytes) -> None:
    async def scenario() -> None:
        bus = bus_with(Event("fault", what, "manhole-n1", START))
        async with Line(bus).open() as line, master_of(line) as master:
            master.send(rtu(COUNTER))
            assert await master.hears(9, PATIENCE_S) == heard

    asyncio.run(scenario())


def test_a_master_may_leave_and_another_come() -> None:
    async def scenario() -> None:
        async with Line(bus_with()).open() as line:
            for count in (1, 2):
                async with master_of(line) as master:
                    master.send(rtu(COUNTER))
                    assert await master.hears(9) == counted(count)

    asyncio.run(scenario())


def test_the_link_leads_to_the_line_while_it_is_open(tmp_path: Path) -> None:
    link = tmp_path / "tty-north"
    link.symlink_to("/nowhere")  # left behind by a run that was killed

    async def scenario() -> None:
        async with Line(bus_with()).open(link) as line:
            assert str(link.readlink()) == line.path
            assert stat.S_ISCHR(link.stat().st_mode)

    asyncio.run(scenario())
    assert not link.is_symlink()


def test_a_file_in_the_place_of_the_link_is_left_alone(tmp_path: Path) -> None:
    link = tmp_path / "notes"
    link.write_text("mine")

    async def scenario() -> None:
        async with Line(bus_with()).open(link):
            pytest.fail("it opened")

    with pytest.raises(ExceptionGroup) as failed:
        asyncio.run(scenario())
    assert failed.group_contains(FileExistsError)
    assert link.read_text() == "mine"


CONFIG = """
district = "{district}"
seed = 1
truth = "{folder}/truth.json"
"""


def configured(folder: Path, lines: str) -> list[str]:
    config = folder / "simulator.toml"
    config.write_text(CONFIG.format(district=DISTRICT, folder=folder) + lines)
    return [sys.executable, "-m", "firmware_sim.process", str(config)]


def said(port: int, question: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(question)
        return connection.recv(256)


def test_the_process_speaks_every_transport_it_is_told_to(tmp_path: Path) -> None:
    link, gateway, alone = tmp_path / "tty", free_port(), free_port()
    command = configured(
        tmp_path,
        f"""
        [transport]
        north-1 = "rtu"
        north-2 = "rtu_over_tcp"
        [line]
        north-1 = "{link}"
        [bus]
        north-2 = {gateway}
        [device]
        manhole-s1 = {alone}
        """,
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            ready = next(line for line in process.stdout if "simulator ready" in line)
            assert str(link.readlink()) in ready

            async def on_the_line() -> bytes:
                master = Master(str(link))
                try:
                    master.send(rtu(COUNTER))
                    return await master.hears(9)
                finally:
                    master.close()

            assert asyncio.run(on_the_line()) == counted(1)
            lamp = rtu(bytes.fromhex("01 04 0007 0002"))
            assert said(gateway, lamp) == rtu(bytes.fromhex("01 04 04 00000001"))
            neighbour, monitor = (bytes.fromhex(f"000{n} 0000 0006 0{n} 03 0005 0002") for n in (4, 3))
            assert said(alone, neighbour + monitor) == bytes.fromhex("0003 0000 0007 03 03 04 00000001")
        finally:
            process.terminate()
            process.communicate(timeout=10)
        assert process.returncode == 0
    assert not link.is_symlink()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ('transport = { north-9 = "rtu" }', "transport.north-9"),
        ('transport = { north-1 = "telegraph" }', "transport"),
        ('line = { north-1 = "tty" }', "line.north-1: only a bus with `transport`"),
        ('transport = { north-1 = "rtu" }\nbus = { north-1 = 5021 }', "bus.north-1: a serial line has no port"),
        ('transport = { north-1 = "rtu" }\ndevice = { manhole-n1 = 5021 }', "device.manhole-n1: its bus north-1"),
        ("device = { camera-1 = 5021 }", "device.camera-1"),
    ],
)
def test_a_way_in_that_cannot_be_is_refused_with_its_place(tmp_path: Path, lines: str, why: str) -> None:
    run = subprocess.run(configured(tmp_path, lines), capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert why in run.stderr
    assert "Traceback" not in run.stderr
