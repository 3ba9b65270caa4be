"""The reads of one device, by example: what was split, what was left out, scales and units that stand elsewhere."""

from typing import Any

import numpy as np
import pytest

from edge.profile import Head, Limits, Profile, Register, ScaleFrom, UnitFrom
from edge.reads import Reads
from rules.samples import Quality

HEAD = Head("any", "level_sensor", "any", "any", "any", "modbus", 1.0)
KPA = UnitFrom("unit_code", {"1": 0.102, "7": 1.0})


def _profile(*points: Register, limits: Limits | None = None) -> Profile:
    return Profile(HEAD, limits or Limits(), points)


def _probe(level: Register) -> Reads:
    """A transmitter whose level stands in another request than what it is told in."""
    points = (Register("unit_code", "1", 3, 2, "u16", invalid=(0xFFFF,)), Register("scale", "1", 4, 3, "s16"), level)
    return Reads(_profile(*points))


def _words(*rows: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.array(rows, ">u2").view(np.uint8)


@pytest.mark.parametrize(
    ("how", "shown", "value"),
    [("decimals", 2, 12.5), ("decimals", 0, 1250.0), ("divisor", 100, 12.5), ("factor", 3, 3750.0)],
)
def test_a_scale_that_stands_elsewhere(how: Any, shown: int, value: float) -> None:
    level = Register("level", "m", 3, 100, "s16", scale_from=ScaleFrom("scale", how))
    reads = _probe(level)
    assert len(reads.requests) == 3
    found, quality = reads.decode([_words((1,)), _words((1250,)), _words((shown,))])
    assert found[0].tolist() == [1.0, shown, pytest.approx(value, rel=1e-15)]
    assert not quality.any()


def test_the_offset_is_not_scaled_and_the_range_is_of_what_comes_out() -> None:
    level = Register(
        "level",
        "m",
        3,
        100,
        "s16",
        scale=10.0,
        offset=-5.0,
        range=(0.0, 20.0),
        scale_from=ScaleFrom("scale", "divisor"),
    )
    replies = [_words((1,), (1,)), _words((20,), (30,)), _words((10,), (10,))]
    value, quality = _probe(level).decode(replies)
    assert value[:, 2].tolist() == [15.0, 0.0]
    assert quality[:, 2].tolist() == [Quality.GOOD, Quality.BAD_RANGE]


def test_a_unit_code_and_decimals_together() -> None:
    level = Register("level", "m", 3, 100, "s16", scale_from=ScaleFrom("scale", "decimals"), unit_from=KPA)
    value, _ = _probe(level).decode([_words((1,), (7,)), _words((250,), (250,)), _words((1,), (2,))])
    assert value[:, 2].tolist() == [pytest.approx(2.55), 2.5]


@pytest.mark.parametrize("how", ["divisor", "factor", "decimals"])
@pytest.mark.parametrize("shown", [0, 32767])
def test_what_is_no_scale_makes_the_point_bad(how: Any, shown: int) -> None:
    level = Register("level", "m", 3, 100, "s16", offset=1.0, scale_from=ScaleFrom("scale", how))
    value, quality = _probe(level).decode([_words((1,)), _words((1250,)), _words((shown,))])
    makes_sense = (how == "decimals") != (shown != 0)  # 10^0 is a scale, 10^-32767 is none; the others the other way
    assert quality[0].tolist() == [0, 0, Quality.GOOD if makes_sense else Quality.BAD_SENTINEL]
    assert (value[0, 2] == 0.0) != makes_sense


def test_an_unknown_unit_and_a_bad_one_make_the_point_bad() -> None:
    level = Register("level", "m", 3, 100, "s16", range=(0.0, 1.0), unit_from=KPA)
    value, quality = _probe(level).decode([_words((2,), (0xFFFF,)), _words((1250,), (1,)), _words((0,), (0,))])
    assert value[:, 2].tolist() == [0.0, 0.0]
    assert quality[:, 2].tolist() == [Quality.BAD_SENTINEL, Quality.BAD_SENTINEL]


def test_a_source_out_of_its_range_makes_the_point_as_bad() -> None:
    code = Register("unit_code", "1", 3, 2, "u16", range=(0.0, 8.0))
    level = Register("level", "m", 3, 3, "s16", unit_from=UnitFrom("unit_code", {"9": 1.0}))
    _, quality = Reads(_profile(code, level)).decode([_words((9, 1))])
    assert quality.tolist() == [[Quality.BAD_RANGE, Quality.BAD_RANGE]]


@pytest.mark.parametrize("refused", ["unit_code", "scale"])
def test_a_point_that_the_device_refused_is_not_told_and_what_needs_it_is_bad(refused: str) -> None:
    level = Register("level", "m", 3, 100, "s16", scale_from=ScaleFrom("scale", "divisor"), unit_from=KPA)
    reads = _probe(level)
    column = ("unit_code", "scale").index(refused)
    (request,) = (each for each in reads.requests if column in each.points)
    without = reads.split(request)
    assert without.left_out == (refused,)
    value, quality = without.decode([_words((1,)) for _ in without.requests])
    assert value[0, [1 - column, 2]].tolist() == [1.0, 0.0]
    assert np.isnan(value[0, column])
    assert quality.tolist() == [[Quality.GOOD, Quality.GOOD, Quality.BAD_COMMS]]


def test_a_point_that_was_refused_stays_untold_however_bad_its_scale() -> None:
    level = Register("level", "m", 3, 100, "s16", scale_from=ScaleFrom("scale", "divisor"))
    reads = _probe(level)
    without = reads.split(reads.requests[1])
    assert without.left_out == ("level",)
    value, quality = without.decode([_words((1,), (1,)), _words((0,), (10,))])
    assert np.isnan(value[:, 2]).all()
    assert not quality.any()


def test_devices_that_are_asked_alike_share_what_decodes_them() -> None:
    profile = _profile(*(Register(f"m{n}", "1", 3, 20 * n, "u16") for n in range(3)), limits=Limits(max_hole=50))
    one, two = Reads(profile), Reads(profile, base=700)
    assert one.layout is two.layout
    split = [reads.split(reads.requests[0]) for reads in (one, two)]
    assert split[0].layout is split[1].layout is not one.layout
    left = [reads.split(reads.requests[1]) for reads in split]
    assert left[0].layout is left[1].layout
    assert left[0].left_out == ("m1",)
    assert [request.start for request in left[1].requests] == [700, 740]


def test_a_device_that_has_nothing_of_its_profile_is_asked_nothing() -> None:
    reads = Reads(_profile(Register("m", "1", 3, 0, "u16")))
    nothing = reads.split(reads.requests[0])
    assert (nothing.requests, nothing.left_out) == ((), ("m",))
