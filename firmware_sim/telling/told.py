"""What a device has to tell, before anybody wrote it down: the records between the walkers and the dialects."""

from functools import lru_cache
from math import isnan
from typing import Literal, NamedTuple

import msgspec

from wire import clock

Phase = Literal["clear", "begins", "stays", "ends", "deleted"]


class Uplink(msgspec.Struct, frozen=True, gc=False):
    """One report of a cover. ``at`` is when it is told, ``stamp`` what its own clock says then (both UTC ns).

    ``frame`` counts its reports from 0, ``angles`` are x, y, z in degrees, ``battery`` percent, ``rssi`` dBm at the
    network's receiver; ``interval_s`` is when the next report is due at the latest.
    """

    at: int
    stamp: int
    frame: int
    angles: tuple[float, float, float]
    battery: float
    alarm: bool
    rssi: int
    interval_s: int

    @property
    def values(self) -> dict[str, float]:
        """What it tells, by metric, without what a recording does not tell (NaN)."""
        x, y, z = self.angles
        told = {"battery": self.battery, "angle_x": x, "angle_y": y, "angle_z": z}
        return {metric: value for metric, value in told.items() if not isnan(value)}


class Sighting(msgspec.Struct, frozen=True, gc=False):
    """One step of what a camera sees of ``metric``; ``at`` and ``stamp`` as of ``Uplink``.

    ``clear``: nothing there, said on joining. ``begins``, ``stays`` (for a while), ``ends``. ``deleted``: the
    camera has started anew and takes back what it said before. ``began`` is the stamp of the beginning, or of the step
    itself where nothing is there; ``stayed`` says that it is no passer-by.
    """

    at: int
    stamp: int
    metric: str
    phase: Phase
    began: int
    stayed: bool = False

    @property
    def inside(self) -> bool:
        return self.phase in ("begins", "stays")


Told = Uplink | Sighting


@lru_cache(256)
def iso(at: int) -> str:
    """UTC nanoseconds as ISO 8601, as ``wire.clock`` writes it; many tell in one second."""
    return clock.iso(at)


class Written(NamedTuple):
    """A record in the words of a dialect."""

    topic: str
    payload: bytes
    retain: bool = False
