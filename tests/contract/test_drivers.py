"""What every driver must bear: refused, silent, half a reply, garbage, late answers, cancellation, opening again."""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from edge.drivers.modbus import Connection, Declined, Failed, Garbled, NoAnswer, Unreachable
from edge.plan import Request
from tests.modbus_server import Asked, Behaviour, Bus, bus, exception, honest, reply

READ = Request(3, 10, 2, (0, 1))
TRUE = b"\x00\x0a\x00\x0b"
TIMEOUT_S = 0.1


def _play(behave: Behaviour, scenario: Callable[[Connection, Bus], Awaitable[None]]) -> None:
    async def play() -> None:
        async with bus(behave) as server, Connection("127.0.0.1", server.port, TIMEOUT_S) as connection:
            await scenario(connection, server)

    # The gateway runs on uvloop; its transports are not asyncio's.
    for loop_factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(play())


async def _silent(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
    pass


def test_reads() -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(7, READ) == TRUE
        assert await connection.read(8, Request(4, 0, 125, (0,))) == b"".join(struct.pack(">H", n) for n in range(125))
        assert [(asked.unit, asked.function, asked.start, asked.count) for asked in server.asked] == [
            (7, 3, 10, 2),
            (8, 4, 0, 125),
        ]
        assert server.connections == 1

    _play(honest, scenario)


def test_reads_coils() -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(asked, b"\x05\x01"))

    async def scenario(connection: Connection, _: Bus) -> None:
        assert await connection.read(1, Request(1, 0, 9, (0,))) == b"\x05\x01"

    _play(behave, scenario)


def test_refused() -> None:
    async def scenario() -> None:
        with socket.socket() as taken:  # bound, not listening: nobody else can answer here
            taken.bind(("127.0.0.1", 0))
            async with Connection("127.0.0.1", taken.getsockname()[1], TIMEOUT_S) as connection:
                with pytest.raises(Unreachable):
                    await connection.read(1, READ)

    asyncio.run(scenario())


def test_silent_is_bounded_and_the_next_read_opens_again() -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        started = time.monotonic()
        with pytest.raises(NoAnswer, match="unit 1: no answer within"):
            await connection.read(1, READ)
        assert TIMEOUT_S * 0.9 < time.monotonic() - started < TIMEOUT_S * 3
        server.behave = honest
        assert await connection.read(2, READ) == TRUE
        assert server.connections == 2

    _play(_silent, scenario)


@pytest.mark.parametrize("cut", [1, 7, 9, 12])
def test_half_a_reply_is_no_answer_and_does_not_spoil_the_next(cut: int) -> None:
    async def half(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(asked)[:cut])

    async def scenario(connection: Connection, server: Bus) -> None:
        with pytest.raises(NoAnswer):
            await connection.read(1, READ)
        server.behave = honest
        assert await connection.read(1, READ) == TRUE

    _play(half, scenario)


def test_a_reply_in_pieces_is_whole() -> None:
    async def in_pieces(asked: Asked, writer: asyncio.StreamWriter) -> None:
        for byte in reply(asked):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)

    async def scenario(connection: Connection, _: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        assert await connection.read(1, READ) == TRUE

    _play(in_pieces, scenario)


def test_a_late_answer_is_never_taken_for_the_next_one() -> None:
    held: list[tuple[Asked, asyncio.StreamWriter]] = []

    async def late(asked: Asked, writer: asyncio.StreamWriter) -> None:
        held.append((asked, writer))
        if len(held) == 1:
            return
        first, its_writer = held[0]
        if not its_writer.is_closing():
            its_writer.write(reply(first, b"\xde\xad\xbe\xef"))
        writer.write(reply(first, b"\xde\xad\xbe\xef"))  # also by a gateway that mixes up its sessions
        writer.write(reply(asked))

    async def scenario(connection: Connection, _: Bus) -> None:
        held.clear()
        with pytest.raises(NoAnswer):
            await connection.read(1, READ)
        assert await connection.read(1, READ) == TRUE
        assert await connection.read(1, READ) == TRUE

    _play(late, scenario)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda asked: reply(asked, unit=asked.unit + 1),
        lambda asked: reply(asked, function=4),
        lambda asked: reply(asked, size=6),
        lambda asked: reply(asked, b"\x00\x0a"),
        lambda asked: reply(asked, b"\x00\x0a\x00\x0b\x00\x0c"),
        lambda asked: reply(asked, b"\x00\x0a\x00\x0b\x00\x0c", size=4),
        lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
        lambda asked: struct.pack(">HHHB", asked.transaction, 0, 1, asked.unit),
        lambda asked: struct.pack(">HHHB", asked.transaction, 0, 60000, asked.unit),
    ],
    ids=["unit", "function", "size", "short", "long", "padded", "not modbus", "empty", "endless"],
)
def test_an_answer_that_does_not_fit_is_garbled_and_the_next_is_right(spoil: Callable[[Asked], bytes]) -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(spoil(asked))

    async def scenario(connection: Connection, server: Bus) -> None:
        with pytest.raises(Garbled):
            await connection.read(1, READ)
        server.behave = honest
        assert await connection.read(1, READ) == TRUE

    _play(behave, scenario)


def test_answers_to_somebody_else_do_not_count() -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        for n in range(5):
            writer.write(reply(asked, transaction=(asked.transaction + 100 + n) % 0x10000))

    async def scenario(connection: Connection, _: Bus) -> None:
        with pytest.raises(NoAnswer):
            await connection.read(1, READ)

    _play(behave, scenario)


@pytest.mark.parametrize("code", [1, 2, 3, 6, 11])
def test_an_exception_is_told_with_its_code_and_keeps_the_connection(code: int) -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(exception(asked, code))

    async def scenario(connection: Connection, server: Bus) -> None:
        with pytest.raises(Declined) as declined:
            await connection.read(1, READ)
        assert (declined.value.code, declined.value.name) == (code, f"exception_{code:02d}")
        server.behave = honest
        assert await connection.read(1, READ) == TRUE
        assert server.connections == 1

    _play(behave, scenario)


def test_closed_by_the_bus_while_asked() -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(asked)[:5])
        writer.close()

    async def scenario(connection: Connection, server: Bus) -> None:
        started = time.monotonic()
        with pytest.raises(NoAnswer, match="connection ended"):
            await connection.read(1, READ)
        assert time.monotonic() - started < TIMEOUT_S
        server.behave = honest
        assert await connection.read(1, READ) == TRUE

    _play(behave, scenario)


def test_closed_by_the_bus_between_reads() -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        assert await connection.read(1, READ) == TRUE
        port = server.port
        await server.stop()
        with pytest.raises(Failed):
            await connection.read(1, READ)
        await server.start(port)
        assert await connection.read(1, READ) == TRUE

    _play(honest, scenario)


def test_cancelled_while_reading_it_opens_again() -> None:
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
        server.behave = honest
        assert await connection.read(1, READ) == TRUE
        assert server.connections == 2

    _play(honest, scenario)


def test_one_request_is_in_flight_whoever_asks() -> None:
    in_flight, most = 0, 0

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.002)
        in_flight -= 1
        writer.write(reply(asked))

    async def scenario(connection: Connection, server: Bus) -> None:
        answers = await asyncio.gather(*(connection.read(n, Request(3, n, 1, (0,))) for n in range(1, 20)))
        assert answers == [struct.pack(">H", n) for n in range(1, 20)]
        assert (most, server.connections) == (1, 1)

    _play(behave, scenario)


def test_transaction_ids_wrap() -> None:
    async def scenario(connection: Connection, server: Bus) -> None:
        connection._transaction = 0xFFFE
        for _ in range(3):
            assert await connection.read(1, READ) == TRUE
        assert [asked.transaction for asked in server.asked] == [0xFFFF, 1, 2]

    _play(honest, scenario)
