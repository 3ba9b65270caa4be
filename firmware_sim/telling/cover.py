"""When a cover tells: a heartbeat, and an uplink at once when its alarm comes or goes."""

import numpy as np
from numpy.typing import NDArray

from firmware_sim import noise
from firmware_sim.happenings import KINDS
from firmware_sim.instruments import Instruments, Shown
from firmware_sim.noise import Floats, Times
from firmware_sim.telling.air import joins, merged, stamps
from firmware_sim.telling.told import Uplink
from rules.district import Device
from wire.clock import NANOSECONDS

HEARTBEAT_S = 600
ALARM_DEG = 10.0  # the maker's default: reported at once, and again when it is over
CALM_S = 5  # how long a lid must lie still before the sensor calls it recovered
NEAR_DEG = 8.0  # a lid that lies tipped so far may set off the alarm by trembling
SETTLED_S = 60  # after what happened to a lid, it lies as still as before
_SUDDEN = tuple(what for what, kind in KINDS.items() if kind.hazard == "cover" and what != "frame_settles")


class Cover:
    """A walk over a cover's seconds: it looks at every heartbeat, and at each second around what happens to the lid.

    In between a lid only trembles, or sinks with its frame so slowly that the heartbeats show it in time. A recorded
    cover tells when it told. Seconds count from ``start`` (UTC ns), when it joins.
    """

    def __init__(self, device: Device, instruments: Instruments, start: int) -> None:
        self._device = device
        self._instruments = instruments
        self._start = start
        self._every_s = max(1, round(device.interval_s or HEARTBEAT_S))
        world = instruments.world
        self._phase = 1 + int((self._every_s - 1) * noise.draw(world.seed, device.id, "phase"))
        self._rssi = noise.stream(world.seed, device.id, "rssi")
        self._recorded = world.recordings.get(device.id)
        self._alarm = False
        self._tipped = -CALM_S  # the last second in which it lay further than ALARM_DEG
        self._frame = 0

    def tell(self, first: int, last: int) -> list[Uplink]:
        """Tell what is due in the seconds ``first`` to ``last``; they follow those of the last call."""
        due = self._due(first, last)
        if self._recorded is not None:
            shown, tilt = self._look(due)
            return self._uplinks(due, shown, tilt >= ALARM_DEG)
        sudden = self._sudden(first, last)
        second = merged(due, sudden, np.array([last]))
        shown, tilt = self._look(second)
        is_quiet = np.ones(len(second), np.bool_)
        is_quiet[np.searchsorted(second, sudden)] = False
        if (tilt[is_quiet] > NEAR_DEG).any():
            second = np.arange(first, last + 1, dtype=np.int64)
            shown, tilt = self._look(second)
        tipped = np.maximum.accumulate(np.where(tilt >= ALARM_DEG, second, self._tipped))
        alarm = second - tipped < CALM_S
        told = np.diff(alarm, prepend=self._alarm)
        told[np.searchsorted(second, due)] = True
        self._tipped, self._alarm = int(tipped[-1]), bool(alarm[-1])
        return self._uplinks(second[told], {metric: column[told] for metric, column in shown.items()}, alarm[told])

    def _due(self, first: int, last: int) -> Times:
        """Seconds of the heartbeats, by a minute hand of its own; and of joining, where it tells its state at once."""
        if self._recorded is not None:
            recorded = merged(-(-self._recorded.at // NANOSECONDS))
            return recorded[(first <= recorded) & (recorded <= last)]
        early = max(first, 1)
        beats = np.arange(early + (self._phase - early) % self._every_s, last + 1, self._every_s, dtype=np.int64)
        joining = joins(self._instruments.world, self._device.id, self._start)
        return merged(beats, joining[(first <= joining) & (joining <= last)])

    def _sudden(self, first: int, last: int) -> Times:
        """Seconds in which the alarm may come or go."""
        seconds = [np.empty(0, np.int64)]
        for what in _SUDDEN:
            for event in self._instruments.world.of(what, self._device.id):
                begins = (event.at - self._start) // NANOSECONDS
                over = last if event.until is None else (event.until - self._start) // NANOSECONDS + SETTLED_S
                seconds.append(np.arange(max(first, begins), min(last, over) + 1, dtype=np.int64))
        return merged(*seconds)

    def _look(self, second: Times) -> tuple[Shown, Floats]:
        """See what is shown, and how far that is from how the lid was installed."""
        shown = self._instruments.show(self._device, self._start + second * NANOSECONDS)
        x, y = (shown[f"angle_{axis}"] - self._device.install[f"background_{axis}_deg"] for axis in "xy")
        return shown, np.hypot(x, y)

    def _uplinks(self, second: Times, shown: Shown, alarm: NDArray[np.bool_]) -> list[Uplink]:
        at = self._start + second * NANOSECONDS
        stamp = stamps(self._instruments.world, self._device.id, at)
        frame = self._frame + np.arange(len(at))
        self._frame += len(at)
        rssi = np.round(26.0 * noise.uniform(self._rssi, frame) - 112.0).astype(np.int64)
        values = [np.round(shown[metric], 2) for metric in ("angle_x", "angle_y", "angle_z", "battery")]
        columns = (column.tolist() for column in (at, stamp, frame, *values, alarm, rssi))
        return [
            Uplink(when, said, number, (x, y, z), battery, stands, strength, self._every_s)
            for when, said, number, x, y, z, battery, stands, strength in zip(*columns, strict=True)
        ]
