"""The truth follows from the world and its own definitions, however it is asked for and however often."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from firmware_sim.happenings import KINDS
from firmware_sim.noise import Floats, Times
from firmware_sim.scenario import Event, Label, Lighting, load_scenario
from firmware_sim.truth import HAZARDS, Incident, Nuisance, Truth, Witness, digest, truth_at
from firmware_sim.world import World
from tests.city import START, device, district, quiet, storm
from wire.clock import NANOSECONDS, from_iso, iso

MINUTE = 60 * NANOSECONDS
HOUR = 60 * MINUTE
BY_SUN = Lighting(by_sun=True)
DUSK = 50 * MINUTE  # before which the lamps of a June evening are still off


def event(what: str, target: str, at_min: float, until_min: float | None = None, size: float = 0.0) -> Event:
    until = None if until_min is None else START + round(until_min * MINUTE)
    return Event(f"{what}-{target}", what, target, START + round(at_min * MINUTE), until, size)


def only(found: tuple[Incident, ...]) -> Incident:
    (incident,) = found
    return incident


LAMPS_N2 = {"lamp-n1", "lamp-n2", "lamp-n3", "lamp-n4"}
NORTH = {device.id for device in district().device if device.gateway == "gw-north"}


@pytest.mark.parametrize(
    ("happens", "hazard", "case", "devices"),
    [
        (event("lamp_fails", "lamp-n1", 5, 50), "lamp", "city", {"lamp-n1"}),
        (event("lamp_cycles", "lamp-n1", 5, 50, 200.0), "cycling", "city", {"lamp-n1"}),
        (event("lamp_leaks", "lamp-n1", 5, 50, 60.0), "leakage", "city", {"lamp-n1"}),
        (event("feeder_trips", "north-2", 5, 50), "feeder", "city", LAMPS_N2),
        (event("concentrator_lost", "north-2", 5, 50), "device_silent", "device", LAMPS_N2),
        (event("device_dies", "cover-n1", 5, 50), "device_silent", "device", {"cover-n1"}),
        (event("gateway_off", "gw-north", 5, 50), "gateway_silent", "device", NORTH),
        (event("level_freezes", "level-n1", 5, 50), "device_stuck", "device", {"level-n1"}),
        (event("level_drifts", "level-n1", 5, 50, 0.02), "device_drift", "device", {"level-n1"}),
        (event("rain_gauge_clogs", "rain-n1", 5, 50), "device_stuck", "device", {"rain-n1"}),
        (event("object_in_zone", "camera-n1", 5, 50), "object", "city", {"camera-n1"}),
    ],
)
def test_what_is_real_is_told_from_its_begin_to_its_end(
    happens: Event, hazard: str, case: str, devices: set[str]
) -> None:
    world = quiet(happens)
    begin, end = START + 5 * MINUTE, START + 50 * MINUTE
    incident = only(truth_at(world, START + HOUR, {}).incidents)
    assert (incident.hazard, incident.case, set(incident.devices)) == (hazard, case, devices)
    assert (incident.onset, incident.end) == (iso(begin), iso(end))
    assert incident.late_after_s == HAZARDS[hazard]
    assert incident.site in {device.site for device in district().device if device.id in devices}
    assert truth_at(world, begin - 1, {}).incidents == ()
    assert only(truth_at(world, begin, {}).incidents).end is None
    assert only(truth_at(world, end - 1, {}).incidents).end is None
    assert truth_at(world, START + HOUR, {}).nuisances == ()


def test_every_hazard_has_a_time_by_which_the_city_wants_to_know() -> None:
    assert set(HAZARDS) == {kind.hazard for kind in KINDS.values() if kind.hazard}


@pytest.mark.parametrize("what", [what for what, kind in KINDS.items() if kind.role == "fault"])
def test_a_fault_of_instruments_and_wires_says_nothing_of_the_street(what: str) -> None:
    on = KINDS[what].on
    targets = {"underpass": "underpass-bamboo", "bus": "north-1", "gateway": "gw-north", "broker": "broker"}
    targets |= {device.kind: device.id for device in district().device}
    world = quiet(event(what, targets[on[-1]], 5, 6, 0.5))
    told = truth_at(world, START + 5 * MINUTE + NANOSECONDS, {})
    assert (told.incidents, told.nuisances) == ((), ())


@pytest.mark.parametrize("what", [what for what, kind in KINDS.items() if kind.role in ("nuisance", "benign")])
def test_what_only_seems_is_told_with_its_role(what: str) -> None:
    kind = KINDS[what]
    on = {"bus": "north-2"} | {device.kind: device.id for device in district().device}
    lasting, for_good = event(what, on[kind.on[0]], 5, 6, kind.size[0]), event(what, on[kind.on[0]], 20, None)
    world = quiet(lasting, msgspec.structs.replace(for_good, id="for-good"))
    told = truth_at(world, START + HOUR, {})
    assert told.incidents == ()
    assert {(one.kind, one.role, one.hazard) for one in told.nuisances} == {(what, kind.role, kind.hazard)}
    spans = {(one.at, one.until) for one in told.nuisances}
    assert spans == {(iso(lasting.at), iso(START + 6 * MINUTE)), (iso(for_good.at), None)}
    assert {one.device for one in told.nuisances} == (LAMPS_N2 if what == "circuit_off" else {lasting.target})
    assert len({one.id for one in told.nuisances}) == len(told.nuisances)
    assert truth_at(world, lasting.at - 1, {}).nuisances == ()


@pytest.mark.parametrize(("what", "size"), [("cover_stolen", 70.0), ("cover_lifted", 30.0), ("cover_ajar", 13.0)])
def test_a_lid_is_open_while_it_leaves_a_gap(what: str, size: float) -> None:
    world = quiet(event(what, "manhole-n1", 5, 50, size))
    incident = only(truth_at(world, START + HOUR, {}).incidents)
    assert incident.end is not None
    for edge, opens in ((incident.onset, True), (incident.end, False)):
        around = from_iso(edge) + np.array([-2, 2]) * NANOSECONDS // 1000
        assert (world.lids.lift_deg("manhole-n1", around) > 5.0).tolist() == [not opens, opens]


def test_a_lid_that_never_leaves_a_gap_is_no_incident() -> None:
    world = quiet(event("cover_ajar", "cover-n1", 5, 50, 4.0), event("cover_ajar", "cover-n2", 5, 5.01, 13.0))
    assert truth_at(world, START + 5 * HOUR, {}).incidents == ()


def test_a_lamp_fails_when_it_is_first_dark_though_it_is_told_to_shine() -> None:
    world = quiet(event("lamp_fails", "lamp-n1", -120, 300), lighting=BY_SUN, start=START - 6 * HOUR)
    assert truth_at(world, START - 90 * MINUTE, {}).incidents == ()
    incident = only(truth_at(world, START + HOUR, {}).incidents)
    onset = from_iso(incident.onset)
    lamp = device("lamp-n1")
    assert START - 120 * MINUTE < onset < START + DUSK
    before, then = world.lamps.dim_level(lamp, np.array([onset - NANOSECONDS, onset]))
    assert before == 0 < then
    mended = quiet(event("lamp_fails", "lamp-n1", -120, -60), lighting=BY_SUN, start=START - 6 * HOUR)
    assert truth_at(mended, START + HOUR, {}).incidents == (), "nobody saw it dark"


def test_a_day_burner_shows_at_dawn() -> None:
    world = quiet(event("lamp_burns_by_day", "lamp-n1", 60), lighting=BY_SUN)
    assert truth_at(world, START + 2 * HOUR, {}).incidents == ()
    incident = only(truth_at(world, START + 14 * HOUR, {}).incidents)
    lamp = device("lamp-n1")
    onset = from_iso(incident.onset)
    before, then = world.lamps.dim_level(lamp, np.array([onset - NANOSECONDS, onset]))
    assert before > 0 == then
    assert 8 * HOUR < onset - START < 11 * HOUR, "a June night is short"


@pytest.mark.parametrize(("what", "size"), [("gas_gathers", 25.0), ("sewer_gas", 20.0)])
def test_air_is_bad_as_long_as_the_air_itself_is(what: str, size: float) -> None:
    world = quiet(event(what, "manhole-n1", 10, 70, size))
    incident = only(truth_at(world, START + 4 * HOUR, {}).incidents)
    assert incident.end is not None
    onset, end = from_iso(incident.onset), from_iso(incident.end)
    at = np.arange(START + 10 * MINUTE, START + 4 * HOUR, NANOSECONDS)
    harms = (world.air.ch4_lel("manhole-n1", at) > 10.0) | (world.air.h2s_ppm("manhole-n1", at) > 7.0)
    assert onset == at[harms][0] > START + 10 * MINUTE, "it has to gather first"
    assert end == at[harms][-1] + NANOSECONDS > START + 70 * MINUTE, "and to be aired afterwards"


def test_a_whiff_of_gas_and_a_source_for_good() -> None:
    weak = quiet(event("gas_gathers", "manhole-n1", 10, 70, 5.0))
    assert truth_at(weak, START + 4 * HOUR, {}).incidents == ()
    strong = quiet(event("gas_gathers", "manhole-n1", 10, None, 25.0))
    assert only(truth_at(strong, START + 24 * HOUR, {}).incidents).end is None


# Water, against a plain scan of every second.

Bools = NDArray[np.bool_]
RAIN = load_scenario("storm")[0].rain


def scanned(at: Times, meets: Bools, over: Bools) -> Iterator[tuple[int, int | None]]:
    """Take hysteresis second by second, without any cleverness."""
    onset = None
    for instant, begins, ends in zip(at.tolist(), meets.tolist(), over.tolist(), strict=True):
        if onset is None and begins:
            onset = instant
        elif onset is not None and ends:
            yield onset, instant
            onset = instant if begins else None
    if onset is not None:
        yield onset, None


def spans(told: Truth, hazard: str) -> list[tuple[str, int, int | None]]:
    return sorted(
        (one.site if hazard == "flood" else one.devices[0], from_iso(one.onset), from_iso(one.end) if one.end else None)
        for one in told.incidents
        if one.hazard == hazard
    )


def wet(seed: int, *more: Event) -> World:
    """Make a storm, a main that bursts twice on one side, and a sewer that is blocked."""
    bursts = [
        msgspec.structs.replace(event("burst_main", "underpass-bamboo", minute, minute + 4, 0.45), id=f"burst-{minute}")
        for minute in (60, 150)
    ]
    return quiet(*bursts, event("sewer_blocked", "manhole-s3", 5, 180, 0.99), *more, seed=seed, rain=RAIN)


@pytest.mark.parametrize("seed", range(1, 6))
def test_water_is_told_as_a_plain_scan_of_every_second_tells_it(seed: int) -> None:
    world, now = wet(seed), START + 5 * HOUR
    at = np.arange(START, now + 1, NANOSECONDS)
    flood, below_m = world.scenario.hazard.flood, world.scenario.hazard.surcharge.freeboard_below_m
    floods = []
    for site in ("underpass-bluestone", "underpass-bamboo"):
        depth, area = world.water.depth_m(site, at), world.water.area_m2(site, at)
        meets = (depth > flood.deeper_than_m) & (area > flood.larger_than_m2)
        floods += [(site, *span) for span in scanned(at, meets, depth < flood.over_below_m)]
    surcharges = []
    for monitor in (one for one in district().device if one.kind == "manhole_monitor"):
        from_m, level = monitor.install["shaft_depth_m"] - below_m, world.water.shaft_m(monitor.id, at)
        surcharges += [(monitor.id, *span) for span in scanned(at, level > from_m, level < from_m - 0.1)]
    told = truth_at(wet(seed), now, {})
    assert spans(told, "flood") == sorted(floods)
    assert spans(told, "surcharge") == sorted(surcharges)
    assert len(floods) == 3
    assert surcharges
    bluestone = next(one for one in told.incidents if one.site == "underpass-bluestone")
    depth = world.water.depth_m("underpass-bluestone", at)
    reached = {level.name: at[depth > level.deeper_than_m] for level in flood.level}
    assert [(level.name, from_iso(level.onset)) for level in bluestone.levels] == [
        (name, instants[0]) for name, instants in reached.items() if len(instants)
    ]
    assert len(bluestone.levels) >= 3
    assert set(bluestone.devices) == {"level-n1", "level-n2", "camera-n1"}


@pytest.mark.parametrize("step_s", [1, 7, 600, 7200])
def test_however_often_the_truth_is_asked_for_it_is_the_same(step_s: int) -> None:
    """At every step, what grew is what one would find afresh."""
    happens = (
        event("gas_gathers", "manhole-n1", 2, 20, 25.0),
        event("lamp_fails", "lamp-n1", 3, 40),
        event("lamp_burns_by_day", "lamp-n2", 3, 40),
        event("truck", "cover-n1", 10, 11, 15.0),
        event("circuit_off", "north-2", 12, 30),
    )
    growing, fresh = Witness(wet(2, *happens)), wet(2, *happens)
    for second in range(0, 7200 + step_s, step_s):
        grown = growing.testify(START + second * NANOSECONDS, {})
        if second % 1200 < step_s:
            assert grown == truth_at(fresh, START + second * NANOSECONDS, {})
    assert {one.hazard for one in grown.incidents} == {"flood", "surcharge", "gas", "lamp", "day_burner"}


def test_what_a_visitor_does_later_is_told_from_then_on() -> None:
    world = storm(9)
    witness = Witness(world)
    before = witness.testify(START + 30 * MINUTE, {})
    world.add(event("burst_main", "underpass-bamboo", 31, 36))
    world.add(event("cover_stolen", "cover-n1", 32, None, 70.0))
    after = witness.testify(START + 90 * MINUTE, {})
    assert after == truth_at(world, START + 90 * MINUTE, {})
    more = {one.id for one in after.incidents} - {one.id for one in before.incidents}
    assert more == {"flood-underpass-bamboo-1", "cover_stolen-cover-n1"}


def test_nothing_is_looked_at_twice_and_dry_weather_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    world = wet(1)
    asked: list[int] = []

    def counted(of: Callable[[str, Times], Floats]) -> Callable[[str, Times], Floats]:
        def count(name: str, at: Times) -> Floats:
            asked.append(len(at))
            return of(name, at)

        return count

    monkeypatch.setattr(world.water, "depth_m", counted(world.water.depth_m))
    monkeypatch.setattr(world.water, "shaft_m", counted(world.water.shaft_m))
    witness = Witness(world)
    witness.testify(START + 6 * HOUR, {})
    assert asked
    asked.clear()
    witness.testify(START + 6 * HOUR, {})
    assert asked == []
    witness.testify(START + 30 * 24 * HOUR, {})
    assert sum(asked) < 2 * HOUR // NANOSECONDS * len(district().device), "a month without rain"


def test_a_persons_word_on_a_recording_is_the_truth() -> None:
    labels = (
        Label("crew-saw-it", "manhole-n1", ("5min", "9min"), "real:cover", "cover"),
        Label("crew-saw-a-truck", "manhole-n2", ("6min", "7min"), "misfire:truck", "cover"),
        Label("pass-was-given", "manhole-n3", ("6min", "8min"), "benign:works_opening", "cover"),
    )
    world = quiet(label=labels)
    told = truth_at(world, START + 10 * MINUTE, {})
    incident = only(told.incidents)
    assert (incident.id, incident.hazard, incident.case, incident.devices) == (
        "crew-saw-it",
        "cover",
        "city",
        ("manhole-n1",),
    )
    assert (incident.onset, incident.end) == (iso(START + 5 * MINUTE), iso(START + 9 * MINUTE))
    assert incident.site == device("manhole-n1").site
    assert told.nuisances == (
        Nuisance(
            "crew-saw-a-truck",
            "truck",
            "nuisance",
            "manhole-n2",
            "cover",
            iso(START + 6 * MINUTE),
            iso(START + 7 * MINUTE),
        ),
        Nuisance(
            "pass-was-given",
            "works_opening",
            "benign",
            "manhole-n3",
            "cover",
            iso(START + 6 * MINUTE),
            iso(START + 8 * MINUTE),
        ),
    )
    assert truth_at(world, START + 5 * MINUTE - 1, {}).incidents == ()
    assert only(truth_at(world, START + 6 * MINUTE, {}).incidents).end is None


def test_a_digest_is_of_everything_that_is_told() -> None:
    truth = truth_at(storm(1), START + HOUR, {"a": {"reads": 1}, "b": {"reads": 2}})
    assert digest(truth) == digest(truth_at(storm(1), START + HOUR, {"b": {"reads": 2}, "a": {"reads": 1}}))
    others = [
        truth_at(storm(2), START + HOUR, truth.emitted),
        truth_at(storm(1), START + HOUR + NANOSECONDS, truth.emitted),
        truth_at(storm(1), START + HOUR, {"a": {"reads": 1}}),
        msgspec.structs.replace(truth, incidents=truth.incidents[1:]),
    ]
    assert len({digest(truth), *map(digest, others)}) == 5


def test_incidents_stand_in_order_of_their_onset() -> None:
    told = truth_at(wet(3), START + 3 * HOUR, {})
    assert len(told.incidents) > 3
    assert all(earlier.onset <= later.onset for earlier, later in pairwise(told.incidents))
