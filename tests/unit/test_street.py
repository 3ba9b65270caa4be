"""What a visitor can do: each press has a target of its own, changes only what is to come, and is true."""

from typing import Any

import msgspec
import pytest

from firmware_sim.cable import Cable
from firmware_sim.street import CABLE_WALL_S, Street
from firmware_sim.truth import truth_at
from tests.city import START, at, storm
from wire.clock import NANOSECONDS, Clock

MINUTE = 60 * NANOSECONDS


class ManualClock(Clock, frozen=True):
    """City time that a test sets, in seconds after the start."""

    second: list[float] = msgspec.field(default_factory=lambda: [0.0])

    def now(self) -> int:
        return int(at(self.second[0])[0])


def street(seed: int = 1, gateways: tuple[str, ...] = ()) -> tuple[Street, Any, ManualClock, list[Cable]]:
    world, clock, pulled = storm(seed), ManualClock(), list[Cable]()
    cables = [Cable(name, "127.0.0.1", 1) for name in gateways]
    return Street(world, clock, cables, pulled.append), world, clock, pulled


def test_a_repeated_press_takes_another_device_until_none_is_left() -> None:
    buttons, world, clock, _ = street()
    clock.second[0] = 60
    targets = [buttons.press("theft").target for _ in range(12)]
    assert len(set(targets)) == 12
    assert not buttons.press("theft").started
    clock.second[0] += 3600
    assert buttons.press("theft").started
    stolen = [one for one in truth_at(world, START + 20 * MINUTE, {}).incidents if one.id.startswith("visitor-theft")]
    assert sorted(one.devices[0] for one in stolen) == sorted(filter(None, targets))


def test_an_event_begins_after_the_press_on_a_whole_second() -> None:
    buttons, world, clock, _ = street()
    clock.second[0] = 61.25
    buttons.press("truck")
    (event,) = (event for event in world.events if event.id == "visitor-truck-1")
    assert 0 < event.at - clock.now() <= 2 * NANOSECONDS
    assert (event.at - START) % NANOSECONDS == 0
    assert [one.device for one in truth_at(world, event.at, {}).nuisances] == [event.target]


def test_a_flood_picks_a_dry_underpass_meets_the_standard_and_recedes() -> None:
    buttons, world, clock, _ = street()
    clock.second[0] = 60
    assert {buttons.press("flood").target, buttons.press("flood").target} == {"underpass-bluestone", "underpass-bamboo"}
    assert not buttons.press("flood").started
    floods = [one for one in truth_at(world, START + 60 * MINUTE, {}).incidents if one.site == "underpass-bamboo"]
    assert [one.hazard for one in floods][:1] == ["flood"]
    assert [level.name for level in floods[0].levels] == ["slow", "close", "severe"]
    assert floods[0].end is not None


def test_headlights_and_a_freeze_are_offered_only_where_there_is_no_water() -> None:
    buttons, _, clock, _ = street()
    clock.second[0] = 17 * 60
    targets = {action.id: action.target for action in buttons.actions()}
    assert targets["headlights"] == "camera-s1"
    assert targets["freeze"] in ("level-s1", "level-s2")
    assert buttons.press("headlights").target == "camera-s1"
    assert not buttons.press("headlights").started


def test_a_pulled_cable_is_cut_once_and_handed_to_who_puts_it_back() -> None:
    buttons, _, _, pulled = street(gateways=("gw-north", "gw-south"))
    outcomes = [buttons.press("cable") for _ in range(3)]
    assert sorted(filter(None, (outcome.target for outcome in outcomes))) == ["gw-north", "gw-south"]
    assert [outcome.started for outcome in outcomes] == [True, True, False]
    assert [cable.cut_off for cable in pulled] == [True, True]
    assert CABLE_WALL_S == 20


def test_a_button_that_is_not_there_is_a_key_error() -> None:
    buttons, *_ = street()
    for name in ("cable", "earthquake"):
        with pytest.raises(KeyError):
            buttons.press(name)
    assert {action.id for action in buttons.actions()} == {"truck", "theft", "headlights", "flood", "freeze"}
    assert all(action.title.zh and action.note.en for action in buttons.actions())
