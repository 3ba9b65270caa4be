"""One suite over every store of samples: the memory twin, the embedded DuckDB and a real InfluxDB 1.6."""

import asyncio
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from cloud.store import Store
from cloud.timeseries.embedded import EmbeddedTimeSeries
from cloud.timeseries.port import Retry, Sample, SampleBatch, Series, TimeSeries
from cloud.timeseries.stores import open_timeseries
from rules.declared import Refused
from rules.samples import POINT, QUALITY, TIME, VALUE, Block, Point, PointTable, Quality
from tests.servers import influx
from wire.clock import HOUR

T0 = 1_781_782_200_000_000_000  # 2026-06-18T11:30:00Z
HOUR_0 = T0 // HOUR * HOUR
ALWAYS = (-(2**63), 2**63 - 1)

TABLE = PointTable(
    "gw-north",
    (
        Point("level-s1", "level_sensor", "distance", "m", 10),
        Point("level-s1", "level_sensor", "level", "m", 10),
        Point("lamp-1", "lamp_controller", "power", "W", 30),
    ),
)


@pytest.fixture(scope="module", params=["memory", "duckdb", "influx"])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What an address begins with; a server is started once for all tests of its kind."""
    if request.param == "influx":
        with influx(tmp_path_factory.mktemp("influx")) as server:
            yield f"influx://127.0.0.1:{server.port}/"
    else:
        yield f"{request.param}://"


@pytest.fixture
def address(kind: str, tmp_path: Path) -> str:
    """A store of the test's own."""
    return {"memory://": kind, "duckdb://": f"{kind}{tmp_path}/samples.duckdb"}.get(kind, f"{kind}{tmp_path.name}")


@asynccontextmanager
async def opened(address: str, folder: Path) -> AsyncIterator[TimeSeries]:
    async with Store(folder / "relational.sqlite") as store:
        timeseries = await open_timeseries(address, store)
        try:
            yield timeseries
        finally:
            await timeseries.close()


@pytest.fixture
def run(address: str, tmp_path: Path) -> Callable[[Callable[[TimeSeries], Awaitable[None]]], None]:
    def run_on_store(test: Callable[[TimeSeries], Awaitable[None]]) -> None:
        async def main() -> None:
            async with opened(address, tmp_path) as timeseries:
                await test(timeseries)

        asyncio.run(main())

    return run_on_store


Run = Callable[[Callable[[TimeSeries], Awaitable[None]]], None]


def block(*samples: tuple[int, float, float, int]) -> Block:
    """Samples as (point, seconds after T0, value, quality)."""
    point, after, value, quality = zip(*samples, strict=True)
    return Block(
        np.array(point, POINT),
        np.array([T0 + round(s * 1e9) for s in after], TIME),
        np.array(value, VALUE),
        np.array(quality, QUALITY),
    )


def batch(seq: int, samples: Block, table: PointTable = TABLE, hour: int = HOUR_0) -> SampleBatch:
    return SampleBatch(table.gateway, seq, hour, table, samples)


def rows(series: Series) -> list[tuple[int, float | None, int]]:
    """A series as comparable rows; an unknown value is None."""
    values = [None if math.isnan(value) else value for value in series.value.tolist()]
    return list(zip(series.taken_at.tolist(), values, series.quality.tolist(), strict=True))


def test_what_was_written_is_read_back_exactly(run: Run) -> None:
    values = [0.1 + 0.2, -0.0, 5.0, 1e-300, 1.7976931348623157e308, -273.15, 1 / 3]
    samples = block(*((0, n * 1e-9, value, 0) for n, value in enumerate(values)))

    async def test(timeseries: TimeSeries) -> None:
        assert await timeseries.write([batch(1, samples)]) == {("gw-north", 1)}
        found = await timeseries.read("level-s1", "distance", *ALWAYS)
        assert found.value.tolist() == samples.value.tolist()
        assert found.taken_at.tolist() == samples.taken_at.tolist()
        assert (found.taken_at.dtype, found.value.dtype, found.quality.dtype) == (TIME, VALUE, QUALITY)

    run(test)


def test_a_repeat_is_told_apart_and_stored_once(run: Run) -> None:
    first, second = batch(1, block((0, 0, 1.0, 0))), batch(2, block((0, 1, 2.0, 0)))

    async def test(timeseries: TimeSeries) -> None:
        assert await timeseries.write([first, first]) == {("gw-north", 1)}
        assert await timeseries.write([second, first]) == {("gw-north", 2)}
        assert await timeseries.write([first, second]) == set()
        assert (await timeseries.read("level-s1", "distance", *ALWAYS)).value.tolist() == [1.0, 2.0]

    run(test)


def test_one_seq_of_two_gateways_is_two_batches(run: Run) -> None:
    other = PointTable("gw-south", (Point("lamp-2", "lamp_controller", "power", "W", 30),))

    async def test(timeseries: TimeSeries) -> None:
        keys = await timeseries.write([batch(1, block((0, 0, 1.0, 0))), batch(1, block((0, 0, 2.0, 0)), other)])
        assert keys == {("gw-north", 1), ("gw-south", 1)}
        assert (await timeseries.read("lamp-2", "power", *ALWAYS)).value.tolist() == [2.0]

    run(test)


def test_quality_is_kept_and_what_is_not_finite_is_unknown(run: Run) -> None:
    samples = block(
        (1, 0, 0.1, Quality.GOOD),
        (1, 1, 0.2, Quality.UNCERTAIN),
        (1, 2, math.nan, Quality.BAD_SENTINEL),
        (1, 3, math.inf, Quality.BAD_RANGE),
        (1, 4, math.nan, Quality.GOOD),
        (1, 5, 99.0, Quality.BAD_RANGE),
    )
    expected = [(0.1, 0), (0.2, 1), (None, 17), (None, 16), (None, 0), (99.0, 16)]

    async def test(timeseries: TimeSeries) -> None:
        await timeseries.write([batch(1, samples)])
        found = rows(await timeseries.read("level-s1", "level", *ALWAYS))
        assert [(value, quality) for _, value, quality in found] == expected

    run(test)


@pytest.mark.parametrize(
    "name", ["a b", "a,b=c", "o'clock", 'say "hi"', "back\\slash", "end\\", "line\nend", "100%", "井盖-1", "a%0Ab"]
)
def test_any_id_comes_back(run: Run, name: str) -> None:
    table = PointTable(f"gw {name}", (Point(name, "kind", name, "m", 10), Point("plain", "kind", "level", "m", 10)))

    async def test(timeseries: TimeSeries) -> None:
        await timeseries.write([batch(1, block((0, 0, 7.0, 1), (1, 0, 8.0, 0)), table)])
        assert rows(await timeseries.read(name, name, *ALWAYS)) == [(T0, 7.0, 1)]
        assert await timeseries.latest([name]) == {(name, name): Sample(T0, 7.0, 1)}
        assert await timeseries.committed(table.gateway) == {HOUR_0: 2}

    run(test)


def test_a_range_holds_its_start_and_not_its_stop(run: Run) -> None:
    samples = block(*((2, second, float(second), 0) for second in range(10)))

    async def test(timeseries: TimeSeries) -> None:
        await timeseries.write([batch(1, samples)])
        found = await timeseries.read("lamp-1", "power", T0 + 3 * 10**9, T0 + 6 * 10**9)
        assert found.value.tolist() == [3.0, 4.0, 5.0]

    run(test)


def test_a_series_is_of_one_point_and_in_the_order_of_time(run: Run) -> None:
    late = block((0, 1, 1.0, 0), (1, 1, 100.0, 0), (2, 1, 200.0, 0))
    early = block((0, 0, 0.0, 0), (1, 0, 101.0, 0))

    async def test(timeseries: TimeSeries) -> None:
        await timeseries.write([batch(1, late)])
        await timeseries.write([batch(2, early)])
        assert (await timeseries.read("level-s1", "distance", *ALWAYS)).value.tolist() == [0.0, 1.0]
        assert (await timeseries.read("level-s1", "level", *ALWAYS)).value.tolist() == [101.0, 100.0]

    run(test)


def test_the_unknown_is_empty(run: Run) -> None:
    async def test(timeseries: TimeSeries) -> None:
        assert len(await timeseries.read("nobody", "level", *ALWAYS)) == 0
        assert await timeseries.latest(["nobody"]) == {}
        assert await timeseries.committed("nobody") == {}
        assert await timeseries.write([]) == set()
        await timeseries.write([batch(1, block((0, 0, 1.0, 0)))])
        assert len(await timeseries.read("level-s1", "nothing", *ALWAYS)) == 0
        assert await timeseries.latest(["nobody"]) == {}

    run(test)


def test_an_empty_batch_is_a_batch(run: Run) -> None:
    async def test(timeseries: TimeSeries) -> None:
        assert await timeseries.write([batch(1, Block.empty())]) == {("gw-north", 1)}
        assert await timeseries.write([batch(1, Block.empty())]) == set()

    run(test)


def test_the_latest_is_the_newest_by_time_of_each_metric(run: Run) -> None:
    async def test(timeseries: TimeSeries) -> None:
        await timeseries.write([batch(1, block((0, 5, 5.0, 0), (1, 5, 0.5, 0), (2, 1, 60.0, 0)))])
        await timeseries.write([batch(2, block((0, 2, 2.0, 1), (1, 6, math.nan, 17)))])  # an older and a newer one
        found = await timeseries.latest(["level-s1", "nobody"])
        assert found.keys() == {("level-s1", "distance"), ("level-s1", "level")}
        assert found["level-s1", "distance"] == Sample(T0 + 5 * 10**9, 5.0, 0)
        level = found["level-s1", "level"]
        assert (level.taken_at, level.quality, math.isnan(level.value)) == (T0 + 6 * 10**9, 17, True)

    run(test)


def test_the_latest_of_many_devices(run: Run) -> None:
    devices = [f"cover-{n}" for n in range(120)]
    table = PointTable("gw-north", tuple(Point(device, "manhole_cover", "battery", "%", 600) for device in devices))
    samples = block(*((n, 0, float(n), 0) for n in range(120)))

    async def test(timeseries: TimeSeries) -> None:
        await timeseries.write([batch(1, samples, table)])
        found = await timeseries.latest(devices[:100])
        assert [found[device, "battery"].value for device in devices[:100]] == [float(n) for n in range(100)]
        assert len(found) == 100

    run(test)


def test_committed_counts_what_is_stored_by_the_hour_of_a_batch(run: Run) -> None:
    async def test(timeseries: TimeSeries) -> None:
        await timeseries.write([batch(1, block((0, 0, 1.0, 0), (1, 0, 2.0, 0)))])
        await timeseries.write([batch(1, block((0, 0, 1.0, 0), (1, 0, 2.0, 0)))])
        late = block((0, 1799, 3.0, 0), (0, 1800, 4.0, 0), (0, 1801, 5.0, 0))  # taken before and after a full hour
        await timeseries.write([batch(2, late), batch(3, block((0, 1798, 6.0, 0)), hour=HOUR_0 + HOUR)])
        assert await timeseries.committed("gw-north") == {HOUR_0: 5, HOUR_0 + HOUR: 1}

    run(test)


def test_a_table_that_changes_is_read_as_it_was(run: Run) -> None:
    turned = PointTable("gw-north", tuple(reversed(TABLE.points)))

    async def test(timeseries: TimeSeries) -> None:
        await timeseries.write([batch(1, block((0, 0, 1.0, 0))), batch(2, block((2, 1, 2.0, 0)), turned)])
        await timeseries.write([batch(3, block((0, 2, 3.0, 0)))])
        assert (await timeseries.read("level-s1", "distance", *ALWAYS)).value.tolist() == [1.0, 2.0, 3.0]

    run(test)


def test_ten_thousand_samples_in_one_group(run: Run) -> None:
    devices = 100
    table = PointTable(
        "gw-north",
        tuple(Point(f"device-{n}", "kind", metric, "m", 1) for n in range(devices) for metric in ("a", "b", "c", "d")),
    )
    generator = np.random.default_rng(7)
    group = []
    for seq in range(25):
        point = np.arange(4 * devices, dtype=POINT)
        taken_at = np.full(len(point), T0 + seq * 10**9, TIME)
        group.append(
            batch(seq, Block(point, taken_at, generator.normal(size=len(point)), np.zeros_like(point, QUALITY)), table)
        )

    async def test(timeseries: TimeSeries) -> None:
        assert len(await timeseries.write(group)) == 25
        found = await timeseries.read("device-42", "c", *ALWAYS)
        assert found.value.tolist() == [one.block.value[4 * 42 + 2] for one in group]
        assert sum((await timeseries.committed("gw-north")).values()) == 10_000

    run(test)


@pytest.mark.parametrize("kind", ["duckdb", "influx"], indirect=True)
def test_what_was_stored_outlives_the_process(address: str, tmp_path: Path) -> None:
    first = batch(1, block((0, 0, 1.0, 0), (1, 0, math.nan, 17)))

    async def main() -> None:
        async with opened(address, tmp_path) as timeseries:
            await timeseries.write([first])
        async with opened(address, tmp_path) as timeseries:
            assert (await timeseries.latest(["level-s1"]))["level-s1", "distance"] == Sample(T0, 1.0, 0)
            assert await timeseries.write([first, batch(2, block((0, 1, 2.0, 0), (2, 1, 3.0, 0)))]) == {("gw-north", 2)}
            assert (await timeseries.read("level-s1", "distance", *ALWAYS)).value.tolist() == [1.0, 2.0]
            assert rows(await timeseries.read("level-s1", "level", *ALWAYS)) == [(T0, None, 17)]
            assert sum((await timeseries.committed("gw-north")).values()) == 4

    asyncio.run(main())


@pytest.mark.parametrize("url", ["sqlite:///x", "nothing", "influx://127.0.0.1:8086"])
def test_an_address_that_means_nothing_is_refused(url: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with Store(tmp_path / "relational.sqlite") as store:
            with pytest.raises(Refused, match="influx://"):
                await open_timeseries(url, store)

    asyncio.run(main())


def test_influx_that_is_down_asks_for_a_retry_and_is_found_when_it_is_up(tmp_path: Path) -> None:
    server = influx(tmp_path)
    address = f"influx://127.0.0.1:{server.port}/down"
    first = batch(1, block((0, 0, 1.0, 0)))

    async def main() -> None:
        async with opened(address, tmp_path) as timeseries:
            with pytest.raises(Retry):
                await timeseries.write([first])
            await asyncio.to_thread(server.start)
            try:
                assert await timeseries.write([first]) == {first.key}
                await asyncio.to_thread(server.kill)
                with pytest.raises(Retry):
                    await timeseries.write([batch(2, block((0, 1, 2.0, 0)))])
                await asyncio.to_thread(server.start)
                assert await timeseries.write([first, batch(2, block((0, 1, 2.0, 0)))]) == {("gw-north", 2)}
                assert (await timeseries.read("level-s1", "distance", *ALWAYS)).value.tolist() == [1.0, 2.0]
            finally:
                await asyncio.to_thread(server.stop)

    asyncio.run(main())


def test_the_embedded_store_survives_a_kill_and_lets_nobody_else_in(tmp_path: Path) -> None:
    """The process is killed after one group was written and while another one is on its way."""
    code = f"""
import asyncio, os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from cloud.timeseries.embedded import EmbeddedTimeSeries
from tests.contract.test_timeseries import batch, block
async def main():
    store = await EmbeddedTimeSeries.open(Path(sys.argv[1]))
    await store.write([batch(1, block((0, 0, 1.0, 0)))])
    print("written", flush=True)
    for seq in range(2, 10**6):
        await store.write([batch(seq, block((0, seq, float(seq), 0)))])
asyncio.run(main())
"""
    path = tmp_path / "samples.duckdb"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        with pytest.raises(Retry, match="lock"):
            asyncio.run(EmbeddedTimeSeries.open(path))
        writer.kill()

    async def main() -> None:
        store = await EmbeddedTimeSeries.open(path)
        values = (await store.read("level-s1", "distance", *ALWAYS)).value.tolist()
        assert values == [float(seq) for seq in range(1, len(values) + 1)]
        assert sum((await store.committed("gw-north")).values()) == len(values)
        again = [batch(seq, block((0, seq, float(seq), 0))) for seq in range(1, len(values) + 2)]
        assert await store.write(again) == {("gw-north", len(values) + 1)}
        await store.close()

    asyncio.run(main())
