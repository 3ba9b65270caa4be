"""The catalog and the district are edited while alerts wait and orders are open: nothing stops, all stays shown."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from cloud.desk import Desk
from cloud.registry import Registry
from cloud.workorders.life import NotAllowed
from rules.alert import Phase
from rules.district import load_district
from tests.desk_city import DISTRICT, City, at, catalog, in_city, told
from tests.unit.test_api import Centre, visit
from wire.clock import Clock


def edited(*, rule: str = "", device: str = "", unit: str = "") -> Registry:
    """The registry as it is after one rule or device was removed, or a unit renamed."""
    district = load_district(DISTRICT.read_text(encoding="utf-8"), "district.toml")
    renamed = [msgspec.structs.replace(each, id=f"{each.id}-2") if each.id == unit else each for each in district.unit]
    devices = tuple(each for each in district.device if each.id != device)
    district = msgspec.structs.replace(district, device=devices, unit=tuple(renamed))
    return Registry(district, [each for each in catalog() if each.id != rule])


def restart(city: City, registry: Registry) -> None:
    city.registry = registry
    city.desk = Desk(registry, city.events, Clock(speed=1.0), city.counted)


@pytest.mark.parametrize(
    ("registry", "code"),
    [(edited(rule="flood.depth"), "unknown_rule"), (edited(device="level-n1"), "unknown_device")],
)
def test_what_waits_and_is_known_no_more_is_held_once_and_stops_nothing(
    tmp_path: Path, registry: Registry, code: str
) -> None:
    async def story(city: City) -> None:
        await city.tell(61, told("flood.depth", "level-n1", Phase.RAISED, "close", 60, 1))
        restart(city, registry)
        await city.tell(62, told("rain.heavy", "rain-n1", Phase.RAISED, "heavy", 61, 1))  # could confirm it
        await city.tell(63, told("cover.open", "cover-n1", Phase.RAISED, "open", 62, 1))
        await city.due(9000)
        newest = await city.events.newest()
        await city.due(9001)
        alert = (await city.alerts())["level-n1"]
        assert (alert.verdict, alert.code, alert.deadline) == ("held", code, None)
        assert city.counted[f"desk_held_{code}_alerts_total"] == 1
        assert await city.events.newest() == newest
        assert (await city.order()).device == "cover-n1"
        with pytest.raises(NotAllowed, match=r"flood\.depth.*level-n1"):
            await city.store.write(lambda connection: city.desk.dispatch(connection, alert.id, "a", "why", at(9002)))

    in_city(tmp_path, story)


def test_an_alert_held_for_its_lost_rule_is_decided_again_when_the_rule_is_back(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        whole = city.registry
        await city.tell(61, told("flood.depth", "level-n1", Phase.RAISED, "slow", 60, 1))
        restart(city, edited(rule="flood.depth"))
        await city.due(9000)
        restart(city, whole)
        await city.tell(9001, told("rain.heavy", "rain-n1", Phase.RAISED, "heavy", 9000, 1, since=8990))
        assert (await city.order()).confirmation.code == "corroborated"

    in_city(tmp_path, story)


def test_a_removed_device_with_an_open_order_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(61, told("flood.depth", "level-n1", Phase.RAISED, "close", 60, 1))
        await city.due(361)
        assert (await city.order()).device == "level-n1"
        restart(city, edited(device="level-n1"))
        await city.tell(401, told("flood.depth", "level-n2", Phase.RAISED, "close", 400, 1, since=370))
        await city.due(701)
        assert [order.device for order in await city.orders()] == ["level-n1", "level-n2"]  # far from all

    in_city(tmp_path, story)


def test_a_lost_rule_does_not_open_the_road_that_its_alert_closed(tmp_path: Path) -> None:
    async def story(city: City) -> None:
        await city.tell(61, told("flood.depth", "level-n1", Phase.RAISED, "close", 60, 1))
        await city.tell(71, told("camera.water", "camera-n1", Phase.RAISED, "seen", 70, 1))
        assert len((await city.order()).confirmation.by) == 1
        restart(city, edited(rule="flood.depth"))
        await city.tell(81, told("camera.water", "camera-n1", Phase.CLEARED, "seen", 80, 2))
        order = await city.order()
        assert order.closure is not None
        assert order.closure.lifted_at is None

    in_city(tmp_path, story)


@pytest.mark.parametrize(
    "registry", [edited(rule="flood.depth"), edited(device="level-n1"), edited(unit="drainage-north")]
)
def test_what_is_known_no_more_is_shown_by_its_id(tmp_path: Path, registry: Registry) -> None:
    async def story(centre: Centre) -> None:
        order = await centre.flood()
        await centre.city.tell(71, told("flood.depth", "level-s1", Phase.RAISED, "slow", 70, 1, since=40))
        was = await centre.get(f"/api/v1/work-orders/{order}")
        centre.app.state.context = dataclasses.replace(centre.app.state.context, registry=registry)
        shown = {alert["device"]: alert for alert in (await centre.get("/api/v1/alerts"))["items"]}
        assert shown.keys() == {"level-n1", "rain-n1", "level-s1"}
        assert {alert["device"] for alert in (await centre.get("/api/v1/held-back"))["items"]} == {
            "rain-n1",
            "level-s1",
        }
        (now,) = (await centre.get("/api/v1/work-orders"))["items"]
        assert (now["id"], now["device"], now["site"]) == (order, "level-n1", was["site"])
        await centre.get(f"/api/v1/work-orders/{order}/evidence")
        if "flood.depth" not in registry.rules:
            assert shown["level-n1"]["title"] == {"zh": "flood.depth", "en": "flood.depth"}
            assert (now["title"], now["runbook"]) == (shown["level-n1"]["title"], None)
        if "level-n1" not in registry.devices:
            assert (shown["level-n1"]["kind"], shown["level-n1"]["site"]) == ("", "")
            assert (now["lon"], now["lat"], now["asset"]) == (None, None, "")
        if was["unit"]["id"] not in registry.units:
            assert now["unit"] == {"id": was["unit"]["id"], "name": {"zh": was["unit"]["id"], "en": was["unit"]["id"]}}

    visit(tmp_path, story)
