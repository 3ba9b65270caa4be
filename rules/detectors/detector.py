"""What a detector is: something that makes columns out of a metric's samples."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray


class Detector(Protocol):
    """One instance serves every series of one kind of device: ``S`` series (one per column) times ``N`` devices.

    What it carries from tile to tile stands in ``state``: arrays whose first axes are (series, device), saved, restored
    and cut as they are. It must not matter how samples were batched, so each value may rest only on the series' own
    earlier samples and their own stamps.
    """

    windowed: ClassVar[bool]
    """Whether its column text takes a window, as ``rate(level, 5min)`` does."""

    unit: ClassVar[str]
    """The column's unit, with ``{}`` for the metric's own."""

    state: dict[str, NDArray[np.generic]]

    def __init__(self, windows_s: Sequence[float], devices: int) -> None: ...

    def update(
        self, rows: NDArray[np.intp], at: NDArray[np.int64], value: NDArray[np.float64], known: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Take the next samples of the devices in ``rows`` ``[n]`` and say each column's value, ``[S, n, T]``.

        ``at`` ``[n, T]`` is ``taken_at``; ``value`` and ``known`` are ``[S, n, T]``. Only cells that are ``known``
        count, and only they are read from the result; NaN there says that the column is not known yet.
        """
        ...
