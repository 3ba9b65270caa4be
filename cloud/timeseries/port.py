"""What the cloud asks of a store of samples. Every store passes one suite, ``tests/contract/test_timeseries.py``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from rules.samples import QUALITY, TIME, VALUE, Block, PointTable


class Retry(Exception):  # noqa: N818 - named by what the caller should do
    """Nothing was stored, or not everything: write the same batches again, after ``after_s`` seconds if it is given."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class Misconfigured(Exception):  # noqa: N818 - the person who runs the store has to act
    """The store refuses us (address, token, database). Keep the data and raise an alarm; a person has to mend it."""


@dataclass(frozen=True, slots=True, eq=False)
class SampleBatch:
    """One gateway's batch ``seq`` of an ``hour``; the block's indices refer to ``table`` and lie within it."""

    gateway: str
    seq: int
    hour: int
    table: PointTable
    block: Block

    @property
    def key(self) -> tuple[str, int]:
        return self.gateway, self.seq


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One point's samples by time, as columns of one length: UTC nanoseconds, value, quality."""

    taken_at: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.taken_at)

    @classmethod
    def empty(cls) -> "Series":
        return cls(np.empty(0, TIME), np.empty(0, VALUE), np.empty(0, QUALITY))


def finite(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values as every store keeps them: what is not finite is unknown, NaN."""
    return np.where(np.isfinite(value), value, np.nan)


class Sample(msgspec.Struct, frozen=True):
    """One value with its time (UTC nanoseconds) and quality."""

    taken_at: int
    value: float
    quality: int


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Samples of many points, in no order: ``point`` indexes ``points``, the pairs of device and metric."""

    points: tuple[tuple[str, str], ...]
    point: NDArray[np.int32]
    taken_at: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]


class TimeSeries(Protocol):
    """A store of samples. A value that is not finite comes back as NaN; everything else comes back as it was given."""

    async def write(self, batches: Sequence[SampleBatch]) -> set[tuple[str, int]]:
        """Store each batch once; the keys ``(gateway, seq)`` of those that were new.

        When this returns, all are on disk. ``Retry`` or ``Misconfigured``: write the same batches again later.
        """
        ...

    async def read(self, device: str, metric: str, start: int, stop: int) -> Series:
        """Read one point's samples with ``start <= taken_at < stop`` (UTC nanoseconds), by time; empty when unknown."""
        ...

    async def latest(self, devices: Sequence[str]) -> dict[tuple[str, str], Sample]:
        """Read the newest sample of each ``(device, metric)`` of these devices."""
        ...

    async def committed(self, gateway: str) -> dict[int, int]:
        """Count the samples stored by hour (``Batch.hour``): the cloud's side of the gap ledger."""
        ...

    async def close(self) -> None:
        """Finish what is under way and let go, in bounded time."""
        ...
