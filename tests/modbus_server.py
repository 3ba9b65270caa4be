"""A Modbus server that misbehaves as told; spoken by hand, so that it shares no code with the driver."""

import asyncio
import os
import struct
import termios
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

Framing = Literal["tcp", "rtu"]
MUTE = 0xBEEF  # the transaction of all answers of a server that does not echo it


@dataclass(frozen=True)
class Asked:
    """One question as it came; ``count`` is the value where one coil or register is written."""

    transaction: int
    unit: int
    function: int
    start: int
    count: int
    written: bytes = b""
    framing: Framing = "tcp"


def crc(data: bytes) -> bytes:
    """CRC-16 bit by bit, as the specification of the serial line draws it (6.2.2)."""
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            carry = register & 1
            register >>= 1
            if carry:
                register ^= 0xA001
    return struct.pack("<H", register)


def framed(asked: Asked, pdu: bytes, unit: int | None = None, transaction: int | None = None) -> bytes:
    unit = asked.unit if unit is None else unit
    if asked.framing == "rtu":
        return bytes([unit]) + pdu + crc(bytes([unit]) + pdu)
    transaction = asked.transaction if transaction is None else transaction
    return struct.pack(">HHHB", transaction, 0, 1 + len(pdu), unit) + pdu


def reply(asked: Asked, data: bytes = b"", **other: int) -> bytes:
    """A right answer, or one with another ``transaction``, ``unit``, ``function`` or ``size``."""
    data = data or b"".join(struct.pack(">H", asked.start + n) for n in range(asked.count))
    head = bytes([other.get("function", asked.function), other.get("size", len(data))])
    return framed(asked, head + data, other.get("unit"), other.get("transaction"))


def echo(asked: Asked, **other: int) -> bytes:
    """What confirms a write, or one with another ``start`` or ``count``."""
    start, count = other.get("start", asked.start), other.get("count", asked.count)
    return framed(asked, struct.pack(">BHH", asked.function, start, count))


def exception(asked: Asked, code: int) -> bytes:
    return framed(asked, bytes([asked.function | 0x80, code]))


Behaviour = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


async def honest(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Every register holds its own address."""
    writer.write(reply(asked))


class Bus:
    """What the server saw, and how it behaves (to be changed while it runs)."""

    def __init__(self, behave: Behaviour, framing: Framing = "tcp", *, echoes: bool = True) -> None:
        self.behave = behave
        self.asked: list[Asked] = []
        self.connections = 0
        self.greeting = b""  # what comes unasked with a connection
        self.reset: asyncio.Queue[bool] = asyncio.Queue()  # of each connection that the master ended
        self.port = 0
        self._framing = framing
        self._echoes = echoes
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        writer.write(self.greeting)
        hear = self._hear_rtu if self._framing == "rtu" else self._hear_tcp
        try:
            with suppress(asyncio.CancelledError):
                while True:
                    asked = await hear(reader)
                    self.asked.append(asked)
                    await self.behave(asked, writer)
        except asyncio.IncompleteReadError:
            self.reset.put_nowait(False)
        except ConnectionError:
            self.reset.put_nowait(True)
        finally:
            self._open.discard(task)
            writer.close()

    async def _hear_tcp(self, reader: asyncio.StreamReader) -> Asked:
        transaction, protocol, follows, unit = struct.unpack(">HHHB", await reader.readexactly(7))
        assert protocol == 0
        pdu = await reader.readexactly(follows - 1)
        function, start, count = struct.unpack(">BHH", pdu[:5])
        return Asked(transaction if self._echoes else MUTE, unit, function, start, count, pdu[5:])

    async def _hear_rtu(self, reader: asyncio.StreamReader) -> Asked:
        head = await reader.readexactly(6)
        rest = await reader.readexactly(5 if head[1] == 16 else 2)  # function 16: of one register
        assert crc(head + rest) == b"\0\0"
        unit, function, start, count = struct.unpack(">BBHH", head)
        return Asked(0, unit, function, start, count, rest[:-2], "rtu")


@asynccontextmanager
async def bus(behave: Behaviour = honest, framing: Framing = "tcp", *, echoes: bool = True) -> AsyncIterator[Bus]:
    server = Bus(behave, framing, echoes=echoes)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Line:
    """A serial line at whose end a server of RTU frames answers: ``path`` is the terminal to open.

    ``speeds`` tells the speed (a constant of ``termios``) that each piece was sent with.
    """

    def __init__(self) -> None:
        self.near, self._far = os.openpty()  # the far end is held open: a line does not break when a master leaves it
        tty.setraw(self._far)
        os.set_blocking(self.near, False)
        self.path = os.ttyname(self._far)
        self.speeds: list[int] = []

    def unplug(self) -> None:
        if self.near >= 0:
            asyncio.get_running_loop().remove_reader(self.near)
            os.close(self.near)
            os.close(self._far)
            self.near = -1

    async def lead_to(self, port: int) -> asyncio.Task[None]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        def hear() -> None:
            with suppress(BlockingIOError):
                writer.write(os.read(self.near, 4096))
                self.speeds.append(termios.tcgetattr(self.near)[5])

        async def speak() -> None:
            try:
                while data := await reader.read(4096):
                    os.write(self.near, data)
            finally:
                writer.close()

        asyncio.get_running_loop().add_reader(self.near, hear)
        return asyncio.create_task(speak(), name="serial line")


@asynccontextmanager
async def line(port: int) -> AsyncIterator[Line]:
    """A serial line to a server of RTU frames that listens at ``port``."""
    opened = Line()
    speaking = await opened.lead_to(port)
    try:
        yield opened
    finally:
        opened.unplug()
        speaking.cancel()
        await asyncio.wait([speaking])
