"""Meters that count and begin again: their readings as totals that only ever grow, also across restarts of the box."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from edge.installed import Installed
from edge.profile import Profile, Register
from edge.scaling import Scaling, scalings
from rules.samples import BAD, Quality
from wire.counted import Counted

WRAPPED_FROM = 0.9  # of a register's end: a fall from above this ...
WRAPPED_TO = 0.1  # ... to below this is the register's wrap
WRAPPED_FROM_UNSEEN = 0.5  # instead, by the first reading after a restart of the box: what came between was not seen
RESTARTED_TO = 0.5  # of what a meter showed: two falls running to no more than this are its restart

log = structlog.get_logger(__name__)


class _Count(msgspec.Struct, array_like=True):
    """How far one meter is: what it ``shows``, and what it had counted ``before`` it last began at 0.

    ``end`` is where its register ends: one that is declared with another is another counter. It is ``doubted`` when
    its last reading may have been its restart, or a glitch.
    """

    end: float
    before: float = 0.0
    shows: float = 0.0
    doubted: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.before + self.shows):
            raise ValueError("a count is finite")


@dataclass(frozen=True, slots=True)
class _Column:
    """A counting point of a profile, and where it stands in a matrix."""

    number: int
    point: Register
    end: float
    scaling: Scaling | None


class Counters:
    """The totals of one gateway's counting points, by device and metric.

    A fall from near the register's end to near 0 is a wrap, at once. One to at most half of what the meter showed is
    its restart when the next reading says so too. Until then, and when the fall is smaller, it is a wrong reading.

    ``changed`` says that a meter began again since the last ``save``: what it had counted by then is known nowhere
    else, so that the state belongs into the same transaction as the samples. Plain growth may wait for a while: after
    a restart of the box it is read again.

    Parameters
    ----------
    places
        The gateway's devices.
    counted
        Where wraps, restarts, wrong readings and a fresh start are counted.
    """

    def __init__(self, places: Iterable[Installed], counted: Counted | None = None) -> None:
        self.changed = False
        self._counted = counted or Counted()
        self._columns: dict[str, list[_Column]] = {}
        self._counts: dict[tuple[str, str], _Count] = {}
        self._unseen: set[tuple[str, str]] = set()  # restored, and not read since
        for place in places:
            for column in self._of(place.profile):
                self._counts[place.device.id, column.point.metric] = _Count(column.end)

    def advance(
        self, profile: Profile, devices: Sequence[str], value: NDArray[np.float64], quality: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        """Replace what the counting points of one profile show by totals, in order of the rows.

        Parameters
        ----------
        profile
            Whose points they are.
        devices
            Whose reading each row is, by id ``[m]``; a device may have several.
        value, quality
            As decoded, ``[m, points]``. What is bad or was not told (NaN) counts nothing, and stays as it is. Wrong
            readings count nothing either; they are marked ``BAD_RANGE`` in ``quality``, and are 0.0.
        """
        columns = self._of(profile)
        if not columns:
            return value
        totals = value.copy()
        for column in columns:
            shown = value[:, column.number]
            rows = np.flatnonzero((quality[:, column.number] < BAD) & ~np.isnan(shown))
            ends = np.full(len(value), column.end)
            if column.scaling is not None:
                ends *= column.scaling.factor(value)
            for row, shows, end in zip(rows.tolist(), shown[rows].tolist(), ends[rows].tolist(), strict=True):
                total = self._total(column, devices[row], shows, end)
                totals[row, column.number] = 0.0 if total is None else total
                if total is None:
                    quality[row, column.number] = Quality.BAD_RANGE
        return totals

    def _total(self, column: _Column, device: str, shows: float, end: float) -> float | None:
        """Count what a meter shows; None for a wrong reading."""
        key = device, column.point.metric
        count = self._counts[key]
        if column.point.counter == "clears":
            count.before += shows
            self.changed = True
            return count.before
        wraps_from = WRAPPED_FROM_UNSEEN if key in self._unseen else WRAPPED_FROM
        self._unseen.discard(key)
        if shows < count.shows:
            wrapped = count.shows > wraps_from * end and shows < WRAPPED_TO * end
            doubted, count.doubted = count.doubted, shows <= max(RESTARTED_TO * count.shows, 0.0)
            if not (wrapped or (doubted and count.doubted)):
                self._counted.add("edge_counter_wrong_readings_total")
                return None
            count.before += end if wrapped else count.shows
            self._counted.add("edge_counter_wraps_total" if wrapped else "edge_counter_restarts_total")
            self.changed = True
        count.shows, count.doubted = shows, False
        return count.before + shows

    def save(self) -> bytes:
        """Encode all that is counted."""
        self.changed = False
        return msgspec.msgpack.encode([(*key, count) for key, count in self._counts.items()])

    def restore(self, saved: bytes) -> None:
        """Go on from what ``save`` made; what is not installed any more, or is declared otherwise now, is dropped.

        Bytes that are no such thing are counted and change nothing.
        """
        try:
            counts = msgspec.msgpack.decode(saved, type=list[tuple[str, str, _Count]])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._counted.add("edge_counters_fresh_starts_total")
            log.warning("the counters start fresh", why=str(error))
            return
        for device, metric, count in counts:
            present = self._counts.get((device, metric))
            if present is not None and present.end == count.end:
                self._counts[device, metric] = count
                self._unseen.add((device, metric))

    def _of(self, profile: Profile) -> list[_Column]:
        if profile.id not in self._columns:
            rescaled = {scaling.column: scaling for scaling in scalings(profile.point)}
            self._columns[profile.id] = [
                _Column(number, point, 2.0 ** (16 * point.words) * point.scale, rescaled.get(number))
                for number, point in enumerate(profile.point)
                if point.counter
            ]
        return self._columns[profile.id]
