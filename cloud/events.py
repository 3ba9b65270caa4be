"""What changed, in the order it was committed: the ids of this table are the ids of the event stream."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Literal

import msgspec
from sqlalchemy import BigInteger, Column, Connection, Integer, String, Table, delete, func, select

from cloud.store import Store, metadata

KEPT = 100_000  # events: more than a day of a balance that changes every second

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


def forget(connection: Connection, kept: int = KEPT) -> None:
    """Delete all but about the newest ``kept`` events: a client that was away for longer reads everything anew."""
    newest: int = connection.scalar(select(func.max(event_table.c.id))) or 0
    connection.execute(delete(event_table).where(event_table.c.id <= newest - kept))


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

    async def resumed(self, last: int | None) -> int:
        """Where a stream begins that had come to ``last``: there, or at the newest if what followed it is not kept."""
        ends = select(func.min(event_table.c.id), func.max(event_table.c.id))
        oldest, newest = await self._store.read(lambda connection: connection.execute(ends).one())
        if newest is None:
            return 0
        return last if last is not None and oldest - 1 <= last <= newest else int(newest)

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
