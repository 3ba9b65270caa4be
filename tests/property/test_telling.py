"""What is told does not depend on how one listens, nor on looking only where something may happen."""

from collections.abc import Sequence
from itertools import pairwise
from unittest.mock import patch

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim.fleet import Fleet, district_of
from firmware_sim.happenings import KINDS
from firmware_sim.instruments import Instruments
from firmware_sim.scenario import Event, Scenario
from firmware_sim.telling import telling as module
from firmware_sim.telling.cover import ALARM_DEG, CALM_S
from firmware_sim.telling.telling import Message, Telling
from firmware_sim.world import World
from rules.district import Frigate, PlainJson, Senml, Text, ThingsStack
from wire.clock import NANOSECONDS, from_iso

START = from_iso("2026-06-18T03:00:00Z")
LENGTH_S = 4000
END = START + LENGTH_S * NANOSECONDS
FLEET = district_of(Fleet(covers=4, cameras=2))
_WIRES = {
    "cover-0002": ThingsStack("district", "city", "mh-2", "24e124136b000002"),
    "cover-0003": Senml("lids/3"),
    "cover-0004": PlainJson("lids/4"),
    "camera-0002": Frigate("road"),
}
DISTRICT = msgspec.structs.replace(
    FLEET,
    device=tuple(
        msgspec.structs.replace(device, wire=_WIRES.get(device.id, device.wire), interval_s=97.0)
        for device in FLEET.device
    ),
)
CALM = Scenario("calm", Text("平静", "Calm"), "1d")


@st.composite
def happenings(draw: st.DrawFn, *, faults: bool) -> list[Event]:
    """Anything that can happen to covers and cameras, also at the same time, at any millisecond."""
    events: list[Event] = []
    for device in DISTRICT.device:
        kinds = [
            what
            for what, kind in KINDS.items()
            if device.kind in kind.on and (faults or (kind.hazard and what not in ("device_dies", "event_end_lost")))
        ]
        for what in draw(st.lists(st.sampled_from(sorted(kinds)), max_size=4)):
            begin = draw(st.integers(1, LENGTH_S * 1000))
            lasts = draw(st.none() | st.integers(1000, 1_500_000))
            size = draw(st.floats(*KINDS[what].size))
            until = None if lasts is None else START + (begin + lasts) * 1_000_000
            events.append(Event(f"{what}-{len(events)}", what, device.id, START + begin * 1_000_000, until, size))
    return events


def world_of(events: Sequence[Event]) -> World:
    world = World(DISTRICT, CALM, 5, START)
    for event in events:
        world.add(event)
    return world


def listen(events: Sequence[Event], until: Sequence[int]) -> tuple[list[Message], Telling]:
    telling = Telling(DISTRICT, Instruments(world_of(events)), START)
    return [message for now in until for message in telling.until(now)], telling


@settings(max_examples=30, deadline=None)
@given(happenings(faults=True), st.lists(st.integers(START, END), max_size=12), st.sampled_from([20, 61, 600]))
def test_any_steps_give_the_same_messages(events: list[Event], steps: list[int], stretch_s: int) -> None:
    with patch.multiple(module, SHORTEST_S=2 * LENGTH_S, LONGEST_S=2 * LENGTH_S):
        at_once, counted = listen(events, [END])
    with patch.multiple(module, SHORTEST_S=stretch_s, LONGEST_S=stretch_s):
        in_steps, also_counted = listen(events, [*sorted(steps), END])
    assert in_steps == at_once
    assert also_counted.emitted == counted.emitted
    assert also_counted.lost_on_air == counted.lost_on_air
    assert also_counted.doubled == counted.doubled
    assert sum(counted.emitted.values()) + sum(counted.doubled.values()) == len(at_once)


@settings(max_examples=30, deadline=None)
@given(happenings(faults=True))
def test_delivery_is_in_order_and_never_before_the_telling(events: list[Event]) -> None:
    messages, _ = listen(events, [END])
    assert all(earlier.delivered_at <= later.delivered_at for earlier, later in pairwise(messages))
    assert all(START <= message.at <= message.delivered_at <= END for message in messages)


@settings(max_examples=30, deadline=None)
@given(happenings(faults=False))
def test_no_change_is_missed_between_the_looks(events: list[Event]) -> None:
    """Against somebody who looks every second."""
    messages, _ = listen(events, [END])
    instruments = Instruments(world_of(events))
    every_second = START + np.arange(LENGTH_S + 1, dtype=np.int64) * NANOSECONDS
    for device in DISTRICT.device:
        shown = instruments.show(device, every_second)
        told = [(message.at - START) // NANOSECONDS for message in messages if message.device == device.id]
        if device.kind == "camera":
            changes = [
                np.flatnonzero(np.diff(shown[metric] > 0.5)) + 1 for metric in ("standing_water", "object_inside")
            ]
        else:
            background = (device.install["background_x_deg"], device.install["background_y_deg"])
            tilt = np.hypot(shown["angle_x"] - background[0], shown["angle_y"] - background[1])
            changes = [np.array(alarm_changes((tilt >= ALARM_DEG).tolist()), np.int64)]
        assert set(np.concatenate(changes).tolist()) <= set(told)


def alarm_changes(tipped: list[bool]) -> list[int]:
    """The maker's logic in its plainest form."""
    alarm, calm, changes = False, 0, []
    for second, is_tipped in enumerate(tipped):
        calm = 0 if is_tipped else calm + 1
        stands = is_tipped or (alarm and calm < CALM_S)
        if stands != alarm:
            changes.append(second)
        alarm = stands
    return changes
