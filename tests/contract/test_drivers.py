"""What every way to a bus must bear: refused, silent, half a reply, garbage, late answers, cancellation, opening again.

The ways: Modbus TCP, a gateway that does not echo transaction ids, RTU frames over TCP, RTU on a terminal.
"""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec
import pytest
import uvloop

from edge.drivers.address import Address
from edge.drivers.link import Link
from edge.drivers.modbus import Connection, Declined, Failed, Garbled, Misfit, NoAnswer, Unreachable, Write
from edge.drivers.pdu import reading
from edge.drivers.tcp import Mbap, Socket, transactions
from edge.plan import Request
from tests.modbus_server import MUTE, Asked, Behaviour, Bus, Framing, bus, echo, exception, honest, line, reply

READ = Request(3, 10, 2, (0, 1))
TRUE = b"\x00\x0a\x00\x0b"
FALSE = b"\xde\xad\xbe\xef"
PATIENT_S = 10.0
SHORT_S = 0.04  # only where nothing may come


@dataclass(frozen=True)
class Way:
    """One way to a bus, server and client."""

    framing: Framing
    serial: bool = False
    echoes: bool = True

    @asynccontextmanager
    async def lead(self, behave: Behaviour) -> AsyncIterator[tuple[Connection, Bus]]:
        async with bus(behave, self.framing, echoes=self.echoes) as server:
            if self.serial:
                async with line(server.port) as terminal, Connection(self._address(terminal.path, 0)) as connection:
                    yield connection, server
            else:
                async with Connection(self._address("", server.port)) as connection:
                    yield connection, server

    def _address(self, serial: str, port: int) -> Address:
        host = "" if serial else "127.0.0.1"
        return Address(host, port, serial, 115200, "N", 2, self.framing, self.echoes, PATIENT_S)


TCP, MUTE_TCP, RTU_OVER_TCP, SERIAL = Way("tcp"), Way("tcp", echoes=False), Way("rtu"), Way("rtu", serial=True)
NAMES = {TCP: "tcp", MUTE_TCP: "no id echo", RTU_OVER_TCP: "rtu over tcp", SERIAL: "serial"}
Scenario = Callable[[Connection, Bus], Awaitable[None]]
Loop = Callable[[], asyncio.AbstractEventLoop]
every_way = pytest.mark.parametrize("way", NAMES, ids=NAMES.get)
every_stream = pytest.mark.parametrize("way", [TCP, MUTE_TCP, RTU_OVER_TCP], ids=NAMES.get)
every_line = pytest.mark.parametrize("way", [RTU_OVER_TCP, SERIAL], ids=NAMES.get)
alike = pytest.mark.parametrize("way", [MUTE_TCP, RTU_OVER_TCP, SERIAL], ids=NAMES.get)  # a late answer and a right one


LOOPS = (asyncio.new_event_loop, uvloop.new_event_loop)
GATEWAYS = LOOPS[1:]  # the gateway runs on uvloop, which watches descriptors and counts time in its own way


def _play(way: Way, behave: Behaviour, scenario: Scenario, loops: Sequence[Loop] = LOOPS) -> None:
    async def play() -> None:
        async with way.lead(behave) as (connection, server):
            await scenario(connection, server)

    for loop_factory in loops:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(play())


async def _silent(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
    pass


async def _gives_up(connection: Connection, unit: int, timeout_s: float = SHORT_S) -> Failed:
    """Read with an open connection and a short time-out, for once; how it fails."""
    connection._timeout_s = timeout_s
    with pytest.raises(Failed) as failed:
        await connection.read(unit, READ)
    connection._timeout_s = PATIENT_S
    return failed.value


@every_way
def test_reads(way: Way) -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(7, READ) == TRUE
        assert await connection.read(8, Request(4, 0, 125, (0,))) == b"".join(struct.pack(">H", n) for n in range(125))
        assert [(asked.unit, asked.function, asked.start, asked.count) for asked in server.asked] == [
            (7, 3, 10, 2),
            (8, 4, 0, 125),
        ]
        assert server.connections == 1

    _play(way, honest, scenario)


@every_way
def test_reads_coils(way: Way) -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(asked, b"\x05\x01"))

    async def scenario(connection: Connection, _: Bus) -> None:
        assert await connection.read(1, Request(1, 0, 9, (0,))) == b"\x05\x01"
        assert await connection.read(1, Request(2, 5, 16, (0,))) == b"\x05\x01"

    _play(way, behave, scenario)


def test_refused() -> None:
    async def scenario() -> None:
        with socket.socket() as taken:  # bound, not listening: nobody else can answer here
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            async with Connection(Address("127.0.0.1", port)) as connection:
                with pytest.raises(Unreachable, match=f"127.0.0.1:{port}: Connect"):
                    await connection.read(1, READ)

    for loop_factory in LOOPS:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(scenario())


def test_a_connection_that_is_not_accepted_is_unreachable_in_bounded_time() -> None:
    async def scenario() -> None:
        with socket.socket() as full, socket.socket() as waiting:
            full.bind(("127.0.0.1", 0))
            full.listen(0)  # one may wait; of any other the kernel drops the first packet
            waiting.setblocking(False)
            await asyncio.get_running_loop().sock_connect(waiting, full.getsockname())
            async with Connection(Address("127.0.0.1", full.getsockname()[1], timeout_s=SHORT_S)) as connection:
                for _ in range(2):
                    with pytest.raises(Unreachable, match="no connection within"):
                        await connection.read(1, READ)

    for loop_factory in LOOPS:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(scenario())


def test_a_terminal_that_is_not_there_or_none_is_unreachable(tmp_path: Path) -> None:
    async def scenario() -> None:
        paper = tmp_path / "paper"
        paper.touch()
        for path, why in ((tmp_path / "tty", "No such file"), (paper, "Inappropriate ioctl"), (tmp_path, "directory")):
            async with Connection(Address(serial=str(path))) as connection:
                for _ in range(2):
                    with pytest.raises(Unreachable, match=f"{path}: .*{why}"):
                        await connection.read(1, READ)

    asyncio.run(scenario())


@every_way
def test_silent_is_bounded_and_the_next_read_opens_again(way: Way) -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        server.behave = _silent
        started = time.monotonic()
        failure = await _gives_up(connection, 1)
        assert time.monotonic() - started > SHORT_S * 0.9
        assert isinstance(failure, NoAnswer)
        assert "unit 1 function 3 addresses 10 to 11: no answer within 0.04" in str(failure)
        server.behave = honest
        assert await connection.read(2, READ) == TRUE
        assert server.connections == (1 if way.serial else 2)

    _play(way, honest, scenario)


@pytest.mark.parametrize("cut", [1, 8])
@every_way
def test_half_a_reply_is_no_answer_and_does_not_spoil_the_next(way: Way, cut: int) -> None:
    async def half(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(asked)[:cut])

    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        server.behave = half
        assert isinstance(await _gives_up(connection, 1), NoAnswer)
        server.behave = honest
        assert await connection.read(1, READ) == TRUE

    _play(way, honest, scenario, GATEWAYS)


@every_way
def test_a_reply_in_pieces_is_whole(way: Way) -> None:
    async def in_pieces(asked: Asked, writer: asyncio.StreamWriter) -> None:
        for byte in reply(asked):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)

    async def scenario(connection: Connection, _: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        assert await connection.read(1, READ) == TRUE

    _play(way, in_pieces, scenario)


def test_a_late_answer_is_known_by_its_transaction() -> None:
    held: list[tuple[Asked, asyncio.StreamWriter]] = []

    async def late(asked: Asked, writer: asyncio.StreamWriter) -> None:
        held.append((asked, writer))
        if len(held) == 1:
            return
        first, its_writer = held[0]
        if not its_writer.is_closing():
            its_writer.write(reply(first, FALSE))
        writer.write(reply(first, FALSE))  # also by a gateway that mixes up its sessions
        writer.write(reply(asked))

    async def scenario(connection: Connection, server: Bus) -> None:
        held.clear()
        server.behave = honest
        assert await connection.read(1, READ) == TRUE
        server.behave = late
        assert isinstance(await _gives_up(connection, 1), NoAnswer)
        assert await connection.read(1, READ) == TRUE
        assert await connection.read(1, READ) == TRUE

    _play(TCP, honest, scenario)


@alike
def test_a_late_answer_that_is_like_the_right_one_has_passed_before_its_unit_is_asked_again(way: Way) -> None:
    late_s = 0.15  # so far behind its time-out the answer may come

    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        held: list[tuple[Asked, asyncio.StreamWriter]] = []

        async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
            if held:
                return writer.write(reply(asked))
            held.append((asked, writer))
            return None

        server.behave = slow
        started = time.monotonic()
        assert isinstance(await _gives_up(connection, 1, late_s), NoAnswer)
        asked, writer = held[0]
        server.greeting = reply(asked, FALSE)  # to whoever is connected by now
        if way.serial:
            writer.write(reply(asked, FALSE))
        assert await connection.read(1, READ) == TRUE
        assert time.monotonic() - started > late_s * 1.9

    _play(way, honest, scenario, GATEWAYS)


def test_what_waits_unread_when_a_question_goes_out_is_not_its_answer() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        with theirs:
            link = Socket(ours, Mbap(transactions(), echoes=False))
            asked = Asked(0, 1, 3, 10, 2)
            theirs.send(reply(asked, FALSE))  # the loop has not seen it when the question is asked
            asking = asyncio.create_task(link.ask(1, reading(READ), PATIENT_S, 0.0), name="asking")
            await asyncio.sleep(0)
            theirs.send(reply(asked))
            assert await asking == TRUE
            link.close()

    for loop_factory in LOOPS:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(scenario())


@every_line
def test_a_late_answer_does_not_hold_up_a_neighbour_nor_is_it_the_neighbours(way: Way) -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        server.behave = _silent
        assert isinstance(await _gives_up(connection, 1, SHORT_S), NoAnswer)
        connection._owes_until[1] = time.monotonic() + 3600

        async def both(asked: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(reply(asked, FALSE, unit=1) + b"\xff" + reply(asked))

        server.behave = both
        assert await connection.read(2, READ) == TRUE

    _play(way, honest, scenario)


SPOILT: dict[str, Callable[[Asked], bytes]] = {
    "function": lambda asked: reply(asked, function=4),
    "short": lambda asked: reply(asked, b"\x00\x0a"),
    "long": lambda asked: reply(asked, b"\x00\x0a\x00\x0b\x00\x0c"),
}
SPOILT_MBAP: dict[str, Callable[[Asked], bytes]] = {
    "an echo": echo,
    "unit": lambda asked: reply(asked, unit=asked.unit + 1),
    "size": lambda asked: reply(asked, size=6),
    "padded": lambda asked: reply(asked, b"\x00\x0a\x00\x0b\x00\x0c", size=4),
    "not modbus": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "empty": lambda asked: struct.pack(">HHHB", asked.transaction, 0, 1, asked.unit),
    "endless": lambda asked: struct.pack(">HHHB", asked.transaction, 0, 60000, asked.unit),
}
SPOILT_RTU: dict[str, Callable[[Asked], bytes]] = {
    "checksum": lambda asked: reply(asked)[:-1] + b"\0",
    "a bit": lambda asked: reply(asked)[:4] + b"\x0b" + reply(asked)[5:],
    "babble": lambda _: b"\xff" * 1000,
}


def _each(spoilt: dict[str, Callable[[Asked], bytes]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("spoil", spoilt.values(), ids=list(spoilt))


@_each(SPOILT | SPOILT_MBAP)
@pytest.mark.parametrize("way", [TCP, MUTE_TCP], ids=NAMES.get)
def test_an_answer_that_does_not_fit_is_garbled_and_the_next_is_right(
    way: Way, spoil: Callable[[Asked], bytes]
) -> None:
    _spoilt_then_right(way, spoil)


@_each(SPOILT | SPOILT_RTU)
@every_line
def test_a_frame_that_does_not_fit_is_garbled_and_the_next_is_right(way: Way, spoil: Callable[[Asked], bytes]) -> None:
    _spoilt_then_right(way, spoil)


def _spoilt_then_right(way: Way, spoil: Callable[[Asked], bytes]) -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(spoil(asked))

    async def scenario(connection: Connection, server: Bus) -> None:
        server.behave = behave
        with pytest.raises(Garbled):
            await connection.read(1, READ)
        connection._owes_until.clear()
        server.behave = honest
        assert await connection.read(1, READ) == TRUE

    _play(way, honest, scenario)


@every_line
def test_an_answer_of_another_unit_only_is_a_misfit_in_the_end(way: Way) -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(asked, unit=asked.unit + 1))

    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        server.behave = behave
        assert isinstance(await _gives_up(connection, 1, 0.3), Misfit)

    _play(way, honest, scenario, GATEWAYS)


def test_answers_to_somebody_else_do_not_count() -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        for n in range(5):
            writer.write(reply(asked, transaction=(asked.transaction + 100 + n) % 0x10000))

    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        server.behave = behave
        assert isinstance(await _gives_up(connection, 1), NoAnswer)

    _play(TCP, honest, scenario, GATEWAYS)


def test_a_gateway_that_echoes_no_transaction_needs_to_be_declared_so() -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        assert server.asked[0].transaction == MUTE
        connection._address = msgspec.structs.replace(connection._address, echoes_transaction=True)
        connection.close()
        assert isinstance(await _gives_up(connection, 1), NoAnswer)

    _play(MUTE_TCP, honest, scenario)


@every_way
def test_an_exception_is_told_with_its_code_and_keeps_the_connection(way: Way) -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        for code in (1, 2, 3, 6, 11, 0x43):

            async def behave(asked: Asked, writer: asyncio.StreamWriter, code: int = code) -> None:
                writer.write(exception(asked, code))

            server.behave = behave
            with pytest.raises(Declined, match="unit 1 function 3 addresses 10 to 11") as declined:
                await connection.read(1, READ)
            assert (declined.value.code, declined.value.name) == (code, f"exception_{code:02d}")
        server.behave = honest
        assert await connection.read(1, READ) == TRUE
        assert server.connections == 1

    _play(way, honest, scenario)


WRITES = [
    (Write(5, 3, 1), 0xFF00, b""),
    (Write(5, 3, 0), 0, b""),
    (Write(6, 0x1234, 0xFFFE), 0xFFFE, b""),
    (Write(16, 0x1234, 0xFFFE), 1, b"\x02\xff\xfe"),
]


@every_way
def test_a_write_is_done_when_it_is_echoed(way: Way) -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(echo(asked))

    async def scenario(connection: Connection, server: Bus) -> None:
        for write, count, written in WRITES:
            await connection.write(9, write)
            asked = server.asked[-1]
            assert (asked.unit, asked.function, asked.start) == (9, write.function, write.register)
            assert (asked.count, asked.written) == (count, written)
        assert server.connections == 1

    _play(way, behave, scenario)


@pytest.mark.parametrize("other", ["start", "count"])
@every_way
def test_a_write_that_is_echoed_otherwise_is_a_misfit(way: Way, other: str) -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(echo(asked, **{other: 77}))

    async def scenario(connection: Connection, _: Bus) -> None:
        for write, _count, _written in WRITES:
            with pytest.raises(Misfit, match=f"unit 9 function {write.function} address"):
                await connection.write(9, write)
            connection._owes_until.clear()

    _play(way, behave, scenario)


@every_way
def test_a_write_can_be_declined(way: Way) -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(exception(asked, 1))

    async def scenario(connection: Connection, server: Bus) -> None:
        for write, _count, _written in WRITES:
            with pytest.raises(Declined, match="no such function"):
                await connection.write(9, write)
        assert server.connections == 1

    _play(way, behave, scenario)


@pytest.mark.parametrize("raw", [-1, 2, 0x10000])
def test_what_cannot_be_written_is_refused(raw: int) -> None:
    function: Literal[5, 6] = 5 if raw == 2 else 6
    with pytest.raises(ValueError, match=f"function {function} does not write {raw}"):
        Write(function, 0, raw)


@every_stream
def test_closed_by_the_bus_while_asked(way: Way) -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(asked)[:5])
        writer.close()

    async def scenario(connection: Connection, server: Bus) -> None:
        with pytest.raises(NoAnswer, match="connection ended"):
            await connection.read(1, READ)
        connection._owes_until.clear()
        server.behave = honest
        assert await connection.read(1, READ) == TRUE

    _play(way, behave, scenario)


@every_stream
def test_closed_by_the_bus_between_reads(way: Way) -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        port = server.port
        await server.stop()
        with pytest.raises(Failed):
            await connection.read(1, READ)
        connection._owes_until.clear()
        await server.start(port)
        assert await connection.read(1, READ) == TRUE

    _play(way, honest, scenario)


async def _ended(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until a link has closed."""
    ended, close = asyncio.Event(), link.close

    def close_and_tell(*, abort: bool = False) -> None:
        close(abort=abort)
        ended.set()

    monkeypatch.setattr(link, "close", close_and_tell)
    if link.open:
        await ended.wait()


@every_stream
def test_a_connection_that_the_bus_ended_between_reads_is_opened_again(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(asked))
        writer.close()

    async def scenario(connection: Connection, server: Bus) -> None:
        for count in range(1, 4):
            assert await connection.read(1, READ) == TRUE
            assert server.connections == count
            assert connection._link is not None
            await _ended(connection._link, monkeypatch)

    _play(way, behave, scenario)


def test_a_connection_that_brings_unasked_what_is_not_modbus_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        writers: list[asyncio.StreamWriter] = []

        async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            writer.write(reply(asked))

        server.behave = behave
        assert await connection.read(1, READ) == TRUE
        assert connection._link is not None
        writers[0].write(b"login: ")
        await _ended(connection._link, monkeypatch)
        assert await connection.read(1, READ) == TRUE
        assert server.connections == 2

    _play(TCP, honest, scenario)


@alike
def test_what_comes_behind_an_answer_is_not_the_next_one(way: Way) -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(asked) + reply(asked, FALSE)[:-3])

    async def scenario(connection: Connection, server: Bus) -> None:
        for _ in range(3):
            assert await connection.read(1, READ) == TRUE
        assert server.connections == 1

    _play(way, behave, scenario)


@every_way
def test_a_way_that_is_called_readable_and_is_not_stays_open(way: Way) -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        assert connection._link is not None
        connection._link._readable()
        assert connection._link.open
        assert await connection.read(1, READ) == TRUE
        assert server.connections == 1

    _play(way, honest, scenario)


@every_way
def test_cancelled_while_reading_it_opens_again(way: Way) -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        asked_once = asyncio.Event()

        async def silent(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
            asked_once.set()

        server.behave = silent
        reading = asyncio.create_task(connection.read(1, READ), name="reading")
        await asked_once.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not way.serial or connection._owes_until[1] > time.monotonic()
        connection._owes_until.clear()
        server.behave = honest
        assert await connection.read(1, READ) == TRUE
        assert server.connections == (1 if way.serial else 2)

    _play(way, honest, scenario)


@every_way
def test_closed_here_while_reading_it_opens_again(way: Way) -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        async def silent(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
            connection.close()

        server.behave = silent
        with pytest.raises(NoAnswer, match="closed while it was asked"):
            await connection.read(1, READ)
        connection._owes_until.clear()
        server.behave = honest
        assert await connection.read(1, READ) == TRUE

    _play(way, honest, scenario)


@every_stream
def test_a_connection_ends_in_order_unless_an_answer_is_outstanding(way: Way) -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        connection.close()
        assert not await server.reset.get()
        assert await connection.read(1, READ) == TRUE
        server.behave = _silent
        await _gives_up(connection, 1)
        assert await server.reset.get()

    _play(way, honest, scenario, GATEWAYS)


@every_way
def test_one_request_is_in_flight_whoever_asks(way: Way) -> None:
    in_flight, most = 0, 0

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.002)
        in_flight -= 1
        writer.write(reply(asked))

    async def scenario(connection: Connection, server: Bus) -> None:
        answers = await asyncio.gather(*(connection.read(n, Request(3, n, 1, (0,))) for n in range(1, 10)))
        assert answers == [struct.pack(">H", n) for n in range(1, 10)]
        assert (most, server.connections) == (1, 1)

    _play(way, behave, scenario)


def test_transaction_ids_wrap_and_outlive_a_connection() -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        for _ in range(0xFFFE):
            next(connection._transactions)
        for _ in range(3):
            assert await connection.read(1, READ) == TRUE
        connection.close()
        assert await connection.read(1, READ) == TRUE
        assert [asked.transaction for asked in server.asked] == [0xFFFF, 1, 2, 3]

    _play(TCP, honest, scenario)


@every_way
def test_a_bus_is_silent_as_long_as_a_device_needs_it(way: Way) -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        asked_at: list[float] = []

        async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
            asked_at.append(time.monotonic())
            writer.write(reply(asked))

        server.behave = behave
        connection.pause_after_connect_s = 0.03
        started = time.monotonic()
        for _ in range(3):
            await connection.read(1, READ, guard_s=0.02)
        assert asked_at[0] - started >= 0.028  # a loop counts whole milliseconds
        assert all(later - earlier >= 0.02 for earlier, later in pairwise(asked_at))

    _play(way, honest, scenario)


@every_line
def test_a_slow_line_has_its_pauses_and_the_time_that_its_characters_take(way: Way) -> None:
    character_s = 11 / 2400

    async def scenario(connection: Connection, server: Bus) -> None:
        answered_at: list[float] = []

        async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
            answered_at.append(time.monotonic())
            writer.write(reply(asked))

        server.behave = behave
        connection._address = msgspec.structs.replace(connection._address, baud=2400)
        for _ in range(3):
            await connection.read(1, READ)
        assert all(later - earlier >= 3.5 * character_s for earlier, later in pairwise(answered_at))
        server.behave = _silent
        asked_at = time.monotonic()
        assert isinstance(await _gives_up(connection, 1), NoAnswer)
        assert time.monotonic() - asked_at >= SHORT_S + (8 + 9) * character_s

    _play(way, honest, scenario, GATEWAYS)


def test_a_connection_is_watched_while_it_is_idle() -> None:
    async def scenario(connection: Connection, _: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        assert isinstance(connection._link, Socket)
        watched = connection._link._socket
        assert watched.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert watched.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10

    _play(TCP, honest, scenario)


@every_line
def test_a_line_that_never_falls_silent_is_garbled_in_bounded_time(way: Way) -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        async def babble(_asked: Asked, writer: asyncio.StreamWriter) -> None:
            while not writer.is_closing():
                writer.write(b"\x55")
                await asyncio.sleep(0.005)

        assert await connection.read(1, READ) == TRUE
        server.behave = babble
        assert isinstance(await _gives_up(connection, 1, 0.1), Garbled)
        if way.serial:  # a new connection would be silent
            connection._owes_until.clear()
            connection._timeout_s = 0.1
            with pytest.raises(Garbled, match=r"not silent for 0\.3 s within 0\.1 s"):
                await connection.read(1, READ, guard_s=0.3)

    _play(way, honest, scenario, GATEWAYS)


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ("port = 502", "either at a `host` and `port` or on a `serial` line"),
        ('host = "plc"\nport = 502\nserial = "/dev/ttyUSB0"', "either at a `host` and `port` or on a `serial` line"),
        ('host = "plc"', "`port` lies between 1 and 65535"),
        ('serial = "/dev/ttyUSB0"\nport = 502', "a `serial` line has no `port`"),
        ('serial = "/dev/ttyUSB0"\nbaud = 9601', "`baud` is one of 300, .*, 9600, "),
        ('serial = "/dev/ttyUSB0"\nparity = "M"', "parity"),
        ('host = "plc"\nport = 502\ntimeout_s = 0', "`timeout_s` lies above 0"),
        ('host = "plc"\nport = 502\nunit = 1', "unit"),
    ],
)
def test_an_address_that_cannot_be_is_refused(declared: str, why: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=why):
        msgspec.toml.decode(declared, type=Address)


def test_an_address_has_a_name_for_messages() -> None:
    assert Address("plc", 502).name == "plc:502"
    assert Address("::1", 502).name == "[::1]:502"
    assert Address(serial="/dev/ttyUSB0").name == "/dev/ttyUSB0"
