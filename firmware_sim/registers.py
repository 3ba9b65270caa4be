"""Values into the bytes of a read's answer, by a profile's map: one array expression for all points and instants.

Never by ``edge.codec``: a codec shared by both sides would cancel every word-order fault.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymodbus.constants import ExcCodes

from edge.profile import Profile, Register
from firmware_sim.noise import Floats

# The bytes of a number in the order they are sent, each by its place in the number: 0 is the least significant one.
_ORDERS: dict[int, dict[str, tuple[int, ...]]] = {
    1: dict.fromkeys(("ABCD", "CDAB", "BADC", "DCBA"), (1, 0)),
    2: {"ABCD": (3, 2, 1, 0), "CDAB": (1, 0, 3, 2), "BADC": (2, 3, 0, 1), "DCBA": (0, 1, 2, 3)},
    4: {
        "ABCD": (7, 6, 5, 4, 3, 2, 1, 0),
        "CDAB": (1, 0, 3, 2, 5, 4, 7, 6),
        "BADC": (6, 7, 4, 5, 2, 3, 0, 1),
        "DCBA": (0, 1, 2, 3, 4, 5, 6, 7),
    },
}
_LIMITS = {
    "u16": (0, 0xFFFF),
    "s16": (-0x8000, 0x7FFF),
    "u32": (0, 0xFFFFFFFF),
    "s32": (-0x80000000, 0x7FFFFFFF),
    "u64": (0, 0xFFFFFFFFFFFFFFFF),
    "s64": (-0x8000000000000000, 0x7FFFFFFFFFFFFFFF),
    "bcd16": (0, 9999),
    "bcd32": (0, 99999999),
    # A float's share of the integer's way is 0: it goes its own.
    "f32": (0, 0),
    "f64": (0, 0),
}
# What is no number at all, of the types that have such a thing.
_NONE = {"f32": 0x7FC00000, "f64": 0x7FF8000000000000, "bcd16": 0xFFFF, "bcd32": 0xFFFFFFFF}
_DIGITS = np.arange(8)
_BIT_FUNCTIONS = (1, 2)


class Illegal(Exception):  # noqa: N818 - what the request is
    """A request the unit answers with an exception; ``code`` says which."""

    def __init__(self, code: ExcCodes) -> None:
        super().__init__(code.name)
        self.code = code


class Registers:
    """The register map of one sensor model. Every instance may be shared by all devices of the model."""

    def __init__(self, profile: Profile) -> None:
        self._points = {
            function: sorted((p for p in profile.point if p.function == function), key=lambda p: (p.register, p.bit))
            for function in (1, 2, 3, 4)
        }
        self._addresses = {
            function: set(_addresses(points, profile.limits.max_hole * (16 if function in _BIT_FUNCTIONS else 1)))
            for function, points in self._points.items()
        }
        self._layouts: dict[tuple[int, int, int], _Layout] = {}

    def metrics(self, function: int, start: int, count: int) -> tuple[str, ...]:
        """Name what a read shows, wholly or in part; ``Illegal`` for an address that is not there.

        A hole between values is there, and holds 0, where the profile lets a read go across it.
        """
        return self._layout(function, start, count).metrics

    def reply(self, function: int, start: int, count: int, values: dict[str, Floats]) -> NDArray[np.uint8]:
        """Lay out the data bytes of the answers to one read at n instants, shape ``[n, bytes]``.

        ``values`` gives each of ``metrics`` and whatever says their scale and unit, shape ``[n]`` in the profile's
        units. An integer is rounded half to even and saturates at its type's limits; NaN, and what has no scale,
        becomes the point's first ``invalid`` pattern (without one: a NaN, a decimal of fifteens, or the type's largest
        number). ``Illegal`` for an address that is not there.
        """
        return self._layout(function, start, count).pack(values)

    def _layout(self, function: int, start: int, count: int) -> "_Layout":
        key = (function, start, count)
        if key not in self._layouts:
            wanted = range(start, start + count)
            points = [point for point in self._points[function] if _touches(point, wanted)]
            if not points or not self._addresses[function].issuperset(wanted):
                raise Illegal(ExcCodes.ILLEGAL_ADDRESS)
            self._layouts[key] = _Layout(points, *key)
        return self._layouts[key]


class _Layout:
    """How the points that one read touches become its data bytes."""

    def __init__(self, points: list[Register], function: int, start: int, count: int) -> None:
        self.metrics = tuple(point.metric for point in points)
        of_bits = function in _BIT_FUNCTIONS
        limits = [_LIMITS.get(p.type, (0, (1 << p.width) - 1)) for p in points]
        self._word: np.dtype[Any] = np.dtype("<u8" if any(p.words == 4 for p in points) else "<u4")
        self._scale = np.array([p.scale for p in points])
        self._offset = np.array([p.offset for p in points])
        self._rescaled = [(n, p) for n, p in enumerate(points) if p.scale_from or p.unit_from]
        self._floats = [
            (form, is_one)
            for kind, form in (("f32", "<f4"), ("f64", "<f8"))
            if (is_one := np.array([p.type == kind for p in points])).any()
        ]
        self._decimals = np.flatnonzero([p.type.startswith("bcd") for p in points])
        self._low = np.array([float(low) for low, _ in limits])
        self._high = np.array([float(high) for _, high in limits])
        self._highest = np.array([high for _, high in limits], self._word)
        self._missing = np.array([_missing(p) for p in points], self._word)
        self._shift = np.array([(p.register - start) % 8 if of_bits else p.bit for p in points], self._word)
        # Bits share a place: a byte of coils, or a register of bit fields. The points stand in order of their places.
        places = [(p.register - start) // 8 if of_bits else p.register for p in points]
        self._first = np.flatnonzero(np.diff(places, prepend=-1))
        self._shared = len(self._first) < len(points)
        self._width = (count + 7) // 8 if of_bits else 2 * count
        at, source = [], []
        for number, first in enumerate(self._first):
            point = points[first]
            if of_bits:
                own = {places[first]: 0}
            else:
                order = _ORDERS[point.words][point.order]
                own = {2 * (point.register - start) + byte: byte_of for byte, byte_of in enumerate(order)}
            for byte, byte_of in own.items():
                if 0 <= byte < self._width:
                    at.append(byte)
                    source.append(self._word.itemsize * number + byte_of)
        self._at, self._source = np.array(at, np.intp), np.array(source, np.intp)
        self._whole = self._at.tolist() == list(range(self._width))

    def pack(self, values: Mapping[str, Floats]) -> NDArray[np.uint8]:
        """Lay out the values ``[n]`` of each metric."""
        raw = (np.array([values[metric] for metric in self.metrics]).T - self._offset) / self._scale
        for column, point in self._rescaled:
            raw[:, column] /= _rest_of_scale(point, values)
        missing = np.isnan(raw)
        any_missing = bool(missing.any())
        bits = self._integers(np.where(missing, 0.0, raw) if any_missing else raw)
        for form, is_one in self._floats:
            with np.errstate(over="ignore"):  # beyond a float lies infinity
                bits = np.where(is_one, raw.astype(form).view(form.replace("f", "u")), bits)
        if any_missing:
            bits = np.where(missing, self._missing, bits)
        if self._shift.any():
            bits = bits << self._shift
        if self._shared:
            bits = np.bitwise_or.reduceat(bits, self._first, axis=1)
        found = np.ascontiguousarray(bits, self._word).view(np.uint8).take(self._source, axis=1)
        if self._whole:
            return found
        data = np.zeros((len(raw), self._width), np.uint8)
        data[:, self._at] = found
        return data

    def _integers(self, raw: Floats) -> NDArray[Any]:
        whole = np.rint(np.minimum(np.maximum(raw, self._low), self._high))
        if self._word.itemsize == 4:
            bits: NDArray[Any] = whole.astype(np.int64).astype(self._word)  # by int64: a negative one keeps its bits
        else:
            with np.errstate(invalid="ignore"):  # each number is fit for one of the two
                bits = np.where(whole < 0, whole.astype(np.int64).view(self._word), whole.astype(self._word))
            bits = np.where(whole >= self._high, self._highest, bits)  # as a float, 2**64 - 1 is 2**64
        if self._decimals.size:
            digits = whole[:, self._decimals, None].astype(np.int64) // 10**_DIGITS % 10
            bits[:, self._decimals] = (digits << 4 * _DIGITS).sum(axis=2)
        return bits


def _addresses(points: list[Register], hole: int) -> Iterator[int]:
    end = points[0].register if points else 0
    for point in points:
        if point.register - end <= hole:
            yield from range(end, point.register)
        end = max(end, point.register + point.words)
        yield from range(point.register, end)


def _touches(point: Register, wanted: range) -> bool:
    return point.register < wanted.stop and wanted.start < point.register + point.words


def _missing(point: Register) -> int:
    """Choose the raw pattern that says "no value"."""
    bits = point.width if point.type == "bit" else 16 * point.words
    largest = _NONE.get(point.type, _LIMITS.get(point.type, (0, (1 << bits) - 1))[1])
    return (point.invalid[0] if point.invalid else largest) & ((1 << bits) - 1)


def _rest_of_scale(point: Register, values: Mapping[str, Floats]) -> Floats:
    """Tell what else a point is scaled by, ``[n]``; NaN where what the others show is no scale and no unit."""
    rest = np.ones(1)
    if point.scale_from is not None:
        shown = values[point.scale_from.metric]
        with np.errstate(divide="ignore", over="ignore"):
            match point.scale_from.how:
                case "decimals":
                    rest = 10.0**-shown
                case "divisor":
                    rest = 1.0 / shown
                case "factor":
                    rest = shown
    if point.unit_from is not None:
        codes, which = np.unique(values[point.unit_from.metric], return_inverse=True)
        rest = rest * np.array([point.unit_from.factors.get(f"{code:.0f}", np.nan) for code in codes])[which]
    return np.where(np.isfinite(rest) & (rest != 0.0), rest, np.nan)
