"""Rain into water: one small reservoir model, stepped second by second while there is anything to step.

Rain on a basin's catchment runs off through a linear reservoir into a storage: the dip of an underpass, or the shaft
of a manhole. All basins of a kind are stepped together, and those at rest not at all; see ``docs/simulator.md``.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from firmware_sim import noise
from firmware_sim.noise import Floats, Times
from firmware_sim.rain import Hyetograph
from firmware_sim.scenario import Event, Scenario, Sewer, Underpass
from rules.declared import seconds
from rules.district import Device, District
from wire.clock import NANOSECONDS

_MM_H = 1.0 / 3600.0 / 1000.0  # mm/h as m/s
_SPAN_S = 600
_BURST_M3_S = 0.45  # what a burst main lets into an underpass, unless its event has a size
_GULLY_S = 900.0  # time constant at which gullies empty a dip without its pumps
_DAMP_M = 0.002  # of water in a dip: no level sensor tells it from none
_CALM_M = 0.001  # of rise in a shaft
_ORIFICE = 0.6 * (2.0 * 9.81) ** 0.5  # m/s of outflow per m² of a sharp-edged hole and √m of head
_HOLD_S = 10  # for so long the level in a shaft is held
_UTC_8_S = 8 * 3600  # local time ahead of UTC

# Dry-weather flow at every hour of the day against its mean: least before dawn, most at breakfast and supper. Much of
# it is groundwater that leaks in at any hour, which is why it never falls far.
_BY_HOUR = np.array([
    0.92, 0.86, 0.81, 0.78, 0.77, 0.80, 0.92, 1.10, 1.20, 1.17, 1.10, 1.06,
    1.06, 1.04, 1.00, 0.97, 0.98, 1.04, 1.13, 1.20, 1.20, 1.15, 1.08, 1.00,
])  # fmt: skip

Rows = NDArray[np.int64]


class _Basins(ABC):
    """Reservoirs in the rain. Of each is kept its ``rise``: how far its water stands above where it rests, m.

    Time is cut into spans. A basin is awake in a span when it rains, when something that moves its water happens to
    it, or when it did not come to rest in the span before. Nothing is computed or kept of the others: their rise is
    exactly 0. One that is awake too early stays exactly at rest, so what happens later cannot change what was before.

    Parameters
    ----------
    catchment_m2, runoff, lag_s
        The surface that rain falls on, the share that runs off, and its time constant; each of shape ``[basins]``.
    hold_s
        A rise is kept for so many seconds, as a ``kind`` of number.
    """

    _wakes: str  # the event that moves water without rain

    def __init__(
        self,
        names: Sequence[str],
        hyetograph: Hyetograph,
        start: int,
        *,
        catchment_m2: ArrayLike,
        runoff: ArrayLike,
        lag_s: ArrayLike,
        hold_s: int,
        kind: DTypeLike,
    ) -> None:
        self._row = {name: row for row, name in enumerate(names)}
        self._hyetograph = hyetograph
        self._start = start
        self._catchment_m2, self._runoff, self._lag_s = np.array([catchment_m2, runoff, lag_s], np.float64)
        self._hold_s = hold_s
        self._events: list[Event] = []
        self._computed = 0  # spans
        self._left: dict[int, tuple[Rows, Floats]] = {}  # after a span: who is awake, runoff and content of each
        # The rises of the spans that somebody was awake in; first of all come those of anybody who is at rest.
        self._rows = _SPAN_S // hold_s
        self._kept = np.zeros(self._rows, kind)
        self._used = self._rows
        self._at = np.zeros((len(names), 1), np.int64)  # by basin and span: where its rises begin in ``_kept``

    def __contains__(self, name: str) -> bool:
        return name in self._row

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def add(self, event: Event) -> None:
        """Let something happen to a basin, and forget the span it begins in and all that follow."""
        self._events.append(event)
        self._forget(max(0, self._second(event.at)) // _SPAN_S)

    def rise_m(self, name: str, at: Times) -> Floats:
        """Tell the rise at instants ``at`` (UTC ns), held from its second on; before the start it is 0."""
        second = np.maximum((at - self._start) // NANOSECONDS, 0)
        self._reach(int(second.max(initial=0)))
        at_span = self._at[self._row[name], second // _SPAN_S]
        rise: Floats = self._kept[at_span + second % _SPAN_S // self._hold_s].astype(np.float64)
        return rise

    def awake(self, name: str, begin: int, end: int) -> bool:
        """Whether a basin may be out of its rest at some instant of a span of time (UTC ns)."""
        self._reach(max(0, self._second(end)))
        first, last = (max(0, self._second(edge)) // _SPAN_S for edge in (begin, end))
        return bool((self._at[self._row[name], first : last + 1] > 0).any())

    @abstractmethod
    def _step(self, who: Rows, begin: int, inflow: Floats, content: Floats) -> Floats:
        """Step the storages of ``who`` through a span that begins at a second.

        Parameters
        ----------
        inflow
            Runoff that arrives, m³/s, shape ``[_SPAN_S, who]``.
        content
            What the storages hold, as the kind of basin counts it, shape ``[who]``; changed to that at the end.

        Returns
        -------
        Rises, m, shape ``[_SPAN_S / hold_s, who]``, at the beginning of each step of holding.
        """

    @abstractmethod
    def _stirred(self, who: Rows, end: int, wet: Floats, content: Floats) -> NDArray[np.bool_]:
        """Tell who is not at rest yet at a second, with ``wet`` m³ of runoff on its way."""

    def _second(self, at: int) -> int:
        return (at - self._start) // NANOSECONDS

    def _forget(self, span: int) -> None:
        self._computed = min(self._computed, span)
        self._at[:, span:] = 0
        self._used = int(self._at.max(initial=0)) + self._rows
        self._left = {before: left for before, left in self._left.items() if before < span}

    def _reach(self, second: int) -> None:
        spans = second // _SPAN_S + 1
        if spans > self._at.shape[1]:
            more = np.zeros((len(self._at), max(spans - self._at.shape[1], self._at.shape[1])), np.int64)
            self._at = np.concatenate([self._at, more], axis=1)
        for span in range(self._computed, spans):
            self._compute(span)
            self._computed = span + 1

    def _compute(self, span: int) -> None:
        begin, end = span * _SPAN_S, (span + 1) * _SPAN_S
        rain = self._hyetograph.mm_h(begin, end)
        awake, left = self._left.get(span - 1, (np.zeros(0, np.int64), np.zeros((2, 0))))
        woken = range(len(self._row)) if rain.any() else self._moved(begin, end)
        who = np.union1d(awake, np.array(woken, np.int64))
        if not len(who):
            return
        state = np.zeros((2, len(who)))
        state[:, np.searchsorted(who, awake)] = left
        wet, content = state
        arriving = self._runoff[who] * rain[:, np.newaxis] * _MM_H * self._catchment_m2[who]
        inflow = np.zeros((_SPAN_S, len(who)))
        lag_s = self._lag_s[who]
        for second in range(_SPAN_S):
            inflow[second] = wet / lag_s
            wet += arriving[second] - inflow[second]
        self._keep(span, who, self._step(who, begin, inflow, content))
        stirred = self._stirred(who, end, wet, content)
        if stirred.any():
            self._left[span] = who[stirred], state[:, stirred]

    def _keep(self, span: int, who: Rows, rises: Floats) -> None:
        end = self._used + rises.size
        if end > len(self._kept):
            self._kept = np.concatenate([self._kept, np.zeros(max(rises.size, len(self._kept)), self._kept.dtype)])
        self._kept[self._used : end] = rises.T.ravel()
        self._at[who, span] = self._used + np.arange(len(who)) * self._rows
        self._used = end

    def _moved(self, begin: int, end: int) -> list[int]:
        """Who has its water moved without rain, between two seconds."""
        return [
            self._row[event.target]
            for event in self._events
            if event.what == self._wakes
            and self._second(event.at) < end
            and (event.until is None or self._second(event.until) > begin)
        ]

    def _during(self, what: str, who: Rows, begin: int) -> list[tuple[Event, slice, int]]:
        """List the events of a kind in the span that begins at a second: the rows in it, and the column in ``who``."""
        found = []
        for event in self._events:
            if event.what == what and (column := np.flatnonzero(who == self._row[event.target])).size:
                first = max(0, self._second(event.at) - begin)
                last = _SPAN_S if event.until is None else max(0, self._second(event.until) - begin)
                found.append((event, slice(first, last), int(column[0])))
        return found


class _Dips(_Basins):
    """Underpasses; the content of each is the water ponded in it, m³, and its rise the depth."""

    _wakes = "burst_main"

    def __init__(self, declared: Sequence[Underpass], hyetograph: Hyetograph, start: int) -> None:
        super().__init__(
            [dip.site for dip in declared],
            hyetograph,
            start,
            catchment_m2=[dip.catchment_m2 for dip in declared],
            runoff=[dip.runoff for dip in declared],
            lag_s=[seconds(dip.lag) for dip in declared],
            hold_s=1,
            kind=np.float64,
        )
        self._declared = {dip.site: dip for dip in declared}
        self._slope = np.array([dip.slope for dip in declared])
        self._width_m = np.array([dip.width_m for dip in declared])
        self._pump_m3_s = np.array([dip.pump_m3_s for dip in declared])
        self._pump_from_m = np.array([dip.pump_from_m for dip in declared])
        self._pump_over_m = np.array([dip.pump_full_m - dip.pump_from_m for dip in declared])
        self._turns: list[list[int]] = [[] for _ in declared]  # seconds at which water comes into sight, or goes

    def area_m2(self, site: str, at: Times) -> Floats:
        dip = self._declared[site]
        return self.rise_m(site, at) * (2.0 * dip.width_m / dip.slope)

    def seen(self, site: str, at: Times) -> Floats:
        second = np.maximum((at - self._start) // NANOSECONDS, 0)
        self._reach(int(second.max(initial=0)))
        turned = np.searchsorted(self._turns[self._row[site]], second, side="right")
        return (turned % 2).astype(np.float64)

    def _depth_m(self, who: Rows, volume: Floats) -> Floats:
        """Two wedges of length depth/slope."""
        depth: Floats = np.sqrt(volume * self._slope[who] / self._width_m[who])
        return depth

    def _step(self, who: Rows, begin: int, inflow: Floats, content: Floats) -> Floats:
        """Pump, drain and fill. A burst main drowns the pumps' control cabinet until it is shut off."""
        slope, width_m = self._slope[who], self._width_m[who]
        pump_from_m, pump_over_m = self._pump_from_m[who], self._pump_over_m[who]
        pumps = np.tile(self._pump_m3_s[who], (_SPAN_S, 1))
        burst = np.zeros((_SPAN_S, len(who)))
        for event, rows, column in self._during("burst_main", who, begin):
            burst[rows, column] = event.size or _BURST_M3_S
            pumps[rows, column] = 0.0
        for _, rows, column in self._during("pumps_fail", who, begin):
            pumps[rows, column] = 0.0
        depths = np.zeros((_SPAN_S, len(who)))
        for second in range(_SPAN_S):
            depth = np.sqrt(content * slope / width_m, out=depths[second])
            running = np.minimum(1.0, np.maximum(0.0, (depth - pump_from_m) / pump_over_m))
            content += inflow[second] - content / _GULLY_S - pumps[second] * running + burst[second]
            np.maximum(0.0, content, out=content)
        self._look(who, begin, depths)
        return depths

    def _stirred(self, who: Rows, end: int, wet: Floats, content: Floats) -> NDArray[np.bool_]:
        del end
        return self._depth_m(who, wet + content) > _DAMP_M

    def _look(self, who: Rows, begin: int, depths: Floats) -> None:
        """Note when water comes into sight and goes out of it."""
        for column, dip in enumerate(list(self._declared.values())[row] for row in who):
            turns = self._turns[who[column]]
            shows = (depths[:, column] > dip.seen_from_m).astype(np.int8) - (depths[:, column] < dip.unseen_below_m)
            clear = np.flatnonzero(shows)
            before = np.concatenate([[1 if len(turns) % 2 else -1], shows[clear]])
            turns += (begin + clear[before[1:] != before[:-1]]).tolist()

    def _forget(self, span: int) -> None:
        super()._forget(span)
        self._turns = [[turn for turn in turns if turn < span * _SPAN_S] for turns in self._turns]


class _Shafts(_Basins):
    """Manholes; the content of each is its rise over the level that the dry-weather flow keeps in it.

    A shaft is silted up to the pipe's sill; above that the flow stands as high as it needs to get out. What flows in
    is what keeps this level with a free pipe, and runoff on top of it.
    """

    _wakes = "sewer_blocked"

    def __init__(self, monitors: Sequence[Device], sewer: Sewer, hyetograph: Hyetograph, seed: int, start: int) -> None:
        def drawn(low: float, high: float, what: str) -> Floats:
            return np.array([noise.between(low, high, seed, monitor.id, what) for monitor in monitors])

        super().__init__(
            [monitor.id for monitor in monitors],
            hyetograph,
            start,
            catchment_m2=sewer.catchment_m2 * drawn(0.6, 1.4, "catchment"),
            runoff=[sewer.runoff] * len(monitors),
            lag_s=[seconds(sewer.lag)] * len(monitors),
            hold_s=_HOLD_S,
            kind=np.float32,
        )
        self._outflow = _ORIFICE * sewer.pipe_m2
        self._shaft_m2 = sewer.shaft_m2
        self._sill_m = drawn(0.08, 0.20, "sill")
        self._head_m = drawn(0.07, 0.12, "head")
        self._rim_m = np.array([monitor.install["shaft_depth_m"] for monitor in monitors])
        self._flow = np.array([noise.stream(seed, monitor.id, "flow") for monitor in monitors]).reshape(-1)

    def level_m(self, monitor: str, at: Times) -> Floats:
        """Water above the shaft's bottom; what comes over its rim runs off."""
        row = self._row[monitor]
        held = (at - self._start) // (_HOLD_S * NANOSECONDS) * _HOLD_S
        level = self._sill_m[row] + self._dry_m(np.array([row]), held)[:, 0] + self.rise_m(monitor, at)
        below_rim: Floats = np.minimum(level, self._rim_m[row])
        return below_rim

    def _dry_m(self, who: Rows, second: Times) -> Floats:
        """Head over the sill that the dry-weather flow of each needs, shape ``[second, who]``."""
        at = self._start + second * NANOSECONDS
        today = (at // NANOSECONDS + _UTC_8_S) % 86400
        hour = today // 3600
        before, after = _BY_HOUR[hour], _BY_HOUR[(hour + 1) % 24]
        usual = before + (after - before) * (today % 3600 / 3600.0)
        flow = usual[:, np.newaxis] * (1.0 + 0.05 * noise.smooth(self._flow[who], at[:, np.newaxis], 1800.0))
        head: Floats = self._head_m[who] * (flow * flow)
        return head

    def _step(self, who: Rows, begin: int, inflow: Floats, content: Floats) -> Floats:
        """Fill and let out. Where nothing disturbs it, in and out are the same number and the rise stays exactly 0."""
        free = np.full((_SPAN_S, len(who)), self._outflow)
        for event, rows, column in self._during("sewer_blocked", who, begin):
            free[rows, column] = np.minimum(free[rows, column], self._outflow * (1.0 - event.size))
        dry_m = self._dry_m(who, begin + np.arange(0, _SPAN_S, _HOLD_S))
        flow = self._outflow * np.sqrt(dry_m)
        room = np.maximum(0.0, self._rim_m[who] - self._sill_m[who] - dry_m)
        rises = np.zeros(dry_m.shape)
        for second in range(_SPAN_S):
            held = second // _HOLD_S
            if second % _HOLD_S == 0:
                rises[held] = content
            content += (inflow[second] + flow[held] - free[second] * np.sqrt(dry_m[held] + content)) / self._shaft_m2
            np.maximum(0.0, content, out=content)
            np.minimum(room[held], content, out=content)
        return rises

    def _stirred(self, who: Rows, end: int, wet: Floats, content: Floats) -> NDArray[np.bool_]:
        """Measure by the rise, and by that which the runoff on its way would keep up."""
        dry_m = self._dry_m(who, np.array([end]))[0]
        kept_up = (np.sqrt(dry_m) + wet / self._lag_s[who] / self._outflow) ** 2 - dry_m
        stirred: NDArray[np.bool_] = np.maximum(content, kept_up) > _CALM_M
        return stirred


class Water:
    """Rain, ponding and sewers of a district, as pure functions of time and of what happens.

    Instants are UTC ns, shape ``[n]``, and so is what is told of them. Levels in shafts are held for ten seconds,
    everything else for one.

    Parameters
    ----------
    start
        City time of scenario time 0, UTC ns.
    """

    def __init__(self, district: District, scenario: Scenario, seed: int, start: int) -> None:
        self._start = start
        self._hyetograph = Hyetograph(scenario.rain, seed, seconds(scenario.length))
        self._dips = _Dips(scenario.underpass, self._hyetograph, start)
        monitors = [device for device in district.device if device.kind == "manhole_monitor"]
        self._shafts = _Shafts(monitors, scenario.sewer, self._hyetograph, seed, start)

    def add(self, event: Event) -> None:
        """Let a main burst, pumps fail or a sewer clog; only what lies after the event's instant may change by it."""
        if event.what in ("burst_main", "pumps_fail"):
            self._dips.add(event)
        elif event.what == "sewer_blocked":
            self._shafts.add(event)

    def rain_mm(self, at: Times) -> Floats:
        """Rain fallen since the start, mm."""
        return self._hyetograph.fallen_mm((at - self._start) // NANOSECONDS)

    def depth_m(self, site: str, at: Times) -> Floats:
        """Ponding on the road of an underpass (0 elsewhere), m at the lowest kerb point."""
        return self._dips.rise_m(site, at) if site in self._dips else np.zeros(len(at))

    def area_m2(self, site: str, at: Times) -> Floats:
        """Ponded road surface, m²."""
        return self._dips.area_m2(site, at) if site in self._dips else np.zeros(len(at))

    def seen(self, site: str, at: Times) -> Floats:
        """Whether somebody looking there sees standing water, 0 or 1."""
        return self._dips.seen(site, at) if site in self._dips else np.zeros(len(at))

    def shaft_m(self, monitor: str, at: Times) -> Floats:
        """Water in a manhole's shaft above its bottom, m, never above its rim; ``KeyError`` for any other device."""
        return self._shafts.level_m(monitor, at)

    def wet(self, name: str, begin: int, end: int) -> bool:
        """Whether there may be water at a site, or more than usual in a monitor's shaft, in a span of time (UTC ns)."""
        return any(name in basins and basins.awake(name, begin, end) for basins in (self._dips, self._shafts))

    def wet_sites(self, now: int) -> set[str]:
        """Name the underpasses that are more than damp at an instant."""
        at = np.array([now], np.int64)
        return {site for site in self._dips if self.depth_m(site, at)[0] > 0.10}
