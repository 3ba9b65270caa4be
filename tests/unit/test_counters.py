"""Counting meters, by example: where a register ends, where the power failed, what a read takes away."""

import math

import msgspec
import pytest

from edge.profile import Register, ScaleFrom
from rules.samples import Quality
from tests.meters import Meters

RAIN = Register("rain_total", "mm", 3, 0, "u16", scale=0.1, counter="wraps")
PARTIAL = Register("rain_partial", "mm", 4, 2, "u32", scale=0.001, counter="clears")
ENERGY = Register("energy", "W.h", 4, 5, "u32", counter="wraps")


def test_the_first_reading_is_the_total() -> None:
    meters = Meters([RAIN])
    assert meters.shows(53.6, 53.6, 54.0) == [53.6, 53.6, 54.0]
    assert not meters.counters.changed


def test_a_register_goes_on_from_its_end() -> None:
    meters = Meters([RAIN])
    assert meters.shows(6550.0, 3.0, 4.0) == pytest.approx([6550.0, 6556.6, 6557.6])
    assert meters.counters.changed
    assert meters.counted["edge_counter_wraps_total"] == 1


@pytest.mark.parametrize(("before", "after"), [(100.0, 3.0), (6550.0, 700.0), (5800.0, 3.0), (100.0, 0.0)])
def test_any_other_fall_to_less_than_half_is_a_restart_once_it_is_confirmed(before: float, after: float) -> None:
    meters = Meters([RAIN])
    assert meters.shows(before, after) == [before, 0.0]
    assert meters.judged == [Quality.GOOD, Quality.BAD_RANGE]
    assert not meters.counters.changed
    assert meters.shows(after, after + 1.0) == [before + after, before + (after + 1.0)]
    assert meters.judged == [Quality.GOOD, Quality.GOOD]
    assert meters.counted.snapshot() == {"edge_counter_restarts_total": 1, "edge_counter_wrong_readings_total": 1}


@pytest.mark.parametrize(
    "glitches", [[0.0], [4999.0], [2501.0], [4999.0, 4998.0, 4999.0], [0.0, 4999.0], [0.0, 4999.0, 0.0]]
)
def test_a_glitch_loses_nothing_and_counts_nothing(glitches: list[float]) -> None:
    meters = Meters([RAIN])
    assert meters.shows(5000.0, *glitches, 5001.0) == [5000.0, *(0.0 for _ in glitches), 5001.0]
    assert meters.judged == [Quality.GOOD, *(Quality.BAD_RANGE for _ in glitches), Quality.GOOD]
    assert meters.counted.snapshot() == {"edge_counter_wrong_readings_total": len(glitches)}
    assert not meters.counters.changed


def test_a_register_that_may_have_ended_while_the_box_was_down_goes_on_from_its_end() -> None:
    meters, after = Meters([RAIN]), Meters([RAIN])
    meters.shows(4000.0)
    after.counters.restore(meters.counters.save())
    assert after.shows(3.0, 4.0, 4.0) == pytest.approx([6556.6, 6557.6, 6557.6])
    assert after.counted.snapshot() == {"edge_counter_wraps_total": 1}


def test_a_doubt_outlives_a_restart_of_the_box() -> None:
    meters, after = Meters([RAIN]), Meters([RAIN])
    meters.shows(100.0, 0.0)
    after.counters.restore(meters.counters.save())
    assert after.shows(1.0) == [101.0]


def test_a_read_that_clears_adds_what_it_shows() -> None:
    meters = Meters([PARTIAL])
    assert meters.shows(0.2, 0.0, 0.3) == [0.2, 0.2, 0.5]
    assert meters.counters.changed


@pytest.mark.parametrize("point", [ENERGY, PARTIAL])
def test_what_is_bad_or_was_not_told_counts_nothing_and_stays_as_it_is(point: Register) -> None:
    meters = Meters([point])
    meters.shows(7.0)
    (bad,), (untold,) = meters.advance(("a", [0.0], Quality.BAD_SENTINEL), ("a", [math.nan], Quality.GOOD))
    assert bad == 0.0
    assert math.isnan(untold)
    assert meters.shows(8.0) == [8.0 if point is ENERGY else 15.0]


def test_other_points_of_the_profile_are_left_alone() -> None:
    plain = Register("power", "W", 4, 0, "u16")
    meters = Meters([plain, ENERGY])
    assert meters.advance(("a", [60.0, 500.0], Quality.GOOD), ("a", [10.0, 0.0], Quality.GOOD)) == [
        [60.0, 500.0],
        [10.0, 0.0],
    ]
    assert meters.advance(("a", [9.0, 200.0], Quality.GOOD)) == [[9.0, 700.0]]


def test_a_register_whose_scale_stands_elsewhere_ends_where_that_says() -> None:
    decimals = Register("decimals", "1", 3, 9, "u16")
    energy = Register("energy", "W.h", 4, 5, "u16", counter="wraps", scale_from=ScaleFrom("decimals", "decimals"))
    meters = Meters([decimals, energy])
    totals = meters.advance(("a", [2.0, 655.0], Quality.GOOD), ("a", [2.0, 1.0], Quality.GOOD))
    assert totals == [[2.0, 655.0], [2.0, pytest.approx(656.36)]]


def test_counting_goes_on_after_a_restart_of_the_box() -> None:
    meters, after = (Meters([RAIN], ["a", "b"]) for _ in range(2))
    meters.shows(6550.0, 3.0)
    meters.shows(17.0, device="b")
    saved = meters.counters.save()
    assert not meters.counters.changed
    after.counters.restore(saved)
    assert after.shows(4.0) == pytest.approx([6557.6])
    assert after.shows(2.0, 2.0, device="b") == [0.0, 19.0]


def test_what_is_not_there_any_more_is_dropped_and_what_is_declared_otherwise_begins_anew() -> None:
    meters = Meters([RAIN, ENERGY], ["a", "b"])
    meters.advance(*((device, [9.0, 9.0], Quality.GOOD) for device in "ab"))
    saved = meters.counters.save()
    finer = Meters([msgspec.structs.replace(RAIN, scale=0.01)], ["b", "c"])
    finer.counters.restore(saved)
    assert finer.shows(2.0, device="b") == [2.0]
    assert len(msgspec.msgpack.decode(finer.counters.save())) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"a": 1}),
        msgspec.msgpack.encode([["a", "rain_total", [6553.6, "x", 0.0]]]),
        msgspec.msgpack.encode([["a", "rain_total", [6553.6, math.nan, 0.0]]]),
        msgspec.msgpack.encode([["a", "rain_total", [6553.6, 0.0, math.inf]]]),
    ],
)
def test_bytes_that_are_no_counters_are_counted_and_nothing_is_taken_from_them(wrong: bytes) -> None:
    meters = Meters([RAIN])
    meters.counters.restore(wrong)
    assert meters.counted["edge_counters_fresh_starts_total"] == 1
    assert meters.shows(5.0) == [5.0]
