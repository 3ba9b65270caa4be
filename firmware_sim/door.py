"""A TCP port that people talk through, closed in bounded time with every conversation on it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Door:
    """Listens with ``open``; each connection is one run of ``talk``, whose end closes it. A lost peer is no error."""

    def __init__(self, talk: Talk) -> None:
        self.port = 0
        self._talk = talk
        self._calls: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self, port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[Self]:
        """Listen on a port (0: a free one, told by ``port``) until the context ends; ``OSError`` when it is taken."""
        async with asyncio.TaskGroup() as calls:

            def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                # A task of our own: asyncio's, once cancelled, would be logged as an error (Python 3.11).
                call = calls.create_task(self._converse(reader, writer), name=f"conversation on port {self.port}")
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)

            server = await asyncio.start_server(answer, host, port)
            self.port = server.sockets[0].getsockname()[1]
            try:
                yield self
            finally:
                server.close()
                self.hang_up()

    def hang_up(self) -> None:
        """End every conversation that is going on."""
        for call in self._calls:
            call.cancel()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()
