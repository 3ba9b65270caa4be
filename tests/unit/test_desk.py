"""The desk's own duties: idempotence, joining, deadlines that wake by themselves, bad input that stops nothing."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from sqlalchemy import Connection, update
from sqlalchemy.exc import OperationalError

from cloud import desk as module
from cloud.desk import Desk
from cloud.registry import Registry
from cloud.store import Store
from cloud.workorders.life import NotAllowed
from cloud.workorders.order import State, order_table
from rules.alert import Phase
from rules.declared import Refused
from rules.district import load_district
from tests.desk_city import DISTRICT, City, at, catalog, in_city, registry, told
from wire.clock import Clock

T = TypeVar("T")


def test_the_same_told_twice_changes_nothing(tmp_path: Path) -> None:
    steps = [
        told("cover.open", "cover-n1", Phase.PENDING, "open", 0, 1),
        told("cover.open", "cover-n1", Phase.RAISED, "open", 60, 2),
    ]

    async def story(city: City) -> None:
        await city.tell(61, *steps)
        before = (await city.orders(), await city.alerts(), await city.events.newest())
        await city.tell(62, *reversed(steps))
        await city.tell(63, *steps)
        assert (await city.orders(), await city.alerts(), await city.events.newest()) == before

    in_city(tmp_path, story)


def test_an_earlier_revision_never_overwrites_a_later(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(121, told("cover.open", "cover-n1", Phase.CLEARED, "open", 120, 3))
        await city.tell(122, told("cover.open", "cover-n1", Phase.RAISED, "open", 100, 2))
        alert = (await city.alerts())["cover-n1"]
        assert (alert.phase, alert.revision, alert.raised_at) == (Phase.CLEARED, 3, at(100))
        assert alert.code == "cleared_before_arrival"
        assert not await city.orders()

    in_city(tmp_path, story)


def test_two_covers_are_two_incidents_and_one_cover_opened_again_is_not(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(1, told("cover.open", "cover-n1", Phase.RAISED, "open", 0, 1))
        await city.tell(2, told("cover.open", "cover-n2", Phase.RAISED, "open", 1, 1))
        assert len(await city.orders()) == 2
        await city.tell(10, told("cover.open", "cover-n1", Phase.CLEARED, "open", 9, 2))
        await city.tell(21, told("cover.open", "cover-n1", Phase.RAISED, "open", 20, 1, since=20))
        assert len(await city.orders()) == 2
        assert (await city.alerts())["cover-n1"].code == "joined_incident"

    in_city(tmp_path, story)


def test_after_it_is_handled_and_quiet_the_next_is_a_new_incident(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(1, told("cover.open", "cover-n1", Phase.RAISED, "open", 0, 1))
        order = (await city.order()).id
        await city.act(5, order, "accept")
        await city.act(6, order, "arrive")
        await city.act(7, order, "handle", finding="handled")
        await city.tell(10, told("cover.open", "cover-n1", Phase.CLEARED, "open", 9, 2))
        await city.tell(2001, told("cover.open", "cover-n1", Phase.RAISED, "open", 2000, 1, since=2000))
        assert len(await city.orders()) == 2

    in_city(tmp_path, story)


def test_a_returned_order_goes_to_somebody_and_a_cancelled_one_is_over(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(1, told("cover.open", "cover-n1", Phase.RAISED, "open", 0, 1))
        order = (await city.order()).id
        await city.act(2, order, "return", why="not our street")
        moved = await city.act(3, order, "redispatch", role="dispatcher")
        assert (moved.state, moved.unit) == (State.DISPATCHED, "roads-south")
        await city.act(4, order, "cancel", why="duplicate of a call")
        with pytest.raises(NotAllowed):
            await city.act(5, order, "accept")
        entries = await city.trail(order)
        assert [entry.action for entry in entries] == ["register", "dispatch", "return", "redispatch", "cancel"]

    in_city(tmp_path, story)


def test_numbers_count_by_the_day(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        for n, cover in enumerate(["cover-n1", "cover-n2"]):
            await city.tell(n, told("cover.open", cover, Phase.RAISED, "open", n, 1))
        next_day = 5 * 3600
        await city.tell(next_day, told("cover.open", "cover-n3", Phase.RAISED, "open", next_day, 1))
        assert [order.number for order in await city.orders()] == ["20260618-0001", "20260618-0002", "20260619-0001"]

    in_city(tmp_path, story)


def test_numbers_go_on_after_the_ten_thousandth_of_a_day(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(0, told("cover.open", "cover-n1", Phase.RAISED, "open", 0, 1))
        busy = update(order_table).values(number="20260618-9999")
        await city.store.write(lambda connection: connection.execute(busy).rowcount)
        for n, cover in enumerate(["cover-n2", "cover-n3"], start=1):
            await city.tell(n, told("cover.open", cover, Phase.RAISED, "open", n, 1))
        numbers = [order.number for order in await city.orders()]
        assert numbers == ["20260618-9999", "20260618-10000", "20260618-10001"]

    in_city(tmp_path, story)


def test_unknown_rules_and_devices_are_counted_and_the_next_passes(tmp_path: Path) -> None:
    good = told("cover.open", "cover-n1", Phase.RAISED, "open", 60, 1)
    bad = [
        msgspec.structs.replace(good, alert="1", rule="nobody.knows"),
        msgspec.structs.replace(good, alert="2", device="nowhere"),
        msgspec.structs.replace(good, alert="3", device="lamp-n1"),  # of another kind
        msgspec.structs.replace(good, alert="4", device="cover-s1"),  # of another gateway
    ]

    async def story(city: City) -> None:
        await city.store.write(lambda connection: city.desk.take(connection, "gw-north", [*bad, good], at(61)))
        assert city.counted["desk_unknown_transitions_total"] == 4
        await city.order()

    in_city(tmp_path, story)


def test_deadlines_wake_by_themselves_in_city_time(tmp_path: Path) -> None:
    async def run() -> None:
        async with Store(tmp_path / "cloud.sqlite") as store:
            city = City(store, registry())
            clock = Clock(wall=time.time_ns(), city=at(59), speed=1000.0)  # the wait of five minutes lasts 0.3 s
            city.desk = Desk(city.registry, city.events, clock, city.counted)
            watching = asyncio.create_task(city.desk.run(store), name="deadlines")
            following = city.events.follow(0)
            await city.tell(61, told("flood.depth", "level-n1", Phase.RAISED, "close", 60, 1))
            await city.desk.committed()
            async with asyncio.timeout(5):
                async for event in following:
                    if event.kind == "work_order":
                        break
            await following.aclose()
            watching.cancel()
            await asyncio.wait([watching])
            assert (await city.order()).confirmation.code == "unconfirmed_dispatched"

    asyncio.run(run())


def test_a_store_that_is_full_at_a_deadline_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    failures = iter(["database is locked", "database or disk is full"])

    class Full(Store):
        async def write(self, do: Callable[[Connection], T]) -> T:
            for failure in failures:
                raise OperationalError("update", {}, Exception(failure))
            return await super().write(do)

    async def run() -> None:
        async with Store(tmp_path / "cloud.sqlite") as store:
            city = City(store, registry())
            await city.tell(61, told("flood.depth", "level-n1", Phase.RAISED, "close", 60, 1))
            city.desk = Desk(city.registry, city.events, Clock(wall=time.time_ns(), city=at(400)), city.counted)
            full = Full(tmp_path / "cloud.sqlite")
            watching = asyncio.create_task(city.desk.run(full), name="deadlines")
            following = city.events.follow(await city.events.newest())
            async with asyncio.timeout(5):
                await anext(following)
            await following.aclose()
            watching.cancel()
            await asyncio.wait([watching])
            await full.close()
            assert (await city.order()).confirmation.code == "unconfirmed_dispatched"
            assert city.counted["desk_deadline_retries_total"] == 2

    asyncio.run(run())


def test_a_catalog_that_nobody_could_answer_for_is_refused() -> None:
    district = load_district(DISTRICT.read_text(encoding="utf-8"), "district.toml")
    with pytest.raises(Refused, match="twice"):
        Registry(district, [*catalog(), catalog()[0]])
    without = msgspec.structs.replace(district, unit=district.unit[:2])
    with pytest.raises(Refused, match="no unit of the district answers for `covers`"):
        Registry(without, catalog())


def test_distances_are_great_circles() -> None:
    """level-n1 to level-n2: 0.0006° of longitude and 0.0002° of latitude at 31.256° north."""
    known = registry()
    assert known.distance_m("level-n1", "level-n2") == pytest.approx(61.2, abs=0.5)
    assert known.distance_m("level-n1", "level-n1") == 0
