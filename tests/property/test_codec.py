"""What ``struct`` has packed, the codec finds again: every type, order, place, scale, sentinel."""

import math
import struct
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.codec import Codec
from edge.plan import plan
from edge.profile import Limits, Register
from rules.samples import Quality

PACK = {"u16": ">H", "s16": ">h", "u32": ">I", "s32": ">i", "u64": ">Q", "s64": ">q", "f32": ">f", "f64": ">d"}
ORDERS = {
    "ABCD": ("abcd", "abcdefgh"),
    "CDAB": ("cdab", "ghefcdab"),
    "BADC": ("badc", "badcfehg"),
    "DCBA": ("dcba", "hgfedcba"),
}
NUMBERS: dict[str, st.SearchStrategy[float]] = {
    "u16": st.integers(0, 2**16 - 1),
    "s16": st.integers(-(2**15), 2**15 - 1),
    "u32": st.integers(0, 2**32 - 1),
    "s32": st.integers(-(2**31), 2**31 - 1),
    "u64": st.integers(0, 2**64 - 1) | st.integers(2**63, 2**64 - 1),
    "s64": st.integers(-(2**63), 2**63 - 1),
    "f32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "f64": st.floats(-1e300, 1e300),
    "bcd16": st.integers(0, 9999),
    "bcd32": st.integers(0, 99999999),
}

# All together, what needs no long words, and what is read differently where there are some.
MIXTURES = (sorted(NUMBERS), ["u16", "s16", "u32", "s32", "f32"], ["u64", "s64", "s16"], ["f32", "f64"], ["f32", "u64"])


def pack(kind: str, order: str, number: float) -> bytes:
    """Bytes as they stand in the registers."""
    if kind.startswith("bcd"):
        plain = bytes.fromhex(f"{number:0{int(kind.removeprefix('bcd')) // 4}d}")
    else:
        plain = struct.pack(PACK[kind], number)
    return arrange(plain, order)


def arrange(plain: bytes, order: str) -> bytes:
    if len(plain) == 2:
        return plain
    named = dict(zip("abcdefgh", plain, strict=False))
    return bytes(named[letter] for letter in ORDERS[order][len(plain) // 8])


def only(point: Register) -> Codec:
    return Codec([point], plan([point], Limits())[0])


def rows(*replies: bytes) -> Any:
    return np.frombuffer(b"".join(replies), np.uint8).reshape(len(replies), -1)


@st.composite
def devices(draw: st.DrawFn) -> tuple[list[Register], list[float], dict[int, bytes]]:
    """Points at scattered registers, their numbers, and the memory they stand in (address to two bytes)."""
    points, numbers, memory, address = [], [], {}, draw(st.integers(0, 100))
    kinds = draw(st.sampled_from(MIXTURES))
    for n in range(draw(st.integers(1, 12))):
        kind: Any = draw(st.sampled_from(kinds))
        order: Any = draw(st.sampled_from(sorted(ORDERS)))
        scale = draw(st.sampled_from([1.0, 0.1, 0.01, -2.0]))
        offset = draw(st.sampled_from([0.0, 5.0]))
        point = Register(f"m{n}", "1", 3, address, kind, order=order, scale=scale, offset=offset)
        number = draw(NUMBERS[kind])
        data = pack(kind, order, number)
        for word in range(point.words):
            memory[address + word] = data[2 * word : 2 * word + 2]
        points.append(point)
        numbers.append(number)
        address += point.words + draw(st.integers(0, 15))
    return points, numbers, memory


@given(devices(), st.integers(4, 125), st.integers(0, 20), st.data())
def test_what_was_packed_is_found_but_for_the_patterns_that_mean_no_value(
    device: tuple[list[Register], list[float], dict[int, bytes]], most: int, hole: int, data: st.DataObject
) -> None:
    points, numbers, memory = device
    lost = data.draw(st.sets(st.sampled_from(range(len(points)))))
    for n, point in enumerate(points):
        own = int.from_bytes(pack(point.type, "ABCD", numbers[n]), "big")
        bits = 16 * point.words
        signed = own - (1 << bits) if point.type.startswith("s") and own >> (bits - 1) else own
        patterns = [own ^ 1, own ^ (1 << (bits - 1))][: data.draw(st.integers(0, 2))]
        points[n] = msgspec.structs.replace(point, invalid=(*patterns, *([signed] if n in lost else [])))
    for request in plan(points, Limits(most, hole)):
        reply = b"".join(memory.get(request.start + n, b"\xab\xcd") for n in range(request.count))
        values, qualities = Codec(points, request).decode(rows(reply))
        for value, quality, n in zip(values[0], qualities[0], request.points, strict=True):
            if n in lost:
                assert (value, quality) == (0.0, Quality.BAD_SENTINEL)
            else:
                assert value == numbers[n] * points[n].scale + points[n].offset
                assert quality == Quality.GOOD


@given(devices(), st.data())
def test_many_replies_are_what_each_of_them_is_alone(
    device: tuple[list[Register], list[float], dict[int, bytes]], data: st.DataObject
) -> None:
    points, _, _ = device
    request = plan(points, Limits())[0]
    size = request.reply_bytes
    replies = data.draw(st.lists(st.binary(min_size=size, max_size=size), min_size=2, max_size=5))
    codec = Codec(points, request)
    together = codec.decode(rows(*replies))
    for number, reply in enumerate(replies):
        alone = codec.decode(rows(reply))
        assert [column[number].tobytes() for column in together] == [column[0].tobytes() for column in alone]


@given(
    st.sampled_from(["f32", "f64"]),
    st.lists(NUMBERS["f32"] | st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=20),
)
def test_many_replies_are_one_matrix_and_nothing_infinite_leaves_it(kind: Any, numbers: list[float]) -> None:
    point = Register("x", "1", 4, 0, kind, order="CDAB", range=(-1e6, 1e6))
    value, quality = only(point).decode(rows(*(pack(kind, "CDAB", number) for number in numbers)))
    assert np.isfinite(value).all()
    for number, found, judged in zip(numbers, value[:, 0], quality[:, 0], strict=True):
        if not math.isfinite(number):
            assert (found, judged) == (0.0, Quality.BAD_SENTINEL)
        elif abs(number) > 1e6:
            assert (found, judged) == (0.0, Quality.BAD_RANGE)
        else:
            assert (found, judged) == (number, Quality.GOOD)


# Words that begin infinities, and NaNs that signal and that do not, so that they are not left to chance.
WORDS = st.sampled_from([b"\x7f\x80", b"\x7f\xa0", b"\xff\xc0", b"\x7f\xf0", b"\x7f\xf4", b"\x00\x00"])


@given(st.lists(WORDS | st.binary(min_size=2, max_size=2), min_size=26, max_size=26).map(b"".join))
def test_any_bytes_decode_without_a_warning(data: bytes) -> None:
    kinds: list[Any] = ["f32", "f32", "f64", "f64", "u64", "s64", "bcd32", "bcd16", "s16", "u32"]
    points: list[Register] = []
    for n, kind in enumerate(kinds):
        start = points[-1].register + points[-1].words if points else 0
        points.append(Register(f"m{n}", "1", 3, start, kind, order="DCBA" if n % 2 else "ABCD", scale=1e30))
    value, quality = Codec(points, plan(points, Limits())[0]).decode(rows(data))
    assert np.isfinite(value).all()
    assert ((quality == Quality.GOOD) | (value == 0.0)).all()


@given(st.sampled_from(["bcd16", "bcd32"]), st.sampled_from(sorted(ORDERS)), st.data())
def test_a_decimal_digit_above_nine_is_no_number(kind: Any, order: Any, data: st.DataObject) -> None:
    digits = int(kind.removeprefix("bcd")) // 4
    texts = data.draw(st.lists(st.text("0123456789abcdef", min_size=digits, max_size=digits), min_size=1, max_size=9))
    value, quality = only(Register("x", "1", 3, 0, kind, order=order)).decode(
        rows(*(arrange(bytes.fromhex(text), order) for text in texts))
    )
    for text, found, judged in zip(texts, value[:, 0], quality[:, 0], strict=True):
        if text.isdecimal():
            assert (found, judged) == (int(text), Quality.GOOD)
        else:
            assert (found, judged) == (0.0, Quality.BAD_SENTINEL)


@given(st.integers(0, 0xFFFF), st.integers(0, 15), st.integers(1, 16), st.booleans())
def test_bit_fields_of_one_register(word: int, bit: int, width: int, beside_a_long_one: bool) -> None:
    width = min(width, 16 - bit)
    points = [Register("a", "1", 3, 7, "bit", bit=bit, width=width), Register("b", "1", 3, 7, "bit", bit=15)]
    points += [Register("c", "1", 3, 8, "u64")] * beside_a_long_one
    (request,) = plan(points, Limits())
    value, _ = Codec(points, request).decode(rows(word.to_bytes(2, "big") + bytes(8 * beside_a_long_one)))
    text = f"{word:016b}"[::-1]
    assert value[0, :2].tolist() == [int(text[bit : bit + width][::-1], 2), int(text[15])]


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_coils(states: list[bool]) -> None:
    points = [Register(f"c{n}", "1", 1, 100 + n, "bit") for n in range(len(states))]
    (request,) = plan(points, Limits())
    data = sum(state << n for n, state in enumerate(states)).to_bytes(request.reply_bytes, "little")
    value, quality = Codec(points, request).decode(rows(data))
    assert value[0].tolist() == states
    assert not quality.any()
