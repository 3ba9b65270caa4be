"""The world keeps the storm's timing for every seed, and the truth follows from the world."""

import hashlib
from functools import cache
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from edge.decoders.chirpstack import ChirpstackDialect
from edge.decoders.onvif import OnvifDialect
from edge.hearing import Said
from edge.installed import installed
from edge.profile import load_profiles
from firmware_sim.instruments import Instruments
from firmware_sim.scenario import Event
from firmware_sim.telling.telling import Message, Telling
from firmware_sim.truth import Incident, truth_at
from firmware_sim.world import World
from tests.city import START, at, device, district, every_second, first, storm, the
from wire.clock import NANOSECONDS, from_iso

MINUTE = 60 * NANOSECONDS
SEEDS = range(1, 21)
HOUR_AFTER = START + 60 * MINUTE


def shown(world: World) -> "hashlib._Hash":
    """Everything that the instruments show in their 45 minutes, as one hash."""
    instruments = Instruments(world)
    hashed = hashlib.sha256()
    for one in district().device:
        for metric, column in instruments.show(one, every_second()).items():
            hashed.update(metric.encode() + column.tobytes())
    return hashed


def digest(world: World) -> str:
    """Everything that the world shows, tells and is, as one hash."""
    hashed = shown(world)
    for message in Telling(district(), Instruments(world), START).until(START + 45 * MINUTE):
        hashed.update(message.topic.encode() + message.payload)
    hashed.update(msgspec.json.encode(truth_at(world, HOUR_AFTER, {})))
    return hashed.hexdigest()


def told_of(world: World, hazard: str) -> list[Incident]:
    return [incident for incident in truth_at(world, HOUR_AFTER, {}).incidents if incident.hazard == hazard]


def minute(iso: str) -> float:
    return (from_iso(iso) - START) / MINUTE


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others() -> None:
    assert digest(storm(7)) == digest(storm(7))
    assert digest(storm(7)) != digest(storm(8))


def test_the_bytes_of_a_seed_do_not_drift() -> None:
    """A change here changes what every kept score means: it must be meant."""
    assert shown(storm(1)).hexdigest()[:16] == "032f5d0f27afaede"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_storm_floods_one_underpass_on_time(seed: int) -> None:
    world = storm(seed)
    times = every_second()
    depth = world.water.depth_m("underpass-bluestone", times)
    assert world.water.rain_mm(at(100))[0] == 0 < world.water.rain_mm(at(140))[0]
    assert 8 <= first(times, depth > 0.15) <= 11
    assert 16.5 <= first(times, depth == depth.max()) <= 19.5
    assert 0.42 <= depth.max() <= 0.48
    assert depth[30 * 60] < 0.10
    assert world.water.depth_m("underpass-bamboo", times).max() < 0.10
    # Slow down comes well before close: each level can be announced.
    assert first(times, depth > 0.25) - first(times, depth > 0.15) > 1.5
    shafts = [world.water.shaft_m(one.id, times).max() for one in district().device if one.kind == "manhole_monitor"]
    assert max(shafts) < 1.8


@pytest.mark.parametrize("seed", SEEDS)
def test_every_event_falls_into_its_window_and_on_a_device_of_its_own(seed: int) -> None:
    world = storm(seed)
    for what, low, high in (
        ("cover_stolen", 6, 14),
        ("truck", 4, 9),
        ("lamp_fails", 5, 12),
        ("level_freezes", 6, 10),
        ("headlights", 7, 15),
    ):
        assert low <= (the(world, what).at - START) / MINUTE <= high
    assert the(world, "headlights").target == "camera-s1"
    assert len({event.target for event in world.events}) == 5


def test_the_seed_varies_who_is_hit() -> None:
    hit = [{event.what: event.target for event in storm(seed).events} for seed in SEEDS]
    assert {one["level_freezes"] for one in hit} == {"level-s1", "level-s2"}
    assert len({one["cover_stolen"] for one in hit}) > 5
    assert len({one["lamp_fails"] for one in hit}) > 3


@pytest.mark.parametrize("seed", SEEDS)
def test_a_truck_shakes_hard_and_never_ends_as_a_theft(seed: int) -> None:
    world = storm(seed)
    truck = the(world, "truck")
    assert truck.until is not None
    times = np.arange(truck.at, truck.until, NANOSECONDS // 4)
    swing = world.lids.swing_deg(truck.target, times)
    assert 12 < swing.max() <= 18
    assert world.lids.lift_deg(truck.target, every_second()).max() == 0
    after = world.lids.swing_deg(truck.target, np.arange(truck.until, truck.until + 20 * MINUTE, NANOSECONDS))
    assert after.max() < 2
    assert truck.target not in {name for incident in told_of(world, "cover") for name in incident.devices}
    assert [(one.kind, one.device) for one in truth_at(world, HOUR_AFTER, {}).nuisances if one.kind == "truck"] == [
        ("truck", truck.target)
    ]


def test_a_stolen_cover_is_true_from_the_gap_on_and_stays_open() -> None:
    world = storm(3)
    (incident,) = told_of(world, "cover")
    onset, (name,) = from_iso(incident.onset), incident.devices
    gap = world.scenario.hazard.cover.gap_from_deg
    before, after = world.lids.lift_deg(name, np.array([onset - 10**7, onset + 10**7]))
    assert before < gap < after
    assert world.lids.lift_deg(name, at(44 * 60))[0] > 60
    assert incident.end is None


def test_a_flood_is_true_when_the_filing_standard_is_met() -> None:
    world = storm(5)
    (incident,) = told_of(world, "flood")
    assert incident.site == "underpass-bluestone"
    assert set(incident.devices) == {"level-n1", "level-n2", "camera-n1"}
    onset = from_iso(incident.onset)
    second = np.array([onset - NANOSECONDS, onset])
    meets = (world.water.depth_m(incident.site, second) > 0.15) & (world.water.area_m2(incident.site, second) > 100)
    assert meets.tolist() == [False, True]
    assert [level.name for level in incident.levels] == ["slow", "close", "severe"]
    assert all(earlier.onset < later.onset for earlier, later in pairwise(incident.levels))
    assert incident.end is not None
    assert 25 < minute(incident.end) < 31


def test_no_incident_is_told_before_its_onset() -> None:
    world = storm(4)
    everything = truth_at(world, HOUR_AFTER, {}).incidents
    for incident in everything:
        onset = from_iso(incident.onset)
        assert incident.id not in {one.id for one in truth_at(world, onset - NANOSECONDS, {}).incidents}
        assert incident.id in {one.id for one in truth_at(world, onset + 10**6, {}).incidents}
    assert {incident.hazard for incident in everything} == {"flood", "cover", "lamp", "device_stuck"}


def test_a_frozen_sensor_stands_still_and_a_live_one_never_does() -> None:
    world = storm(2)
    instruments = Instruments(world)
    freeze = the(world, "level_freezes")
    times = every_second()
    shown = instruments.show(device(freeze.target), times)["distance"]
    frozen = times >= freeze.at
    assert len(set(shown[frozen].tolist())) == 1
    live = np.round(shown[~frozen] * 1000)
    assert np.abs(live - live[0]).max() > 0
    longest = max(np.diff(np.flatnonzero(np.diff(live[:360])), prepend=0))
    assert longest < 15  # seconds


def test_a_dead_lamp_draws_a_few_watts_and_a_lit_one_what_its_level_asks() -> None:
    world = storm(6)
    lamp = device(the(world, "lamp_fails").target)
    before, after = Instruments(world).show(lamp, at(60, 20 * 60))["power"]
    expected = lamp.install["nominal_power_w"] * 0.8
    assert before == pytest.approx(expected, rel=0.05)
    assert after < 5


def test_a_visitors_event_changes_nothing_that_was_before_it() -> None:
    quiet, disturbed = storm(9), storm(9)
    times = every_second(12)
    disturbed.water.depth_m("underpass-bamboo", every_second(45))
    disturbed.add(Event("visitor", "burst_main", "underpass-bamboo", START + 12 * MINUTE, START + 17 * MINUTE))
    for site in ("underpass-bamboo", "underpass-bluestone"):
        assert disturbed.water.depth_m(site, times).tolist() == quiet.water.depth_m(site, times).tolist()
    assert disturbed.water.depth_m("underpass-bamboo", every_second(45)).max() > 0.4
    floods = [incident.site for incident in told_of(disturbed, "flood")]
    assert sorted(floods) == ["underpass-bamboo", "underpass-bluestone"]


@cache
def messages(seed: int, step_s: int, minutes: int = 45) -> list[Message]:
    telling = Telling(district(), Instruments(storm(seed)), START)
    end = START + minutes * MINUTE
    steps = range(0, minutes * 60 + step_s, step_s)
    return sorted(
        (message for step in steps for message in telling.until(min(START + step * NANOSECONDS, end))),
        key=lambda message: (message.at, message.device),
    )


def test_what_is_told_does_not_depend_on_how_often_one_listens() -> None:
    assert messages(3, 1, 12) == messages(3, 7, 12) == messages(3, 2700, 12)


def test_what_is_told_is_what_a_gateway_reads() -> None:
    instruments = Instruments(storm(3))
    places = [place for gateway in district().gateway for place in installed(district(), gateway.id, load_profiles())]
    dialects = ChirpstackDialect(places), OnvifDialect(places)
    for message in messages(3, 60):
        one = device(message.device)
        shown = {metric: column[0] for metric, column in instruments.show(one, np.array([message.at])).items()}
        (said,) = dialects[one.kind == "camera"].hear(message.topic, message.payload, message.at) or ()
        assert isinstance(said, Said)
        assert (said.place.device, said.taken_at) == (one, message.at)
        values = dict(zip((field.metric for field in said.place.profile.field), said.values or (), strict=True))
        told = {metric: value for metric, value in values.items() if not np.isnan(value)}
        assert told == {metric: shown[metric] for metric in told}
        assert told


@pytest.mark.parametrize("seed", [seed for seed in SEEDS if the(storm(seed), "truck").target.startswith("cover")][:3])
def test_a_cover_reports_the_alarm_and_the_recovery_at_once(seed: int) -> None:
    truck = the(storm(seed), "truck")
    assert truck.until is not None
    told = [message for message in messages(seed, 60) if message.device == truck.target]
    objects = [(message.at, msgspec.json.decode(message.payload)["object"]) for message in told]
    alarms = [(when, shown["threshold_x"]) for when, shown in objects]
    around = [(when, state) for when, state in alarms if truck.at <= when <= truck.until + 10 * NANOSECONDS]
    states = [state for _, state in around if state]
    assert states == ["trigger", "normal"] * (len(states) // 2)  # it may dip below the alarm and rise again
    assert states
    assert around[0][0] - truck.at < 5 * NANOSECONDS
    heartbeats = [when for when, state in alarms if (when, state) not in around]
    assert len(heartbeats) in (5, 6)  # on joining, and every ten minutes


def test_the_camera_in_the_flood_sees_water_and_headlights_deceive_the_other() -> None:
    world = storm(1)
    told = [message for message in messages(1, 60) if message.topic.endswith("StandingWater")]
    seen = {
        name: [
            (message.at, msgspec.json.decode(message.payload)["Data"]["IsInside"])
            for message in told
            if message.device == name
        ]
        for name in ("camera-n1", "camera-s1")
    }
    assert all(message.retain for message in told)
    assert [inside for _, inside in seen["camera-n1"]] == [False, True, False]
    assert [inside for _, inside in seen["camera-s1"]] == [False, True, False]
    headlights = the(world, "headlights")
    assert headlights.until is not None
    assert 30 <= (headlights.until - headlights.at) / NANOSECONDS <= 60
    assert headlights.at <= seen["camera-s1"][1][0] < headlights.at + NANOSECONDS
    assert told_of(world, "flood")[0].site != device("camera-s1").site
