"""Rain, ponding and sewers: what is declared comes out, in any order of questions, and rest costs nothing."""

import numpy as np
import pytest

from firmware_sim.fleet import Fleet, district_of
from firmware_sim.hydraulics import Water
from firmware_sim.noise import Times
from firmware_sim.rain import Hyetograph, mean_mm_h
from firmware_sim.scenario import Burst, DesignStorm, Event, Rain, Scenario, Underpass, load_scenario
from rules.district import District, Text
from tests.city import START, at, device, district, every_second
from wire.clock import NANOSECONDS

MINUTE = 60 * NANOSECONDS
HOUR = 60 * MINUTE
EVENING_RAIN = Rain(burst=(Burst("90min", "20min", 70.0), Burst("6h", "30min", 50.0)))
MONITORS = [one.id for one in district().device if one.kind == "manhole_monitor"]
DIPS = [dip.site for dip in load_scenario("storm")[0].underpass]


def storm(seed: int) -> Water:
    return Water(district(), load_scenario("storm")[0], seed, START)


def water(rain: Rain = EVENING_RAIN, length: str = "12h", of: District | None = None) -> Water:
    """Put other rain over the storm's underpasses."""
    dips = load_scenario("storm")[0].underpass
    scenario = Scenario("rain", Text("雨", "Rain"), length, rain=rain, underpass=dips)
    return Water(of or district(), scenario, 1, START)


def burst_main(begin: int = 40 * MINUTE, end: int = 50 * MINUTE, size: float = 0.0) -> Event:
    return Event("burst", "burst_main", DIPS[1], START + begin, START + end, size)


def blocked(monitor: str, begin: int, size: float, lasts: int | None = None) -> Event:
    until = None if lasts is None else START + begin + lasts
    return Event(f"clog-{monitor}", "sewer_blocked", monitor, START + begin, until, size)


def everything(of: Water, times: Times) -> bytes:
    """Join all that is told of all basins at these instants."""
    told = [of.rain_mm(times)]
    for site in DIPS:
        told += [of.depth_m(site, times), of.area_m2(site, times), of.seen(site, times)]
    told += [of.shaft_m(monitor, times) for monitor in MONITORS]
    return b"".join(column.tobytes() for column in told)


def test_a_burst_of_rain_is_a_triangle() -> None:
    rain = Hyetograph(Rain(burst=(Burst("10min", "5min", 60.0),)), 1, 3600.0)
    assert rain.mm_h(0, 3600)[[300, 450, 600, 750, 900]].tolist() == [0, 30, 60, 30, 0]
    assert rain.fallen_mm(np.array([-5, 300, 3600])) == pytest.approx([0, 0, 60 * 300 / 3600])
    assert rain.fallen_mm(np.array([600]))[0] == pytest.approx(2.5, rel=0.01)


@pytest.mark.parametrize("return_years", [1.0, 5.0, 50.0])
def test_a_design_storm_holds_the_formulas_worst_minutes_around_its_peak(return_years: float) -> None:
    rain = Hyetograph(Rain(design=(DesignStorm("1h", "2h", return_years, 0.4),)), 1, 86400.0)
    peak = 3600 + 2880
    assert rain.mm_h(0, 86400).argmax() == peak
    for minutes in (10, 30, 60, 120):
        begin, end = peak - round(24 * minutes), peak + round(36 * minutes)
        fallen = np.diff(rain.fallen_mm(np.array([begin, end])))[0]
        assert fallen == pytest.approx(mean_mm_h(return_years, minutes) * minutes / 60, rel=0.01)
    assert rain.fallen_mm(np.array([3600]))[0] == 0
    assert rain.fallen_mm(np.array([86400]))[0] == pytest.approx(2 * mean_mm_h(return_years, 120), rel=0.01)


def test_the_formula_gives_shanghais_hour_of_every_year() -> None:
    assert mean_mm_h(1.0, 60.0) == pytest.approx(36.0, abs=1.0)


def test_recorded_rain_is_as_recorded_whatever_the_seed_and_ends_with_the_scenario() -> None:
    declared = Rain(recorded=(("10min", 12.0), ("15min", 0.0), ("20min", 36.0)), at_varies="5min", peak_varies=0.5)
    for seed in (1, 2):
        rain = Hyetograph(declared, seed, 1800.0)
        assert rain.mm_h(0, 3600)[[599, 600, 899, 900, 1199, 1200, 1799, 1800]].tolist() == [0, 12, 12, 0, 0, 36, 36, 0]
        assert rain.fallen_mm(np.array([3600]))[0] == pytest.approx(1.0 + 6.0)


def test_the_seed_moves_each_part_of_the_rain_within_what_is_declared() -> None:
    declared = Rain(
        burst=(Burst("20min", "5min", 60.0),),
        design=(DesignStorm("1h", "1h", 2.0, 0.5),),
        at_varies="5min",
        peak_varies=0.2,
    )
    plain = Hyetograph(Rain(design=declared.design), 1, 7200.0).mm_h(0, 10800).max()
    rains = [Hyetograph(declared, seed, 7200.0).mm_h(0, 10800) for seed in range(20)]
    for first, last, peak_at, peak in ((0, 2400, 1200, 60.0), (2400, 10800, 5400, plain)):
        peaks_at = [first + int(rain[first:last].argmax()) for rain in rains]
        peaks = [float(rain[first:last].max()) for rain in rains]
        assert all(abs(second - peak_at) <= 301 for second in peaks_at)
        assert all(0.79 * peak <= one <= 1.21 * peak for one in peaks)
        assert max(peaks_at) - min(peaks_at) > 300
        assert max(peaks) - min(peaks) > 0.2 * peak


@pytest.mark.parametrize("seed", range(1, 21))
def test_in_the_storm_no_shaft_comes_near_its_rim(seed: int) -> None:
    of, times = storm(seed), every_second(120)
    for monitor in MONITORS:
        level = of.shaft_m(monitor, times)
        assert level.max() < min(1.8, device(monitor).install["shaft_depth_m"] - 1.0)
        assert level.min() > 0.1
        assert level.max() - level[0] > 0.1, "the rain did not reach the sewer"


@pytest.mark.parametrize("begin_h", [1.0, 8.5, 15.0], ids=["evening", "before dawn", "noon"])
def test_a_blocked_sewer_surcharges_in_dry_weather_and_drains_when_it_is_cleared(begin_h: float) -> None:
    """The least blockage, in every shaft of the deepest and the shipped district, at the hour of the least flow."""
    for of in (district(), district_of(Fleet(manhole_monitors=12))):
        monitors = [one for one in of.device if one.kind == "manhole_monitor"]
        dry = water(Rain(), "1d", of)
        for one in monitors:
            dry.add(blocked(one.id, round(begin_h * HOUR), 0.90, 3 * HOUR))
        times = START + round(begin_h * HOUR) + np.arange(-600, 5 * 3600) * NANOSECONDS
        for one in monitors:
            level, rim_m = dry.shaft_m(one.id, times), one.install["shaft_depth_m"]
            assert level[:600].max() < 0.5
            assert 600 < np.argmax(level > max(2.0, rim_m - 1.0)) < 600 + 3600
            assert level.max() <= rim_m
            assert level[-3600:].max() < 0.5


def test_water_never_stands_above_a_rim_and_a_closed_pipe_in_rain_brings_it_there() -> None:
    rainy = water()
    monitor = device(MONITORS[0])
    rainy.add(blocked(monitor.id, HOUR, 1.0))
    level = rainy.shaft_m(monitor.id, every_second(720))
    assert level.max() == monitor.install["shaft_depth_m"]
    assert level[-1] == level.max()


def test_failed_pumps_flood_an_underpass_that_they_would_have_kept_open() -> None:
    declared = Underpass(DIPS[1], 9000, 0.85, "2min", 18, 0.03, 0.30, 0.02, 0.10)
    scenario = Scenario("rain", Text("雨", "Rain"), "12h", rain=EVENING_RAIN, underpass=(declared,))
    kept, failed = (Water(district(), scenario, 1, START) for _ in range(2))
    failed.add(Event("pumps", "pumps_fail", DIPS[1], START + 70 * MINUTE, START + 3 * HOUR))
    times = every_second(720)
    assert kept.depth_m(DIPS[1], times).max() < 0.10
    depth = failed.depth_m(DIPS[1], times)
    assert depth.max() > 0.30
    assert depth[4 * 3600 :].max() < 0.10, "the pumps run again"


def test_a_burst_main_brings_as_much_as_its_size_says() -> None:
    times = every_second(60)
    deepest = []
    for size in (0.2, 0.0, 0.45):
        dry = water(Rain())
        dry.add(burst_main(size=size))
        depth = dry.depth_m(DIPS[1], times)
        assert depth[: 40 * 60 + 1].max() == 0 < depth[40 * 60 + 1]
        deepest.append(depth.max())
    assert deepest[0] < deepest[1] == deepest[2]


def test_the_order_and_the_batching_of_questions_do_not_matter() -> None:
    times = every_second(480)[::37]
    events = [burst_main(), blocked(MONITORS[2], 30 * MINUTE, 0.95, HOUR)]
    forward, backward, late = water(), water(), water()
    for event in events:
        forward.add(event)
        backward.add(event)
    together = everything(forward, times)
    pieces = [everything(backward, times[row : row + 1]) for row in range(len(times) - 1, -1, -53)]
    assert pieces == [everything(forward, times[row : row + 1]) for row in range(len(times) - 1, -1, -53)]
    assert everything(backward, times) == together
    everything(late, times)  # who adds later gets the same as who adds before the first question
    for event in reversed(events):
        late.add(event)
    assert everything(late, times) == together


@pytest.mark.parametrize("begin", [13 * MINUTE + 7, 80 * MINUTE, 3 * HOUR + 3 * NANOSECONDS])
def test_what_happens_changes_nothing_that_was_before_it(begin: int) -> None:
    quiet, disturbed = water(), water()
    before = START + np.arange(0, begin, NANOSECONDS)
    everything(disturbed, every_second(720))
    disturbed.add(burst_main(begin, begin + 10 * MINUTE))
    disturbed.add(blocked(MONITORS[1], begin, 0.95))
    assert everything(disturbed, before) == everything(quiet, before)
    after = START + np.arange(begin, begin + HOUR, NANOSECONDS)
    assert disturbed.depth_m(DIPS[1], after).max() > quiet.depth_m(DIPS[1], after).max() + 0.1
    assert disturbed.shaft_m(MONITORS[1], after).max() > quiet.shaft_m(MONITORS[1], after).max() + 0.5
    assert disturbed.shaft_m(MONITORS[0], after).tolist() == quiet.shaft_m(MONITORS[0], after).tolist()


def test_water_comes_to_rest_exactly() -> None:
    rainy, dry, times = water(), water(Rain()), every_second(720)
    for site in DIPS:
        depth = rainy.depth_m(site, times)
        assert depth[: 60 * 60].max() == 0 < depth[90 * 60]
        assert depth[330 * 60] == 0, "between two rains"
        assert depth[-1] == 0
        assert np.abs(np.diff(depth)).max() < 0.005, "it settles without a jump"
        seen = rainy.seen(site, times)
        assert not seen[depth < 0.10].any()
        assert seen[depth > 0.15].all()
    for monitor in MONITORS:
        level, usual = rainy.shaft_m(monitor, times), dry.shaft_m(monitor, times)
        assert level[: 60 * 60].tolist() == usual[: 60 * 60].tolist()
        assert level[-3600:].tolist() == usual[-3600:].tolist()
        assert (level >= usual).all()


def test_the_flow_in_dry_weather_is_least_before_dawn() -> None:
    dry = water(Rain(), "1d")
    hours = START + np.arange(24) * HOUR  # from 19:30 local time on
    mean = np.mean([dry.shaft_m(monitor, hours) for monitor in MONITORS], axis=0)
    assert 2 <= (19.5 + int(mean.argmin())) % 24 <= 5.5


def test_where_water_may_be_is_told() -> None:
    rainy = water()
    rainy.add(blocked(MONITORS[0], 10 * MINUTE, 0.95, 5 * MINUTE))
    assert [rainy.wet(DIPS[0], START + begin * MINUTE, START + end * MINUTE) for begin, end in (
        (0, 55), (55, 85), (100, 101), (0, 720), (320, 325), (700, 715),
    )] == [False, True, True, True, False, False]  # fmt: skip
    assert rainy.wet(MONITORS[0], START, START + 20 * MINUTE)
    assert not rainy.wet(MONITORS[1], START, START + 20 * MINUTE)
    assert not rainy.wet("road-river", START, START + 12 * HOUR)
    assert rainy.wet_sites(START) == set()
    rainy.add(burst_main())
    assert rainy.wet_sites(START + 50 * MINUTE) == {DIPS[1]}


def test_a_dry_month_of_a_city_is_neither_computed_nor_kept() -> None:
    """Two wet evenings in thirty days, and one sewer that is blocked for half an hour."""
    rain = Rain(burst=(Burst("84h", "30min", 60.0),), design=(DesignStorm("500h", "1h", 2.0),))
    city = water(rain, "30d", district_of(Fleet(manhole_monitors=300)))
    city.add(blocked("monitor-0007", 200 * HOUR, 1.0, HOUR // 2))
    month = START + np.arange(0, 30 * 24 * 60, 7) * MINUTE
    assert max(city.shaft_m(f"monitor-{number:04}", month).max() for number in range(1, 301)) > 2.0
    assert city._shafts._kept.nbytes < 300 * 4 * 360 * 12  # a dozen hours of each, at a number every ten seconds
    assert len(city._shafts._left) < 12 * 6


def test_before_the_start_it_is_dry() -> None:
    rainy = water(Rain(burst=(Burst("0s", "10min", 60.0),)))
    assert rainy.rain_mm(at(-60, 0)).tolist() == [0, 0]
    assert rainy.depth_m(DIPS[0], at(-60, 0)).tolist() == [0, 0]
    assert rainy.rain_mm(at(60))[0] == pytest.approx(0.95, rel=0.01)
    assert 0.1 < rainy.shaft_m(MONITORS[0], at(-60))[0] < 0.5
