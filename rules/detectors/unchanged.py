"""``unchanged(level)``: for how many seconds a metric has shown the very same number."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rules.tile import earlier, hold


class Unchanged:
    """Seconds from the sample that brought the present value to this one; 0 at the first sample and at each change.

    A live sensor's last digit is never still, a frozen one's always: exact equality is meant.
    """

    windowed: ClassVar[bool] = False
    unit: ClassVar[str] = "s"

    def __init__(self, windows_s: Sequence[float], devices: int) -> None:
        shape = (len(windows_s), devices)
        self._value = np.full(shape, np.nan)
        self._changed_at = np.zeros(shape, np.int64)
        self.state: dict[str, NDArray[np.generic]] = {"value": self._value, "changed_at": self._changed_at}

    def update(
        self, rows: NDArray[np.intp], at: NDArray[np.int64], value: NDArray[np.float64], known: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        before = self._value[:, rows]
        shown = hold(value, known, before)
        changed = known & (
            value != earlier(shown, before)
        )  # NaN, the value before the first, differs from every number
        changed_at = hold(np.broadcast_to(at, value.shape), changed, self._changed_at[:, rows])
        self._value[:, rows] = shown[..., -1]
        self._changed_at[:, rows] = changed_at[..., -1]
        return (at - changed_at) / 1e9
