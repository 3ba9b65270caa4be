"""The embedded store: DuckDB in one file, for one process. Samples and their ledger row commit in one transaction."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np

from cloud.timeseries.newest import Newest
from cloud.timeseries.port import Retry, Sample, SampleBatch, Series, Stored
from cloud.timeseries.series import SeriesNumbers

T = TypeVar("T")

CLOSE_WITHIN_S = 3.0
MEMORY = "512MB"

# The sample table has no key: it would cost nine tenths of the speed, and the ledger already keeps repeats out.
_TABLES = """
CREATE TABLE IF NOT EXISTS series (number INTEGER PRIMARY KEY, device VARCHAR NOT NULL, metric VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS sample (
    series INTEGER NOT NULL, taken_at BIGINT NOT NULL, value DOUBLE, quality UTINYINT NOT NULL);
CREATE TABLE IF NOT EXISTS ledger (
    gateway VARCHAR, seq BIGINT, hour BIGINT NOT NULL, samples BIGINT NOT NULL, PRIMARY KEY (gateway, seq));
"""
_NUMBER = "INSERT INTO series SELECT unnest($numbers), unnest($devices), unnest($metrics)"
_CLAIM = """
INSERT INTO ledger SELECT unnest($gateways), unnest($seqs), unnest($hours), unnest($samples)
ON CONFLICT DO NOTHING RETURNING gateway, seq
"""
_READ = """
SELECT taken_at, value, quality FROM sample
WHERE series = ? AND taken_at >= ? AND taken_at < ? ORDER BY taken_at
"""
_SCAN = "SELECT series, taken_at, value, quality FROM sample WHERE taken_at >= ? AND taken_at < ?"
_NEWEST = """
SELECT series, max(taken_at) AS taken_at, arg_max(coalesce(value, 'nan'::DOUBLE), taken_at) AS value,
       arg_max(quality, taken_at) AS quality
FROM sample GROUP BY series
"""
_COMMITTED = "SELECT hour, sum(samples)::BIGINT FROM ledger WHERE gateway = ? GROUP BY hour ORDER BY hour"


class EmbeddedTimeSeries:
    """One writer thread, and one thread that reads on a connection of its own. Open with ``await open(path)``."""

    def __init__(self, path: Path) -> None:
        self._writer = ThreadPoolExecutor(1, "samples-writer")
        self._reader = ThreadPoolExecutor(1, "samples-reader")
        self._path = path

    @classmethod
    async def open(cls, path: Path) -> "EmbeddedTimeSeries":
        """Open or create the file; ``Retry`` when another process has it."""
        store = cls(path)
        try:
            await store._on(store._writer, store._open)
        except duckdb.IOException as error:
            store._writer.shutdown(wait=False)
            raise Retry(f"{path}: {error}") from error
        return store

    async def write(self, batches: Sequence[SampleBatch]) -> set[tuple[str, int]]:
        return await self._on(self._writer, self._write, list(batches))

    async def read(self, device: str, metric: str, start: int, stop: int) -> Series:
        number = self._numbers.get(device, metric)
        if number is None:
            return Series.empty()
        return await self._on(self._reader, self._read, number, start, stop)

    async def scan(self, start: int, stop: int) -> Stored:
        """Read every sample with ``start <= taken_at < stop`` (UTC ns) of every point: a span of it at a time."""
        return await self._on(self._reader, self._scan, start, stop)

    async def latest(self, devices: Sequence[str]) -> dict[tuple[str, str], Sample]:
        return {
            (device, metric): sample
            for device in devices
            for metric, number in self._numbers.of_device(device)
            if (sample := self._newest[number]) is not None
        }

    async def committed(self, gateway: str) -> dict[int, int]:
        return await self._on(self._reader, self._committed, gateway)

    async def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)
        last = self._writer.submit(self._connection.close)
        self._writer.shutdown(wait=False)
        await asyncio.wait([asyncio.wrap_future(last)], timeout=CLOSE_WITHIN_S)

    async def _on(self, thread: ThreadPoolExecutor, do: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, do, *arguments)

    def _open(self) -> None:
        self._connection = duckdb.connect(
            str(self._path),
            # No network; and no more memory than a small server can spare, whatever the machine has.
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "memory_limit": MEMORY,
            },
        )
        self._connection.execute(_TABLES)
        self._reading = self._connection.cursor()
        known = self._connection.execute("SELECT device, metric FROM series ORDER BY number").fetchall()
        self._numbers = SeriesNumbers((device, metric) for device, metric in known)
        self._newest = Newest()
        found = self._connection.execute(_NEWEST).fetchnumpy()
        self._newest.update(found["series"], _series(found))

    def _write(self, batches: Sequence[SampleBatch]) -> set[tuple[str, int]]:
        try:
            self._number(batches)
            self._connection.begin()
            try:
                new = self._claim(batches)
                self._insert(new)
                self._connection.commit()
            except BaseException:
                self._connection.rollback()
                raise
        except duckdb.OperationalError as error:  # a full or failing disk
            raise Retry(f"the embedded store cannot write: {error}") from error
        if new:
            self._newest.update(*self._numbers.columns(new))
        return {batch.key for batch in new}

    def _number(self, batches: Sequence[SampleBatch]) -> None:
        """Give numbers to new series, in a transaction of their own: they stay true when the samples' one is undone."""
        rows = self._numbers.missing(batch.table for batch in batches)
        if rows:
            numbers, devices, metrics = zip(*rows, strict=True)
            self._connection.execute(_NUMBER, {"numbers": numbers, "devices": devices, "metrics": metrics})
            self._numbers.add(rows)

    def _claim(self, batches: Sequence[SampleBatch]) -> list[SampleBatch]:
        """Enter the batches in the ledger; those that were not in it."""
        by_key = {batch.key: batch for batch in reversed(batches)}
        rows = {
            "gateways": [batch.gateway for batch in by_key.values()],
            "seqs": [batch.seq for batch in by_key.values()],
            "hours": [batch.hour for batch in by_key.values()],
            "samples": [len(batch.block) for batch in by_key.values()],
        }
        claimed = set(self._connection.execute(_CLAIM, rows).fetchall())
        return [batch for key, batch in reversed(by_key.items()) if key in claimed]

    def _insert(self, batches: Sequence[SampleBatch]) -> None:
        if not batches:
            return
        series, samples = self._numbers.columns(batches)
        incoming = {"s": series, "t": samples.taken_at, "v": samples.value, "q": samples.quality}
        self._connection.register("incoming", incoming)  # NaN becomes NULL on the way
        self._connection.execute("INSERT INTO sample SELECT s, t, v, q FROM incoming")
        self._connection.unregister("incoming")

    def _read(self, number: int, start: int, stop: int) -> Series:
        return _series(self._reading.execute(_READ, [number, start, stop]).fetchnumpy())

    def _scan(self, start: int, stop: int) -> Stored:
        found = self._reading.execute(_SCAN, [start, stop]).fetchnumpy()
        series = _series(found)
        return Stored(self._numbers.names(), found["series"], series.taken_at, series.value, series.quality)

    def _committed(self, gateway: str) -> dict[int, int]:
        return dict(self._reading.execute(_COMMITTED, [gateway]).fetchall())


def _series(found: dict[str, Any]) -> Series:
    return Series(found["taken_at"], np.ma.filled(found["value"], np.nan), found["quality"])
