"""Samples a second that ingest takes from 1,000 gateways over a broker, against the bare store, in one run.

``python -m benchmarks.ingest [--influx URL] [--seconds 30] [--gateways 1000] [--devices 100000] [--connections 8]``

Three rates of batches of the same shape, each with less around it than the one before: the cloud process behind a real
Mosquitto, fed by ``firmware_sim.load`` as fast as receipts come; ``wire.batch.decode`` and ``TimeSeries.write`` in one
process; the bare store on prepared columns (DuckDB: one registered insert a group, no ledger; InfluxDB: the same lines,
built beforehand, over the same connection). The ratios are what our own work costs; the absolute numbers belong to the
machine. Gateways meet the cloud in a run of its own: it stores their point tables, and its time is printed apart.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import duckdb
import httpx
import msgspec

from cloud.store import Store
from cloud.timeseries.lines import lines
from cloud.timeseries.port import SampleBatch, TimeSeries
from cloud.timeseries.stores import open_timeseries
from firmware_sim.fleet import Fleet, district_of
from firmware_sim.load import Outcome, point_tables
from firmware_sim.outpost import Outpost, prepared
from rules.samples import Block, PointTable
from tests.servers import free_port, mosquitto
from wire.batch import Batch, decode

GROUP = 16
GROUPS = 60
RUNS = 3
T0 = 1_781_782_200_000_000_000
EVERY = "500ms"  # more than any store takes: receipts set the pace
START_S = 300.0
STOP_S = 30.0
DRAIN_S = 30

TABLES: dict[str, PointTable] = {
    table.digest(): table for table in point_tables(district_of(Fleet(gateways=GROUP, manhole_monitors=100 * GROUP)))
}


def payloads() -> list[list[bytes]]:
    """Encode groups of batches: each of 100 devices read once, a group a second after the last."""
    values = prepared(max(len(table.points) for table in TABLES.values()))
    outposts = [Outpost(table, "boot", values, window=GROUPS) for table in TABLES.values()]
    made = [[outpost.read(T0 + second * 10**9) for outpost in outposts] for second in range(GROUPS)]
    return [[kept.payload for kept in group if kept is not None] for group in made]


def opened(group: list[bytes]) -> list[SampleBatch]:
    batches = [decode(payload, Batch) for payload in group]
    return [SampleBatch(one.gateway, one.seq, one.hour, TABLES[one.points], one.block()) for one in batches]


async def ours(timeseries: TimeSeries, groups: list[list[bytes]]) -> float:
    first, *groups = groups
    await timeseries.write(opened(first))  # names every series
    started = time.perf_counter()
    for group in groups:
        assert len(await timeseries.write(opened(group))) == len(group)
    return _rate(groups, started)


def bare_duckdb(path: Path, groups: list[list[bytes]]) -> float:
    prepared_columns = []
    for group in groups:
        block = Block.concatenate([batch.block for batch in opened(group)])
        prepared_columns.append({"s": block.point, "t": block.taken_at, "v": block.value, "q": block.quality})
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE sample (series INTEGER, taken_at BIGINT, value DOUBLE, quality UTINYINT)")
        started = time.perf_counter()
        for incoming in prepared_columns:
            connection.register("incoming", incoming)
            connection.execute("INSERT INTO sample SELECT s, t, v, q FROM incoming")
        return _rate(groups, started)


def bare_influx(url: str, groups: list[list[bytes]]) -> float:
    from cloud.timeseries.influx_server import InfluxServer, read_address

    bodies = [[line for batch in opened(group) for line in lines(batch)] for group in groups]
    server = InfluxServer(read_address(url))
    started = time.perf_counter()
    for body in bodies:
        server.write(body)
    rate = _rate(groups, started)
    server.close()
    return rate


def _rate(groups: list[list[bytes]], started: float) -> float:
    took = time.perf_counter() - started
    return sum(len(batch.block) for group in groups for batch in opened(group)) / took


async def measure(url: str, bare: Callable[[], float], groups: list[list[bytes]], folder: Path) -> tuple[float, float]:
    async with Store(folder / "relational.sqlite") as store:
        timeseries = await open_timeseries(url, store)
        rate = await ours(timeseries, groups)
        await timeseries.close()
    return rate, await asyncio.to_thread(bare)


async def in_one_process(influx: str | None) -> dict[str, float]:
    """Median rate by store; prints it and its ratio to the bare store's."""
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
        print(
            f"{store}, one process: {statistics.median(rate for rate, _ in runs):,.0f} samples/s decoded and stored, "
            f"{statistics.median(against for _, against in runs):,.0f} samples/s bare, "
            f"ratio {statistics.median(rate / against for rate, against in runs):.2f} "
            f"(median of {RUNS}; {GROUP} batches of {len(opened(groups[0])[0].block)} samples a group)"
        )
    return {store: statistics.median(rate for rate, _ in runs) for store, runs in results.items()}


def through_a_broker(arguments: argparse.Namespace, timeseries: str, limit: float) -> None:
    """Feed the cloud process over Mosquitto; prints what it stored, its ledger, and who used the processor."""
    with tempfile.TemporaryDirectory() as name, mosquitto(Path(name)) as broker:
        folder, port = Path(name), free_port()
        _write_load(folder, broker.port, arguments, lasts=1)
        subprocess.run([*_load(folder), "district.toml"], cwd=folder, check=True)
        (folder / "cloud.toml").write_text(
            f'district = "district.toml"\ndata = "data"\ntimeseries = "{timeseries}"\nhttp = {{ port = {port} }}\n'
            f'broker = {{ host = "127.0.0.1", port = {broker.port} }}\n'
        )
        url = f"http://127.0.0.1:{port}"
        with _cloud(folder, url) as cloud:
            met = _run_load(folder)
            print(
                f"{met.gateways} gateways met: {met.receipted.get('sample_batches', 0)} of "
                f"{met.made['sample_batches']} first batches receipted after {met.settled_s:.1f} s"
            )
            known = _stored(url)
            _write_load(folder, broker.port, arguments, lasts=arguments.seconds)
            before = _cpu_s(cloud), _cpu_s(broker.process)
            told = _run_load(folder)
            used = {
                "load": told.cpu_s,
                "cloud": _cpu_s(cloud) - before[0],
                "broker": _cpu_s(broker.process) - before[1],
            }
            stored = _stored(url) - known
    made = told.made["samples"]
    rate = told.receipted["samples"] / told.settled_s
    shares = ", ".join(f"{part} {seconds / told.settled_s:.0%}" for part, seconds in used.items())
    print(
        f"through a broker: {rate:,.0f} samples/s stored, ratio {rate / limit:.2f} to one process; "
        f"{told.receipted['sample_batches'] / told.settled_s:,.0f} batches/s over {told.connections} connections\n"
        f"made {made:,}, receipted {told.receipted['samples']:,}, stored {stored:,}: "
        f"lost {max(0, made - stored)}, doubled {max(0, stored - made)}; {told.resent} batches sent again; "
        f"receipt after {told.receipt_s['samples'][0]:.2f} s (p50), {told.receipt_s['samples'][1]:.2f} s (p99)\n"
        f"share of one core: {shares}; "
        f"making and encoding alone: {told.made['samples'] / told.making_cpu_s:,.0f} samples/s"
    )


def _load(folder: Path) -> list[str]:
    return [sys.executable, "-m", "firmware_sim.load", str(folder / "load.toml")]


def _run_load(folder: Path) -> Outcome:
    with (folder / "load.log").open("ab") as log:
        ended = subprocess.run(_load(folder), cwd=folder, stdout=subprocess.PIPE, stderr=log, check=False)
    if not ended.stdout:
        raise RuntimeError((folder / "load.log").read_text())
    return msgspec.json.decode(ended.stdout, type=Outcome)


def _write_load(folder: Path, port: int, arguments: argparse.Namespace, lasts: float) -> None:
    (folder / "load.toml").write_text(
        f'lasts = "{lasts:g}s"\ndrain = "{DRAIN_S}s"\nconnections = {arguments.connections}\nwindow = 1\n'
        f'broker = {{ host = "127.0.0.1", port = {port} }}\n'
        f'fleet = {{ gateways = {arguments.gateways}, manhole_monitors = {arguments.devices}, every = "{EVERY}" }}\n'
    )


@contextmanager
def _cloud(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the cloud process; prints how long its start took."""
    started = time.perf_counter()
    with (folder / "cloud.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "cloud.process", "cloud.toml"], cwd=folder, stderr=log)
    try:
        while not _answers(url):
            if process.poll() is not None or time.perf_counter() - started > START_S:
                raise RuntimeError((folder / "cloud.log").read_text())
            time.sleep(0.05)
        print(f"cloud up after {time.perf_counter() - started:.1f} s")
        yield process
    finally:
        process.terminate()
        process.wait(STOP_S)


def _stored(url: str) -> int:
    """Samples that the cloud's own ledger has as committed."""
    balance = httpx.get(f"{url}/api/v1/balance", timeout=60.0, trust_env=False).json()
    return int(balance["total"]["committed"])


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).is_success
    except httpx.TransportError:
        return False


def _cpu_s(process: subprocess.Popen[bytes] | None) -> float:
    """Processor time of a running process, seconds (proc(5): utime and stime)."""
    assert process is not None
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--influx", metavar="URL", help="measure InfluxDB too: influx://HOST:PORT/DATABASE")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--gateways", type=int, default=1000)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=8)
    arguments = parser.parse_args()
    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    limits = asyncio.run(in_one_process(arguments.influx))
    through_a_broker(arguments, "", limits["duckdb"])
    if arguments.influx:
        through_a_broker(arguments, f"{arguments.influx}_cloud", limits["influx"])


if __name__ == "__main__":
    main()
