"""Values into the bytes of a read's answer, by a profile's map: one array expression for all points and instants.

Never by ``edge.codec``: a codec shared by both sides would cancel every word-order fault.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pymodbus.constants import ExcCodes

from edge.profile import Profile, Register
from firmware_sim.noise import Floats

# Where a byte of the two registers, as they are sent, stands in a 32-bit number with the least significant byte first.
_ORDERS = {"ABCD": (3, 2, 1, 0), "CDAB": (1, 0, 3, 2), "BADC": (2, 3, 0, 1), "DCBA": (0, 1, 2, 3)}
_LIMITS = {"u16": (0, 0xFFFF), "s16": (-0x8000, 0x7FFF), "u32": (0, 0xFFFFFFFF), "s32": (-0x80000000, 0x7FFFFFFF)}
_NAN = 0x7FC00000
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

        ``values`` gives each of ``metrics``, shape ``[n]`` in the profile's units. An integer is rounded half to even
        and saturates at its type's limits; NaN becomes the point's first ``invalid`` pattern (without one: the type's
        largest number, or for f32 a NaN). ``Illegal`` for an address that is not there.
        """
        layout = self._layout(function, start, count)
        return layout.pack(np.array([values[metric] for metric in layout.metrics]).T)

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
        self._scale = np.array([p.scale for p in points])
        self._offset = np.array([p.offset for p in points])
        self._is_float = np.array([p.type == "f32" for p in points])
        # A float's share of the integer's way is 0: it goes its own.
        self._low, self._high = (
            np.where(self._is_float, 0.0, side) for side in np.array(limits, float).reshape(-1, 2).T
        )
        self._missing = np.array([_missing(p) for p in points], np.uint32)
        self._shift = np.array([(p.register - start) % 8 if of_bits else p.bit for p in points], np.uint32)
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
                order = _ORDERS[point.order] if point.words == 2 else (1, 0)
                own = {2 * (point.register - start) + byte: byte_of for byte, byte_of in enumerate(order)}
            for byte, byte_of in own.items():
                if 0 <= byte < self._width:
                    at.append(byte)
                    source.append(4 * number + byte_of)
        self._at, self._source = np.array(at, np.intp), np.array(source, np.intp)
        self._whole = self._at.tolist() == list(range(self._width))

    def pack(self, values: Floats) -> NDArray[np.uint8]:
        """Lay out values ``[n, points]``."""
        raw = (values - self._offset) / self._scale
        whole = np.rint(np.minimum(np.maximum(raw, self._low), self._high))
        missing = np.isnan(raw)
        any_missing = bool(missing.any())
        if any_missing:
            whole[missing] = 0.0
        bits = whole.astype(np.int64).astype("<u4")  # by way of int64, so that a negative number keeps its lower bits
        if self._is_float.any():
            with np.errstate(over="ignore"):  # beyond a float32 lies infinity
                bits = np.where(self._is_float, raw.astype("<f4").view("<u4"), bits)
        if any_missing:
            bits = np.where(missing, self._missing, bits)
        if self._shift.any():
            bits = bits << self._shift
        if self._shared:
            bits = np.bitwise_or.reduceat(bits, self._first, axis=1)
        found = np.ascontiguousarray(bits, "<u4").view(np.uint8).take(self._source, axis=1)
        if self._whole:
            return found
        data = np.zeros((len(values), self._width), np.uint8)
        data[:, self._at] = found
        return data


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
    largest = _NAN if point.type == "f32" else _LIMITS.get(point.type, (0, (1 << bits) - 1))[1]
    return (point.invalid[0] if point.invalid else largest) & ((1 << bits) - 1)
