"""Timelines at the alert desk: this is told at one second, that is wanted by another."""

from pathlib import Path

import numpy as np
import pytest

from cloud import trail
from cloud.registry import Registry
from cloud.workorders.order import State
from rules.alert import Phase, Severity
from rules.catalog import catalog
from rules.district import load_district
from rules.engine import Engine
from rules.samples import POINT, QUALITY, TIME, Block, Point, PointTable
from tests.desk_city import DISTRICT, START, City, at, in_city, told
from wire.clock import NANOSECONDS


def test_a_flood_that_rises_is_one_order_with_three_announcements_and_a_closure(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(31, told("rain.heavy", "rain-n1", Phase.RAISED, "heavy", 30, 1))
        assert not await city.orders()
        await city.tell(61, told("flood.depth", "level-n1", Phase.RAISED, "slow", 60, 1, since=30))
        order = await city.order()
        assert (order.level, order.decided_at, order.closure) == ("slow", at(60), None)
        assert order.confirmation.code == "corroborated"
        assert order.confirmation.by == ("rain-n1",)
        assert (order.unit, order.dispatch.code) == ("drainage-north", "function_territory")

        await city.tell(201, told("flood.depth", "level-n1", Phase.UPDATED, "close", 200, 2, since=30))
        order = await city.order()
        assert (order.severity, order.closure and order.closure.closed_at) == (Severity.II, at(200))
        await city.tell(301, told("flood.depth", "level-n1", Phase.UPDATED, "severe", 300, 3, since=30))
        await city.tell(311, told("flood.depth", "level-n2", Phase.RAISED, "slow", 310, 1, since=280))

        order = await city.order()
        assert [each.level for each in order.announcements] == ["slow", "close", "severe"]
        assert [each.decided_at for each in order.announcements] == [at(60), at(200), at(300)]
        assert order.due_at == at(61 + 7200), "a rise never loosens the clock"
        alerts = await city.alerts()
        assert alerts["level-n2"].code == "joined_incident"
        assert alerts["level-n2"].incident == order.incident

        await city.tell(601, told("flood.depth", "level-n1", Phase.UPDATED, "close", 600, 4, since=30))
        closure = (await city.order()).closure
        assert closure is not None
        assert closure.lifted_at is None
        await city.tell(701, told("flood.depth", "level-n1", Phase.UPDATED, "slow", 700, 5, since=30))
        closure = (await city.order()).closure
        assert closure is not None
        assert (closure.closed_at, closure.lifted_at) == (at(200), at(700))
        order = await city.order()
        assert order.severity is Severity.I, "an order keeps the gravest level it was told"
        entries = await city.trail(order.id)
        assert trail.valid(entries)
        wanted = ["register", "dispatch", "announce", "closure", "announce", "join", "lift"]
        assert [entry.action for entry in entries] == wanted

    in_city(tmp_path, story)


def test_a_flood_nobody_confirms_is_sent_at_its_deadline_once_it_closes_the_road(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(61, told("flood.depth", "level-s1", Phase.RAISED, "close", 60, 1, since=30))
        await city.due(359.9)
        assert (await city.alerts())["level-s1"].code == "waiting_corroboration"
        assert not await city.orders()
        await city.due(360)
        order = await city.order()
        assert order.confirmation.code == "unconfirmed_dispatched"
        assert order.decided_at == at(360)
        assert order.closure is not None
        assert order.unit == "drainage-south"

    in_city(tmp_path, story)


def test_a_truck_over_a_cover_lapses_and_stands_in_the_held_back_list(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(1, told("cover.open", "cover-n1", Phase.PENDING, "open", 0, 1))
        alert = (await city.alerts())["cover-n1"]
        assert alert.decision is None, "a pending one is neither dispatched nor held"
        await city.tell(9, told("cover.open", "cover-n1", Phase.LAPSED, "open", 8, 2))
        alert = (await city.alerts())["cover-n1"]
        assert alert.decision is not None
        assert (alert.verdict, alert.code) == ("held", "lapsed")
        assert alert.decision.numbers == {"lasted_s": 8.0, "on_delay_s": 30.0}
        assert not await city.orders()

    in_city(tmp_path, story)


def test_headlights_are_held_after_their_wait(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(21, told("camera.water", "camera-s1", Phase.RAISED, "seen", 20, 1))
        await city.due(319)
        assert (await city.alerts())["camera-s1"].verdict == "waiting"
        await city.due(320)
        alert = (await city.alerts())["camera-s1"]
        assert (alert.verdict, alert.code) == ("held", "not_corroborated")
        assert not await city.orders()

    in_city(tmp_path, story)


def test_a_camera_and_a_flood_confirm_each_other(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(21, told("camera.water", "camera-n1", Phase.RAISED, "seen", 20, 1))
        await city.due(400)
        assert (await city.alerts())["camera-n1"].verdict == "held"
        await city.tell(501, told("flood.depth", "level-n1", Phase.RAISED, "slow", 500, 1, since=470))
        order = await city.order()
        assert order.hazard == "flood"
        alerts = await city.alerts()
        assert alerts["camera-n1"].code == "joined_incident"
        assert {alert.incident for alert in alerts.values()} == {order.incident}

    in_city(tmp_path, story)


def test_a_frozen_sensor_is_a_device_fault_for_the_sensing_unit(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(901, told("device.stuck.level", "level-s2", Phase.RAISED, "stuck", 900, 1))
        order = await city.order()
        assert (order.case, order.unit, order.dispatch.code) == ("device", "sensing", "function_everywhere")
        await city.tell(931, told("device.silent.level", "level-s2", Phase.RAISED, "silent", 930, 1))
        await city.order()
        await city.tell(941, told("device.silent.level", "level-s1", Phase.RAISED, "silent", 940, 1))
        assert len(await city.orders()) == 2, "one incident per device"

    in_city(tmp_path, story)


def test_a_road_stays_closed_while_its_gauge_is_frozen_in_the_water(tmp_path: Path) -> None:
    gauge = Point("level-n1", "level_sensor", "level", "m", 10.0)
    engine = Engine(PointTable("gw-north", (gauge,)), catalog())

    async def read(city: City, value: float, start: float, stop: float) -> None:
        """Poll the gauge every 10 s; what the gateway tells arrives a second after it was decided."""
        for second in np.arange(start, stop, 10.0).tolist():
            block = Block(np.zeros(1, POINT), np.array([at(second)], TIME), np.array([value]), np.zeros(1, QUALITY))
            for step in engine.evaluate(block):
                await city.tell((step.decided_at - START) / NANOSECONDS + 1, step)

    async def lifted(city: City) -> int | None:
        (order,) = [order for order in await city.orders() if order.hazard == "flood"]
        assert order.closure is not None
        return order.closure.lifted_at

    async def story(city: City) -> None:
        await city.tell(1, told("rain.heavy", "rain-n1", Phase.RAISED, "heavy", 0, 1))
        for minute in range(10):
            await read(city, 0.03 * minute, 60 * minute, 60 * minute + 60)
        await read(city, 0.30, 600, 600 + 7200)
        assert await lifted(city) is None
        stuck = (await city.alerts())["level-n1"]
        assert (stuck.rule, stuck.verdict) == ("device.stuck.level", "dispatched"), "somebody is sent to look"
        await read(city, 0.02, 7800, 7860)
        assert await lifted(city) == at(7800)

    in_city(tmp_path, story, Registry(load_district(DISTRICT.read_text(encoding="utf-8"), "district.toml"), catalog()))


def test_raised_during_a_cut_and_still_true_dispatches_after_the_grace(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(601, told("cover.open", "cover-n1", Phase.RAISED, "open", 60, 1))
        assert (await city.alerts())["cover-n1"].code == "arrived_late"
        await city.due(602.9)
        assert not await city.orders()
        await city.due(603)
        order = await city.order()
        assert (order.confirmation.code, order.decided_at) == ("auto", at(60))

    in_city(tmp_path, story)


@pytest.mark.parametrize("together", [True, False])
def test_raised_and_cleared_before_arrival_does_not_dispatch(tmp_path: Path, together: bool) -> None:
    raised = told("cover.open", "cover-n1", Phase.RAISED, "open", 60, 1)
    cleared = told("cover.open", "cover-n1", Phase.CLEARED, "open", 300, 2)

    async def story(city: City) -> None:
        if together:
            await city.tell(601, raised, cleared)
        else:
            await city.tell(601, raised)
            await city.tell(602, cleared)
        await city.due(700)
        alert = (await city.alerts())["cover-n1"]
        assert (alert.verdict, alert.code) == ("held", "cleared_before_arrival")
        assert not await city.orders()

    in_city(tmp_path, story)


def test_a_person_overrules_what_was_held(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(21, told("camera.water", "camera-s1", Phase.RAISED, "seen", 20, 1))
        await city.due(320)
        alert = (await city.alerts())["camera-s1"]
        order = await city.store.write(lambda c: city.desk.dispatch(c, alert.id, "duty-1", "seen on video", at(400)))
        assert order.state is State.DISPATCHED
        assert order.confirmation.code == "dispatched_by_person"
        first = (await city.trail(order.id))[0]
        assert (first.who, first.why) == ("duty-1", "seen on video")

    in_city(tmp_path, story)


def test_a_closed_case_that_grows_worse_is_a_new_case_and_a_repeat_is_not(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(31, told("rain.heavy", "rain-n1", Phase.RAISED, "heavy", 30, 1))
        await city.tell(61, told("flood.depth", "level-n1", Phase.RAISED, "slow", 60, 1))
        closed = await city.close(200, (await city.order()).id)
        assert closed.sensor_abnormal, "closed while the sensor still reads abnormal"
        await city.tell(241, told("flood.depth", "level-n2", Phase.RAISED, "slow", 190, 1))
        assert (await city.alerts())["level-n2"].incident == closed.incident, "told late, true before the close"
        await city.tell(301, told("flood.depth", "level-n1", Phase.UPDATED, "severe", 300, 2))
        first, second = await city.orders()
        assert first.severity is Severity.III
        assert (second.severity, second.state) == (Severity.I, State.DISPATCHED)
        assert second.closure is not None

    in_city(tmp_path, story)


def test_no_device_vouches_for_itself_when_the_one_that_confirmed_comes_to_lead(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(31, told("flood.depth", "level-n1", Phase.RAISED, "slow", 30, 1))
        assert not await city.orders()
        await city.tell(51, told("camera.water", "camera-n1", Phase.RAISED, "seen", 50, 1))
        order = await city.order()
        assert [told.rule for told in order.announcements] == ["camera.water", "flood.depth"]
        assert order.device == "level-n1"
        assert order.confirmation.by == ("camera-n1",)

    in_city(tmp_path, story)
