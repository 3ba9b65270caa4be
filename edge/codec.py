"""Register bytes to values, one array expression for all points of a request and all its replies.

The bytes are put into order here, by hand: word order alone, as the libraries offer it, leaves BADC and DCBA wrong.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.plan import Request
from edge.profile import Register
from rules.samples import QUALITY, VALUE, Quality

MOST = float(np.finfo(np.float64).max)  # an infinity lies beyond it, so a point without a range has this one
_FLOATS: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "f64": np.dtype("<f8")}
_PLACES = np.arange(8)  # of the digits of the longest decimal


class Codec:
    """How to read the reply to one request; build it once, it holds no state.

    Each value is decoded by its own point alone: what others say of its scale and unit comes in ``edge.reads``.

    Parameters
    ----------
    points
        The points of the profile.
    request
        The read that is answered; only its points are decoded, in the order of ``request.points``.
    """

    def __init__(self, points: Sequence[Register], request: Request) -> None:
        chosen = [points[position] for position in request.points]
        masks = [(1 << _bits(point)) - 1 for point in chosen]
        signs = [1 << (_bits(point) - 1) if point.type.startswith("s") else 0 for point in chosen]
        # Longer words take longer, so only where a value needs them.
        self._word: np.dtype[Any] = np.dtype("<u8" if any(point.words == 4 for point in chosen) else "<u4")
        self._gather = np.array([_bytes_of(point, request, self._word.itemsize) for point in chosen])
        self._shift = np.array([_shift(point, request) for point in chosen], self._word)
        self._mask = np.array(masks, self._word)
        self._sign = np.array(signs, self._word).astype(np.int64)
        self._any_sign = bool(self._sign.any())
        self._decimal = np.flatnonzero([point.type.startswith("bcd") for point in chosen])
        kinds = [(word, np.array([point.type == kind for point in chosen])) for kind, word in _FLOATS.items()]
        self._floats = [(word, of_kind) for word, of_kind in kinds if of_kind.any()]
        self._scale: NDArray[np.float64] = np.array([point.scale for point in chosen])
        self._offset: NDArray[np.float64] = np.array([point.offset for point in chosen])
        self._low, self._high = np.array([point.range or (-MOST, MOST) for point in chosen]).T
        # The first pattern of each point, then the second ...; beside them, who has none.
        patterns = [[raw & mask for raw in point.invalid] for point, mask in zip(chosen, masks, strict=True)]
        self._invalid = [
            (np.array([raw or 0 for raw in row], self._word), np.array([raw is None for raw in row]))
            for row in zip_longest(*patterns)
        ]

    def decode(self, replies: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Decode data bytes ``[m, bytes]`` into values and quality ``[m, points]``.

        The value of a sample of bad quality is 0.0 and means nothing: a sentinel, NaN, infinity or decimal digit above
        nine is ``BAD_SENTINEL``, a value out of the point's range ``BAD_RANGE``.
        """
        raw: NDArray[Any] = replies.take(self._gather, axis=1).view(self._word)[..., 0]
        field = (raw >> self._shift) & self._mask
        value = self._value(raw, field)
        good = (value >= self._low) & (value <= self._high)
        for pattern, has_none in self._invalid:
            good &= (field != pattern) | has_none
        quality = np.zeros(value.shape, QUALITY)
        if not good.all():
            sentinel = ~np.isfinite(value)
            for pattern, has_none in self._invalid:
                sentinel |= (field == pattern) & ~has_none
            quality[~good] = Quality.BAD_RANGE
            quality[sentinel] = Quality.BAD_SENTINEL
            value[~good] = 0.0
        return value, quality

    def _value(self, raw: NDArray[Any], field: NDArray[Any]) -> NDArray[np.float64]:
        number = field
        if self._any_sign:
            number = (field.astype(np.int64) ^ self._sign) - self._sign
            if self._word.itemsize == 8:  # an unsigned one may lie beyond an int64
                number = np.where(self._sign, number, field)
        if self._decimal.size:
            number = number.astype(VALUE)
            digits = field[:, self._decimal, None].astype(np.int64) >> 4 * _PLACES & 0xF
            number[:, self._decimal] = np.where((digits > 9).any(axis=-1), np.nan, digits @ 10**_PLACES)
        if not self._floats:
            return number * self._scale + self._offset
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are judged by the caller, as any other
            for word, of_kind in self._floats:
                every = self._word.itemsize // word.itemsize  # a short float is the lower half of a long word
                number = np.where(of_kind, raw.view(word)[:, ::every], number)
            return number * self._scale + self._offset


def _bits(point: Register) -> int:
    return point.width if point.type == "bit" else 16 * point.words


def _shift(point: Register, request: Request) -> int:
    return (point.register - request.start) % 8 if request.function in (1, 2) else point.bit


def _bytes_of(point: Register, request: Request, most: int) -> list[int]:
    """Positions in the reply of a point's bytes, least significant first; the mask hides what fills them up."""
    at = point.register - request.start
    if request.function in (1, 2):
        return [at // 8] + [0] * (most - 1)  # eight bits a byte, the first in the lowest bit
    size = 2 * point.words
    order = point.order if size > 2 else "ABCD"
    places = range(size) if order in ("CDAB", "DCBA") else reversed(range(size))
    swap = order in ("CDAB", "BADC")  # the two bytes of each word
    return [2 * at + (place ^ swap) for place in places] + [0] * (most - size)
