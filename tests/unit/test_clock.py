"""One clock for all: the same three numbers give the same city time everywhere."""

import pytest

from wire.clock import NANOSECONDS, Clock, from_iso, iso


def test_real_time_is_the_wall() -> None:
    clock = Clock()
    assert clock.city_at(1_781_752_200_123_456_789) == 1_781_752_200_123_456_789
    assert clock.wall_at(1_781_752_200_123_456_789) == 1_781_752_200_123_456_789


def test_a_fast_city_runs_at_its_stated_speed() -> None:
    clock = Clock(wall=1_000 * NANOSECONDS, city=5_000 * NANOSECONDS, speed=30.0)
    assert clock.city_at(1_002 * NANOSECONDS) == 5_060 * NANOSECONDS
    assert clock.wall_at(5_060 * NANOSECONDS) == 1_002 * NANOSECONDS
    assert clock.wall_seconds(60.0) == 2.0


def test_a_clock_that_stands_still_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Clock(speed=0.0)


def test_times_cross_the_api_with_their_zone() -> None:
    assert iso(from_iso("2026-06-18T19:30:00.250+08:00")) == "2026-06-18T11:30:00.250+00:00"
    with pytest.raises(ValueError, match="has no zone"):
        from_iso("2026-06-18T19:30:00")
