"""Street lamps and their feeders: when the sun has them switched, what they draw, and how they fail."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from astral import Observer
from astral.sun import elevation
from numpy.typing import NDArray

from firmware_sim import chance, noise
from firmware_sim.chronicle import Chronicle, lasts
from firmware_sim.noise import Floats, Times
from firmware_sim.scenario import Event, Lighting
from rules.district import Device, District, Modbus
from wire.clock import NANOSECONDS

STANDBY_W = 2.6  # what a controller draws for itself when its lamp is dark
WARM_UP = 40 * NANOSECONDS  # from switching on to full power
_INRUSH = 2 * NANOSECONDS
_LAG_S = 9  # a lamp follows its command up to this much later
_MINUTE = 60 * NANOSECONDS
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_LOCAL = 8 * _HOUR  # local time is UTC+8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONG_AGO = -(2**62)


class _Commanded(NamedTuple):
    """Level in percent by instant, and since when the lamp is lit (UTC ns; meaningless while the level is 0)."""

    level: Floats
    since: Times


class Lamps:
    """Every lamp of a district, and the feeder that all lamps of a bus share."""

    def __init__(self, district: District, lighting: Lighting, chronicle: Chronicle, seed: int, start: int) -> None:
        corners = np.array([corner for site in district.site for corner in site.outline])
        east, north = (corners.min(axis=0) + corners.max(axis=0)) / 2
        self._place = (round(float(north), 2), round(float(east), 2))
        self._lighting = lighting
        self._chronicle = chronicle
        self._seed = seed
        self._start = start

    def sun_deg(self, at: Times) -> Floats:
        """How high the sun stands over the district, as of the last whole minute, to a hundredth of a degree."""
        day = at // _DAY
        height = np.zeros(len(at))
        for one in np.unique(day).tolist():
            rows = day == one
            height[rows] = _heights(*self._place, one)[(at[rows] - one * _DAY) // _MINUTE]
        return height

    def dim_level(self, device: Device, at: Times) -> Floats:
        """Commanded level of a lamp, percent."""
        return self._commanded(device, at).level

    def noticed(self, event: Event) -> int | None:
        """When the failure of a lamp can first be seen: at once, or when it is switched on next; None: never."""
        at = np.array([event.at], np.int64)
        if self._scheduled(at).level[0] > 0:
            return event.at
        if not self._lighting.by_sun:
            return None
        switches = self._switches(event.at, event.at + _DAY)
        begin = next((edge for edge, level in switches if edge > event.at and level > 0), None)
        return None if begin is None or (event.until is not None and event.until <= begin) else begin

    def dead(self, device: str, at: Times) -> NDArray[np.bool_]:
        """Whether a lamp gives no light however much it is told to."""
        return self._chronicle.during("lamp_fails", device, at)

    def fault_told(self, device: str, at: Times) -> NDArray[np.bool_]:
        """Whether its controller tells of a lamp failure: from when it was first seen until the repair."""
        told = np.zeros(len(at), np.bool_)
        for event in self._chronicle.within("lamp_fails", device, at):
            noticed = self.noticed(event)
            if noticed is not None:
                told |= lasts(event, at) & (at >= noticed)
        return told

    def voltage_v(self, device: Device, at: Times) -> Floats:
        """Of the feeder: it wanders, sinks under the evening's load, and is 0 when its breaker has tripped."""
        feeder = _feeder(device)
        slow = noise.smooth(chance.stream(self._seed, feeder, "feeder"), at, 420.0)
        flicker = noise.uniform(chance.stream(self._seed, feeder, "flicker"), at // NANOSECONDS) - 0.5
        evening = np.abs(((at + _LOCAL - 8 * _HOUR) % _DAY) / (_DAY / 2) - 1.0)  # 0 at 20:00, 1 at 08:00
        live = ~self._chronicle.during("feeder_trips", feeder, at)
        return (226.0 + 3.0 * slow + flicker + 2.0 * evening) * live

    def power_w(self, device: Device, at: Times) -> Floats:
        """Draw of lamp and controller together; a lamp ages by some percent a year."""
        feeder = _feeder(device)
        lag = NANOSECONDS * int(chance.between(0, _LAG_S, self._seed, device.id, "lag"))
        level, since = self._commanded(device, at - lag)
        since = _again(since + lag, at, self._chronicle.within("feeder_trips", feeder, at, WARM_UP))
        level, since = self._misled(device.id, at, level, since)
        wander = 1.0 + 0.02 * noise.smooth(chance.stream(self._seed, device.id, "power"), at, 240.0)
        years = (at - self._start) / (365 * _DAY)
        age = chance.between(0.0, 0.02, self._seed, device.id, "age") + 0.03 * years + self._faded(device.id, at)
        lit = device.install["nominal_power_w"] * (1.0 - age) * level / 100.0 * wander * _warming(at - since)
        lit = np.where(self.dead(device.id, at), 0.0, lit)
        live = ~self._chronicle.during("feeder_trips", feeder, at)
        return np.maximum(lit, STANDBY_W * wander) * live

    def leakage_ma(self, device: Device, at: Times) -> Floats:
        """Current that goes to earth instead of back, mA."""
        wander = noise.smooth(chance.stream(self._seed, device.id, "leakage"), at, 600.0)
        leaks = chance.between(0.6, 1.6, self._seed, device.id, "insulation") + 0.3 * wander
        for event in self._chronicle.within("lamp_leaks", device.id, at):
            leaks = np.where(lasts(event, at), event.size * (1.0 + 0.04 * wander), leaks)
        return leaks * ~self._chronicle.during("feeder_trips", _feeder(device), at)

    def _misled(self, device: str, at: Times, level: Floats, since: Times) -> _Commanded:
        """Apply what makes a lamp shine against its command: a relay that sticks by day, a driver that cycles."""
        for event in self._chronicle.within("lamp_burns_by_day", device, at):
            burns = lasts(event, at) & (level == 0)
            level, since = np.where(burns, 100.0, level), np.where(burns, event.at, since)
        for event in self._chronicle.within("lamp_cycles", device, at):
            period = round(event.size * NANOSECONDS)
            phase = (at - event.at) % period
            cycles = lasts(event, at)
            level = np.where(cycles & (phase < period // 2), 0.0, level)
            since = np.where(cycles, np.maximum(since, at - phase + period // 2), since)
        return _Commanded(level, since)

    def _faded(self, device: str, at: Times) -> Floats | float:
        """Share of its power that a lamp has lost while it aged in haste; it stays lost."""
        faded: Floats | float = 0.0
        for event in self._chronicle.of("lamp_ages", device):
            over = _DAY if event.until is None else event.until - event.at
            faded = faded + event.size * np.clip((at - event.at) / over, 0.0, 1.0)
        return faded

    def _commanded(self, device: Device, at: Times) -> _Commanded:
        level, since = self._scheduled(at)
        off = self._chronicle.within("circuit_off", _feeder(device), at, WARM_UP)
        for event in off:
            level = np.where(lasts(event, at), 0.0, level)
        return _Commanded(level, _again(since, at, off))

    def _scheduled(self, at: Times) -> _Commanded:
        if not self._lighting.by_sun or not len(at):
            return _Commanded(np.full(len(at), self._lighting.dim_level), np.full(len(at), _LONG_AGO, np.int64))
        first, last = (self._night(int(edge)) for edge in (at.min(), at.max()))
        switches = _timeline(*self._place, self._lighting, first, last)
        row = np.searchsorted(switches.at, at, side="right")
        return _Commanded(switches.level[row], switches.since[row])

    def _switches(self, first: int, last: int) -> list[tuple[int, float]]:
        found = _timeline(*self._place, self._lighting, self._night(first), self._night(last) + 1)
        return list(zip(found.at.tolist(), found.level[1:].tolist(), strict=True))

    def _night(self, at: int) -> int:
        return (at - _noon(self._place[1])) // _DAY


class _Timeline(NamedTuple):
    """Instants of switching ``[n]``; level and lit since ``[n + 1]``, the first before all of them."""

    at: Times
    level: Floats
    since: Times


def _feeder(device: Device) -> str:
    return device.wire.bus if isinstance(device.wire, Modbus) else device.site


def _again(since: Times, at: Times, interruptions: Sequence[Event]) -> Times:
    """Tell since when a lamp is lit, after what has interrupted it."""
    for event in interruptions:
        if event.until is not None:
            since = np.where(at >= event.until, np.maximum(since, event.until), since)
    return since


def _warming(age: Times) -> Floats | float:
    """Share of its power that a lamp draws so long after switching on: a surge, then it warms up."""
    if age.min(initial=WARM_UP) >= WARM_UP:
        return 1.0
    part = np.clip(age / WARM_UP, 0.0, 1.0)
    return 0.4 + 0.6 * part * (2.0 - part) + 0.8 * np.clip(1.0 - age / _INRUSH, 0.0, 1.0)


@lru_cache(64)
def _timeline(north: float, east: float, lighting: Lighting, first: int, last: int) -> _Timeline:
    """Lay the nights ``first`` to ``last`` end to end."""
    at, level, since = [], [0.0], [_LONG_AGO]
    for number in range(first, last + 1):
        edges = _night(north, east, lighting, number)
        at += [edge for edge, _ in edges]
        level += [high for _, high in edges]
        since += [edges[0][0] for _ in edges]
    return _Timeline(np.array(at, np.int64), np.array(level), np.array(since, np.int64))


@lru_cache(1024)
def _night(north: float, east: float, lighting: Lighting, number: int) -> tuple[tuple[int, float], ...]:
    """When the level changes between two noons, and to what; on whole seconds. Empty where the sun does not set."""
    noon = number * _DAY + _noon(east)
    midnight, next_noon = noon + _DAY // 2, noon + _DAY
    if not _low(north, east, midnight, lighting):
        return ()
    dusk, dawn = _turn(north, east, noon, midnight, lighting), _turn(north, east, next_noon, midnight, lighting)
    begin, end = (_clock(text) for text in lighting.late)
    late = noon + (begin - _LOCAL - noon) % _DAY
    early = late + (end - begin) % _DAY
    edges = sorted({dusk, *(edge for edge in (late, early) if dusk < edge < dawn)})
    levels = (lighting.late_level if late <= edge < early else lighting.dim_level for edge in edges)
    return (*zip(edges, levels, strict=True), (dawn, 0.0))


def _turn(north: float, east: float, bright: int, dark: int, lighting: Lighting) -> int:
    """Find the second at which a dark stretch begins or ends, between an instant by day and one within it."""
    if _low(north, east, bright, lighting):
        return bright
    while abs(dark - bright) > NANOSECONDS:
        middle = (bright + dark) // 2 // NANOSECONDS * NANOSECONDS
        if _low(north, east, middle, lighting):
            dark = middle
        else:
            bright = middle
    return max(bright, dark)


def _low(north: float, east: float, at: int, lighting: Lighting) -> bool:
    return _height(north, east, at) < lighting.on_below_deg


def _noon(east: float) -> int:
    """Mean solar noon as time of day in UTC, whole seconds in ns."""
    return round(12 * 3600 - east * 240) * NANOSECONDS


def _clock(text: str) -> int:
    """``HH:MM`` as time of day, ns."""
    hours, minutes = text.split(":")
    return int(hours) * _HOUR + int(minutes) * _MINUTE


@lru_cache(128)
def _heights(north: float, east: float, day: int) -> Floats:
    return np.array([_height(north, east, day * _DAY + minute * _MINUTE) for minute in range(1440)])


def _height(north: float, east: float, at: int) -> float:
    """Elevation of the sun's centre without refraction, to a hundredth of a degree: no machine's last bit shows."""
    moment = _EPOCH + timedelta(seconds=at // NANOSECONDS)
    return round(elevation(Observer(north, east), moment, with_refraction=False), 2)
