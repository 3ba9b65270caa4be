"""What an installer should doubt of a reading: pure judgement over the words a device answered with."""

import math
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from edge.profile import Profile, Register, ScaleFrom, UnitFrom
from edge.reading import Replies
from edge.reads import Reads
from rules.samples import BAD, QUALITY, Quality

_ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
_OTHER_SIGN = {"u16": "s16", "u32": "s32", "u64": "s64", "s16": "u16", "s32": "u32", "s64": "u64"}
_FLOATS = {"f32": ">f", "f64": ">d"}
# Beyond these a float of ours is no measurement, but other bytes read as one.
_TINY, _HUGE = 1e-6, 1e9


class Words:
    """One reading of a Modbus device: what each point is, and what it would be if its profile said otherwise."""

    def __init__(self, profile: Profile, replies: Replies) -> None:
        self.profile = profile
        self._requests = replies.reads.layout.requests
        self._data = replies.data
        self._value, self._quality = self._decode(profile)
        bare = tuple(msgspec.structs.replace(point, range=None, invalid=()) for point in profile.point)
        self._bare, self._bare_quality = self._decode(msgspec.structs.replace(profile, point=bare))

    def raw(self, number: int) -> bytes:
        """Give the bytes of a point as they arrived; of a coil or an input one byte, 0 or 1. Empty: not read."""
        point = self.profile.point[number]
        for request, data in zip(self._requests, self._data, strict=True):
            if number in request.points:
                at = point.register - request.start
                if request.function in (1, 2):
                    return bytes((data[at // 8] >> at % 8 & 1,))
                return data[2 * at : 2 * (at + point.words)]
        return b""

    def value(self, number: int) -> float:
        """Give the value of a point, be it good or not; NaN where it has none."""
        has_none = Quality.BAD_SENTINEL in (self._quality[number], self._bare_quality[number])
        return math.nan if has_none else float(self._bare[number])

    def quality(self, number: int) -> Quality:
        """Tell how good a point is."""
        return Quality(self._quality[number])

    def as_if(self, number: int, **changes: object) -> tuple[float, Quality]:
        """Give value and quality of a point if its profile had these ``changes``."""
        points = list(self.profile.point)
        points[number] = msgspec.structs.replace(points[number], **changes)
        value, quality = self._decode(msgspec.structs.replace(self.profile, point=tuple(points)))
        return float(value[number]), Quality(quality[number])

    def _decode(self, profile: Profile) -> tuple[Any, Any]:
        if not self._data:
            return np.full(len(profile.point), np.nan), np.zeros(len(profile.point), QUALITY)
        replies = [np.frombuffer(data, np.uint8)[None] for data in self._data]
        value, quality = Reads(profile, 0, self._requests).decode(replies)
        return value[0], quality[0]


def doubts_of(words: Words, number: int) -> Iterator[str]:
    """Tell what is doubtful about a point that was read, each in plain words."""
    point, quality, raw = words.profile.point[number], words.quality(number), words.raw(number)
    pattern = int.from_bytes(arranged(raw, point), "big") >> point.bit & _mask(point)
    if pattern in [invalid & _mask(point) for invalid in point.invalid]:
        yield f"{shown_raw(raw)} says that it has no value"
        return
    if quality >= BAD:
        yield from list(_from_elsewhere(words, point)) or [_why_bad(words, number)]
    if pattern in _ends(point):
        yield f"{shown_raw(raw)} is the end of what {point.type} holds, which often says that there is no value"
    if quality >= BAD or is_odd(point, raw):
        yield from _otherwise(words, number)


def is_odd(point: Register, raw: bytes) -> bool:
    """Tell whether bytes are hardly a measurement in this order, though they may be in range."""
    arrived = arranged(raw, point)
    if point.type in _FLOATS:
        number = abs(struct.unpack(_FLOATS[point.type], arrived)[0])
        return not (number == 0 or _TINY <= number <= _HUGE)
    if point.words == 1 or point.type.startswith("bcd"):
        return False
    integer = int.from_bytes(arrived, "big", signed=point.type.startswith("s"))
    return integer != 0 and (integer & 0xFFFF == 0 or abs(integer) >= 1 << 12 * point.words)


def arranged(raw: bytes, point: Register) -> bytes:
    """Put the bytes of a point, as they arrived, most significant first."""
    if len(raw) > 2 and point.order in ("BADC", "DCBA"):
        raw = b"".join(raw[at : at + 2][::-1] for at in range(0, len(raw), 2))
    if len(raw) > 2 and point.order in ("CDAB", "DCBA"):
        raw = b"".join(raw[at : at + 2] for at in range(len(raw) - 2, -1, -2))
    return raw


def shown_raw(raw: bytes) -> str:
    """Write raw bytes as the words of a manual."""
    return str(raw[0]) if len(raw) == 1 else raw.hex(" ", 2).upper()


def shown(value: float) -> str:
    """Write a number with six digits, or all that are in front of its point."""
    return f"{value:.0f}" if 1e6 <= abs(value) < 1e15 else f"{value:.6g}"


def measure(value: float, unit: str) -> str:
    """Write a number with its unit."""
    return shown(value) if unit == "1" else f"{shown(value)} {unit}"


def _mask(point: Register) -> int:
    return (1 << (point.width if point.type == "bit" else 16 * point.words)) - 1


def _ends(point: Register) -> tuple[int, ...]:
    """Give the patterns at the ends of an integer's type, signed and unsigned: makers mix the two up."""
    bits = 16 * point.words
    if point.type.startswith("u"):
        return ((1 << bits) - 1, (1 << bits - 1) - 1, 1 << bits - 1)
    return ((1 << bits - 1) - 1, 1 << bits - 1) if point.type.startswith("s") else ()


def _from_elsewhere(words: Words, point: Register) -> Iterator[str]:
    """Tell what is wrong with the points that say the scale or the unit of this one."""
    for source in (point.scale_from, point.unit_from):
        if source is None:
            continue
        number = next(n for n, each in enumerate(words.profile.point) if each.metric == source.metric)
        shows = words.value(number)
        if isinstance(source, UnitFrom) and shows not in map(float, source.factors):
            yield f"`{source.metric}` shows the unit code {shown(shows)}; known are {', '.join(source.factors)}"
        elif words.quality(number) >= BAD:
            yield f"`{source.metric}` is bad, so nothing is known of its scale"
        elif isinstance(source, ScaleFrom) and source.how != "decimals" and shows == 0:
            yield f"`{source.metric}`, which scales it, is 0"


def _why_bad(words: Words, number: int) -> str:
    point = words.profile.point[number]
    if words.quality(number) is Quality.BAD_RANGE and point.range is not None:
        low, high = point.range
        return f"{measure(words.value(number), point.unit)} is not within {shown(low)} to {shown(high)}"
    return "no decimal digits" if point.type.startswith("bcd") else "no number: NaN, or beyond all numbers"


def _otherwise(words: Words, number: int) -> Iterator[str]:
    """Tell what would make a plausible value of the same bytes."""
    point = words.profile.point[number]
    changes = [{"order": order} for order in _ORDERS if point.words > 1 and order != point.order]
    if point.type in _OTHER_SIGN:
        changes.append({"type": _OTHER_SIGN[point.type]})
    for change in changes:
        value, quality = words.as_if(number, **change)
        if quality < BAD and not is_odd(msgspec.structs.replace(point, **change), words.raw(number)):
            ((key, written),) = change.items()
            yield f'with `{key} = "{written}"` it would be {measure(value, point.unit)}'
