"""The air in manhole shafts: methane, hydrogen sulphide and oxygen, ventilated through the lids, worst at night."""

from typing import NamedTuple

import numpy as np

from firmware_sim import chance, noise
from firmware_sim.chronicle import Chronicle
from firmware_sim.noise import Floats, Times
from wire.clock import NANOSECONDS

OXYGEN = 20.8  # % of ordinary damp air
_QUANTITIES = ("ch4", "h2s", "o2")
_WANDER_S = 900.0
_DAY_S = 86400
_EAST_S = 8 * 3600  # local time is UTC+8
_GONE = 10.0  # time constants after which nothing is left


class _Pace(NamedTuple):
    """Time constants in seconds: how a gas builds up, and how a shaft airs when its source has stopped."""

    rise: float
    fade: float


_PACES = {
    "gas_gathers": _Pace(240.0, 420.0),
    "sewer_gas": _Pace(180.0, 420.0),
    "gas_puff": _Pace(8.0, 25.0),
    "oxygen_sinks": _Pace(300.0, 420.0),
}


class Shaft(NamedTuple):
    """Air by instant: methane in % of its lower explosive limit, hydrogen sulphide in ppm, oxygen in %."""

    ch4_lel: Floats
    h2s_ppm: Floats
    o2_percent: Floats


class Air:
    """What one would breathe in every shaft of a district."""

    def __init__(self, chronicle: Chronicle, seed: int) -> None:
        self._chronicle = chronicle
        self._seed = seed

    def shaft(self, device: str, at: Times) -> Shaft:
        """Tell the true air; methane takes the place of air, 5 % of the volume at 100 % of its limit."""
        wander = noise.smooth(chance.streams(self._seed, device, of=_QUANTITIES), at, _WANDER_S)
        still = 1.0 - 0.3 * _daylight(at)
        ch4 = (1.2 + 0.8 * wander[0]) * still
        h2s = (0.8 + 0.6 * wander[1]) * still
        o2 = OXYGEN - 0.1 - 0.1 * wander[2]
        for what in ("gas_gathers", "gas_puff"):
            for size, held in self._gathered(what, device, at):
                ch4 = ch4 + size * held
        for size, held in self._gathered("sewer_gas", device, at):
            h2s = h2s + size * held
        for size, held in self._gathered("oxygen_sinks", device, at):
            o2 = o2 - (OXYGEN - size) * held
        return Shaft(ch4, h2s, np.maximum(0.0, o2 * (1.0 - 0.0005 * ch4)))

    def ch4_lel(self, device: str, at: Times) -> Floats:
        return self.shaft(device, at).ch4_lel

    def h2s_ppm(self, device: str, at: Times) -> Floats:
        return self.shaft(device, at).h2s_ppm

    def o2_percent(self, device: str, at: Times) -> Floats:
        return self.shaft(device, at).o2_percent

    def _gathered(self, what: str, device: str, at: Times) -> list[tuple[float, Floats]]:
        """For each event its size, and the share of it that stands in the shaft."""
        pace = _PACES[what]
        found = []
        for event in self._chronicle.within(what, device, at, round(_GONE * pace.fade * NANOSECONDS)):
            until = at if event.until is None else np.minimum(at, event.until)
            held = 1.0 - _decay((until - event.at) / (pace.rise * NANOSECONDS))
            found.append((event.size, held * _decay((at - until) / (pace.fade * NANOSECONDS))))
        return found


def _daylight(at: Times) -> Floats:
    """From 0 at four in the morning to 1 at four in the afternoon, when the sun draws air through the lids."""
    since: Floats = (at // NANOSECONDS + _EAST_S - 4 * 3600) % _DAY_S / (_DAY_S / 2)
    return 1.0 - np.abs(1.0 - since)


def _decay(times: Floats) -> Floats:
    """About exp(−times): a quotient squared ten times over, which is the same on every machine; 1 before time 0."""
    left = 1.0 / (1.0 + np.clip(times, 0.0, _GONE) / 1024.0)
    for _ in range(10):
        left = left * left
    return np.where(times < _GONE, left, 0.0)
