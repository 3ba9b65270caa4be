"""What arrived within a tick as one block: all readings of one profile are decoded as one matrix.

Decoding one reading at a time would cost some 50 us of numpy's fixed cost each; a matrix spreads it over all of them.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edge.counters import Counters
from edge.installed import derive
from edge.profile import Profile
from edge.reading import Reading, Replies
from edge.reads import Layout
from rules.samples import POINT, QUALITY, TIME, VALUE, Block, Quality
from wire.clock import NANOSECONDS

_MOST = np.finfo(np.float64).max  # an infinity lies beyond it, so a field without a range has this one


class Decoding:
    """Turns readings into blocks; ``counters`` are the totals of what counts and begins again (None: nothing does)."""

    def __init__(self, counters: Counters | None = None) -> None:
        self.counters = counters
        self._fields: dict[str, _Fields] = {}

    def block(self, readings: Sequence[Reading]) -> Block:
        """Decode readings, in their order; what was not told has no sample."""
        groups: dict[Layout | str, list[int]] = {}
        for number, reading in enumerate(readings):
            told = reading.told
            if isinstance(told, Replies):
                groups.setdefault(told.reads.layout, []).append(number)
            elif told is not None or reading.quality is not Quality.GOOD:
                groups.setdefault(reading.place.profile.id, []).append(number)
        if not groups:
            return Block.empty()
        parts = [self._decode(how, [readings[number] for number in numbers]) for how, numbers in groups.items()]
        if len(parts) == 1:
            ((block, _),) = parts
            return block
        # A device's readings may lie in two groups (its last answer, and that it is down): their order is kept.
        block = Block.concatenate([block for block, _ in parts])
        place = np.concatenate([np.array(n)[of] for n, (_, of) in zip(groups.values(), parts, strict=True)])
        return block.take(np.argsort(place, kind="stable"))

    def _decode(self, how: Layout | str, readings: list[Reading]) -> tuple[Block, NDArray[np.intp]]:
        """Decode readings of one profile; the block, and to which of the readings each of its samples belongs."""
        profile = readings[0].place.profile
        if isinstance(how, Layout):
            replies = zip(*(cast("Replies", reading.told).data for reading in readings), strict=True)
            joined = (np.frombuffer(b"".join(data), np.uint8).reshape(len(readings), -1) for data in replies)
            value, quality = how.decode(list(joined))
            if self.counters is not None:
                devices = [reading.place.device.id for reading in readings]
                value = self.counters.advance(profile, devices, value, quality)
        else:
            value, quality = self._fields_of(profile).decode([reading.told for reading in readings])
        own = np.array([reading.quality for reading in readings], QUALITY)
        if own.any():
            np.maximum(quality, own[:, None], out=quality)
        taken_at = np.array([reading.taken_at for reading in readings], TIME)
        lag = np.array([np.nan if reading.told is None else reading.lag_ns / NANOSECONDS for reading in readings])
        install = {
            name: np.array([reading.place.device.install[name] for reading in readings])
            for name in profile.install_names()
        }
        value, quality = derive(profile, install, value, quality, lag)
        width = value.shape[1]
        first = np.array([reading.place.rows[0] for reading in readings], POINT)
        block = Block(
            np.add.outer(first, np.arange(width, dtype=POINT)).ravel(),
            np.repeat(taken_at, width),
            value.ravel(),
            quality.ravel(),
        )
        of = np.repeat(np.arange(len(readings)), width)
        there = ~np.isnan(block.value)
        return (block, of) if there.all() else (block.take(there), of[there])

    def _fields_of(self, profile: Profile) -> "_Fields":
        if profile.id not in self._fields:
            self._fields[profile.id] = _Fields(profile)
        return self._fields[profile.id]


class _Fields:
    """The numbers of messages of one profile, or those that a poll did not bring."""

    def __init__(self, profile: Profile) -> None:
        fields = profile.measured
        self._width = len(profile.measured)
        self._scale = np.array([field.scale for field in fields])
        self._offset = np.array([field.offset for field in fields])
        self._low, self._high = np.array([field.range or (-_MOST, _MOST) for field in fields]).reshape(-1, 2).T
        self._invalid = [(column, field.invalid) for column, field in enumerate(fields) if field.invalid]

    def decode(self, told: Sequence[object]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Scale and judge ``[m, fields]`` numbers; NaN stays NaN, and a row of none is 0.0."""
        nothing = (0.0,) * self._width
        value = np.array([nothing if row is None else row for row in told], VALUE)
        quality = np.zeros(value.shape, QUALITY)
        silent = np.array([row is None for row in told])
        if silent.all():
            return value, quality
        raw = value
        with np.errstate(over="ignore"):  # what is infinite then is judged below
            value = raw * self._scale + self._offset
        quality[(value < self._low) | (value > self._high)] = Quality.BAD_RANGE
        quality[np.isinf(value)] = Quality.BAD_SENTINEL
        for column, patterns in self._invalid:
            quality[np.isin(raw[:, column], patterns), column] = Quality.BAD_SENTINEL
        if silent.any():
            quality[silent] = Quality.GOOD
            value[silent] = 0.0
        value[quality != Quality.GOOD] = 0.0
        return value, quality
