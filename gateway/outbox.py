"""Store and forward: nothing leaves the box's memory before it is on its disk, nor its disk before the cloud has it."""

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import structlog

from edge.agent import Tick
from gateway.rows import Bounds, Report, Row, Rows
from rules.samples import PointTable
from wire.batch import Receipt
from wire.clock import Clock
from wire.counted import Counted

MEMORY_MOST = 32 * 1024 * 1024  # bytes of payload that may wait when the disk cannot be written

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Outbox:
    """The gateway's outbox; use it as an async context manager. All of SQLite happens on one thread of its own.

    A damaged file is moved aside (the newest one is kept as ``outbox.damaged``) and a new one begun. When the disk
    cannot be written, what waits moves to memory until the next start: the gateway goes on judging and sending. Both
    are counted, and told in the gateway's status.

    Parameters
    ----------
    folder
        Where ``outbox.sqlite`` lives; it is made.
    table
        The gateway's points.
    clock
        The city's clock.
    bounds
        How much may wait.
    counted
        Where drops and failures are counted.
    synchronised
        Whether the box's clock is: every batch says so. Asked on the outbox's thread; it must not wait.
    """

    def __init__(
        self,
        folder: Path,
        table: PointTable,
        clock: Clock,
        bounds: Bounds | None = None,
        counted: Counted | None = None,
        synchronised: Callable[[], bool] = lambda: True,
    ) -> None:
        self.boot = str(uuid.uuid4())
        self.more = asyncio.Event()  # set when there may be more to send
        self._path = folder / "outbox.sqlite"
        self._table = table
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._counted = counted or Counted()
        self._synchronised = synchronised

    async def __aenter__(self) -> Self:
        # Its threads die with it: a new one for each opening.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._rows = await self._on_thread(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._on_thread(self._rows.close)
        self._thread.shutdown(wait=False)

    async def append(self, tick: Tick) -> None:
        """Make a tick durable in one transaction; on return a kill cannot lose it."""
        await self._do(lambda rows: rows.append(tick, self.boot))
        self.more.set()

    async def next(self, in_flight: Collection[int], alerts: int, samples: int) -> list[Row]:
        """Choose so many batches to send now, but those in flight: alerts, then fresh samples, then history."""
        known = tuple(in_flight)  # a copy: the caller's changes while the thread reads
        return await self._do(lambda rows: rows.next(known, alerts, samples))

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        """Let go of what these receipts name; repeats change nothing."""
        await self._do(lambda rows: rows.settle(receipts))

    async def report(self) -> Report:
        """Say what waits and what became of the rest, of one instant."""
        return await self._do(lambda rows: rows.report())

    async def tables(self) -> list[bytes]:
        """Read the encoded point tables that waiting batches refer to; the present one last."""
        return await self._do(lambda rows: rows.tables())

    async def engine_state(self) -> bytes | None:
        """Read what the engine last saved; None on a first start."""
        return await self._do(lambda rows: rows.engine_state())

    async def counters(self) -> bytes | None:
        """Read what the counters last saved; None on a first start."""
        return await self._do(lambda rows: rows.counters())

    async def messages(self) -> list[tuple[str, int]]:
        """Read which messages were taken last (origin and stamp): what comes again is not taken again."""
        return await self._do(lambda rows: rows.messages())

    async def _do(self, work: Callable[[Rows], T]) -> T:
        def try_twice() -> T:
            try:
                return work(self._rows)
            except sqlite3.Error as error:
                self._rows = self._instead(error, self._rows)
                return work(self._rows)

        return await self._on_thread(try_twice)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # On the outbox's thread.

    def _open(self) -> Rows:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._rows_in(self._path, self._bounds)
        except (sqlite3.Error, OSError) as error:
            return self._instead(error, None)

    def _rows_in(self, path: Path | None, bounds: Bounds) -> Rows:
        return Rows(path, self._table, self._clock, bounds, self._counted, self._synchronised)

    def _instead(self, error: sqlite3.Error | OSError, failed: Rows | None) -> Rows:
        """Go on after the file failed: with a new file when it is damaged, in memory when the disk does not write."""
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            self._counted.add("outbox_damaged_files_total")
            log.error("outbox damaged; moved aside, a new one begun", path=str(self._path), error=str(error))
            if failed is not None:
                failed.close()
            try:
                for suffix in ("-wal", "-shm", ""):
                    with contextlib.suppress(FileNotFoundError):
                        Path(f"{self._path}{suffix}").replace(self._path.with_name(f"outbox.damaged{suffix}"))
                return self._rows_in(self._path, self._bounds)
            except (sqlite3.Error, OSError) as again:
                error, failed = again, None
        self._counted.add("outbox_disk_failures_total")
        log.critical("outbox cannot write its disk; going on in memory", path=str(self._path), error=str(error))
        rows = self._rows_in(
            None, msgspec.structs.replace(self._bounds, max_bytes=min(self._bounds.max_bytes, MEMORY_MOST))
        )
        if failed is not None:
            with contextlib.suppress(sqlite3.Error):  # what cannot be read either stays on the disk for the next start
                failed.connection.backup(rows.connection)
                rows.open()
            failed.close()
        return rows
