"""Valid messages, mutated: bytes in, bytes out, and nothing but numbers decides what becomes of them.

A mutation is a number of 48 bits: the lowest 8 say in which way, the next 16 where, the rest with what. So the same
numbers make the same input on any machine, and hypothesis can make a failing one smaller.

The ways know the form of a message, so that what they leave is often still one: members of JSON objects are found
around the place where they strike, lengths and counts in binary forms are mended.
"""

import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import shake_128
from random import Random
from typing import NamedTuple

import cbor2
import msgspec

BITS = 48
_COUNTS = (1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 6)  # mutations of one input

Way = Callable[[bytes, int, int, Sequence[bytes]], bytes]
"""Change ``data`` at ``at`` (a place in it) by ``what`` (24 bits); ``others`` are the valid messages to take from."""


def code(how: int, at: int, what: int) -> int:
    """Number a mutation: ``how`` has 8 bits, ``at`` 16, ``what`` 24."""
    return how | at << 8 | what << 24


def codes(random: Random) -> list[int]:
    """Draw the mutations of one input: few, so that it reaches the inside of what it is meant for."""
    return [random.getrandbits(BITS) for _ in range(_COUNTS[random.getrandbits(4)])]


class Mutator:
    """Mutates messages of one form in its ``ways``; ``others`` are valid ones."""

    def __init__(self, ways: Sequence[Way], others: Iterable[bytes]) -> None:
        self._ways = tuple(ways)
        self._others = tuple(others)

    def __call__(self, data: bytes, mutations: Iterable[int]) -> bytes:
        ways, others = self._ways, self._others
        for each in mutations:
            what = each >> 24
            if data:
                at = (each >> 8 & 0xFFFF) * len(data) >> 16
                data = ways[(each & 0xFF) % len(ways)](data, at, what, others)
            else:
                data = others[what % len(others)]
        return data


# Any bytes.

_INTERESTING = bytes.fromhex("00 01 02 03 04 06 07 08 10 20 22 2D 30 7B 7D 7F 80 81 83 85 90 9F A0 A1 BF C0 C1 CB CF")
_INTERESTING += bytes.fromhex("D9 DB DF E0 EF F8 F9 FA FB FC FD FE FF")


def _hex(text: str) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(each) for each in text.split())


_EXTREMES = _hex("""
    7FFF 8000 FFFF 0000 0001 7FFFFFFF 80000000 FFFFFFFF 00000000 7FFFFFFFFFFFFFFF 8000000000000000 FFFFFFFFFFFFFFFF
    7F800000 FF800000 7FC00000 7F800001 7FF0000000000000 FFF0000000000000 7FF8000000000000 7FEFFFFFFFFFFFFF
""")


def flip(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    """Turn one bit over."""
    return data[:at] + bytes((data[at] ^ 1 << (what & 7),)) + data[at + 1 :]


def overwrite(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    """Put a byte there that means something in many forms."""
    which = what % len(_INTERESTING)
    return data[:at] + _INTERESTING[which : which + 1] + data[at + 1 :]


def scramble(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    """Put any byte there."""
    return data[:at] + bytes((what & 0xFF,)) + data[at + 1 :]


def insert(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    which = what % len(_INTERESTING)
    return data[:at] + _INTERESTING[which : which + 1 + (what >> 16 & 3)] + data[at:]


def delete(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    return data[:at] + data[at + 1 + (what & 7) :]


def cut(data: bytes, at: int, _: int, __: Sequence[bytes]) -> bytes:
    return data[:at]


def double(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    """Say a stretch twice."""
    end = at + 1 + (what & 0x3F)
    return data[:end] + data[at:end] + data[end:]


def splice(data: bytes, at: int, what: int, others: Sequence[bytes]) -> bytes:
    """Begin as this one and end as another."""
    other = others[(what & 0xFF) % len(others)]
    return data[:at] + other[(what >> 8) * len(other) >> 16 :]


def extreme(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    """Put the ends of an integer's or a float's range there."""
    number = _EXTREMES[what % len(_EXTREMES)]
    if what >> 16 & 1:
        number = number[::-1]
    return data[:at] + number + data[at + len(number) :]


def fill(data: bytes, _: int, what: int, __: Sequence[bytes]) -> bytes:
    """Put other bytes everywhere."""
    return shake_128(what.to_bytes(4)).digest(len(data))


BYTES: tuple[Way, ...] = (flip, flip, overwrite, scramble, insert, delete, cut, double, splice, extreme)
FRAME: tuple[Way, ...] = (*4 * (flip, scramble), overwrite, *BYTES)
WORDS: tuple[Way, ...] = (flip, flip, scramble, extreme, extreme, extreme, fill)  # which keep the length, or nearly


# JSON. The patterns look on from any place, so they meet whatever an earlier mutation has left; none of them looks at
# a character more than a few times.

_SCALAR = rb'"(?:[^"\\]|\\.)*+"|(?<![\d.eE+-])-?\d[\d.eE+-]*+|true|false|null'
_VALUE = re.compile(rb"(?:" + _SCALAR + rb")(?=\s*+[,\]}])", re.DOTALL)
_NAMED = rb'"[^"\\]*+"\s*+:\s*+(?:' + _SCALAR + rb")"
_MEMBER = re.compile(_NAMED, re.DOTALL)
_LOOSE = re.compile(rb",\s*+" + _NAMED + rb"|(?<=\{)\s*+" + _NAMED + rb"\s*+,?", re.DOTALL)
_INNERMOST = re.compile(rb"\{[^{}\[\]]*+\}|\[[^{}\[\]]*+\]")
_ENTRY = re.compile(rb"(?<=[\[,])(?:" + _INNERMOST.pattern + rb")")
_DIGIT = re.compile(rb"\d")
_TIMES = (*16 * (1, 2, 3, 5), 300, 1100)
_DEPTHS = (1, 2, 3, 5, 10, 100, 600, 1500)
_LITERALS = (
    *b"""
        0 -0 1 -1 2 100 1000 65535 1e400 -1e400 1e-400 1e308 -1e308 4.9e-324 1E2 0.1 0.30000000000000004
        2147483648 4294967296 9007199254740993 9223372036854775807 9223372036854775808 -9223372036854775809
        18446744073709551615 18446744073709551616 NaN Infinity -Infinity 01 1. .5 0x10 true false null
        8999999999.9 9000000000 -9000000000 268435456 253402300800 1781752365 1781752365000 1781752365.5
        [] {} [[]] [null] {"":null} [{}] "" "0" "NaN" "nan" "inf" "-Infinity" "1e400" "1_000" "true" "TRUE" "False"
        "null" "0x10" "-" "12,5" "new" "update" "end" "online" "offline" "trigger" "normal" "open" "close" "\\""
        "\\u0000" "0001-01-01T00:00:00Z" "0001-01-01T00:00:00+23:59" "9999-12-31T23:59:59-23:59" "1969-12-31T23:59:59Z"
        "2026-06-18T03:12:45" "2026-06-18" "20260618T031245Z" "2026-W25-4T03:12:45Z" "2026-06-18T24:00:00Z"
        "2026-06-18T03:12:60Z" "2026-06-18T03:12:45.123456789123Z" "2026-06-18T03:12:45+25:00" "2026-13-01T00:00Z"
        "\\ud800" "\\ud800x" "\\udc00" "\\ud800\\ud800" "\\ud83d\\ude00" "\\u0661\\u0662"
    """.split(),  # halves of pairs, a pair, and digits that are not ASCII's
    *(b'" 1 "', b'"12.5 V"', b'"2026-06-18 03:12:45+08:00:00.000001"'),
    *(b"1" + 400 * b"0", b"-1" + 400 * b"0", 5000 * b"9", b"0." + 800 * b"7"),
    *(b'"' + 2000 * b"a" + b'"', b'"' + 5000 * b"1" + b'"'),
)


def _near(pattern: re.Pattern[bytes], data: bytes, at: int) -> tuple[int, int]:
    """Find what comes next, or first; nothing at ``at`` where there is none."""
    found = pattern.search(data, at) or pattern.search(data)
    return found.span() if found else (at, at)


def _literal(what: int) -> bytes:
    return _LITERALS[what % len(_LITERALS)]


def json_value(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    """Put another kind of value or an extreme there."""
    start, end = _near(_VALUE, data, at)
    return data[:start] + _literal(what) + data[end:]


def json_digit(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    start, end = _near(_DIGIT, data, at)
    return data[:start] + b"%d" % (what % 10) + data[end:]


def json_swap(data: bytes, at: int, what: int, others: Sequence[bytes]) -> bytes:
    """Put a value there that stands elsewhere in it, or in another message."""
    start, end = _near(_VALUE, data, at)
    other = data if what & 1 else others[(what & 0xFF) % len(others)]
    first, last = _near(_VALUE, other, (what >> 8) * len(other) >> 16)
    return data[:start] + other[first:last] + data[end:]


def json_quote(data: bytes, at: int, _: int, __: Sequence[bytes]) -> bytes:
    """Make a text of a number, and the bare characters of a text."""
    start, end = _near(_VALUE, data, at)
    value = data[start:end]
    return data[:start] + (value[1:-1] if value[:1] == b'"' else b'"' + value + b'"') + data[end:]


def json_drop(data: bytes, at: int, _: int, __: Sequence[bytes]) -> bytes:
    start, end = _near(_LOOSE, data, at)
    return data[:start] + data[end:]


def json_double(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    """Say a member twice, with the same value or another one."""
    start, end = _near(_MEMBER, data, at)
    if end == start:
        return double(data, at, what, _)
    again = data[start:end]
    if what & 1:
        again = again[: again.find(b":") + 1] + _literal(what >> 1)
    return data[:end] + b"," + again + data[end:]


def json_graft(data: bytes, at: int, what: int, others: Sequence[bytes]) -> bytes:
    """Add a member of another message, or put it in the place of one."""
    start, end = _near(_MEMBER, data, at)
    other = others[(what & 0xFF) % len(others)]
    first, last = _near(_MEMBER, other, (what >> 8) * len(other) >> 16)
    if what & 1 or start == end or first == last:
        return data[:start] + other[first:last] + data[end:]
    return data[:end] + b"," + other[first:last] + data[end:]


def json_flatten(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    """Put a literal in the place of an object or a list."""
    start, end = _near(_INNERMOST, data, at)
    return data[:start] + _literal(what) + data[end:]


def json_repeat(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    """Say an entry of a list several times, or more often than is borne."""
    start, end = _near(_ENTRY, data, at)
    if start == end:
        return data
    return data[:end] + (b"," + data[start:end]) * _TIMES[what % len(_TIMES)] + data[end:]


def json_nest(data: bytes, at: int, what: int, _: Sequence[bytes]) -> bytes:
    """Wrap a value in lists or objects, a few or too many."""
    start, end = _near(_VALUE, data, at)
    depth = _DEPTHS[what % len(_DEPTHS)]
    before, after = (b"[", b"]") if what & 0x100 else (b'{"v":', b"}")
    return data[:start] + before * depth + data[start:end] + after * depth + data[end:]


JSON: tuple[Way, ...] = (
    *10 * (json_digit,),
    *5 * (json_value,),
    *(json_swap, json_swap, json_swap, json_quote, json_drop, json_drop, json_double, json_graft, json_graft),
    *(json_flatten, json_repeat, json_repeat, json_nest),
    *(flip, scramble, overwrite, insert, delete, double, splice),
)


# Protobuf. ``at`` lies in some field, and there in a field of a submessage or not; lengths around a change are mended.

_SUBMESSAGE = 0x12  # key of field 2, with a length
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_VALUES: dict[int, tuple[bytes, ...]] = {
    _VARINT: _hex("""
        00 01 02 03 09 0A 0B 0C 7F 8001 FF01 8002 FFFF03 FFFFFFFF07 8080808008 FFFFFFFF0F FFFFFFFFFFFFFFFF7F
        FFFFFFFFFFFFFFFFFF01 80808080808080808001 FFFFFFFFFFFFFFFFFFFF01 8000 C0D8DDC5ED33
    """),
    _FIXED64: tuple(map(struct.Struct("<d").pack, (0.0, -0.0, 1.5, -1e308, 4.9e-324, math.inf, -math.inf, math.nan))),
    _FIXED32: tuple(map(struct.Struct("<f").pack, (0.0, -0.0, 1.5, 3e38, 1e-45, math.inf, -math.inf, math.nan))),
    _LENGTH: tuple(
        bytes((len(each),)) + each
        for each in (b"", b"true", b"12.5", b"nan", b"1e999", b"bdSeq", b"\xff\xfe", b"\xed\xa0\x80", b"a" * 100, b"\0")
    ),
}


class _Field(NamedTuple):
    start: int
    value: int
    end: int


def _struck(data: bytes, begin: int, end: int, place: int) -> _Field:
    """Find the field of a message that a place in it lies in; ``IndexError`` where it is none."""
    at = begin
    while at < end:
        start = at
        at = value = _after_varint(data, at)
        kind = data[start] & 7
        if kind == _VARINT:
            at = _after_varint(data, at)
        elif kind == _LENGTH:
            size, at = data[at], at + 1
            if size & 0x80:  # no valid message needs a third byte
                size, at = size & 0x7F | data[at] << 7, at + 1
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            break
        if place < at <= end:
            return _Field(start, value, at)
    raise IndexError("no field lies there")


def _after_varint(data: bytes, at: int) -> int:
    while data[at] & 0x80:
        at += 1
    return at + 1


def varint(number: int) -> bytes:
    """Write a number in groups of seven bits, the lowest first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _in_protobuf(change: Callable[[bytes, _Field, int, Sequence[bytes]], bytes]) -> Way:
    """Make a way of a change of one field, which gives what stands in its place."""

    def way(data: bytes, at: int, what: int, others: Sequence[bytes]) -> bytes:
        try:
            outer = _struck(data, 0, len(data), at)
            if data[outer.start] != _SUBMESSAGE or what & 7 == 7:
                return data[: outer.start] + change(data, outer, what >> 3, others) + data[outer.end :]
            first = _after_varint(data, outer.value)
            inner = _struck(data, first, outer.end, max(at, first))
        except IndexError:
            return flip(data, at, what, others)
        body = data[first : inner.start] + change(data, inner, what >> 3, others) + data[inner.end : outer.end]
        return data[: outer.start] + b"\x12" + varint(len(body)) + body + data[outer.end :]

    return way


def _set_value(data: bytes, field: _Field, what: int, _: Sequence[bytes]) -> bytes:
    values = _VALUES[data[field.start] & 7]
    return data[field.start : field.value] + values[what % len(values)]


def _set_kind(_: bytes, __: _Field, what: int, ___: Sequence[bytes]) -> bytes:
    """Give another field, or this one in another type."""
    kind = (_VARINT, _FIXED64, _LENGTH, _FIXED32)[what & 3]
    values = _VALUES[kind]
    return varint((what >> 2 & 15) << 3 | kind) + values[(what >> 6) % len(values)]


def _twice(data: bytes, field: _Field, _: int, __: Sequence[bytes]) -> bytes:
    return data[field.start : field.end] * 2


def _nothing(_: bytes, __: _Field, ___: int, ____: Sequence[bytes]) -> bytes:
    return b""


def _from_another(_: bytes, __: _Field, what: int, others: Sequence[bytes]) -> bytes:
    other = others[(what & 0xFF) % len(others)]
    field = _struck(other, 0, len(other), (what >> 8) % len(other))
    return other[field.start : field.end]


def _turn(data: bytes, field: _Field, what: int, _: Sequence[bytes]) -> bytes:
    """Turn a bit of a value over that is neither of its length nor one that says whether more follows."""
    first = field.value + (data[field.start] & 7 == _LENGTH)
    if first >= field.end:  # a text of no length
        return _set_value(data, field, what, _)
    at = first + (what >> 3) % (field.end - first)
    return data[field.start : at] + bytes((data[at] ^ 1 << what % 7,)) + data[at + 1 : field.end]


PROTOBUF: tuple[Way, ...] = (
    *map(_in_protobuf, 6 * (_turn,) + 4 * (_set_value,) + (_set_kind, _twice, _twice, _nothing, _from_another)),
    *(flip, overwrite, insert, delete, splice),
)


# What is packed with counts: CBOR and MessagePack. The valid messages are written here, so that the places are known.


class Member(NamedTuple):
    """An entry of the array or map whose head is at ``head``: it begins at ``start``, its value at ``value``."""

    head: int
    start: int
    value: int
    end: int


class Packing(NamedTuple):
    """How a form writes arrays and maps of few entries, and what has none."""

    array: int
    map: int
    leaf: Callable[[object], bytes]


CBOR_PACKING = Packing(0x80, 0xA0, cbor2.dumps)
MSGPACK_PACKING = Packing(0x90, 0x80, msgspec.msgpack.encode)


def packed(message: object, packing: Packing, offset: int = 0) -> tuple[bytes, list[Member]]:
    """Write a message of arrays and maps of fifteen entries at most, and say where these are."""
    if not isinstance(message, list | tuple | dict):
        return packing.leaf(message), []
    assert len(message) <= 15
    is_map = isinstance(message, dict)
    written = bytearray(((packing.map if is_map else packing.array) + len(message),))
    members: list[Member] = []
    for entry in message:
        start = offset + len(written)
        if is_map:
            written += packing.leaf(entry)
        at = offset + len(written)
        value, inner = packed(message[entry] if isinstance(message, dict) else entry, packing, at)
        written += value
        members += [Member(offset, start, at, offset + len(written)), *inner]
    return bytes(written), members


def _in_packed(members: Mapping[bytes, Sequence[Member]], literals: Sequence[bytes]) -> tuple[Way, ...]:
    """Make the ways to change members of valid messages; what is changed already is changed byte by byte."""

    def way(change: Callable[[bytes, Member, int, Sequence[bytes]], bytes]) -> Way:
        def changed(data: bytes, at: int, what: int, others: Sequence[bytes]) -> bytes:
            known = members.get(data)
            if not known:
                return flip(data, at, what, others)
            return change(data, known[what % len(known)], what // len(known), others)

        return changed

    def put(data: bytes, member: Member, what: int, _: Sequence[bytes]) -> bytes:
        return data[: member.value] + literals[what % len(literals)] + data[member.end :]

    def turn(data: bytes, member: Member, what: int, _: Sequence[bytes]) -> bytes:
        at = member.end - 1 - (what >> 3) % max(1, member.end - member.value - 1)  # not the head, where there is more
        return data[:at] + bytes((data[at] ^ 1 << what % 7,)) + data[at + 1 :]

    def drop(data: bytes, member: Member, what: int, _: Sequence[bytes]) -> bytes:
        return _counted(data[: member.start], member.head, -1, what) + data[member.end :]

    def again(data: bytes, member: Member, what: int, _: Sequence[bytes]) -> bytes:
        return _counted(data[: member.end], member.head, 1, what) + data[member.start :]

    def graft(data: bytes, member: Member, what: int, others: Sequence[bytes]) -> bytes:
        other = others[what % len(others)]
        known = members[other]
        if not known:
            return data
        theirs = known[what // len(others) % len(known)]
        return data[: member.start] + other[theirs.start : theirs.end] + data[member.end :]

    return tuple(map(way, 6 * (turn,) + (put, put, drop, graft, graft, again)))


def _counted(data: bytes, head: int, more: int, what: int) -> bytes:
    """Mend the count of entries in most cases."""
    return data if what & 7 == 7 else data[:head] + bytes((data[head] + more & 0xFF,)) + data[head + 1 :]


_CBOR_LITERALS = (
    *_hex("""
        00 01 17 1818 1900FF 1AFFFFFFFF 1BFFFFFFFFFFFFFFFF 20 37 3BFFFFFFFFFFFFFFFF 40 4100 60 6161 62FFFE 63EDA080
        80 8101 A0 A10001 F4 F5 F6 F7 F0 F820 F97E00 F97C00 F9FC00 F93C00 FA7F800000 FB7FEFFFFFFFFFFFFF
        FB7FF8000000000000 C48221196AB3 C4823903E71903E7 C4821903E71903E7 C482391FFF01 C4821A7FFFFFFF01 C48101 C4820102
        C401 C249010000000000000000 C349010000000000000000 C240 C11A514B67B0
        C074323031332D30332D32315432303A30343A30305A D8184100 D81C01 D81D00 D9D9F700 9F01FF BF0001FF 5F4100FF 7FFF FF
        9BFFFFFFFFFFFFFFFF 5B7FFFFFFFFFFFFFFF BB00000000FFFFFFFF 818181818101 81818181818181818181818181818181818101
        1C FC FE
    """),
    b"\xc2\x59\x01\x00" + b"\xff" * 256,  # an integer beyond all doubles, and a fraction with a long mantissa
    b"\xc4\x82\x19\x01\x8f\xc2\x58\x40" + b"\xff" * 64,
)
_MSGPACK_LITERALS = _hex("""
    00 01 7F E0 FF C0 C1 C2 C3 CCFF CDFFFF CEFFFFFFFF CFFFFFFFFFFFFFFFFF CF7FFFFFFFFFFFFFFF D08000
    D3FFFFFFFFFFFFFFFF D38000000000000000 CA7F800000 CA7FC00000 CB7FF0000000000000 CB7FF8000000000000
    CB3FF0000000000000 CBBFF0000000000000 A0 A161 A2FFFE A3EDA080 D900 DBFFFFFFFF C400 C40100 C408FFFFFFFFFFFFFFFF
    C6FFFFFFFF 90 91C0 9101 DCFFFF DDFFFFFFFF 80 81A161C0 8101C0 DFFFFFFFFF D6FF00000000 D7FFFFFFFFFFFFFFFFFF
    C70CFF000000000000000000000000 D40000 C80000FF
""")


def cbor(members: Mapping[bytes, Sequence[Member]]) -> tuple[Way, ...]:
    """The ways for messages of CBOR, given the members of the valid ones."""
    structural = _in_packed(members, _CBOR_LITERALS)
    return (*structural, *structural, flip, overwrite, insert, delete, double, splice)


def msgpack(members: Mapping[bytes, Sequence[Member]]) -> tuple[Way, ...]:
    """The ways for messages of MessagePack, given the members of the valid ones."""
    structural = _in_packed(members, _MSGPACK_LITERALS)
    return (*structural, *structural, flip, overwrite, insert, delete, double, splice)
