"""What changed, in the order it was committed: the ids of this table are the ids of the event stream."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Literal

import msgspec
from sqlalchemy import BigInteger, Column, Connection, Integer, String, Table, func, select

from cloud.store import Store, metadata

Kind = Literal["alert", "work_order", "balance", "device"]

event_table = Table(
    "event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("at", BigInteger, nullable=False),
    sqlite_autoincrement=True,  # an id is never used twice: a client resumes after the last one it saw
)


class Event(msgspec.Struct, frozen=True):
    """Something of ``kind`` changed: ``subject`` is its id, ``at`` the city time in UTC nanoseconds."""

    id: int
    kind: Kind
    subject: str
    at: int


def append(connection: Connection, kind: Kind, subject: str, at: int) -> None:
    """Record a change inside the transaction that makes it, so that neither stands without the other."""
    connection.execute(event_table.insert().values(kind=kind, subject=subject, at=at))


class Events:
    """Reading the event table and waiting for it to grow. For one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._grown = asyncio.Event()

    def committed(self) -> None:
        """Wake everyone who waits: call it on the event loop after a commit that appended."""
        self._grown.set()
        self._grown = asyncio.Event()

    async def newest(self) -> int:
        """Read the newest id, 0 when nothing has happened yet: where a stream without a past begins."""
        return await self._store.read(lambda connection: connection.scalar(select(func.max(event_table.c.id))) or 0)

    async def after(self, last: int, limit: int = 100) -> list[Event]:
        """At most ``limit`` events that came after id ``last``, oldest first."""
        rows = select(event_table).where(event_table.c.id > last).order_by(event_table.c.id).limit(limit)
        return await self._store.read(lambda connection: [Event(*row) for row in connection.execute(rows)])

    async def follow(self, last: int) -> AsyncGenerator[Event, None]:
        """Every event after id ``last``, for as long as the caller listens."""
        while True:
            # Taken before the read: what is committed between the read and the wait still wakes us.
            grown = self._grown
            found = await self.after(last)
            for event in found:
                yield event
                last = event.id
            if not found:
                await grown.wait()
