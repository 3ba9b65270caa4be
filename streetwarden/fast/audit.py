"""Every stored sample held against what the instruments emitted: lost, doubled, garbled, or never emitted at all.

The world is a pure function, so what an instrument showed at a stored instant can be asked again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud.timeseries.port import Stored
from edge.profile import Field, Profile, Register
from firmware_sim.instruments import Instruments
from firmware_sim.modbus import COUNTER
from firmware_sim.noise import Floats, Times
from rules.district import Device
from rules.samples import BAD, Quality
from streetwarden.fast.street import Emitted
from streetwarden.told import Flaw, Stage, Wrong
from wire.clock import HOUR, NANOSECONDS, iso

AT_ONCE = 1_000_000  # samples read back at a time
_NEVER = -(1 << 62)
_JSON_STEP = 0.01  # payloads carry two decimals


class Scanned(Protocol):
    """A store whose whole content can be read, a span of time after the other."""

    async def scan(self, start: int, stop: int) -> Stored: ...


@dataclass(frozen=True, slots=True)
class Passed:
    """How many samples of one gateway passed each of its stages, by their own counts."""

    judged: int
    acquired: int
    filtered: int
    dropped: int
    waiting: int
    sent: int
    committed: int

    def lost_at(self) -> Stage:
        """Name the first stage that let fewer out than came in; the edge, before anything was counted, if none did."""
        if self.acquired < self.judged or self.sent + self.filtered + self.dropped + self.waiting < self.acquired:
            return "outbox"
        return "ingest" if self.committed < self.sent else "edge"

    def doubled_at(self) -> Stage:
        return "ingest" if self.committed > self.sent else "store"


class Auditor:
    """Compares a store with the street. ``maps`` are the simulator's profiles, ``passed`` the gateways' own counts."""

    def __init__(
        self,
        devices: Sequence[Device],
        maps: Mapping[str, Profile],
        instruments: Instruments,
        emitted: Emitted,
        passed: Mapping[str, Passed],
    ) -> None:
        self.audited = 0
        self._instruments = instruments
        self._devices = {device.id: device for device in devices}
        self._maps = maps
        self._passed = passed
        self._emitted = {device.id: emitted.instants(device.id) for device in devices}
        self._flaws: dict[tuple[str, str, str], Flaw] = {}
        self._kept: dict[tuple[str, str], tuple[int, float]] = {}  # the last that is in the store, and its value

    async def audit(self, store: Scanned, begin: int, end: int) -> tuple[Flaw, ...]:
        """Read the whole store back; what does not agree, by device."""
        samples = sum(passed.committed for passed in self._passed.values())
        parts = 1 + samples // AT_ONCE
        step = (end - begin + 2 * HOUR) // parts + 1
        for start in range(begin - HOUR, end + HOUR, step):
            stop = min(start + step, end + HOUR)
            stored = await store.scan(start, stop)
            self.audited += len(stored.point)
            self._window(stored, start, stop)
        if self.audited < samples:  # counted as committed, and not there
            for key, flaw in self._flaws.items():
                if flaw.kind == "lost":
                    self._flaws[key] = msgspec.structs.replace(flaw, stage="store")
        if not self._flaws:
            self._balance()
        return tuple(sorted(self._flaws.values(), key=lambda flaw: (flaw.first_at, flaw.device, flaw.metric)))

    def _balance(self) -> None:
        """Hold the gateways' own counts against each other, should no sample tell of itself."""
        for gateway, passed in self._passed.items():
            gone = passed.judged - passed.filtered - passed.dropped - passed.waiting - passed.committed
            kind: Wrong = "lost" if gone > 0 else "doubled"
            stage = passed.lost_at() if gone > 0 else passed.doubled_at()
            if gone:
                note = "the gateway's own counts do not balance"
                self._flaws[kind, gateway, ""] = Flaw(kind, gateway, "", abs(gone), stage, "", note)

    def _window(self, stored: Stored, start: int, stop: int) -> None:
        order = np.lexsort((stored.taken_at, stored.point))
        edges = np.searchsorted(stored.point[order], np.arange(len(stored.points) + 1))
        by_device: dict[str, dict[str, NDArray[np.intp]]] = {}
        for number, (name, metric) in enumerate(stored.points):
            by_device.setdefault(name, {})[metric] = order[edges[number] : edges[number + 1]]
        for name, device in self._devices.items():
            self._device(device, by_device.get(name, {}), stored, start, stop)

    def _device(
        self, device: Device, rows: Mapping[str, NDArray[np.intp]], stored: Stored, start: int, stop: int
    ) -> None:
        stamps, instants = self._emitted[device.id]
        before, after = np.searchsorted(stamps, [start, stop])
        emitted, instants = stamps[before:after], instants[before:after]
        shown = self._instruments.show(device, instants) if len(emitted) else {}
        passed = self._passed[device.gateway]
        for metric, chosen in rows.items():
            at = stored.taken_at[chosen]
            twice = np.flatnonzero(at[1:] == at[:-1]) + 1
            self._note("doubled", device, metric, at[twice], passed.doubled_at())
        for point in _measured(self._maps[device.profile]):
            counts = point.metric == COUNTER
            expected = np.arange(before + 1.0, after + 1.0) if counts else shown.get(point.metric)
            if expected is None:
                continue
            chosen = rows.get(point.metric, np.empty(0, np.intp))
            own = ~np.isin(stored.quality[chosen], (Quality.BAD_COMMS, Quality.BAD_CLOCK))
            chosen = chosen[own]
            at = stored.taken_at[chosen]
            known, place = _places(emitted, at)
            self._note("alien", device, point.metric, at[~known], "edge")
            chosen, place = chosen[known], place[known]
            wrong = _differs(point, stored.value[chosen], stored.quality[chosen], expected[place])
            note = f"not what the instrument showed: see profile {device.profile} and its codec"
            self._note("garbled", device, point.metric, stored.taken_at[chosen[wrong]], "edge", note)
            there = np.zeros(len(emitted), np.bool_)
            there[place] = True
            clock_ok = emitted == instants  # one whose clock errs is stored at the time it was heard
            missing = self._missing(device, point, emitted, expected, there) & clock_ok
            self._note("lost", device, point.metric, emitted[missing], passed.lost_at())

    def _missing(
        self, device: Device, point: Register | Field, emitted: Times, expected: Floats, there: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Mark what is not in the store and need be: beyond deadband or heartbeat from the last that is there.

        A camera speaks when something changes; it tells one of its two quantities, so the other needs no heartbeat.
        """
        key = device.id, point.metric
        last_at, last = self._kept.get(key, (_NEVER, np.nan))
        newest = np.maximum.accumulate(np.where(there, np.arange(len(there)), -1))
        at_before = np.concatenate([[last_at], np.where(newest >= 0, emitted[newest], last_at)[:-1]]).astype(np.int64)
        value_before = np.concatenate([[last], np.where(newest >= 0, expected[newest], last)[:-1]])
        if there.any():
            self._kept[key] = int(emitted[newest[-1]]), float(expected[newest[-1]])
        if not len(there):
            return there
        step = 0.0 if isinstance(point, Register) and point.type == "f32" else abs(point.scale)
        near = np.abs(expected - value_before) <= point.deadband + step * 1.001 + 1e-6
        near |= np.isnan(expected) & np.isnan(value_before)
        changed = device.kind != "camera"
        due = (emitted - at_before >= point.heartbeat_s * NANOSECONDS) & changed
        missing: NDArray[np.bool_] = ~there & (~near | due)
        return missing

    def _note(self, kind: Wrong, device: Device, metric: str, at: Times, stage: Stage, note: str = "") -> None:
        if not len(at):
            return
        known = self._flaws.get((kind, device.id, metric))
        count = len(at) + (known.count if known else 0)
        first = known.first_at if known else iso(int(at.min()))
        self._flaws[kind, device.id, metric] = Flaw(kind, device.id, metric, count, stage, first, note)


def _measured(profile: Profile) -> Iterator[Register | Field]:
    yield from profile.point
    yield from profile.field


def _places(emitted: Times, at: Times) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Where each instant stands among those emitted, and whether it is there at all."""
    if not len(emitted):
        return np.zeros(len(at), np.bool_), np.zeros(len(at), np.intp)
    place = np.minimum(np.searchsorted(emitted, at), len(emitted) - 1)
    return emitted[place] == at, place


def _differs(point: Register | Field, value: Floats, quality: NDArray[np.uint8], expected: Floats) -> NDArray[np.bool_]:
    """Where a stored value is not the one shown, to the point's resolution; or is called bad, and was none."""
    step = _JSON_STEP if isinstance(point, Field) else 0.0 if point.type == "f32" else abs(point.scale)
    near = np.abs(value - expected) <= 0.501 * step + 1e-6 * np.abs(expected) + 1e-9
    low, high = point.range or (-np.inf, np.inf)
    in_range = (expected >= low + step) & (expected <= high - step)
    good: NDArray[np.bool_] = quality < BAD
    if isinstance(point, Register) and point.type in ("u16", "s16", "u32", "s32"):
        near |= ~in_range  # a register saturates
    return np.where(good, ~near & ~np.isnan(expected), in_range)
