"""The outbox's table: what must reach the cloud, in SQLite, used from one thread.

A row is an encoded batch. Whatever one tick must make durable is one transaction (WAL, synchronous FULL), so a kill
leaves all of it or nothing. Every sample that ever came in is in a row, settled, filtered, or dropped with a reason:
that is the tally's equation.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edge.agent import Tick, known_most
from rules.samples import Block, PointTable
from wire.batch import Batch, Columns, Receipt, Tally, columns, encode
from wire.clock import HOUR, NANOSECONDS, Clock
from wire.counted import Counted
from wire.topics import Lane

PRESENT_AT_LEAST_S = 60.0  # a sample younger than this is never history
INTERVALS_PRESENT = 3  # nor is one younger than three of its own reporting intervals
TALLY_KEPT = 31 * 24 * HOUR
TALLY_TOLD = 48 * HOUR
CLOCK_SET = 1_735_689_600 * NANOSECONDS  # 2025-01-01: a clock before this was never set
EXPIRY_EVERY = 60 * NANOSECONDS

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS batch (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, lane TEXT NOT NULL, newest_taken_at INTEGER NOT NULL,
    history_from INTEGER NOT NULL, hour INTEGER NOT NULL, samples INTEGER NOT NULL, points TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS batch_in_order ON batch (lane, history_from, seq);
CREATE TABLE IF NOT EXISTS tally (
    hour INTEGER PRIMARY KEY, acquired INTEGER NOT NULL DEFAULT 0, filtered INTEGER NOT NULL DEFAULT 0,
    sent INTEGER NOT NULL DEFAULT 0, dropped TEXT NOT NULL DEFAULT '{}', changed_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS points (digest TEXT PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS taken (
    number INTEGER PRIMARY KEY, origin TEXT NOT NULL, stamp INTEGER NOT NULL, UNIQUE (origin, stamp)
);
CREATE INDEX IF NOT EXISTS taken_last ON taken (origin, number);
CREATE TABLE IF NOT EXISTS engine (only INTEGER PRIMARY KEY CHECK (only = 1), state BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS counters (only INTEGER PRIMARY KEY CHECK (only = 1), state BLOB NOT NULL);
"""


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much may wait: ``max_bytes`` of payload, and samples no older than ``max_age_s`` of city time."""

    max_bytes: int = 256 * 1024 * 1024
    max_age_s: float = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Row:
    """One batch to send. Its samples are history once the city's clock passes ``history_from`` (UTC ns)."""

    seq: int
    alert: bool
    history_from: int
    payload: bytes

    def lane_at(self, now: int) -> Lane:
        """Name the lane it travels on at this moment."""
        if self.alert:
            return Lane.ALERT
        return Lane.LIVE if self.history_from > now else Lane.BACKFILL


@dataclass(frozen=True, slots=True)
class Report:
    """What waits, and the gap ledger's hours that changed lately or still have something waiting, oldest first."""

    batches: int
    samples: int
    tallies: tuple[Tally, ...]


class Rows:
    """The table of one gateway; ``sqlite3.Error`` from any method means that the file, not the caller, is at fault.

    ``batches``, ``samples`` and ``size`` (bytes of payload) say what waits. ``synchronised`` tells whether the box's
    clock is; it is asked for every batch.
    """

    def __init__(
        self,
        path: Path | None,
        table: PointTable,
        clock: Clock,
        bounds: Bounds,
        counted: Counted,
        synchronised: Callable[[], bool] = lambda: True,
    ) -> None:
        self._table = table
        self._digest = table.digest()
        self._present = np.array(
            [max(PRESENT_AT_LEAST_S, INTERVALS_PRESENT * point.interval_s) for point in table.points]
        )
        self._clock = clock
        self._bounds = bounds
        self._counted = counted
        self._synchronised = synchronised
        self._expiry_due = 0
        self.connection = sqlite3.connect(path or ":memory:", isolation_level=None)
        try:
            self.open()
        except sqlite3.Error:
            self.connection.close()
            raise

    def open(self) -> None:
        """Make the tables and count what waits; again after the content was replaced."""
        self.connection.executescript(_SCHEMA)
        verdict = self.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        with self._transaction():
            self._execute("INSERT OR REPLACE INTO points VALUES (?, ?)", self._digest, encode(self._table))
            self._execute(
                "DELETE FROM points WHERE digest <> ? AND digest NOT IN (SELECT points FROM batch)", self._digest
            )
        self.batches: int
        self.samples: int
        self.size: int
        self.batches, self.samples, self.size = self._execute(
            "SELECT count(*), coalesce(sum(samples), 0), coalesce(sum(length(payload)), 0) FROM batch"
        ).fetchone()
        last = self._execute("SELECT max(seq) FROM sqlite_sequence").fetchone()[0] or 0
        # (gateway, seq) is for ever: a box whose disk was replaced must not begin again at numbers the cloud has seen.
        self._next = max(last + 1, time.time_ns() // 1_000_000)

    def append(self, tick: Tick, boot: str) -> None:
        """Make one tick durable: alerts, samples, tally, states, messages taken; all or nothing."""
        now = self._clock.now()
        hour = now - now % HOUR
        before = self._next, self.batches, self.samples, self.size
        try:
            with self._transaction():
                if tick.transitions:
                    self._insert(Lane.ALERT, boot, now, hour, Block.empty(), tick)
                if len(tick.block):
                    self._insert(Lane.LIVE, boot, now, hour, tick.block, tick)
                if tick.engine_state is not None:
                    self._execute("INSERT OR REPLACE INTO engine VALUES (1, ?)", tick.engine_state)
                if tick.counters is not None:
                    self._execute("INSERT OR REPLACE INTO counters VALUES (1, ?)", tick.counters)
                for origin, stamp in tick.messages:
                    self._remember(origin, stamp)
                if tick.acquired:
                    self._tally(hour, acquired=tick.acquired, filtered=tick.filtered)
                self._keep_bounds(now)
        except BaseException:
            self._next, self.batches, self.samples, self.size = before
            raise

    def next(self, in_flight: Collection[int], alerts: int, samples: int) -> list[Row]:
        """Choose so many batches to send now, but those in flight: alerts, then fresh samples, then history."""
        now = self._clock.now()
        rows = self._choose("lane = 'alert'", now, in_flight, alerts)
        fresh = self._choose("lane = 'live' AND history_from > ?1", now, in_flight, samples)
        return rows + fresh + self._choose("lane = 'live' AND history_from <= ?1", now, in_flight, samples - len(fresh))

    def _choose(self, which: str, now: int, in_flight: Collection[int], count: int) -> list[Row]:
        found = self._execute(
            f"SELECT seq, lane = 'alert', history_from, payload FROM batch WHERE {which}"  # noqa: S608 - our own words
            " AND seq NOT IN (SELECT value FROM json_each(?2)) ORDER BY history_from, seq LIMIT ?3",
            *(now, msgspec.json.encode(tuple(in_flight)).decode(), count),
        )
        return [Row(seq, bool(alert), history_from, payload) for seq, alert, history_from, payload in sorted(found)]

    def settle(self, receipts: Sequence[Receipt]) -> None:
        """Let go of what the cloud has committed, and of what it says it will never take. Repeats change nothing."""
        before = self.batches, self.samples, self.size
        try:
            with self._transaction():
                for receipt in receipts:
                    for seq in receipt.accepted:
                        self._delete(seq, None)
                    for seq, why in receipt.rejected:
                        if self._delete(seq, f"rejected_{why}"[:64]):
                            self._counted.add("outbox_rejected_batches_total")
        except BaseException:
            self.batches, self.samples, self.size = before
            raise

    def report(self, since: int | None = None) -> Report:
        """Say what waits and what became of the rest, of one instant: of the last hours, or ``since`` (UTC ns)."""
        found = self._execute(
            "SELECT hour, acquired, filtered, sent, dropped FROM tally"
            " WHERE changed_at >= ? OR hour IN (SELECT hour FROM batch) ORDER BY hour",
            self._clock.now() - TALLY_TOLD if since is None else since,
        )
        tallies = tuple(
            Tally(hour, acquired, filtered, sent, msgspec.json.decode(dropped, type=dict[str, int]))
            for hour, acquired, filtered, sent, dropped in found
        )
        return Report(self.batches, self.samples, tallies)

    def tables(self) -> list[bytes]:
        """Read the encoded point tables that waiting batches refer to; the present one last."""
        found = self._execute("SELECT payload FROM points ORDER BY digest = ?", self._digest)
        return [payload for (payload,) in found]

    def engine_state(self) -> bytes | None:
        """Read what the engine last saved."""
        return self._state("engine")

    def counters(self) -> bytes | None:
        """Read what the counters last saved."""
        return self._state("counters")

    def messages(self) -> list[tuple[str, int]]:
        """Read the origin and stamp of the messages taken last, the one taken last as the last."""
        return self._execute("SELECT origin, stamp FROM taken ORDER BY number").fetchall()

    def close(self) -> None:
        self.connection.close()

    def _state(self, table: str) -> bytes | None:
        found = self._execute(f"SELECT state FROM {table}").fetchone()  # noqa: S608 - our own words
        return found and bytes(found[0])

    def _insert(self, lane: Lane, boot: str, now: int, hour: int, block: Block, tick: Tick) -> None:
        newest, history_from, samples = now, 0, None
        if lane is Lane.LIVE:
            newest = int(block.taken_at.max())
            history_from = newest + int(self._present[block.point].max() * NANOSECONDS)
            samples = columns(block)
        payload = self._encoded(lane, boot, now, hour, samples, tick)
        self._execute(
            "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *(self._next, lane.value, newest, history_from, hour, len(block), self._digest, payload),
        )
        self._next += 1
        self._waiting(1, len(block), len(payload))

    def _encoded(self, lane: Lane, boot: str, now: int, hour: int, samples: Columns | None, tick: Tick) -> bytes:
        oldest = self._execute("SELECT min(seq) FROM batch").fetchone()[0]
        return encode(
            Batch(
                gateway=self._table.gateway,
                boot=boot,
                seq=self._next,
                settled_below=oldest or self._next,
                hour=hour,
                points=self._digest,
                clock_ok=now >= CLOCK_SET and self._synchronised(),
                samples=samples,
                transitions=tuple(tick.transitions) if lane is Lane.ALERT else (),
            )
        )

    def _remember(self, origin: str, stamp: int) -> None:
        # In the order of taking: by their stamps, a late one would be forgotten at once, and one of the future never.
        self._execute("INSERT OR IGNORE INTO taken (origin, stamp) VALUES (?, ?)", origin, stamp)
        self._execute(
            "DELETE FROM taken WHERE origin = ?1 AND number <="
            " (SELECT number FROM taken WHERE origin = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            *(origin, known_most(origin)),
        )

    def _keep_bounds(self, now: int) -> None:
        """Drop what has grown too old or does not fit: the oldest samples first, alerts last."""
        if now >= self._expiry_due:
            self._expiry_due = now + EXPIRY_EVERY
            too_old = now - int(self._bounds.max_age_s * NANOSECONDS)
            for (seq,) in self._execute(
                "SELECT seq FROM batch WHERE lane = 'live' AND newest_taken_at < ?", too_old
            ).fetchall():
                self._drop(seq, "too_old")
            self._execute("DELETE FROM tally WHERE changed_at < ?", now - TALLY_KEPT)
        while self.size > self._bounds.max_bytes and self.batches:
            oldest = self._execute("SELECT seq FROM batch ORDER BY lane = 'alert', seq LIMIT 1").fetchone()
            self._drop(oldest[0], "outbox_full")

    def _drop(self, seq: int, why: str) -> None:
        self._delete(seq, why)
        self._counted.add(f"outbox_{why.removeprefix('outbox_')}_batches_total")

    def _delete(self, seq: int, dropped: str | None) -> bool:
        """Remove a row and tell the tally of its hour; False when it is not (or no longer) there."""
        found = self._execute(
            "DELETE FROM batch WHERE seq = ? RETURNING hour, samples, length(payload)", seq
        ).fetchone()
        if found is None:
            return False
        hour, samples, size = found
        self._waiting(-1, -samples, -size)
        if samples:
            self._tally(hour, **({"sent": samples} if dropped is None else {"dropped": (dropped, samples)}))
        return True

    def _tally(
        self, hour: int, acquired: int = 0, filtered: int = 0, sent: int = 0, dropped: tuple[str, int] | None = None
    ) -> None:
        now = self._clock.now()
        self._execute("INSERT INTO tally (hour, changed_at) VALUES (?, ?) ON CONFLICT DO NOTHING", hour, now)
        by_reason = msgspec.json.decode(
            self._execute("SELECT dropped FROM tally WHERE hour = ?", hour).fetchone()[0], type=dict[str, int]
        )
        if dropped is not None:
            by_reason[dropped[0]] = by_reason.get(dropped[0], 0) + dropped[1]
        self._execute(
            "UPDATE tally SET acquired = acquired + ?, filtered = filtered + ?, sent = sent + ?, dropped = ?,"
            " changed_at = ? WHERE hour = ?",
            *(acquired, filtered, sent, msgspec.json.encode(by_reason).decode(), now, hour),
        )

    def _waiting(self, batches: int, samples: int, size: int) -> None:
        self.batches += batches
        self.samples += samples
        self.size += size

    def _execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        return self.connection.execute(sql, values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # the disk may refuse that too; the next open rolls back
                self.connection.execute("ROLLBACK")
            raise
