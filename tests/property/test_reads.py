"""Scales and units that stand elsewhere: a matrix of many readings against one reading at a time, in plain Python."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.profile import Head, Limits, Profile, Register, ScaleFrom, UnitFrom
from edge.reads import Reads
from rules.samples import Quality

HEAD = Head("any", "level_sensor", "any", "any", "any", "modbus", 1.0)
NO_VALUE = 0x7FFF
CODES = {0: 101.97, 4: 0.0101972, 7: 1.0}
LOW, HIGH = -50.0, 50.0

Judged = tuple[float, Quality]


def by_hand(raw: int, by: int, code: int | None, how: str) -> Judged:
    """What one point tells, from the three words that it takes."""
    if raw == NO_VALUE or by == NO_VALUE:
        return 0.0, Quality.BAD_SENTINEL
    if not 0 <= by <= 100:
        return 0.0, Quality.BAD_RANGE
    if by == 0 and how != "decimals":
        return 0.0, Quality.BAD_SENTINEL
    value = raw * 0.5 * (10.0**-by if how == "decimals" else 1 / by if how == "divisor" else by)
    if code is not None:
        if code not in CODES:
            return 0.0, Quality.BAD_SENTINEL
        value *= CODES[code]
    value += 2.0
    return (value, Quality.GOOD) if LOW <= value <= HIGH else (0.0, Quality.BAD_RANGE)


@given(
    st.sampled_from(["decimals", "divisor", "factor"]),
    st.booleans(),
    st.lists(
        st.tuples(
            st.integers(-200, 200) | st.sampled_from([NO_VALUE, -0x8000]),
            st.integers(-1, 4) | st.sampled_from([NO_VALUE, 100, 101]),
            st.sampled_from([0, 1, 4, 7, 8]),
        ),
        min_size=1,
        max_size=20,
    ),
    st.permutations(range(3)),
)
def test_every_reading_is_scaled_by_what_it_shows_itself(
    how: Any, with_unit: bool, readings: list[tuple[int, int, int]], order: list[int]
) -> None:
    value_point = Register(
        "value",
        "m",
        3,
        0,
        "s16",
        scale=0.5,
        offset=2.0,
        invalid=(NO_VALUE,),
        range=(LOW, HIGH),
        scale_from=ScaleFrom("by", how),
        unit_from=UnitFrom("code", {str(code): factor for code, factor in CODES.items()}) if with_unit else None,
    )
    by_point = Register("by", "1", 4, 0, "s16", invalid=(NO_VALUE,), range=(0.0, 100.0))
    points = (value_point, by_point, Register("code", "1", 3, 50, "u16"))
    reads = Reads(Profile(HEAD, Limits(), tuple(points[n] for n in order)))
    words: dict[tuple[int, int], int] = {(point.function, point.register): n for n, point in enumerate(points)}
    replies = [
        np.frombuffer(b"".join(struct.pack(">h", r[words[q.function, q.start]]) for r in readings), np.uint8)
        for q in reads.requests
    ]
    value, quality = reads.decode([reply.reshape(-1, 2) for reply in replies])
    column = order.index(0)
    for row, (raw, by, code) in enumerate(readings):
        expected, judged = by_hand(raw, by, code if with_unit else None, how)
        told, found = value[row, column], quality[row, column]
        if judged == Quality.BAD_SENTINEL and NO_VALUE in (raw, by):
            assert found >= Quality.BAD_RANGE  # the worse of two causes
            assert told == 0.0
        elif abs(abs(expected) - 50.0) > 1e-9:  # not on the very edge, where rounding decides
            assert (told, found) == (pytest.approx(expected, rel=1e-12, abs=1e-12), judged)
