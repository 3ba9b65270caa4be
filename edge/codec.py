"""Register bytes to values, one array expression for all points of a request and all its replies.

The bytes are put into order here, by hand: word order alone, as the libraries offer it, leaves BADC and DCBA wrong.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.plan import Request
from edge.profile import Register
from rules.samples import QUALITY, VALUE, Quality

# Which bytes of two registers make the least significant byte first.
_ORDERS = {"ABCD": (3, 2, 1, 0), "CDAB": (1, 0, 3, 2), "BADC": (2, 3, 0, 1), "DCBA": (0, 1, 2, 3)}
_MOST = np.finfo(np.float64).max  # an infinity lies beyond it, so a point without a range has this one


class Codec:
    """How to read the reply to one request; build it once, it holds no state.

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
        most = max(len(point.invalid) for point in chosen)
        self._gather = np.array([_bytes_of(point, request) for point in chosen])
        self._shift = np.array([_shift(point, request) for point in chosen], np.uint32)
        self._mask = np.array(masks, np.uint32)
        self._sign = np.array(signs, np.int64)
        self._is_float = np.array([point.type == "f32" for point in chosen])
        self._scale = np.array([point.scale for point in chosen])
        self._offset = np.array([point.offset for point in chosen])
        self._low, self._high = np.array([point.range or (-_MOST, _MOST) for point in chosen]).T
        # One row for each further pattern; a raw pattern is never negative, so -1 stands for none.
        padded = [[raw & mask for raw in p.invalid] + [-1] * most for p, mask in zip(chosen, masks, strict=True)]
        self._invalid = [np.array([row[nth] for row in padded], np.int64) for nth in range(most)]
        self._any_sign, self._any_float = bool(self._sign.any()), bool(self._is_float.any())

    def decode(self, replies: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Decode data bytes ``[m, bytes]`` into values and quality ``[m, points]``.

        The value of a sample of bad quality is 0.0 and means nothing: a sentinel, NaN or infinity is ``BAD_SENTINEL``,
        a value out of the point's range ``BAD_RANGE``.
        """
        raw = replies.take(self._gather, axis=1).view("<u4")[..., 0]
        field = (raw >> self._shift) & self._mask
        value = self._number(raw, field) * self._scale + self._offset
        good = (value >= self._low) & (value <= self._high)
        for pattern in self._invalid:
            good &= field != pattern
        quality = np.zeros(value.shape, QUALITY)
        if not good.all():
            sentinel = ~np.isfinite(value)
            for pattern in self._invalid:
                sentinel |= field == pattern
            quality[~good] = Quality.BAD_RANGE
            quality[sentinel] = Quality.BAD_SENTINEL
            value[~good] = 0.0
        return value, quality

    def _number(self, raw: NDArray[np.uint32], field: NDArray[np.uint32]) -> NDArray[np.float64]:
        integer = (field.astype(np.int64) ^ self._sign) - self._sign if self._any_sign else field
        if not self._any_float:
            return integer.astype(VALUE)
        with np.errstate(invalid="ignore"):  # a NaN that signals is judged by the caller, as any other
            return np.where(self._is_float, raw.view("<f4"), integer).astype(VALUE)


def _bits(point: Register) -> int:
    return point.width if point.type == "bit" else 16 * point.words


def _shift(point: Register, request: Request) -> int:
    return (point.register - request.start) % 8 if request.function in (1, 2) else point.bit


def _bytes_of(point: Register, request: Request) -> tuple[int, int, int, int]:
    """Positions in the reply of the four bytes of a point, least significant first; the mask hides what it has not."""
    at = point.register - request.start
    if request.function in (1, 2):
        return (at // 8, 0, 0, 0)  # eight bits a byte, the first in the lowest bit
    if point.words == 1:
        return (2 * at + 1, 2 * at, 0, 0)
    a, b, c, d = (2 * at + byte for byte in _ORDERS[point.order])
    return (a, b, c, d)
