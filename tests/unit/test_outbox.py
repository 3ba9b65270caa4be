"""The outbox: durable before anything is sent, in the order of urgency, bounded, and never in the way of judging."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from edge.agent import HISTORY_KNOWN, MESSAGES_KNOWN
from gateway.outbox import Outbox
from gateway.rows import CLOCK_SET, Bounds, Report
from rules.samples import PointTable
from tests.gateways import START, TABLE, accepted, tick
from wire.batch import Batch, Receipt, decode
from wire.clock import HOUR, NANOSECONDS, Clock
from wire.counted import Counted
from wire.topics import Lane


def clock_at(city: int) -> Clock:
    """A clock that stands (nearly) still at an instant of city time."""
    return Clock(wall=time.time_ns(), city=city, speed=1e-6)


@asynccontextmanager
async def opened(
    folder: Path,
    now: int = START,
    bounds: Bounds | None = None,
    counted: Counted | None = None,
    table: PointTable = TABLE,
) -> AsyncIterator[Outbox]:
    async with Outbox(folder, table, clock_at(now), bounds, counted) as outbox:
        yield outbox


def batches(rows: list[object]) -> list[Batch]:
    return [decode(row.payload, Batch) for row in rows]  # type: ignore[attr-defined]


def the_equation_closes(report: Report) -> bool:
    acquired = sum(tally.acquired for tally in report.tallies)
    gone = sum(tally.filtered + tally.sent + sum(tally.dropped.values()) for tally in report.tallies)
    return acquired == gone + report.samples


def test_the_messages_taken_are_known_after_a_restart_the_newest_of_each_origin(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            await outbox.append(replace(tick(samples=1), messages=(("lid x", 5), ("camera y", 7))))
            for stamp in range(10, 10 + MESSAGES_KNOWN):
                await outbox.append(replace(tick(samples=1), messages=(("lid x", stamp), ("lid x", stamp))))
        async with opened(tmp_path) as outbox:
            known = await outbox.messages()
        assert known == [("camera y", 7), *(("lid x", stamp) for stamp in range(10, 10 + MESSAGES_KNOWN))]

    asyncio.run(scenario())


def test_messages_are_forgotten_in_the_order_of_taking_whatever_their_clocks_said(tmp_path: Path) -> None:
    """A late one is known as long as any, one of the future no longer, and longer what tells again what it told."""
    stamps = [2**60, *range(100, 100 + MESSAGES_KNOWN), 5]
    history = [("level x history", stamp) for stamp in range(HISTORY_KNOWN)]

    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            await outbox.append(replace(tick(samples=1), messages=tuple(("lid x", stamp) for stamp in stamps)))
            await outbox.append(replace(tick(samples=1), messages=tuple(history)))
        async with opened(tmp_path) as outbox:
            known = await outbox.messages()
        assert known == [*(("lid x", stamp) for stamp in stamps[-MESSAGES_KNOWN:]), *history]

    asyncio.run(scenario())


def test_a_tick_becomes_an_alert_batch_and_a_sample_batch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            await outbox.append(tick(samples=3, filtered=2, alerts=2))
            alert, samples = batches(await outbox.next((), 9, 9))  # type: ignore[arg-type]
            assert len(alert.transitions) == 2
            assert alert.samples is None
            assert samples.transitions == ()
            assert samples.block().value.tolist() == [0.0, 1.0, 2.0]
            assert samples.seq == alert.seq + 1
            assert {alert.boot, samples.boot} == {outbox.boot}
            assert samples.points == TABLE.digest()
            assert samples.settled_below == alert.seq
            assert samples.clock_ok
            assert outbox.more.is_set()

    asyncio.run(scenario())


def test_a_tick_with_nothing_to_send_leaves_only_its_tally(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            await outbox.append(tick(filtered=7))
            assert await outbox.next((), 9, 9) == []
            (tally,) = (await outbox.report()).tallies
            assert (tally.hour, tally.acquired, tally.filtered) == (START - START % HOUR, 7, 7)

    asyncio.run(scenario())


def test_alerts_go_first_then_fresh_samples_then_history(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            await outbox.append(tick(samples=1, taken_at=START - 3600 * NANOSECONDS))
            await outbox.append(tick(samples=1, taken_at=START - 59 * NANOSECONDS))
            await outbox.append(tick(samples=1, taken_at=START - 61 * NANOSECONDS))
            await outbox.append(tick(samples=1, taken_at=START, alerts=1))
            # A cover reports every 600 s: what it said twelve minutes ago is still the state of the street.
            await outbox.append(tick(samples=1, taken_at=START - 720 * NANOSECONDS, point=1))
            rows = await outbox.next((), 9, 9)
            assert [row.lane_at(START) for row in rows] == [Lane.ALERT, *[Lane.LIVE] * 3, *[Lane.BACKFILL] * 2]
            first = min(row.seq for row in rows)
            assert [row.seq - first for row in rows] == [3, 1, 4, 5, 0, 2]
            later = START + 3600 * NANOSECONDS
            assert {row.lane_at(later) for row in rows} == {Lane.ALERT, Lane.BACKFILL}

    asyncio.run(scenario())


def test_what_is_in_flight_is_not_chosen_again_and_windows_bound_both_kinds(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            for _ in range(4):
                await outbox.append(tick(samples=1, alerts=1))
            first = await outbox.next((), 1, 2)
            assert [row.alert for row in first] == [True, False, False]
            second = await outbox.next({row.seq for row in first}, 9, 9)
            assert [row.alert for row in second] == [True, True, True, False, False]
            assert await outbox.next({row.seq for row in first}, 0, 0) == []

    asyncio.run(scenario())


def test_only_a_receipt_lets_go_and_its_repeat_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            await outbox.append(tick(samples=5))
            await outbox.append(tick(samples=3))
            a, b = [row.seq for row in await outbox.next((), 9, 9)]
            receipts = [Receipt((a,), ((b, "malformed"),))]
            await outbox.settle(receipts)
            once = await outbox.report()
            await outbox.settle(receipts)
            assert await outbox.report() == once
            assert (once.batches, once.samples) == (0, 0)
            assert (once.tallies[0].sent, once.tallies[0].dropped) == (5, {"rejected_malformed": 3})
            assert the_equation_closes(once)

    asyncio.run(scenario())


def test_numbers_never_come_again_not_even_on_a_new_disk(tmp_path: Path) -> None:
    async def scenario() -> None:
        seen: list[int] = []
        for folder in ("a", "a", "b"):
            async with opened(tmp_path / folder) as outbox:
                await outbox.append(tick(samples=1))
                (row,) = await outbox.next((), 9, 9)
                await outbox.settle([accepted([row.seq])])
                seen.append(row.seq)
            await asyncio.sleep(0.002)  # a new disk counts on from the wall clock's milliseconds
        assert seen == sorted(set(seen))

    asyncio.run(scenario())


def test_everything_is_still_there_after_reopening_and_is_the_same_to_the_byte(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            assert await outbox.engine_state() is None
            await outbox.append(tick(samples=5, alerts=1, state=b"state 1"))
            await outbox.append(tick(state=b"state 2"))
            before, report = await outbox.next((), 9, 9), await outbox.report()
        async with opened(tmp_path) as outbox:
            assert await outbox.next((), 9, 9) == before
            assert await outbox.report() == report
            assert await outbox.engine_state() == b"state 2"

    asyncio.run(scenario())


def test_what_meters_have_counted_is_stored_with_the_samples_and_read_at_the_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            assert await outbox.counters() is None
            await outbox.append(replace(tick(samples=1), counters=b"count 1"))
            await outbox.append(replace(tick(samples=1), counters=b"count 2"))
            await outbox.append(tick(samples=1, state=b"state"))
        async with opened(tmp_path) as outbox:
            assert await outbox.counters() == b"count 2"
            assert await outbox.engine_state() == b"state"

    asyncio.run(scenario())


def test_a_batch_says_whether_the_clock_of_its_box_can_be_believed(tmp_path: Path) -> None:
    believed = {"synchronised": False}

    async def clock_ok(now: int) -> bool:
        async with Outbox(tmp_path, TABLE, clock_at(now), synchronised=lambda: believed["synchronised"]) as outbox:
            await outbox.append(tick(samples=1))
            (batch,) = batches(rows := await outbox.next((), 9, 9))  # type: ignore[arg-type]
            await outbox.settle([accepted([row.seq for row in rows])])
            return batch.clock_ok

    assert not asyncio.run(clock_ok(START))
    believed["synchronised"] = True
    assert asyncio.run(clock_ok(START))
    assert not asyncio.run(clock_ok(CLOCK_SET - NANOSECONDS))


def test_waiting_batches_keep_their_own_point_table(tmp_path: Path) -> None:
    changed = PointTable(TABLE.gateway, TABLE.points[:1])

    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            await outbox.append(tick(samples=1))
        async with opened(tmp_path, table=changed) as outbox:
            assert [decode(table, PointTable) for table in await outbox.tables()] == [TABLE, changed]
            await outbox.settle([accepted([row.seq for row in await outbox.next((), 9, 9)])])
        async with opened(tmp_path, table=changed) as outbox:
            assert [decode(table, PointTable) for table in await outbox.tables()] == [changed]

    asyncio.run(scenario())


def test_a_full_box_drops_the_oldest_samples_first_and_alerts_last(tmp_path: Path) -> None:
    counted = Counted()

    async def scenario() -> None:
        async with opened(tmp_path, bounds=Bounds(max_bytes=2000), counted=counted) as outbox:
            await outbox.append(tick(samples=1, alerts=1))
            for _ in range(40):
                await outbox.append(tick(samples=1))
            rows, report = await outbox.next((), 99, 99), await outbox.report()
            assert rows[0].alert
            assert sum(len(row.payload) for row in rows) <= 2000
            assert rows[-1].seq == max(row.seq for row in rows) == rows[1].seq + len(rows) - 2
            assert report.tallies[0].dropped == {"outbox_full": counted["outbox_full_batches_total"]}
            assert the_equation_closes(report)
            for _ in range(20):
                await outbox.append(tick(alerts=3))
            assert all(row.alert for row in await outbox.next((), 99, 99))
            assert the_equation_closes(await outbox.report())

    asyncio.run(scenario())


def test_samples_that_grew_too_old_are_dropped_and_counted(tmp_path: Path) -> None:
    bounds = Bounds(max_age_s=86_400.0)

    async def scenario() -> None:
        async with opened(tmp_path, bounds=bounds) as outbox:
            await outbox.append(tick(samples=4, alerts=1))
        async with opened(tmp_path, now=START + 25 * HOUR, bounds=bounds) as outbox:
            await outbox.append(tick(samples=2, taken_at=START + 25 * HOUR))
            assert [row.alert for row in await outbox.next((), 9, 9)] == [True, False]
            report = await outbox.report()
            assert [tally.dropped for tally in report.tallies] == [{"too_old": 4}, {}]
            assert the_equation_closes(report)

    asyncio.run(scenario())


def test_a_damaged_file_is_moved_aside_and_counted(tmp_path: Path) -> None:
    counted = Counted()

    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            await outbox.append(tick(samples=50, alerts=1))
        file = tmp_path / "outbox.sqlite"
        file.write_bytes(b"no database at all" * 1000)
        async with opened(tmp_path, counted=counted) as outbox:
            await outbox.append(tick(samples=1))
            assert len(await outbox.next((), 9, 9)) == 1
        assert counted["outbox_damaged_files_total"] == 1
        assert (tmp_path / "outbox.damaged").read_bytes().startswith(b"no database")
        async with opened(tmp_path, counted=counted) as outbox:
            assert len(await outbox.next((), 9, 9)) == 1
        assert counted["outbox_damaged_files_total"] == 1

    asyncio.run(scenario())


def test_a_disk_that_cannot_be_written_is_left_for_memory_with_all_that_waits(tmp_path: Path) -> None:
    counted = Counted()

    async def scenario() -> None:
        async with opened(tmp_path, counted=counted) as outbox:
            await outbox.append(tick(samples=3, alerts=1))
            await outbox._on_thread(lambda: outbox._rows.connection.execute("PRAGMA query_only = ON"))
            await outbox.append(tick(samples=2))
            assert counted["outbox_disk_failures_total"] == 1
            rows, report = await outbox.next((), 9, 9), await outbox.report()
            assert [row.alert for row in rows] == [True, False, False]
            assert the_equation_closes(report)
            await outbox.settle([accepted([row.seq for row in rows])])
            assert (await outbox.report()).batches == 0

    asyncio.run(scenario())


def test_a_folder_that_cannot_be_made_does_not_stop_the_gateway(tmp_path: Path) -> None:
    counted = Counted()
    (tmp_path / "file").touch()

    async def scenario() -> None:
        async with opened(tmp_path / "file" / "data", counted=counted) as outbox:
            await outbox.append(tick(samples=3))
            assert (await outbox.report()).samples == 3
            assert counted["outbox_disk_failures_total"] == 1

    asyncio.run(scenario())


def test_a_tick_that_cannot_be_appended_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            broken = replace(tick(samples=3, alerts=1, state=b"x"), counters=b"x")
            broken.block.point[:] = 99  # no such point
            try:
                await outbox.append(broken)
            except IndexError:
                pass
            else:
                raise AssertionError("a point that is not in the table was taken")
            report = await outbox.report()
            assert (report.batches, report.samples, report.tallies) == (0, 0, ())
            assert await outbox.engine_state() is None
            assert await outbox.counters() is None
            await outbox.append(tick(samples=1))
            assert len(await outbox.next((), 9, 9)) == 1

    asyncio.run(scenario())


_VICTIM = """
import asyncio, sys, time
from pathlib import Path
from gateway.outbox import Outbox
from tests.gateways import START, TABLE, tick
from wire.clock import Clock

async def main():
    async with Outbox(Path(sys.argv[1]), TABLE, Clock(time.time_ns(), START, 1e-6)) as outbox:
        for number in range(100_000):
            await outbox.append(tick(samples=2, filtered=1, alerts=1))
            print(number + 1, flush=True)

asyncio.run(main())
"""


def test_what_append_returned_for_survives_a_kill(tmp_path: Path) -> None:
    victim = subprocess.Popen([sys.executable, "-c", _VICTIM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    told = 0
    for line in victim.stdout:
        told = int(line)
        if told == 20:
            victim.send_signal(signal.SIGKILL)
    victim.stdout.close()
    victim.wait()

    async def scenario() -> None:
        async with opened(tmp_path) as outbox:
            report = await outbox.report()
            assert report.batches in (2 * told, 2 * told + 2)  # the last one may be there without having been told
            assert report.tallies[0].acquired == report.batches // 2 * 3
            assert the_equation_closes(report)

    asyncio.run(scenario())


def test_sqlite_is_set_to_survive_a_power_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as outbox:

            def settings() -> list[object]:
                connection: sqlite3.Connection = outbox._rows.connection
                return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

            assert await outbox._on_thread(settings) == ["wal", 2]

    asyncio.run(scenario())
