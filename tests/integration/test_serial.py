"""Serial lines and servers of RTU frames for real: the simulator's, shared terminals, pulled adapters."""

import asyncio
import fcntl
import os
import termios
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop

from edge.drivers import serial_line
from edge.drivers.address import Address
from edge.drivers.modbus import Connection, Declined, Misfit, NoAnswer, Unreachable
from edge.plan import Request
from firmware_sim.instruments import Instruments
from firmware_sim.line import Line as SimulatedLine
from firmware_sim.modbus import Bus as SimulatedBus
from firmware_sim.modbus import Port, buses_of
from firmware_sim.scenario import Event
from tests.city import START, district, storm
from tests.modbus_server import Asked, Line, bus, honest, line
from wire.clock import Clock

READ = Request(3, 10, 2, (0, 1))
TRUE = b"\x00\x0a\x00\x0b"
COUNTER = Request(3, 5, 2, (0,))  # poll counter of a manhole monitor: how often this was read
both_loops = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
Loop = Callable[[], asyncio.AbstractEventLoop]


def _run(loop: Loop, scenario: Callable[[], Awaitable[None]]) -> None:
    async def play() -> None:
        await scenario()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())


class StandingClock(Clock, frozen=True):
    """City time that stands at one instant."""

    def now(self) -> int:
        return self.city


def simulated(*events: Event) -> SimulatedBus:
    """The bus north-1 of the test city: a manhole monitor is unit 4, a lamp controller unit 5."""
    world = storm()
    for event in events:
        world.add(event)
    clock = StandingClock(city=START + 60_000_000_000)
    return next(bus for bus in buses_of(district(), Instruments(world), clock) if bus.name == "north-1")


def on(path: str, baud: int = 115200, timeout_s: float = 10.0) -> Connection:
    return Connection(Address(serial=path, baud=baud, timeout_s=timeout_s))


@both_loops
def test_the_simulators_line_answers(loop: Loop) -> None:
    async def scenario() -> None:
        async with SimulatedLine(simulated()).open() as far, on(far.path, 9600) as connection:
            for count in (1, 2, 3):
                assert await connection.read(4, COUNTER) == count.to_bytes(4, "big")
            assert len(await connection.read(5, Request(3, 0, 7, (0,)))) == 14
            with pytest.raises(Declined, match="no such address"):
                await connection.read(4, Request(3, 8, 1, (0,)))
            assert far.bus.ignored == {}

    _run(loop, scenario)


@both_loops
def test_the_simulators_server_of_rtu_frames_answers(loop: Loop) -> None:
    async def scenario() -> None:
        port = Port(simulated(), "rtu_over_tcp")
        async with port.door.open(), behind(port, 10.0) as connection:
            for count in (1, 2, 3):
                assert await connection.read(4, COUNTER) == count.to_bytes(4, "big")

    _run(loop, scenario)


def behind(port: Port, timeout_s: float) -> Connection:
    return Connection(Address("127.0.0.1", port.door.port, framing="rtu", baud=115200, timeout_s=timeout_s))


@pytest.mark.parametrize("transport", ["line", "server"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [("no_answer", NoAnswer), ("partial_frame", NoAnswer), ("late_answer", NoAnswer), ("wrong_transaction", Misfit)],
)
def test_a_unit_at_fault_spoils_no_neighbours_answer(transport: str, fault: str, kind: type[Exception]) -> None:
    bus = simulated(Event("e1", fault, "manhole-n1", START))

    async def meet(connection: Connection) -> None:
        async with connection:
            for _ in range(2):
                with pytest.raises(kind):
                    await connection.read(4, COUNTER)
                assert len(await connection.read(5, Request(3, 5, 2, (0,)))) == 4

    async def scenario() -> None:
        if transport == "line":
            async with SimulatedLine(bus).open() as far:
                await meet(on(far.path, timeout_s=0.3))
        else:
            port = Port(bus, "rtu_over_tcp")
            async with port.door.open():
                await meet(behind(port, 0.3))

    _run(uvloop.new_event_loop, scenario)


def test_frames_are_on_the_wire_as_makers_print_them() -> None:
    """DFRobot SEN0492 (wiki page, "read distance"): 1803 mm."""
    question, answer = bytes.fromhex("50 03 00 34 00 01 C8 45"), bytes.fromhex("50 03 02 07 0B 06 7F")

    async def scenario() -> None:
        terminal, heard = Line(), bytearray()
        try:

            def hear() -> None:
                heard.extend(os.read(terminal.near, 4096))
                if len(heard) == len(question):
                    os.write(terminal.near, answer)

            asyncio.get_running_loop().add_reader(terminal.near, hear)
            async with on(terminal.path) as connection:
                assert await connection.read(0x50, Request(3, 0x34, 1, (0,))) == b"\x07\x0b"
            assert heard == question
        finally:
            terminal.unplug()

    asyncio.run(scenario())


@both_loops
def test_two_masters_at_different_speeds_share_a_line(loop: Loop) -> None:
    async def scenario() -> None:
        async with bus(honest, "rtu") as server, line(server.port) as terminal:
            async with on(terminal.path, 9600) as polling, on(terminal.path, 38400) as scanning:

                async def ask(connection: Connection, unit: int) -> None:
                    for _ in range(20):
                        assert await connection.read(unit, READ) == TRUE

                await asyncio.gather(ask(polling, 1), ask(scanning, 2))
            speed_of = {1: termios.B9600, 2: termios.B38400}
            assert terminal.speeds == [speed_of[asked.unit] for asked in server.asked]
            assert len(server.asked) == 40

    _run(loop, scenario)


def test_a_line_is_silent_between_two_masters_as_well() -> None:
    async def scenario() -> None:
        async with bus(honest, "rtu") as server, line(server.port) as terminal:
            asked_at: list[float] = []

            async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
                asked_at.append(time.monotonic())
                await honest(asked, writer)

            server.behave = behave
            async with on(terminal.path, 1200) as polling, on(terminal.path, 1200) as scanning:
                for _ in range(3):
                    await polling.read(1, READ)
                    await scanning.read(2, READ)
            assert all(later - earlier >= 3.5 * 11 / 1200 for earlier, later in pairwise(asked_at))

    asyncio.run(scenario())


def test_a_settings_change_by_somebody_else_is_undone_at_the_next_question() -> None:
    async def scenario() -> None:
        async with bus(honest, "rtu") as server, line(server.port) as terminal, on(terminal.path) as connection:
            assert await connection.read(1, READ) == TRUE
            other = os.open(terminal.path, os.O_RDWR | os.O_NOCTTY)
            try:
                sane = termios.tcgetattr(other)
                sane[1] |= termios.OPOST
                sane[3] |= termios.ICANON | termios.ECHO
                sane[4] = sane[5] = termios.B1200
                termios.tcsetattr(other, termios.TCSANOW, sane)
            finally:
                os.close(other)
            assert await connection.read(1, READ) == TRUE
            assert terminal.speeds == [termios.B115200] * 2

    asyncio.run(scenario())


def test_a_terminal_that_does_not_do_a_parity_says_so() -> None:
    async def scenario() -> None:
        terminal = Line()  # pseudo-terminals know no parity
        try:
            async with Connection(Address(serial=terminal.path, parity="E")) as connection:
                with pytest.raises(Unreachable, match=r"does not do 9600 baud, parity E, stop bits 1"):
                    await connection.read(1, READ)
        finally:
            terminal.unplug()

    asyncio.run(scenario())


@contextmanager
def somebody_has(path: str) -> Iterator[Callable[[], None]]:
    """Let somebody else have the line's turn until told to let go, at the end at the latest."""
    other = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        yield lambda: fcntl.flock(other, fcntl.LOCK_UN)
    finally:
        os.close(other)


def is_free(path: str, patience: int = fcntl.LOCK_NB) -> bool:
    """Whether nobody has the turn now; with patience 0, wait until nobody has."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | patience)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


@both_loops
def test_a_line_is_waited_for_while_another_program_has_its_turn(loop: Loop) -> None:
    async def scenario() -> None:
        async with bus(honest, "rtu") as server, line(server.port) as terminal, on(terminal.path) as connection:
            assert await connection.read(1, READ) == TRUE
            assert is_free(terminal.path)
            with somebody_has(terminal.path) as let_go:
                reading = asyncio.create_task(connection.read(1, READ), name="reading")
                await asyncio.sleep(0.05)
                assert (reading.done(), len(server.asked)) == (False, 1)
                let_go()
                assert await reading == TRUE
            assert is_free(terminal.path)

    _run(loop, scenario)


@both_loops
def test_a_line_that_another_program_keeps_is_unreachable_and_one_thread_waits(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_line, "TURN_MOST_S", 0.05)

    async def scenario() -> None:
        async with bus(honest, "rtu") as server, line(server.port) as terminal, on(terminal.path) as connection:
            assert await connection.read(1, READ) == TRUE
            before = threading.active_count()
            with somebody_has(terminal.path):
                for _ in range(3):
                    with pytest.raises(Unreachable, match=f"{terminal.path}: another program has kept the line"):
                        await connection.read(1, READ)
                assert threading.active_count() == before + 1
            assert await asyncio.to_thread(is_free, terminal.path, 0)  # what nobody waits for any more is not kept
            assert len(server.asked) == 1
            monkeypatch.setattr(serial_line, "TURN_MOST_S", 10.0)
            assert await connection.read(1, READ) == TRUE

    _run(loop, scenario)


@both_loops
def test_a_line_that_is_closed_while_its_turn_is_waited_for_asks_nothing(loop: Loop) -> None:
    async def scenario() -> None:
        async with bus(honest, "rtu") as server, line(server.port) as terminal, on(terminal.path) as connection:
            with somebody_has(terminal.path):
                reading = asyncio.create_task(connection.read(1, READ), name="reading")
                await asyncio.sleep(0.05)
                connection.close()
                with pytest.raises(Unreachable, match="closed before it was asked"):
                    await reading
            assert server.asked == []
            assert await connection.read(1, READ) == TRUE

    _run(loop, scenario)


@both_loops
def test_who_stops_waiting_for_a_line_leaves_nothing_behind(loop: Loop) -> None:
    async def scenario() -> None:
        async with bus(honest, "rtu") as server, line(server.port) as terminal, on(terminal.path) as connection:
            with somebody_has(terminal.path):
                reading = asyncio.create_task(connection.read(1, READ), name="reading")
                await asyncio.sleep(0.05)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
            assert await asyncio.to_thread(is_free, terminal.path, 0)
            connection._owes_until.clear()
            assert await connection.read(1, READ) == TRUE

    _run(loop, scenario)


@both_loops
def test_a_pulled_adapter_is_unreachable_until_it_is_back(loop: Loop, tmp_path: Path) -> None:
    adapter = tmp_path / "ttyUSB0"

    async def scenario() -> None:
        async with bus(honest, "rtu") as server, on(str(adapter)) as connection:
            with pytest.raises(Unreachable, match=f"{adapter}: No such file"):
                await connection.read(1, READ)
            async with line(server.port) as terminal:
                adapter.symlink_to(terminal.path)
                assert await connection.read(1, READ) == TRUE
            adapter.unlink()
            for _ in range(2):  # the terminal that is open has hung up; then there is none to open
                with pytest.raises(Unreachable, match=str(adapter)):
                    await connection.read(1, READ)
            async with line(server.port) as terminal:
                adapter.symlink_to(terminal.path)
                assert await connection.read(1, READ) == TRUE
                pulled = asyncio.Event()

                async def pull(*_: object) -> None:
                    terminal.unplug()
                    pulled.set()

                server.behave = pull
                with pytest.raises(Unreachable, match=str(adapter)):  # in the middle of a question
                    await connection.read(1, READ)
                assert pulled.is_set()

    _run(loop, scenario)
