"""What need not be sent: a deadband with a heartbeat, per point. Stored steps lie within it of the truth."""

import numpy as np
from numpy.typing import NDArray

from rules.samples import BAD, QUALITY, TIME, VALUE, Block

_NEVER = np.iinfo(np.int64).min


class Filter:
    """Compares each sample with the last one kept of its point.

    Parameters
    ----------
    deadband
        Per row of the point table, in the point's unit: a change above it is kept.
    heartbeat
        Per row, nanoseconds: after so long a sample is kept whatever it says.
    """

    def __init__(self, deadband: NDArray[np.float64], heartbeat: NDArray[np.int64]) -> None:
        self._deadband = deadband.astype(VALUE)
        self._heartbeat = heartbeat.astype(TIME)
        self._kept_value = np.zeros(len(deadband), VALUE)
        self._kept_quality = np.zeros(len(deadband), QUALITY)
        self._kept_at = np.full(len(deadband), _NEVER, TIME)

    def keep(self, block: Block) -> NDArray[np.bool_]:
        """Mark the samples of a block that must be kept, and remember them.

        Kept are: the first of a point, a change beyond the deadband, the heartbeat, everything of bad quality, every
        change of quality, and what is older than the last one kept (history cannot be judged by what came later).
        """
        kept = np.zeros(len(block), np.bool_)
        for rows in _occurrences(block.point):
            kept[rows] = self._keep_one_each(block.take(rows))
        return kept

    def _keep_one_each(self, block: Block) -> NDArray[np.bool_]:
        """As ``keep``, for a block with at most one sample of each point."""
        point = block.point
        first = self._kept_at[point] == _NEVER
        late = ~first & (block.taken_at < self._kept_at[point])
        moved = np.abs(block.value - self._kept_value[point]) > self._deadband[point]
        due = block.taken_at - np.where(first, block.taken_at, self._kept_at[point]) >= self._heartbeat[point]
        told = (block.quality >= BAD) | (block.quality != self._kept_quality[point])
        kept: NDArray[np.bool_] = first | late | moved | due | told
        newest = kept & ~late
        self._kept_value[point[newest]] = block.value[newest]
        self._kept_quality[point[newest]] = block.quality[newest]
        self._kept_at[point[newest]] = block.taken_at[newest]
        return kept


def _occurrences(point: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """Rows of the first sample of every point, then of the second, and so on: each set has a point at most once."""
    order = np.argsort(point, kind="stable")
    ordered = point[order]
    place = np.arange(len(point))
    starts = np.maximum.accumulate(np.where(np.diff(ordered, prepend=-1) != 0, place, 0))
    rank = place - starts
    return [order[rank == nth] for nth in range(int(rank.max(initial=-1)) + 1)]
