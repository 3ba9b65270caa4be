"""Samples a second that ingest decodes and stores, against the bare store on prepared columns in the same run.

``python -m benchmarks.ingest [INFLUX-URL]``: groups of encoded batches go through ``wire.batch.decode`` and
``TimeSeries.write``; the bare store gets the same columns (DuckDB: one registered insert a group, no ledger; InfluxDB:
the same lines, built beforehand, over the same connection). The ratio is what our own work costs; the absolute numbers
belong to the machine.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import numpy as np

from cloud.store import Store
from cloud.timeseries.lines import lines
from cloud.timeseries.port import SampleBatch, TimeSeries
from cloud.timeseries.stores import open_timeseries
from rules.samples import POINT, QUALITY, TIME, VALUE, Block, Point, PointTable
from wire.batch import Batch, columns, decode, encode

DEVICES, METRICS = 200, 5
READINGS_A_BATCH = 200  # one thousand samples
GROUP = 16
GROUPS = 40
RUNS = 3
T0 = 1_781_782_200_000_000_000

TABLE = PointTable(
    "gw-north",
    tuple(
        Point(f"device-{device}", "kind", f"metric_{metric}", "m", 1.0)
        for device in range(DEVICES)
        for metric in range(METRICS)
    ),
)


def payloads() -> list[list[bytes]]:
    """Encode groups of batches: every batch is one reading of every device, one second after the last."""
    generator = np.random.default_rng(1)
    digest = TABLE.digest()
    point = np.arange(DEVICES * METRICS, dtype=POINT)
    quality = np.zeros(len(point), QUALITY)
    made = []
    for seq in range(GROUP * GROUPS):
        taken_at = np.full(len(point), T0 + seq * 10**9, TIME) + np.repeat(np.arange(DEVICES), METRICS) * 10**6
        block = Block(point, taken_at, np.round(generator.normal(2.0, 0.3, len(point)), 3).astype(VALUE), quality)
        made.append(encode(Batch("gw-north", "boot", seq, 0, 0, digest, True, columns(block))))
    return [made[first : first + GROUP] for first in range(0, len(made), GROUP)]


def opened(group: list[bytes]) -> list[SampleBatch]:
    batches = [decode(payload, Batch) for payload in group]
    return [SampleBatch(batch.gateway, batch.seq, batch.hour, TABLE, batch.block()) for batch in batches]


async def ours(timeseries: TimeSeries, groups: list[list[bytes]]) -> float:
    started = time.perf_counter()
    for group in groups:
        assert len(await timeseries.write(opened(group))) == len(group)
    return _rate(groups, started)


def bare_duckdb(path: Path, groups: list[list[bytes]]) -> float:
    prepared = []
    for group in groups:
        block = Block.concatenate([batch.block for batch in opened(group)])
        prepared.append({"s": block.point, "t": block.taken_at, "v": block.value, "q": block.quality})
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE sample (series INTEGER, taken_at BIGINT, value DOUBLE, quality UTINYINT)")
        started = time.perf_counter()
        for incoming in prepared:
            connection.register("incoming", incoming)
            connection.execute("INSERT INTO sample SELECT s, t, v, q FROM incoming")
        return _rate(groups, started)


def bare_influx(url: str, groups: list[list[bytes]]) -> float:
    from cloud.timeseries.influx_server import InfluxServer, read_address

    prepared = [[line for batch in opened(group) for line in lines(batch)] for group in groups]
    server = InfluxServer(read_address(url))
    started = time.perf_counter()
    for body in prepared:
        server.write(body)
    rate = _rate(groups, started)
    server.close()
    return rate


def _rate(groups: list[list[bytes]], started: float) -> float:
    return sum(map(len, groups)) * len(TABLE.points) / (time.perf_counter() - started)


async def measure(url: str, bare: Callable[[], float], groups: list[list[bytes]], folder: Path) -> tuple[float, float]:
    async with Store(folder / "relational.sqlite") as store:
        timeseries = await open_timeseries(url, store)
        rate = await ours(timeseries, groups)
        await timeseries.close()
    return rate, await asyncio.to_thread(bare)


async def main(influx: str | None) -> None:
    groups = payloads()
    results: dict[str, list[tuple[float, float]]] = {"duckdb": [], **({"influx": []} if influx else {})}
    for run in range(RUNS):
        for store, runs in results.items():
            with tempfile.TemporaryDirectory() as name:
                if store == "duckdb":
                    url, bare = f"duckdb://{name}/ours.duckdb", partial(bare_duckdb, Path(name) / "bare.duckdb", groups)
                else:
                    url, bare = f"{influx}_{run}", partial(bare_influx, f"{influx}_bare_{run}", groups)
                runs.append(await measure(url, bare, groups, Path(name)))
    for store, runs in results.items():
        ratio = statistics.median(rate / against for rate, against in runs)
        print(
            f"{store}: {statistics.median(rate for rate, _ in runs):,.0f} samples/s decoded and stored, "
            f"{statistics.median(against for _, against in runs):,.0f} samples/s bare, ratio {ratio:.2f} "
            f"(median of {RUNS}; {GROUP} batches of {len(TABLE.points)} samples a group)"
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
