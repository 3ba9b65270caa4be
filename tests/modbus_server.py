"""A Modbus TCP server that misbehaves as told; spoken by hand, so that it shares no code with the driver."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    transaction: int
    unit: int
    function: int
    start: int
    count: int


def reply(asked: Asked, data: bytes = b"", **other: int) -> bytes:
    """A right answer, or one with another ``transaction``, ``unit``, ``function`` or ``size``."""
    data = data or b"".join(struct.pack(">H", asked.start + n) for n in range(asked.count))
    function, size = other.get("function", asked.function), other.get("size", len(data))
    header = (other.get("transaction", asked.transaction), 0, 3 + len(data), other.get("unit", asked.unit))
    return struct.pack(">HHHBBB", *header, function, size) + data


def exception(asked: Asked, code: int) -> bytes:
    return struct.pack(">HHHBBB", asked.transaction, 0, 3, asked.unit, asked.function | 0x80, code)


Behaviour = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


async def honest(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Every register holds its own address."""
    writer.write(reply(asked))


class Bus:
    """What the server saw, and how it behaves (to be changed while it runs)."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.asked: list[Asked] = []
        self.connections = 0
        self.port = 0
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
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while True:
                    fields = struct.unpack(">HHHBBHH", await reader.readexactly(12))
                    asked = Asked(fields[0], *fields[3:])
                    self.asked.append(asked)
                    await self.behave(asked, writer)
        finally:
            self._open.discard(task)
            writer.close()


@asynccontextmanager
async def bus(behave: Behaviour = honest) -> AsyncIterator[Bus]:
    server = Bus(behave)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
