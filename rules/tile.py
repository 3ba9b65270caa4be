"""Tiles: a block cut into devices × readings of one kind, time on the last axis; and what knows time: hold, earlier.

A live tick is a tile one reading wide, a long history a tile one device high: one code path for both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

NEVER = -(1 << 62)  # before every stamp, with room to subtract from
ABSENT = 255  # the quality of a cell that holds no sample
_ROOMY = 4096  # cells: below this, padding is cheaper than a second tile


def hold(x: NDArray[Scalar], mask: NDArray[np.bool_], before: NDArray[Scalar]) -> NDArray[Scalar]:
    """``x`` where ``mask``, else the newest earlier such ``x``, else ``before``.

    ``x`` and ``mask`` are ``[..., T]``, ``before`` is ``[...]``. Nearly all state of the engine is carried by this.
    """
    if x.shape[-1] == 1:
        return np.where(mask, x, before[..., None])
    newest = np.maximum.accumulate(np.where(mask, np.arange(x.shape[-1]), -1), axis=-1)
    return np.where(newest >= 0, np.take_along_axis(x, np.maximum(newest, 0), axis=-1), before[..., None])


def earlier(x: NDArray[Scalar], before: NDArray[Scalar]) -> NDArray[Scalar]:
    """``x`` one step earlier: ``before`` ``[...]`` stands in for the step before the first."""
    return np.concatenate([before[..., None], x[..., :-1]], axis=-1)


def changes(x: NDArray[Scalar]) -> NDArray[np.bool_]:
    """Where a value ``[s]`` differs from the one before it; the first does."""
    starts = np.ones(len(x), np.bool_)
    np.not_equal(x[1:], x[:-1], out=starts[1:])
    return starts


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """Readings of ``n`` devices of one kind, at most ``T`` each, in order of arrival; a shorter row ends in padding.

    ``rows`` ``[n]`` are the devices' places in their kind, each once; ``at`` ``[n, T]`` is ``taken_at``; ``value`` and
    ``quality`` are ``[M, n, T]`` over the kind's metrics, with quality ``ABSENT`` where a reading has no such sample.
    ``repeated`` counts samples that a reading held twice: the first of them stands.
    """

    rows: NDArray[np.intp]
    at: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]
    repeated: int


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Samples of one kind of device, in order of arrival: columns ``[s]``; ``reading`` numbers their readings."""

    reading: NDArray[np.intp]
    row: NDArray[np.intp]
    metric: NDArray[np.intp]
    at: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]

    def take(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> "Samples":
        return Samples(
            self.reading[which],
            self.row[which],
            self.metric[which],
            self.at[which],
            self.value[which],
            self.quality[which],
        )


def tiles(samples: Samples, metrics: int) -> Iterator[Tile]:
    """Cut samples into tiles, the readings of a device in their order of arrival.

    Rows of like length share a tile, so padding at most doubles it; few readings share one tile whatever their lengths.
    """
    if np.any(samples.row[1:] < samples.row[:-1]):
        samples = samples.take(np.argsort(samples.row, kind="stable"))
    starts = changes(samples.reading)
    reading = np.cumsum(starts) - 1
    row, at = samples.row[starts], samples.at[starts]
    opens = changes(row)
    first = np.flatnonzero(opens)
    line = np.cumsum(opens) - 1  # of each reading: which device, in order
    step = np.arange(len(row)) - first[line]
    length = np.diff(first, append=len(row))

    if len(first) * int(length.max()) <= max(_ROOMY, 2 * len(row)):
        yield _tile(samples, line[reading], step[reading], row[first], line, step, at, metrics)
        return
    size = np.frexp(length)[1]
    for like in np.unique(size):
        lines = size == like
        place = np.cumsum(lines) - 1
        readings = lines[line]
        inside = readings[reading]
        yield _tile(
            samples.take(inside),
            place[line[reading[inside]]],
            step[reading[inside]],
            row[first[lines]],
            place[line[readings]],
            step[readings],
            at[readings],
            metrics,
        )


def _tile(
    samples: Samples,
    line: NDArray[np.intp],
    step: NDArray[np.intp],
    rows: NDArray[np.intp],
    reading_line: NDArray[np.intp],
    reading_step: NDArray[np.intp],
    reading_at: NDArray[np.int64],
    metrics: int,
) -> Tile:
    height, width = len(rows), int(reading_step.max()) + 1
    at = np.zeros((height, width), np.int64)
    at[reading_line, reading_step] = reading_at
    value = np.full(metrics * height * width, np.nan)
    quality = np.full(metrics * height * width, ABSENT, np.uint8)
    # The first of duplicates stands; numpy keeps the last of repeated places, so write backwards.
    cell = ((samples.metric * height + line) * width + step)[::-1]
    value[cell] = samples.value[::-1]
    quality[cell] = samples.quality[::-1]
    shape = (metrics, height, width)
    repeated = len(cell) - int(np.count_nonzero(quality != ABSENT))
    return Tile(rows, at, value.reshape(shape), quality.reshape(shape), repeated)
