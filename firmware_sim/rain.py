"""Rain over a district: triangles, design storms and what a gauge recorded, added up second by second."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim import noise
from firmware_sim.noise import Floats, Times
from firmware_sim.scenario import DesignStorm, Rain
from rules.declared import seconds

_A, _C, _B, _N = 1600.0, 0.846, 7.0, 0.656
_MM_H = 0.36  # one litre a second and hectare


def mean_mm_h(return_years: float, minutes: float) -> float:
    """Mean intensity over the worst so many minutes that come once in ``return_years``, mm/h.

    Shanghai's storm intensity formula, q = 1600 (1 + 0.846 lg P) / (t + 7.0)^0.656 L/(s·ha), as cited from
    DB31/T 1043-2017; its numbers were not checked against the standard's own text. By it the worst hour of every year
    has 36 mm/h, which is what the city's sewers were built for.
    """
    mean: float = _MM_H * _A * (1.0 + _C * math.log10(return_years)) / (minutes + _B) ** _N
    return mean


def design_mm_h(storm: DesignStorm, second: NDArray[np.floating[Any]]) -> Floats:
    """Intensity of a design storm at seconds since its beginning, mm/h, shape of ``second``.

    The Chicago hyetograph (Keifer and Chu 1957): the worst minutes around its peak have the formula's mean, however
    many they are. Powers are the one thing here whose last bit differs between machines, so it is rounded off.
    """
    from_peak = second - storm.peak_at * seconds(storm.lasts)
    minutes = np.where(from_peak < 0, -from_peak / storm.peak_at, from_peak / (1.0 - storm.peak_at)) / 60.0
    height = mean_mm_h(storm.return_years, 0.0) * _B**_N
    intensity = height * ((1.0 - _N) * minutes + _B) / (minutes + _B) ** (1.0 + _N)
    return np.where((second >= 0) & (second < seconds(storm.lasts)), np.round(intensity, 3), 0.0)


class Hyetograph:
    """When it rains and how much, known from the start: one row for every second of rain, none for the others.

    Parameters
    ----------
    length_s
        Until when the last of the recorded steps holds, seconds of scenario time.
    """

    def __init__(self, rain: Rain, seed: int, length_s: float) -> None:
        spread = seconds(rain.at_varies)

        def drawn(at: str, *names: str) -> tuple[float, float]:
            """Draw when a part of the rain is, scenario seconds, and how strong, as a factor."""
            later = noise.between(-spread, spread, seed, "rain", *names, "at")
            factor = 1 + noise.between(-rain.peak_varies, rain.peak_varies, seed, "rain", *names, "peak")
            return seconds(at) + later, factor

        bursts = [(burst, *drawn(burst.at, str(number))) for number, burst in enumerate(rain.burst)]
        storms = [(storm, *drawn(storm.at, "design", str(number))) for number, storm in enumerate(rain.design)]
        begins = [seconds(at) for at, _ in rain.recorded]
        steps = zip(begins, [*begins[1:], length_s], [mm_h for _, mm_h in rain.recorded], strict=False)
        spells = [(at - seconds(burst.half), at + seconds(burst.half)) for burst, at, _ in bursts]
        spells += [(at, at + seconds(storm.lasts)) for storm, at, _ in storms]
        spells += [(begin, end) for begin, end, mm_h in steps if mm_h > 0]
        second = _covered(spells)
        mm_h = np.zeros(len(second))
        for burst, at, factor in bursts:
            mm_h += burst.peak_mm_h * factor * np.maximum(0.0, 1.0 - np.abs(second - at) / seconds(burst.half))
        for storm, at, factor in storms:
            mm_h += factor * design_mm_h(storm, second - at)
        if begins:
            step = np.searchsorted(begins, second, side="right") - 1
            held = np.array([mm_h for _, mm_h in rain.recorded])[np.maximum(step, 0)]
            mm_h += np.where((step >= 0) & (second < length_s), held, 0.0)
        self._second = second[mm_h > 0]
        self._mm_h = mm_h[mm_h > 0]
        self._fallen_mm = np.concatenate([np.zeros(1), np.cumsum(self._mm_h / 3600.0)])

    def fallen_mm(self, second: Times) -> Floats:
        """Rain fallen until seconds of scenario time, mm."""
        fallen: Floats = self._fallen_mm[np.searchsorted(self._second, second)]
        return fallen

    def mm_h(self, begin: int, end: int) -> Floats:
        """Intensity at every second from ``begin`` until before ``end``, mm/h."""
        low, high = np.searchsorted(self._second, (begin, end))
        intensity = np.zeros(end - begin)
        intensity[self._second[low:high] - begin] = self._mm_h[low:high]
        return intensity


def _covered(spells: list[tuple[float, float]]) -> NDArray[np.int64]:
    """List the whole seconds, from 0 on, that lie within spans of time."""
    within = [np.arange(max(0, math.ceil(begin)), math.ceil(end) + 1, dtype=np.int64) for begin, end in spells]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *within]))
