"""The balance: what the gateways tell against what was committed."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cloud import balance as module
from cloud import events
from cloud.account import SILENT_S, Amounts
from cloud.balance import Balance
from cloud.events import Events
from cloud.store import Store
from cloud.timeseries.memory import MemoryTimeSeries
from cloud.timeseries.port import SampleBatch
from gateway.outbox import Outbox
from tests.gateways import tick
from tests.ingesting import HOUR_0, TABLE, sample_batch, world
from wire.batch import Batch, Status, Tally, decode
from wire.clock import HOUR, NANOSECONDS, Clock
from wire.topics import Lane

CITY = Clock(wall=0, city=0, speed=1.0)


class Wall:
    """A wall clock that stands where the test puts it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def status(
    at: int, *tallies: Tally, waiting: int = 0, batches: int = 0, online: bool = True, gateway: str = "gw-north"
) -> Status:
    return Status(gateway, "boot", at, online, batches, waiting, tallies)


def tally(acquired: int, filtered: int = 0, hour: int = HOUR_0, **dropped: int) -> Tally:
    return Tally(hour, acquired, filtered, 0, dropped)


Test = Callable[[Balance, Wall], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Test], None]:
    def run_with_balance(test: Test) -> None:
        async def main() -> None:
            async with Store(tmp_path / "cloud.sqlite") as store:
                wall = Wall()
                await test(Balance(store, Events(store), ["gw-north", "gw-south"], CITY, wall), wall)

        asyncio.run(main())

    return run_with_balance


Run = Callable[[Test], None]


def test_the_equation_closes_over_all_gateways(run: Run) -> None:
    async def test(balance: Balance, wall: Wall) -> None:
        balance.stored("gw-north", HOUR_0, 60)
        balance.stored("gw-south", HOUR_0, 5)
        balance.heard(status(1, tally(100, 25, outbox_full=5), waiting=10), retained=False)
        balance.heard(status(1, tally(5), gateway="gw-south"), retained=False)
        view = balance.view()
        assert view.closes
        assert view.gateways[0].amounts == Amounts(100, 25, {"outbox_full": 5}, 60, 10, 0)
        assert view.total == Amounts(105, 25, {"outbox_full": 5}, 65, 10, 0)

    run(test)


def test_what_is_neither_committed_nor_waiting_is_missing(run: Run) -> None:
    async def test(balance: Balance, wall: Wall) -> None:
        balance.stored("gw-north", HOUR_0, 60)
        balance.heard(status(1, tally(100), waiting=30), retained=False)
        view = balance.view()
        assert (view.total.in_flight, view.total.missing, view.closes) == (30, 10, False)

    run(test)


def test_commits_newer_than_the_status_neither_miss_nor_double(run: Run) -> None:
    async def test(balance: Balance, wall: Wall) -> None:
        balance.heard(status(1, tally(100), waiting=40), retained=False)
        balance.stored("gw-north", HOUR_0, 60)
        assert balance.view().total == Amounts(100, 0, {}, 60, 40, 0)
        balance.stored("gw-north", HOUR_0, 90)  # fifty of them acquired since that status
        assert balance.view().total == Amounts(150, 0, {}, 150, 0, 0)
        assert balance.view().closes

    run(test)


def test_more_committed_than_was_ever_acquired_does_not_close(run: Run) -> None:
    async def test(balance: Balance, wall: Wall) -> None:
        balance.stored("gw-north", HOUR_0, 110)
        balance.heard(status(1, tally(100)), retained=False)
        balance.heard(status(2, tally(100)), retained=False)
        assert not balance.view().closes
        balance.heard(status(3, tally(110)), retained=False)
        assert balance.view().closes

    run(test)


def test_a_gateway_that_says_nothing_is_silent_and_comes_back(run: Run) -> None:
    async def test(balance: Balance, wall: Wall) -> None:
        def state() -> str:
            return balance.view().gateways[0].state

        assert state() == "silent"
        balance.heard(status(1, tally(1)), retained=True)
        assert state() == "silent"  # that was the broker's memory
        balance.heard(status(2, tally(1)), retained=False)
        assert state() == "online"
        wall.seconds += SILENT_S - 0.1
        assert state() == "online"
        wall.seconds += 0.1
        assert state() == "silent"
        balance.heard(status(3, tally(1), batches=500), retained=False)
        assert state() == "behind"
        balance.heard(status(4, tally(1), batches=2), retained=False)
        assert state() == "online"

    run(test)


def test_a_will_silences_at_once_and_its_old_numbers_are_not_taken(run: Run) -> None:
    async def test(balance: Balance, wall: Wall) -> None:
        balance.heard(status(5, tally(100)), retained=False)
        balance.stored("gw-north", HOUR_0, 100)
        balance.heard(status(1, tally(3), online=False), retained=False)
        view = balance.view()
        assert view.gateways[0].state == "silent"
        assert view.total == Amounts(100, 0, {}, 100, 0, 0)
        balance.heard(status(6, tally(100)), retained=False)
        assert balance.view().gateways[0].state == "online"

    run(test)


def test_a_clock_that_was_ahead_once_does_not_silence_its_gateway_for_ever(run: Run) -> None:
    async def test(balance: Balance, wall: Wall) -> None:
        balance.heard(status(2**62, tally(3)), retained=False)
        balance.heard(status(6, tally(100)), retained=False)
        assert balance.view().total.acquired == 100

    run(test)


def test_a_gateways_own_counters_and_lost_devices_are_shown(run: Run) -> None:
    async def test(balance: Balance, wall: Wall) -> None:
        assert balance.counters() == {}
        told = Status("gw-north", "boot", 1, True, 0, 0, (), ("level-1",), {"edge_malformed_messages_total": 2})
        balance.heard(told, retained=False)
        (line, _) = balance.view().gateways
        assert (line.devices_down, line.counters) == (("level-1",), {"edge_malformed_messages_total": 2})
        assert balance.counters() == {"gw-north": {"edge_malformed_messages_total": 2}}

    run(test)


def test_its_events_do_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENT_EVERY_S", 0.0)
    monkeypatch.setattr(events.forget, "__defaults__", (3,))

    async def main() -> None:
        async with Store(tmp_path / "cloud.sqlite") as store:
            changes = Events(store)
            balance = Balance(store, changes, ["gw-north"], CITY)
            keeping = asyncio.create_task(balance.run(), name="balance")
            async with asyncio.timeout(5):
                while await changes.newest() < 6:
                    balance.stored("gw-north", HOUR_0, 1)
            keeping.cancel()
            await asyncio.wait([keeping])
            assert len(await changes.after(0)) == 3

    asyncio.run(main())


def test_the_hours_of_the_ledger(run: Run) -> None:
    async def test(balance: Balance, wall: Wall) -> None:
        balance.heard(status(1, tally(100, 40), tally(10, hour=HOUR_0 + HOUR)), retained=False)
        balance.stored("gw-north", HOUR_0, 60)
        balance.stored("gw-north", HOUR_0 + HOUR, 7)
        rows = balance.hours("gw-north")
        assert [(row.tally.hour, row.tally.acquired, row.committed, row.open) for row in rows] == [
            (HOUR_0, 100, 60, 0),
            (HOUR_0 + HOUR, 10, 7, 3),
        ]

    run(test)


def test_a_batch_that_straddles_an_hour_closes_in_both_hours(tmp_path: Path) -> None:
    full = HOUR_0 + HOUR

    async def main() -> None:
        sent: list[Batch] = []
        for now in (full - NANOSECONDS, full + NANOSECONDS):
            clock = Clock(wall=time.time_ns(), city=now, speed=1e-6)  # stands (nearly) still
            async with Outbox(tmp_path / "outbox", TABLE, clock) as outbox:
                # What arrives just after the full hour was taken before it (for the most part, or all of it).
                await outbox.append(tick(samples=3, filtered=1, taken_at=now))
                await outbox.append(tick(samples=2, taken_at=now - 5 * NANOSECONDS))
                sent = [decode(row.payload, Batch) for row in await outbox.next((), 9, 9)]
                report = await outbox.report()
        async with world(tmp_path) as city:
            await city.send(Lane.POINTS, TABLE)
            for batch in sent:
                await city.send(Lane.LIVE, batch)
            await city.send(Lane.STATUS, status(1, *report.tallies))
            await city.quiet()
            rows = city.balance.hours("gw-north")
        assert [(row.tally.hour, row.tally.acquired, row.committed, row.open) for row in rows] == [
            (HOUR_0, 6, 5, 0),
            (full, 6, 5, 0),
        ]

    asyncio.run(main())


def test_the_ledger_is_read_back_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENT_EVERY_S", 0.0)
    batch = sample_batch(1, 1.0, 2.0)

    async def main() -> None:
        timeseries = MemoryTimeSeries()
        await timeseries.write([SampleBatch("gw-north", 1, HOUR_0, TABLE, batch.block())])
        async with Store(tmp_path / "cloud.sqlite") as store:
            changes = Events(store)
            first = Balance(store, changes, ["gw-north"], CITY)
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(first.run(), name="balance")
                first.heard(status(1, tally(9, 1, too_old=4), waiting=2), retained=False)
                async for event in changes.follow(0):
                    assert event.kind == "balance"
                    break
                running.cancel()
            second = Balance(store, changes, ["gw-north"], CITY)
            await second.load(timeseries)
            view = second.view()
            assert view.total == Amounts(9, 1, {"too_old": 4}, 2, 2, 0)  # until it is heard, nothing counts as missing
            assert view.gateways[0].state == "silent"

    asyncio.run(main())


def test_silence_is_told_to_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENT_EVERY_S", 0.0)

    async def main() -> None:
        wall = Wall()
        async with Store(tmp_path / "cloud.sqlite") as store:
            changes = Events(store)
            balance = Balance(store, changes, ["gw-north"], CITY, wall)
            balance.heard(status(1, tally(1)), retained=False)
            wall.seconds += SILENT_S - 0.05  # nearly silent when it begins to run
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(balance.run(), name="balance")
                stream = changes.follow(0)
                await anext(stream)  # of the status
                wall.seconds += 0.05
                await anext(stream)  # of the silence
                await stream.aclose()
                running.cancel()

    asyncio.run(main())
