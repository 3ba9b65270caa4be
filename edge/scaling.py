"""What other points of a device say of a point's scale and unit: its decimals, its divisor, its unit code."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge.profile import Register


class Scaling:
    """How the rest of one point's scale is found in a matrix of decoded values.

    Parameters
    ----------
    points
        The points of the profile.
    position
        Which of them; it has ``scale_from``, ``unit_from`` or both.
    """

    def __init__(self, points: Sequence[Register], position: int) -> None:
        column = {point.metric: number for number, point in enumerate(points)}
        self.point = points[position]
        self.column = position
        self.sources = [column[metric] for metric in _sources(self.point)]

    def factor(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Work out from ``[m, points]`` what to multiply by, ``[m]``.

        0.0 where the device shows nothing that scales (a divisor or factor of 0, an unknown unit code); NaN where it
        was not told.
        """
        shown = iter(value.T[self.sources])
        factor = np.ones(len(value))
        with np.errstate(divide="ignore", over="ignore"):
            if self.point.scale_from is not None:
                factor = _finite(_rescaled(self.point.scale_from.how, next(shown)))
            if self.point.unit_from is not None:
                factor = _finite(factor * _by_code(self.point.unit_from.factors, next(shown)))
        return factor


def scalings(points: Sequence[Register]) -> list[Scaling]:
    """Give the points whose scale or unit stands elsewhere."""
    return [Scaling(points, number) for number, point in enumerate(points) if any(_sources(point))]


def _sources(point: Register) -> Iterator[str]:
    if point.scale_from is not None:
        yield point.scale_from.metric
    if point.unit_from is not None:
        yield point.unit_from.metric


def _rescaled(how: str, shown: NDArray[np.float64]) -> NDArray[np.float64]:
    match how:
        case "decimals":
            return 10.0**-shown
        case "divisor":
            return 1.0 / shown
        case _:
            return shown


def _by_code(factors: dict[str, float], shown: NDArray[np.float64]) -> NDArray[np.float64]:
    known = [shown == float(code) for code in factors]
    return np.select(known, list(factors.values()), np.where(np.isnan(shown), np.nan, 0.0))


def _finite(factor: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isinf(factor), 0.0, factor)
