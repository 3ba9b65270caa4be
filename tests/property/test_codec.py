"""What ``struct`` has packed, the codec finds again: every type, order, place, scale, sentinel."""

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.codec import Codec
from edge.plan import plan
from edge.profile import Limits, Register
from rules.samples import Quality

PACK = {"u16": ">H", "s16": ">h", "u32": ">I", "s32": ">i", "f32": ">f"}
ORDERS = {"ABCD": "abcd", "CDAB": "cdab", "BADC": "badc", "DCBA": "dcba"}
NUMBERS = {
    "u16": st.integers(0, 2**16 - 1),
    "s16": st.integers(-(2**15), 2**15 - 1),
    "u32": st.integers(0, 2**32 - 1),
    "s32": st.integers(-(2**31), 2**31 - 1),
    "f32": st.floats(width=32, allow_nan=False, allow_infinity=False),
}


def pack(kind: str, order: str, number: float) -> bytes:
    """Bytes as they stand in the registers."""
    plain = struct.pack(PACK[kind], number)
    if len(plain) == 2:
        return plain
    named = dict(zip("abcd", plain, strict=True))
    return bytes(named[letter] for letter in ORDERS[order])


@st.composite
def devices(draw: st.DrawFn) -> tuple[list[Register], list[float], dict[int, bytes]]:
    """Points at scattered registers, their numbers, and the memory they stand in (address to two bytes)."""
    points, numbers, memory, address = [], [], {}, draw(st.integers(0, 100))
    for n in range(draw(st.integers(1, 12))):
        kind: Any = draw(st.sampled_from(sorted(PACK)))
        order: Any = draw(st.sampled_from(sorted(ORDERS)))
        scale = draw(st.sampled_from([1.0, 0.1, 0.01, -2.0]))
        point = Register(
            f"m{n}", "1", 3, address, kind, order=order, scale=scale, offset=draw(st.sampled_from([0.0, 5.0]))
        )
        number = draw(NUMBERS[kind])
        data = pack(kind, order, number)
        for word in range(point.words):
            memory[address + word] = data[2 * word : 2 * word + 2]
        points.append(point)
        numbers.append(number)
        address += point.words + draw(st.integers(0, 15))
    return points, numbers, memory


@given(devices(), st.integers(4, 125), st.integers(0, 20))
def test_what_was_packed_is_found(
    device: tuple[list[Register], list[float], dict[int, bytes]], most: int, hole: int
) -> None:
    points, numbers, memory = device
    for request in plan(points, Limits(most, hole)):
        data = b"".join(memory.get(request.start + n, b"\xab\xcd") for n in range(request.count))
        values, qualities = Codec(points, request).decode(np.frombuffer(data, np.uint8)[None])
        for value, quality, n in zip(values[0], qualities[0], request.points, strict=True):
            assert value == numbers[n] * points[n].scale + points[n].offset
            assert quality == Quality.GOOD


@given(st.lists(NUMBERS["f32"] | st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=20))
def test_many_replies_are_one_matrix_and_nothing_infinite_leaves_it(numbers: list[float]) -> None:
    point = Register("x", "1", 4, 0, "f32", order="CDAB", range=(-1e6, 1e6))
    replies = np.frombuffer(b"".join(pack("f32", "CDAB", number) for number in numbers), np.uint8).reshape(-1, 4)
    value, quality = Codec([point], plan([point], Limits())[0]).decode(replies)
    assert np.isfinite(value).all()
    for number, found, judged in zip(numbers, value[:, 0], quality[:, 0], strict=True):
        if not math.isfinite(number):
            assert (found, judged) == (0.0, Quality.BAD_SENTINEL)
        elif abs(number) > 1e6:
            assert (found, judged) == (0.0, Quality.BAD_RANGE)
        else:
            assert (found, judged) == (number, Quality.GOOD)


@given(st.binary(min_size=8, max_size=8))
def test_any_bytes_decode_without_a_warning(data: bytes) -> None:
    points = [Register("a", "1", 3, 0, "f32", scale=1e30), Register("b", "1", 3, 2, "f32", order="DCBA")]
    value, _ = Codec(points, plan(points, Limits())[0]).decode(np.frombuffer(data, np.uint8)[None])
    assert np.isfinite(value).all()


@given(st.integers(0, 0xFFFF), st.integers(0, 15), st.integers(1, 16))
def test_bit_fields_of_one_register(word: int, bit: int, width: int) -> None:
    width = min(width, 16 - bit)
    points = [Register("a", "1", 3, 7, "bit", bit=bit, width=width), Register("b", "1", 3, 7, "bit", bit=15)]
    (request,) = plan(points, Limits())
    value, _ = Codec(points, request).decode(np.frombuffer(word.to_bytes(2, "big"), np.uint8)[None])
    text = f"{word:016b}"[::-1]
    assert value[0].tolist() == [int(text[bit : bit + width][::-1], 2), int(text[15])]


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_coils(states: list[bool]) -> None:
    points = [Register(f"c{n}", "1", 1, 100 + n, "bit") for n in range(len(states))]
    (request,) = plan(points, Limits())
    data = sum(state << n for n, state in enumerate(states)).to_bytes(request.reply_bytes, "little")
    value, quality = Codec(points, request).decode(np.frombuffer(data, np.uint8)[None])
    assert value[0].tolist() == states
    assert not quality.any()


@pytest.mark.parametrize(
    ("kind", "raw", "invalid"), [("s16", 0x8000, -32768), ("s16", 0x7FFF, 0x7FFF), ("u32", 2**32 - 1, -1)]
)
def test_sentinels_are_raw_patterns_signed_or_not(kind: Any, raw: int, invalid: int) -> None:
    point = Register("x", "1", 3, 0, kind, invalid=(invalid, 5))
    data = raw.to_bytes(2 * point.words, "big")
    value, quality = Codec([point], plan([point], Limits())[0]).decode(np.frombuffer(data, np.uint8)[None])
    assert (value[0, 0], quality[0, 0]) == (0.0, Quality.BAD_SENTINEL)
