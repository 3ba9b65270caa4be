"""Registers as the simulator packs them, bit for bit as pymodbus packs one value at a time."""

import math
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client.mixin import ModbusClientMixin

from edge.profile import Head, Limits, Profile, Register
from firmware_sim.registers import Illegal, Registers

TYPES = {
    "u16": ModbusClientMixin.DATATYPE.UINT16,
    "s16": ModbusClientMixin.DATATYPE.INT16,
    "u32": ModbusClientMixin.DATATYPE.UINT32,
    "s32": ModbusClientMixin.DATATYPE.INT32,
    "u64": ModbusClientMixin.DATATYPE.UINT64,
    "s64": ModbusClientMixin.DATATYPE.INT64,
    "f32": ModbusClientMixin.DATATYPE.FLOAT32,
    "f64": ModbusClientMixin.DATATYPE.FLOAT64,
    # Their digits as those of a hexadecimal number, by hand: pymodbus has no decimals.
    "bcd16": ModbusClientMixin.DATATYPE.UINT16,
    "bcd32": ModbusClientMixin.DATATYPE.UINT32,
}
LIMITS = {
    "u16": (0, 0xFFFF),
    "s16": (-0x8000, 0x7FFF),
    "u32": (0, 0xFFFFFFFF),
    "s32": (-0x80000000, 0x7FFFFFFF),
    "u64": (0, 2**64 - 1),
    "s64": (-(2**63), 2**63 - 1),
    "bcd16": (0, 9999),
    "bcd32": (0, 99999999),
}
FLOATS = ("f32", "f64")
PATTERNS: dict[int, tuple[Any, int]] = {1: ("u16", 0x1234), 2: ("u32", 0x12345678), 4: ("u64", 0x123456789ABCD800)}
ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
HOLE = 4


def profile(points: list[Register]) -> Profile:
    return Profile(Head("any", "any", "any", "any", "any", "modbus", 1.0), Limits(max_hole=HOLE), tuple(points))


def by_pymodbus(point: Register, value: float) -> list[int]:
    """The words of one point; pymodbus swaps words only, so the bytes of BADC and DCBA are swapped by hand."""
    raw: float = (value - point.offset) / point.scale
    if point.type not in FLOATS:
        low, high = LIMITS[point.type]
        raw = min(max(round(raw), low), high)
    if point.type.startswith("bcd"):
        raw = int(str(raw), 16)
    words = ModbusClientMixin.convert_to_registers(
        raw, TYPES[point.type], word_order="little" if point.order in ("CDAB", "DCBA") else "big"
    )
    if point.words > 1 and point.order in ("BADC", "DCBA"):
        words = [(word & 0xFF) << 8 | word >> 8 for word in words]
    return words


def around(kind: str) -> st.SearchStrategy[float]:
    """Raw values of a type: within it, half-way between two integers, and beyond."""
    if kind in FLOATS:
        return st.floats(width=32 if kind == "f32" else 64, allow_nan=False)
    low, high = LIMITS[kind]
    within = st.integers(low, high)
    return st.one_of(within.map(float), within.map(lambda n: n + 0.5), st.floats(-1e12, 1e12), st.floats(-1e20, 1e20))


@st.composite
def devices(draw: st.DrawFn) -> tuple[list[Register], np.ndarray[Any, np.dtype[np.float64]]]:
    """Points with small holes between them, and values ``[points, n]``."""
    points, rows, address = [], [], draw(st.integers(0, 100))
    instants = draw(st.integers(1, 4))
    for n in range(draw(st.integers(1, 10))):
        kind: Any = draw(st.sampled_from(sorted(TYPES)))
        order: Any = draw(st.sampled_from(ORDERS))
        scale = 1.0 if kind in FLOATS else draw(st.sampled_from([1.0, 0.1, 0.01, -2.0]))
        offset = 0.0 if kind in FLOATS else draw(st.sampled_from([0.0, 5.0, -0.25]))
        points.append(Register(f"m{n}", "1", 3, address, kind, order=order, scale=scale, offset=offset))
        rows.append([draw(around(kind)) * scale + offset for _ in range(instants)])
        address += points[-1].words + draw(st.integers(0, HOLE))
    return points, np.array(rows)


@given(devices(), st.data())
def test_every_word_is_as_pymodbus_packs_it(
    device: tuple[list[Register], np.ndarray[Any, np.dtype[np.float64]]], data: st.DataObject
) -> None:
    points, values = device
    begin, end = points[0].register, points[-1].register + points[-1].words
    start = data.draw(st.integers(begin, end - 1))  # a read may cut a value in two
    count = data.draw(st.integers(1, end - start))
    named = {point.metric: row for point, row in zip(points, values, strict=True)}
    registers = Registers(profile(points))
    if all(start + count <= point.register or point.register + point.words <= start for point in points):
        with pytest.raises(Illegal):  # nothing but a hole
            registers.reply(3, start, count, named)
        return
    replies = registers.reply(3, start, count, named)
    assert replies.shape == (values.shape[1], 2 * count)
    for instant in range(values.shape[1]):
        words = dict.fromkeys(range(begin, end), 0)
        for point, row in zip(points, values, strict=True):
            words.update(enumerate(by_pymodbus(point, float(row[instant])), point.register))
        expected = struct.pack(f">{count}H", *(words[address] for address in range(start, start + count)))
        assert replies[instant].tobytes() == expected


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(-3, 80)), min_size=1, max_size=6), st.sampled_from([0, 1, 1000])
)
def test_bit_fields_share_a_register(fields: list[tuple[int, int]], register: int) -> None:
    points, expected, bit = [], 0, 0
    for n, (width, value) in enumerate(fields):
        if bit + width > 16:
            break
        points.append(Register(f"b{n}", "1", 4, register, "bit", bit=bit, width=width))
        expected |= min(max(value, 0), (1 << width) - 1) << bit
        bit += width
    values = {point.metric: np.array([float(value)]) for point, (_, value) in zip(points, fields, strict=False)}
    reply = Registers(profile(points[::-1])).reply(4, register, 1, values)
    assert reply.tobytes() == struct.pack(">H", expected)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 30), st.data())
def test_coils_come_eight_a_byte_the_first_in_the_lowest_bit(
    coils: list[bool], first: int, data: st.DataObject
) -> None:
    points = [Register(f"c{n}", "1", 1, first + n, "bit") for n in range(len(coils))]
    values = {f"c{n}": np.array([float(coil), 1.0 - coil]) for n, coil in enumerate(coils)}
    begin = data.draw(st.integers(0, len(coils) - 1))
    count = data.draw(st.integers(1, len(coils) - begin))
    reply = Registers(profile(points)).reply(1, first + begin, count, values)
    number = sum(coil << n for n, coil in enumerate(coils[begin : begin + count]))
    assert reply[0].tobytes() == number.to_bytes((count + 7) // 8, "little")
    assert reply[1].tobytes() == (number ^ ((1 << count) - 1)).to_bytes((count + 7) // 8, "little")


@given(st.sampled_from(sorted(TYPES)), st.sampled_from(ORDERS), st.lists(st.booleans(), min_size=1, max_size=5))
def test_what_is_not_there_is_the_first_invalid_pattern_and_its_neighbours_are_untouched(
    kind: Any, order: Any, missing: list[bool]
) -> None:
    plain = Register("m", "1", 3, 7, kind, order=order)
    unsigned, own = PATTERNS[plain.words]
    sentinel = msgspec.structs.replace(plain, invalid=(own, 9))
    values = {"m": np.array([math.nan if gone else 12.0 for gone in missing])}
    pattern = Register("m", "1", 3, 7, unsigned, order=order)
    there = by_pymodbus(plain, 12.0)
    if kind in FLOATS:
        nothing = by_pymodbus(plain, math.nan)
    else:
        nothing = by_pymodbus(plain, LIMITS[kind][1]) if kind[0] != "b" else [0xFFFF] * plain.words
    for point, none in ((sentinel, by_pymodbus(pattern, float(own))), (plain, nothing)):
        replies = Registers(profile([point])).reply(3, 7, point.words, values)
        assert [list(np.frombuffer(row.tobytes(), ">u2")) for row in replies] == [
            none if gone else there for gone in missing
        ]
