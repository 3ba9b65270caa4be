"""Rain into water: one small reservoir model, stepped on a fixed grid of one second and kept.

Each basin (an underpass, a sewer) is a linear runoff reservoir over a storage; see ``docs/simulator.md``.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from firmware_sim import noise
from firmware_sim.noise import Floats, Times
from firmware_sim.scenario import Event, Rain, Underpass
from rules.declared import seconds
from wire.clock import NANOSECONDS

_MM_H = 1.0 / 3600.0 / 1000.0  # mm/h as m/s
_BURST_M3_S = 0.45  # what a burst main lets into an underpass
_GULLY_S = 900.0  # time constant at which gullies empty a dip without its pumps


class Grid:
    """Rows of state, one a second from ``start`` (UTC ns) on, computed once and looked up ever after."""

    def __init__(self, start: int, first: Sequence[float]) -> None:
        self._start = start
        self._rows = np.zeros((1024, len(first)))
        self._rows[0] = first
        self._known = 1

    def step(self, second: int, state: list[float]) -> list[float]:
        """Work out the state one second after ``second``."""
        raise NotImplementedError

    def forget_after(self, at: int) -> None:
        """Drop what was computed for after ``at``: something new happens then."""
        self._known = min(self._known, max(1, self._second(at) + 1))

    def column(self, index: int, at: Times) -> Floats:
        """One quantity at instants ``at`` (UTC ns), held from its second on; before the start it is as at the start."""
        row = np.maximum((at - self._start) // NANOSECONDS, 0)
        self._reach(int(row.max(initial=0)))
        held: Floats = self._rows[row, index]
        return held

    def _second(self, at: int) -> int:
        return (at - self._start) // NANOSECONDS

    def _reach(self, second: int) -> None:
        if second < self._known:
            return
        if second >= len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros((second + 1, self._rows.shape[1]))])
        state: list[float] = self._rows[self._known - 1].tolist()
        for row in range(self._known, second + 1):
            state = self.step(row - 1, state)
            self._rows[row] = state
        self._known = second + 1


class Sky(Grid):
    """Rain fallen since the start [mm] and what the sewers hold of it [mm]."""

    def __init__(self, rain: Rain, seed: int, start: int, drains_in_s: float = 900.0) -> None:
        super().__init__(start, (0.0, 0.0))
        self._drains_in_s = drains_in_s
        spread = seconds(rain.at_varies)
        self._bursts = [
            (
                seconds(burst.at) + noise.between(-spread, spread, seed, "rain", str(number), "at"),
                seconds(burst.half),
                burst.peak_mm_h
                * (1 + noise.between(-rain.peak_varies, rain.peak_varies, seed, "rain", str(number), "peak")),
            )
            for number, burst in enumerate(rain.burst)
        ]

    def intensity(self, second: int) -> float:
        """Rain at a second of the scenario [mm/h]."""
        return sum(peak * max(0.0, 1.0 - abs(second - at) / half) for at, half, peak in self._bursts)

    def step(self, second: int, state: list[float]) -> list[float]:
        fallen, held = state
        rain = self.intensity(second) / 3600.0
        return [fallen + rain, held + rain - held / self._drains_in_s]

    def fallen_mm(self, at: Times) -> Floats:
        return self.column(0, at)

    def held_mm(self, at: Times) -> Floats:
        return self.column(1, at)


class Dip(Grid):
    """An underpass: runoff on its way [m³], water ponded [m³], its depth [m], water seen."""

    def __init__(self, declared: Underpass, sky: Sky, start: int) -> None:
        super().__init__(start, (0.0, 0.0, 0.0, 0.0))
        self._declared = declared
        self._lag_s = seconds(declared.lag)
        self._sky = sky
        self._bursts: list[tuple[int, int | None]] = []

    def burst(self, event: Event) -> None:
        """Let a main burst beside it, which drowns the pumps' control cabinet until it is shut off."""
        self._bursts.append((self._second(event.at), None if event.until is None else self._second(event.until)))
        self.forget_after(event.at)

    def step(self, second: int, state: list[float]) -> list[float]:
        wet, volume, depth, seen = state
        dip = self._declared
        drowned = any(begin <= second and (end is None or second < end) for begin, end in self._bursts)
        inflow = wet / self._lag_s
        wet += dip.runoff * self._sky.intensity(second) * _MM_H * dip.catchment_m2 - inflow
        pumping = (depth - dip.pump_from_m) / (dip.pump_full_m - dip.pump_from_m)
        pumping = 0.0 if drowned else dip.pump_m3_s * min(1.0, max(0.0, pumping))
        volume += inflow - volume / _GULLY_S - pumping + drowned * _BURST_M3_S
        volume = max(0.0, volume)
        depth = sqrt(volume * dip.slope / dip.width_m)  # two wedges of length depth/slope
        seen = 1.0 if depth > dip.seen_from_m else 0.0 if depth < dip.unseen_below_m else seen
        return [wet, volume, depth, seen]

    def depth_m(self, at: Times) -> Floats:
        """Depth at the lowest kerb point."""
        return self.column(2, at)

    def area_m2(self, at: Times) -> Floats:
        """Ponded road surface."""
        return self.column(2, at) * (2.0 * self._declared.width_m / self._declared.slope)

    def seen(self, at: Times) -> Floats:
        """Whether a camera there sees water, 0 or 1."""
        return self.column(3, at)
