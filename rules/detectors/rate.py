"""``rate(level, 5min)``: how fast a metric rises, in its unit per hour."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rules.tile import NEVER, earlier, hold

QUARTERS = 4
_SERIES = 1 << 37  # more quarters than a 64-bit clock of nanoseconds holds, while a quarter lasts 250 ms or more


class Rate:
    """The slope from an anchor, one to one and a quarter windows back, to the newest sample.

    Anchors are the first known sample of each quarter of a window, cut on absolute time: they are few, they do not
    depend on how samples were batched, and a slope between two samples has no running sum to drift. While the quarter
    that the anchor should come from is empty (at the start, and after a gap) the rate is unknown.
    """

    windowed: ClassVar[bool] = True
    unit: ClassVar[str] = "{}/h"

    def __init__(self, windows_s: Sequence[float], devices: int) -> None:
        if any(window_s < 1.0 for window_s in windows_s):
            raise ValueError("the window of a rate lasts 1s or more")
        self._quarter = np.array([round(window_s * 1e9 / QUARTERS) for window_s in windows_s], np.int64)
        shape = (len(windows_s), devices, QUARTERS + 1)
        self._anchor_at = np.full(shape, NEVER, np.int64)  # oldest first
        self._anchor = np.zeros(shape)
        self.state: dict[str, NDArray[np.generic]] = {"anchor_at": self._anchor_at, "anchor": self._anchor}

    def update(
        self, rows: NDArray[np.intp], at: NDArray[np.int64], value: NDArray[np.float64], known: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        carried_at = self._anchor_at[:, rows]
        at = np.concatenate([carried_at, np.broadcast_to(at, value.shape)], axis=-1)
        value = np.concatenate([self._anchor[:, rows], value], axis=-1)
        known = np.concatenate([carried_at != NEVER, known], axis=-1)

        quarter = at // self._quarter[:, None, None]
        nowhere = np.full(quarter.shape[:-1], NEVER, np.int64)
        first = known & (quarter != earlier(hold(quarter, known, nowhere), nowhere))
        anchor_at, anchor = at[first], value[first]

        # Series by series and quarter by quarter the anchors stand in one rising sequence, so one search finds all.
        key = np.arange(nowhere.size).reshape(nowhere.shape)[..., None] * _SERIES + quarter
        keys = key[first]
        wanted = key[..., QUARTERS + 1 :] - QUARTERS
        if keys.size == 0:
            return np.full(wanted.shape, np.nan)
        found = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
        span_h = (at[..., QUARTERS + 1 :] - anchor_at[found]) / 3.6e12
        rise = value[..., QUARTERS + 1 :] - anchor[found]
        rate = np.full(wanted.shape, np.nan)
        np.divide(rise, span_h, out=rate, where=(keys[found] == wanted) & known[..., QUARTERS + 1 :])

        # Carry the newest anchors of each series; those it has not got yet stay NEVER.
        counts = first.sum(axis=-1)
        index = np.cumsum(counts).reshape(counts.shape)[..., None] - np.arange(QUARTERS + 1, 0, -1)
        own = np.arange(QUARTERS + 1, 0, -1) <= counts[..., None]
        index = np.maximum(index, 0)
        self._anchor_at[:, rows] = np.where(own, anchor_at[index], NEVER)
        self._anchor[:, rows] = np.where(own, anchor[index], 0.0)
        return rate
