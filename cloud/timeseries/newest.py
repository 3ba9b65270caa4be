"""The newest sample of every series, kept beside a store, so that a list of devices costs no scan."""

import numpy as np
from numpy.typing import NDArray

from cloud.timeseries.port import Sample, Series
from rules.samples import QUALITY, TIME, VALUE

_NEVER = np.iinfo(np.int64).min


class Newest:
    """Columns indexed by series number. They are replaced, never changed: one thread may write while another reads."""

    def __init__(self) -> None:
        self._newest = Series.empty()

    def __getitem__(self, series: int) -> Sample | None:
        newest = self._newest
        if series >= len(newest) or newest.taken_at[series] == _NEVER:
            return None
        return Sample(int(newest.taken_at[series]), float(newest.value[series]), int(newest.quality[series]))

    def update(self, series: NDArray[np.int32], samples: Series) -> None:
        """Take samples, each with its series number, in order of arrival; of two with one time the later one counts."""
        if not len(series):
            return
        order = np.lexsort((samples.taken_at, series))
        ordered = series[order]
        last = order[np.append(ordered[1:] != ordered[:-1], True)]
        newest = self._copy(int(series.max()) + 1)
        last = last[samples.taken_at[last] >= newest.taken_at[series[last]]]
        of = series[last]
        newest.taken_at[of] = samples.taken_at[last]
        newest.value[of] = samples.value[last]
        newest.quality[of] = samples.quality[last]
        self._newest = newest

    def _copy(self, size: int) -> Series:
        more = max(0, size - len(self._newest))
        return Series(
            np.append(self._newest.taken_at, np.full(more, _NEVER, TIME)),
            np.append(self._newest.value, np.full(more, np.nan, VALUE)),
            np.append(self._newest.quality, np.zeros(more, QUALITY)),
        )
