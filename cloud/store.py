"""The relational store: one writer thread, pooled read-only connections, one transaction per call.

SQLAlchemy is used synchronously only: a blocking and an async SQLite connection in one process can deadlock, each
waiting for the other to let go of the file.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event

T = TypeVar("T")

READERS = 4
CLOSE_WITHIN_S = 3.0
_BUSY_MS = 5000

# Every table of the cloud is declared on this; opening a store creates those of the modules imported by then.
metadata = MetaData()


class Store:
    """SQLite in one file, as an async context manager. What ``write`` has returned from is on disk."""

    def __init__(self, path: Path) -> None:
        self._writing = _engine(path, "BEGIN IMMEDIATE", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")
        self._reading = _engine(path, "BEGIN", "PRAGMA query_only = ON")
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = ThreadPoolExecutor(READERS, "store-reader")

    async def __aenter__(self) -> Self:
        await self.write(metadata.create_all)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def write(self, do: Callable[[Connection], T]) -> T:
        """Run ``do`` in one transaction on the writer thread; it is committed when this returns, undone when it raises.

        A caller that is cancelled while waiting does not know whether the transaction was committed.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, _transact, self._writing, do)

    async def read(self, do: Callable[[Connection], T]) -> T:
        """Run ``do`` on a read-only connection: it sees one state of the store, whatever is written meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, _transact, self._reading, do)

    async def close(self) -> None:
        """Let what is under way finish, for at most ``CLOSE_WITHIN_S`` seconds, and close every connection."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        last = self._writer.submit(self._writing.dispose)
        self._writer.shutdown(wait=False)
        await asyncio.wait([asyncio.wrap_future(last)], timeout=CLOSE_WITHIN_S)
        self._reading.dispose()


def _transact(engine: Engine, do: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return do(connection)


def _engine(path: Path, begin: str, *pragmas: str) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        pool_size=READERS,
        max_overflow=0,
        connect_args={"check_same_thread": False},
    )

    def connected(raw: sqlite3.Connection, _record: object) -> None:
        # The driver would begin transactions late and by its own rules; we begin them ourselves, below.
        raw.isolation_level = None
        for pragma in (*pragmas, "PRAGMA foreign_keys = ON", f"PRAGMA busy_timeout = {_BUSY_MS}"):
            raw.execute(pragma)

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine
