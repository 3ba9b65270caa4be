"""The memory twin: a store of samples that forgets when the process ends. For tests, and for a demo without a disk."""

from collections.abc import Sequence

import numpy as np

from cloud.timeseries.port import Sample, SampleBatch, Series, Stored, finite
from rules.samples import Block


class MemoryTimeSeries:
    """Keeps the batches as they came and looks through them at every question: plain enough to be trusted as a twin."""

    def __init__(self) -> None:
        self._batches: dict[tuple[str, int], SampleBatch] = {}

    async def write(self, batches: Sequence[SampleBatch]) -> set[tuple[str, int]]:
        before = set(self._batches)
        for batch in batches:
            self._batches.setdefault(batch.key, batch)
        return set(self._batches) - before

    async def read(self, device: str, metric: str, start: int, stop: int) -> Series:
        parts = [_of_point(batch, device, metric) for batch in self._batches.values()]
        block = Block.concatenate(parts)
        block = block.take((block.taken_at >= start) & (block.taken_at < stop))
        block = block.take(np.argsort(block.taken_at, kind="stable"))
        return Series(block.taken_at, finite(block.value), block.quality)

    async def scan(self, start: int, stop: int) -> Stored:
        """Read every sample with ``start <= taken_at < stop`` (UTC ns) of every point."""
        points: dict[tuple[str, str], int] = {}
        parts: list[Block] = []
        for batch in self._batches.values():
            block = batch.block.take((batch.block.taken_at >= start) & (batch.block.taken_at < stop))
            names = [(point.device, point.metric) for point in batch.table.points]
            number = np.array([points.setdefault(name, len(points)) for name in names], np.int32)
            parts.append(Block(number[block.point], block.taken_at, finite(block.value), block.quality))
        found = Block.concatenate(parts)
        return Stored(tuple(points), found.point, found.taken_at, found.value, found.quality)

    async def latest(self, devices: Sequence[str]) -> dict[tuple[str, str], Sample]:
        named = {
            (point.device, point.metric)
            for batch in self._batches.values()
            for point in batch.table.points
            if point.device in devices
        }
        found: dict[tuple[str, str], Sample] = {}
        for device, metric in named:
            series = await self.read(device, metric, np.iinfo(np.int64).min, np.iinfo(np.int64).max)
            if len(series):
                found[device, metric] = Sample(
                    int(series.taken_at[-1]), float(series.value[-1]), int(series.quality[-1])
                )
        return found

    async def committed(self, gateway: str) -> dict[int, int]:
        hours: dict[int, int] = {}
        for batch in self._batches.values():
            if batch.gateway == gateway:
                hours[batch.hour] = hours.get(batch.hour, 0) + len(batch.block)
        return hours

    async def close(self) -> None:
        """Nothing to let go of."""


def _of_point(batch: SampleBatch, device: str, metric: str) -> Block:
    indices = [
        index for index, point in enumerate(batch.table.points) if (point.device, point.metric) == (device, metric)
    ]
    return batch.block.take(np.isin(batch.block.point, indices))
