"""Series numbers: a device's metric as one small integer, and a batch's point indices turned into them."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from cloud.timeseries.port import SampleBatch, Series, finite
from rules.samples import Block, PointTable


class SeriesNumbers:
    """Numbers from 0 in order of appearance. A device's id is its own in the whole district, on whichever gateway."""

    def __init__(self, known: Iterable[tuple[str, str]] = ()) -> None:
        self._numbers = {series: number for number, series in enumerate(known)}
        self._of_devices: dict[str, list[tuple[str, int]]] = {}
        for (device, metric), number in self._numbers.items():
            self._of_devices.setdefault(device, []).append((metric, number))
        self._of_tables: dict[str, tuple[PointTable, NDArray[np.int32]]] = {}

    def get(self, device: str, metric: str) -> int | None:
        return self._numbers.get((device, metric))

    def names(self) -> tuple[tuple[str, str], ...]:
        """Name every series, by number."""
        return tuple(self._numbers)

    def of_device(self, device: str) -> Sequence[tuple[str, int]]:
        """List the metrics of a device with their numbers."""
        return self._of_devices.get(device, ())

    def missing(self, tables: Iterable[PointTable]) -> list[tuple[int, str, str]]:
        """List what these tables name and has no number yet, with the numbers to come."""
        new = dict.fromkeys(
            (point.device, point.metric)
            for table in tables
            if not self._knows(table)
            for point in table.points
            if (point.device, point.metric) not in self._numbers
        )
        return [(number, *series) for number, series in enumerate(new, start=len(self._numbers))]

    def add(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """Take numbers given by ``missing`` into use."""
        for number, device, metric in rows:
            self._numbers[device, metric] = number
            self._of_devices.setdefault(device, []).append((metric, number))

    def columns(self, batches: Sequence[SampleBatch]) -> tuple[NDArray[np.int32], Series]:
        """Put the samples of some batches together: the series number of each, and the samples."""
        series = [self._of_table(batch.table)[batch.block.point] for batch in batches]
        block = Block.concatenate([batch.block for batch in batches])
        return np.concatenate(series), Series(block.taken_at, finite(block.value), block.quality)

    def _knows(self, table: PointTable) -> bool:
        # By identity: ingest keeps one object for one table, and comparing contents would cost more than it saves.
        known = self._of_tables.get(table.gateway)
        return known is not None and known[0] is table

    def _of_table(self, table: PointTable) -> NDArray[np.int32]:
        if not self._knows(table):
            numbers = [self._numbers[point.device, point.metric] for point in table.points]
            self._of_tables[table.gateway] = table, np.array(numbers, np.int32)
        return self._of_tables[table.gateway][1]
