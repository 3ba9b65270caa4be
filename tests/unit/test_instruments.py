"""What the world does besides water, and what instruments make of it: each phenomenon's main promise."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from firmware_sim import measuring
from firmware_sim.instruments import Instruments, ReadClearing
from firmware_sim.lids import RISE
from firmware_sim.noise import Floats, Times
from firmware_sim.recording import load_recordings
from firmware_sim.scenario import Burst, Event, Lighting, Rain, Recording, load_scenario
from firmware_sim.world import World
from rules.declared import Refused
from rules.district import Modbus
from tests.city import START, at, device, district, every_second, quiet
from wire.clock import NANOSECONDS, from_iso, iso

MINUTE = 60 * NANOSECONDS
HOUR = 60 * MINUTE
LID, GAUGE, RAIN, CAMERA = "manhole-n1", "level-s1", "rain-n1", "camera-s1"
LAMP = next(one for one in district().device if one.kind == "lamp_controller")
BY_SUN = Lighting(by_sun=True)


def happens(what: str, target: str, begin_min: float, end_min: float | None, size: float = 0.0) -> Event:
    until = None if end_min is None else START + round(end_min * MINUTE)
    return Event(f"{what}-{target}", what, target, START + round(begin_min * MINUTE), until, size)


def show(world: World, name: str, metric: str, times: Times) -> Floats:
    return Instruments(world).show(device(name), times)[metric]


def minutes(*values: float) -> Times:
    return at(*(60 * value for value in values))


# Lids.


@pytest.mark.parametrize("what", ["cover_stolen", "cover_lifted", "cover_ajar", "works_opening"])
def test_a_lid_is_up_after_three_seconds_and_back_when_it_is_over(what: str) -> None:
    world = quiet(happens(what, LID, 1, 10, 16.0))
    lift = world.lids.lift_deg(LID, at(59, 60, 61.5, 63, 599, 600, 2000))
    assert lift.tolist() == pytest.approx([0, 0, 8, 16, 16 / 3, 0, 0])
    tilt = show(world, LID, "tilt", minutes(5))[0] - device(LID).install["background_tilt_deg"]
    assert tilt == pytest.approx(16, abs=1.5)


def test_a_lid_crosses_an_angle_when_it_is_told_to() -> None:
    event = happens("cover_ajar", LID, 1, 10, 15.0)
    world = quiet(event)
    up, down = world.lids.lift_crossing(event, 5.0)
    assert down is not None
    lift = world.lids.lift_deg(LID, np.array([up - 2, up, down, down + 2]))
    assert (lift > 5.0).tolist() == [False, True, True, False]
    assert up - event.at == RISE // 3 + 1
    with pytest.raises(ValueError, match="lifts its lid by 15"):
        world.lids.lift_crossing(event, 15.0)


def test_a_frame_settles_slowly_and_stays_so() -> None:
    world = quiet(happens("frame_settles", LID, 0, 100, 6.0))
    assert world.lids.settled_deg(LID, minutes(-1, 25, 50, 100, 1000)).tolist() == pytest.approx([0, 1.5, 3, 6, 6])
    assert world.lids.lift_deg(LID, minutes(1000)).tolist() == [0]


# Lamps.


def test_lamps_follow_the_sun_and_are_dimmed_late() -> None:
    world = quiet(lighting=BY_SUN)
    day = from_iso("2026-06-18T04:00:00Z") + np.arange(86400, dtype=np.int64) * NANOSECONDS  # from noon to noon
    level = world.lamps.dim_level(LAMP, day)
    edges = np.flatnonzero(np.diff(level)) + 1
    # The almanac of Shanghai: sunset at 19:01 local, sunrise at 4:50; the sun sinks by a degree in some five minutes.
    dusk, late, early, dawn = (iso(int(day[edge]))[11:16] for edge in edges)
    assert (late, early) == ("15:30", "20:30")
    assert "11:03" < dusk < "11:12"
    assert "20:39" < dawn < "20:48"
    assert level[edges].tolist() == [80, 50, 80, 0]
    sun = world.lamps.sun_deg(day[edges[[0, 3]]])
    assert sun.tolist() == pytest.approx([-2, -2], abs=0.25)
    assert world.lamps.sun_deg(day[:1])[0] == pytest.approx(90 - 31.25 + 23.4, abs=0.5)


def test_a_lamp_that_is_switched_on_surges_and_warms_up_to_what_its_level_asks() -> None:
    world = quiet(lighting=BY_SUN)
    times = from_iso("2026-06-18T11:00:00Z") + np.arange(1800, dtype=np.int64) * NANOSECONDS
    power, level = world.lamps.power_w(LAMP, times), world.lamps.dim_level(LAMP, times)
    nominal, commanded = LAMP.install["nominal_power_w"], int(np.argmax(level > 0))
    lit = int(np.argmax(power > 5))
    assert 0 <= lit - commanded <= 9  # it obeys with a lag of its own
    assert power[lit] > power[lit + 3]
    assert power[lit + 3] < 0.6 * 0.8 * nominal
    assert power[lit + 60 :] == pytest.approx(0.8 * nominal, rel=0.05)


def test_a_tripped_feeder_darkens_every_lamp_of_its_bus_and_no_other() -> None:
    assert isinstance(LAMP.wire, Modbus)
    other = next(
        one
        for one in district().device
        if one.kind == "lamp_controller" and isinstance(one.wire, Modbus) and one.wire.bus != LAMP.wire.bus
    )
    world = quiet(happens("feeder_trips", LAMP.wire.bus, 10, 20))
    shown = Instruments(world).show(LAMP, minutes(5, 15, 25))
    for metric in ("voltage", "current", "power", "leakage"):
        assert (shown[metric] > 0).tolist() == [True, False, True], metric
    assert (Instruments(world).show(other, minutes(15))["voltage"] > 200).all()
    just_back = world.lamps.power_w(LAMP, at(20 * 60 + 5))
    assert just_back[0] < 0.8 * world.lamps.power_w(LAMP, minutes(25))[0]


def test_a_lost_concentrator_leaves_its_lamps_lit_and_a_circuit_off_does_not() -> None:
    assert isinstance(LAMP.wire, Modbus)
    lost = quiet(happens("concentrator_lost", LAMP.wire.bus, 10, 20))
    off = quiet(happens("circuit_off", LAMP.wire.bus, 10, 20))
    assert lost.lamps.power_w(LAMP, minutes(15)).tolist() == quiet().lamps.power_w(LAMP, minutes(15)).tolist()
    assert off.lamps.dim_level(LAMP, minutes(5, 15, 25)).tolist() == [80, 0, 80]
    assert off.lamps.power_w(LAMP, minutes(15))[0] < 5


def test_a_day_burner_draws_full_power_while_it_is_told_to_be_off() -> None:
    noon = from_iso("2026-06-19T04:00:00Z")
    event = Event("burns", "lamp_burns_by_day", LAMP.id, noon - HOUR, noon + HOUR)
    shown = Instruments(quiet(event, lighting=BY_SUN)).show(LAMP, np.array([noon, noon + 2 * HOUR]))
    assert shown["dim_level"].tolist() == [0, 0]
    assert shown["power"][0] == pytest.approx(LAMP.install["nominal_power_w"], rel=0.05)
    assert shown["power"][1] < 5


def test_a_cycling_lamp_goes_off_and_on_once_a_period() -> None:
    world = quiet(happens("lamp_cycles", LAMP.id, 0, 30, 200.0))
    lit = world.lamps.power_w(LAMP, every_second(30)) > 5
    assert np.count_nonzero(np.diff(lit.astype(int)) == 1) == 9
    assert np.flatnonzero(np.diff(lit.astype(int)) == 1)[:2].tolist() == [99, 299]


def test_a_lamp_that_fails_by_day_tells_of_it_at_dusk() -> None:
    noon = from_iso("2026-06-19T04:00:00Z")
    event = Event("fails", "lamp_fails", LAMP.id, noon, noon + 24 * HOUR)
    world = quiet(event, lighting=BY_SUN)
    dusk = world.lamps.noticed(event)
    assert dusk is not None
    times = np.array([noon + HOUR, dusk - NANOSECONDS, dusk, dusk + 13 * HOUR, noon + 25 * HOUR])
    assert Instruments(world).show(LAMP, times)["lamp_fault"].tolist() == [0, 0, 1, 1, 0]
    assert world.lamps.dim_level(LAMP, times).tolist() == [0, 0, 80, 0, 0]
    assert world.lamps.power_w(LAMP, np.array([dusk + HOUR]))[0] < 5


def test_leakage_and_ageing_are_as_large_as_told() -> None:
    leaks = quiet(happens("lamp_leaks", LAMP.id, 10, 20, 100.0))
    leakage = show(leaks, LAMP.id, "leakage", minutes(5, 15, 25))
    assert leakage.tolist() == pytest.approx([1.1, 100, 1.1], abs=6)
    aged = quiet(happens("lamp_ages", LAMP.id, 0, 10, 0.3))
    ratio = aged.lamps.power_w(LAMP, minutes(5, 30)) / quiet().lamps.power_w(LAMP, minutes(5, 30))
    assert ratio.tolist() == pytest.approx([0.85, 0.7], abs=0.01)


# Air.


def test_gas_gathers_over_minutes_and_is_aired_when_its_source_stops() -> None:
    air = quiet(happens("gas_gathers", LID, 5, 30, 30.0)).air
    ch4 = air.ch4_lel(LID, minutes(4, 9, 29, 37, 120))
    assert ch4[0] < 2.5
    assert ch4[1] == pytest.approx(30 * (1 - np.exp(-1)), abs=2.5)
    assert ch4[2] == pytest.approx(30, abs=2.5)
    assert ch4[3] == pytest.approx(30 * np.exp(-1), abs=2.5)
    assert ch4[4] < 2.5


def test_a_puff_of_gas_is_gone_within_minutes_and_sewer_gas_poisons() -> None:
    puff = quiet(happens("gas_puff", LID, 5, 5.5, 14.0)).air.ch4_lel(LID, every_second(10))
    assert puff.max() > 12
    assert np.count_nonzero(puff > 5) < 120
    h2s = quiet(happens("sewer_gas", LID, 5, None, 20.0)).air.h2s_ppm(LID, minutes(4, 40))
    assert h2s.tolist() == pytest.approx([0.8, 20.8], abs=0.9)


def test_a_catalytic_cell_reads_low_where_oxygen_is_short_and_the_truth_does_not() -> None:
    world = quiet(happens("gas_gathers", LID, 0, None, 30.0), happens("oxygen_sinks", LID, 0, None, 7.0))
    times = minutes(-1, 60)
    assert world.air.ch4_lel(LID, times)[1] == pytest.approx(31, abs=2.5)
    assert show(world, LID, "o2", times).tolist() == pytest.approx([20.7, 6.8], abs=0.4)
    assert show(world, LID, "ch4", times)[1] == pytest.approx(0.2 * 31, abs=2)
    full, half, none = measuring.catalytic(np.full(3, 20.0), np.array([15.0, 10.0, 5.0]))
    assert (full, half, none) == (20, 10, 0)


# Cameras.


@pytest.mark.parametrize("what", ["headlights", "rain_on_lens"])
def test_a_camera_is_deceived_where_there_is_no_water(what: str) -> None:
    world = quiet(happens(what, CAMERA, 5, 6))
    assert show(world, CAMERA, "standing_water", minutes(4, 5.5, 7)).tolist() == [0, 1, 0]


def test_a_camera_misses_the_water_in_front_of_it() -> None:
    flood = happens("burst_main", "underpass-bamboo", 0, 20, 0.45)
    world = quiet(flood, happens("camera_misses", CAMERA, 15, 18))
    assert show(world, CAMERA, "standing_water", minutes(-1, 14, 16, 19)).tolist() == [0, 1, 0, 1]


def test_what_stays_in_the_zone_is_seen_and_passers_by_are_rare_and_short() -> None:
    world = quiet(happens("object_in_zone", CAMERA, 5, 9), happens("parked_car", CAMERA, 15, 19))
    assert show(world, CAMERA, "object_inside", minutes(7, 17)).tolist() == [1, 1]
    month = START + np.arange(30 * 86400, dtype=np.int64) * NANOSECONDS
    inside = np.diff(quiet().cameras.object_inside(device(CAMERA), month).astype(int), prepend=0, append=0)
    lasts = np.flatnonzero(inside == -1) - np.flatnonzero(inside == 1)
    assert 120 < len(lasts) < 240  # a quarter of 720 hours
    assert lasts.min() >= 1
    assert lasts.max() <= 9


# Gauges.


def test_a_level_sensor_drifts_spikes_and_is_covered_by_debris() -> None:
    height = device(GAUGE).install["mounting_height_m"]
    times = every_second(30)
    drifts = height - show(quiet(happens("level_drifts", GAUGE, 0, 30, 0.03)), GAUGE, "distance", times)
    assert drifts[-1] == pytest.approx(0.015, abs=0.003)
    spikes = height - show(quiet(happens("level_spikes", GAUGE, 0, 30, 1.0)), GAUGE, "distance", times)
    assert 0.07 < np.mean(spikes > 0.4) < 0.13
    assert np.abs(spikes[spikes < 0.4]).max() < 0.01
    debris = height - show(quiet(happens("debris", GAUGE, 0, 30, 0.3)), GAUGE, "distance", times)
    covered = np.abs(debris - 0.3) < 0.02
    assert 0.75 < covered.mean() < 0.95
    assert np.abs(debris[~covered]).max() < 0.01


def test_no_echo_and_an_echo_too_near_are_no_value() -> None:
    blind = quiet(happens("level_blind", GAUGE, 5, 6))
    assert np.isnan(show(blind, GAUGE, "distance", minutes(4, 5.5, 7))).tolist() == [False, True, False]
    height = device(GAUGE).install["mounting_height_m"]
    near = quiet(happens("debris", GAUGE, 5, 6, height - 0.02))
    times = every_second(7)
    told = show(near, GAUGE, "distance", times)
    assert np.isnan(told).sum() > 40
    assert np.nanmin(told) > 3


def test_a_clogged_rain_gauge_stands_still_and_loses_its_rain_for_good() -> None:
    rain = Rain(burst=(Burst("20min", "20min", 60.0),))
    open_, clogged = quiet(rain=rain), quiet(happens("rain_gauge_clogs", RAIN, 15, 25), rain=rain)
    before, begin, during, end, after = minutes(14, 15, 20, 25, 30)[:, None]
    for instant in (before, begin):
        assert show(clogged, RAIN, "rain_total", instant) == show(open_, RAIN, "rain_total", instant)
    assert show(clogged, RAIN, "rain_total", during) == show(clogged, RAIN, "rain_total", begin)
    lost = show(open_, RAIN, "rain_total", after) - show(clogged, RAIN, "rain_total", after)
    assert lost == pytest.approx(open_.water.rain_mm(end) - open_.water.rain_mm(begin), abs=0.11)
    assert lost > 5


def test_a_rain_counter_wraps_with_its_register_and_a_read_clears_the_other() -> None:
    rain = Rain(burst=(Burst("2000min", "2000min", 400.0),))
    world, times = quiet(rain=rain), START + np.arange(4000, dtype=np.int64) * MINUTE
    total = show(world, RAIN, "rain_total", times)
    assert np.count_nonzero(np.diff(total) < 0) == 2
    assert total.max() < 6553.6
    clearing, gauge = ReadClearing(Instruments(world)), device(RAIN)
    first, then = (clearing.show(gauge, part)["rain_partial"] for part in (times[:1000], times[1000:]))
    partial = np.concatenate([first, then])
    assert partial.min() >= 0
    assert partial.sum() == pytest.approx(total[-1] - total[0] + 2 * 6553.6)
    assert clearing.show(gauge, times[-1:])["rain_partial"].tolist() == [0]


def test_a_transmitter_tells_its_unit_and_decimals_beside_the_number() -> None:
    probe = msgspec.structs.replace(device(LID), install={**device(LID).install, "unit_code": 1.0, "decimals": 2.0})
    metres = show(quiet(), LID, "level", minutes(5))[0]
    shown = Instruments(quiet()).show(probe, minutes(5))
    assert (shown["unit_code"][0], shown["decimals"][0]) == (1, 2)
    assert shown["level"][0] == metres  # the register map scales it by them


# Recordings.


def recorded(tmp_path: Path, text: str) -> World:
    (tmp_path / "scenario.toml").write_text("", encoding="utf-8")
    (tmp_path / "gauge.csv").write_text(text, encoding="utf-8")
    scenario = msgspec.structs.replace(
        load_scenario("storm")[0], event=(), recording=(Recording(GAUGE, "gauge.csv"), Recording(LID, "gauge.csv"))
    )
    recordings = load_recordings(scenario, str(tmp_path / "scenario.toml"))
    return World(district(), scenario, 1, START + HOUR, recordings)


def test_a_recorded_device_shows_its_recording_wherever_the_scenario_is_laid(tmp_path: Path) -> None:
    world = recorded(
        tmp_path,
        "taken_at,distance,level\n"
        "2026-06-18T11:30:10Z,3.211,\n"
        "2026-06-18T11:31:00Z,,0.5\n"
        "2026-06-18T11:32:00Z,nan,0.6\n",
    )
    times = world.start + np.array([0, 10, 60, 119, 120], np.int64) * NANOSECONDS
    shown = Instruments(world).show(device(GAUGE), times)
    assert shown.keys() == {"distance"}
    np.testing.assert_array_equal(shown["distance"], [np.nan, 3.211, 3.211, 3.211, np.nan])
    lid = Instruments(world).show(device(LID), times)
    np.testing.assert_array_equal(lid["level"], [np.nan, np.nan, 0.5, 0.5, 0.6])
    assert np.isnan(lid["tilt"]).all()


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("time,distance\n", ":1", "taken_at"),
        ("taken_at,distance\n", "", "no row"),
        ("taken_at,distance\n2026-06-18T11:30:00Z,1\n2026-06-18T11:30:00Z,2\n", ":3", "not later"),
        ("taken_at,distance\n2026-06-18T11:30:00Z,deep\n", ":2", "deep"),
        ("taken_at,distance\n2026-06-18T11:30:00,1\n", ":2", "2026-06-18T11:30:00"),
        ("taken_at,distance\n2026-06-18T11:30:00Z\n", ":2", "1 cells"),
    ],
)
def test_a_bad_recording_is_refused_with_its_line(tmp_path: Path, text: str, line: str, why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        recorded(tmp_path, text)
    assert refused.value.place == f"{tmp_path / 'gauge.csv'}{line}"
