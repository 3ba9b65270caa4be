"""What really happened: incidents from the world's own definitions, what looks like one and is none, what was emitted.

Nothing but the scorer reads the file. Every record follows from the world, never from a rule.
"""

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from firmware_sim.happenings import BUS, GATEWAY, KINDS, Role
from firmware_sim.lids import LIFTING
from firmware_sim.noise import Floats, Times
from firmware_sim.scenario import Event, FloodLevel, Label
from firmware_sim.world import World
from rules.declared import seconds
from rules.district import Device, Modbus
from wire.clock import NANOSECONDS, Clock, iso

WRITE_WALL_S = 0.5

HAZARDS = {
    "flood": 300.0,
    "standing_water": 300.0,
    "cover": 600.0,
    "gas": 300.0,
    "surcharge": 900.0,
    "lamp": 3600.0,
    "day_burner": 7200.0,
    "cycling": 7200.0,
    "leakage": 1800.0,
    "feeder": 900.0,
    "object": 300.0,
    "device_silent": 7200.0,
    "device_stuck": 7200.0,
    "device_drift": 7200.0,
    "gateway_silent": 1800.0,
}  # all that is real here or may seem so, and how soon the city wants to know, s: its wish, never a rule's threshold

_DEVICE_CASES = {kind.hazard for kind in KINDS.values() if kind.role == "incident" and kind.case == "device"}
_AIRS = ("gas_gathers", "sewer_gas")
_SHOWS_WHILE_ON = {"lamp_fails": True, "lamp_cycles": True, "lamp_burns_by_day": False}
_HOUR = 3600 * NANOSECONDS
_AIRED = 2 * _HOUR  # after which nothing is left of a gas whose source has stopped
_CLEAR_M = 0.1  # a surcharge is over when the water has sunk this much further than where it began
_WATER = ("level_sensor", "camera")
_LOOK = 3600  # rows at once
_NEVER = 2**63 - 1

Emitted = dict[str, dict[str, int]]
Span = tuple[int, int | None]  # onset and end, UTC ns


class Level(msgspec.Struct, frozen=True):
    """A level of a hazard, and when the world first reached it within the incident."""

    name: str
    onset: str


class Incident(msgspec.Struct, frozen=True):
    """One real event. ``devices`` are those that may tell of it; times are ISO 8601 of city time.

    ``late_after_s`` is how soon after its onset the city wants to know.
    """

    id: str
    hazard: str
    case: Literal["city", "device"]
    site: str
    devices: tuple[str, ...]
    onset: str
    end: str | None
    levels: tuple[Level, ...] = ()
    late_after_s: float = 0.0


class Nuisance(msgspec.Struct, frozen=True):
    """What looks like a ``hazard`` to ``device`` and is none: nothing at all, or (``benign``) announced or harmless."""

    id: str
    kind: str
    role: Role
    device: str
    hazard: str
    at: str
    until: str | None


class Truth(msgspec.Struct, frozen=True):
    """The truth file; ``emitted`` counts answered ``reads``, ``polls`` of the counter, and ``uplinks``, by device."""

    seed: int
    at: str
    incidents: tuple[Incident, ...]
    nuisances: tuple[Nuisance, ...]
    emitted: Emitted


def truth_at(world: World, now: int, emitted: Emitted) -> Truth:
    """Everything that is true at ``now`` (UTC ns)."""
    return Witness(world).testify(now, emitted)


def incidents(world: World, now: int) -> tuple[Incident, ...]:
    """Every incident whose onset has come, in that order."""
    return truth_at(world, now, {}).incidents


def nuisances(world: World, now: int) -> tuple[Nuisance, ...]:
    """Every deception that has begun."""
    return truth_at(world, now, {}).nuisances


def digest(truth: Truth) -> str:
    """SHA-256 of a truth, in hex: the same truth gives the same on every machine."""
    return hashlib.sha256(msgspec.json.encode(truth, order="deterministic")).hexdigest()


class Witness:
    """Sees a world's life as it goes on; ``now`` may only grow. What it has seen once, it need not look at again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._devices = {device.id: device for device in world.district.device}
        self._of: dict[str, list[Device]] = defaultdict(list)  # by bus and by gateway
        for device in world.district.device:
            self._of[f"{GATEWAY} {device.gateway}"].append(device)
            if isinstance(device.wire, Modbus):
                self._of[f"{BUS} {device.wire.bus}"].append(device)
        self._spans: dict[str, Span | None] = {}  # by event, once settled
        self._searched: dict[str, int] = {}  # by event, from when on its onset is still to be found
        self._nuisances: dict[str, tuple[Nuisance, ...]] = {}  # by event, once begun
        self._waters = [*self._floods(), *self._surcharges()]

    def testify(self, now: int, emitted: Emitted) -> Truth:
        """Tell everything that is true at ``now`` (UTC ns): incidents by onset, the others by begin."""
        found = [*self._of_water(now), *self._of_events(now), *self._of_labels(now)]
        found.sort(key=lambda incident: (incident.onset, incident.id))
        return Truth(self._world.seed, iso(now), tuple(found), tuple(self._deceptions(now)), emitted)

    # What happens to devices.

    def _of_events(self, now: int) -> Iterator[Incident]:
        for event in self._begun(now):
            kind = KINDS[event.what]
            span = self._span(event, now) if kind.role == "incident" else None
            devices = self._touched(event)
            if span is not None and span[0] <= now and devices:
                yield _incident(event.id, kind.hazard, devices[0].site, devices, span, now)

    def _begun(self, now: int) -> Iterator[Event]:
        return takewhile(lambda event: event.at <= now, self._world.events)

    def _span(self, event: Event, now: int) -> Span | None:
        """Onset and end of what an event is in truth; None while it is nothing."""
        if event.id not in self._spans:
            span = self._lasted(event, now)
            if span is None and (event.until is None or now < event.until + _AIRED):
                return None  # not yet
            self._spans[event.id] = None if span is None or (span[1] or _NEVER) <= span[0] else span
        return self._spans[event.id]

    def _lasted(self, event: Event, now: int) -> Span | None:
        world, hazard = self._world, self._world.scenario.hazard
        if event.what in LIFTING:
            gap = hazard.cover.gap_from_deg
            return world.lids.lift_crossing(event, gap) if event.size > gap else None
        if event.what in _AIRS:
            return self._gas(event, now)
        if event.what in _SHOWS_WHILE_ON:
            lamp, lit = self._devices[event.target], _SHOWS_WHILE_ON[event.what]
            shows = self._first(lambda at: (world.lamps.dim_level(lamp, at) > 0) == lit, event, event.until, now)
            return None if shows is None else (shows, event.until)
        return event.at, event.until

    def _gas(self, event: Event, now: int) -> Span | None:
        """When the air of a shaft burns or poisons: from the first second until it is aired."""
        hazard = self._world.scenario.hazard.gas

        def harms(at: Times) -> NDArray[np.bool_]:
            air = self._world.air.shaft(event.target, at)
            return (air.ch4_lel > hazard.ch4_above_lel) | (air.h2s_ppm > hazard.h2s_above_ppm)

        onset = self._first(harms, event, event.until and event.until + _AIRED, now)
        if onset is None or event.until is None:
            return None if onset is None else (onset, None)
        after = np.arange(max(onset, event.until), event.until + _AIRED, NANOSECONDS)
        harmed = np.flatnonzero(harms(after))
        return onset, int(after[harmed[-1]]) + NANOSECONDS if len(harmed) else int(after[0])

    def _first(
        self, holds: Callable[[Times], NDArray[np.bool_]], event: Event, until: int | None, now: int
    ) -> int | None:
        """Find the first second from an event's begin to before ``until`` at which something holds, as of ``now``."""
        begin = self._searched.get(event.id, event.at)
        end = now + 1 if until is None else min(until, now + 1)
        for hour in range(begin, end, _HOUR):
            at = np.arange(hour, min(hour + _HOUR, end), NANOSECONDS)
            found = holds(at)
            if found.any():
                return int(at[int(np.argmax(found))])
        self._searched[event.id] = begin + max(0, -((begin - end) // NANOSECONDS)) * NANOSECONDS
        return None

    def _touched(self, event: Event) -> list[Device]:
        """Devices that may tell of an event."""
        if event.target in self._devices:
            return [self._devices[event.target]]
        on = KINDS[event.what].on
        behind = self._of[f"{BUS if BUS in on else GATEWAY} {event.target}"]
        if event.what in ("feeder_trips", "circuit_off"):
            return [device for device in behind if device.kind == "lamp_controller"]
        return behind

    def _deceptions(self, now: int) -> Iterator[Nuisance]:
        for event in self._begun(now):
            if event.id not in self._nuisances:
                self._nuisances[event.id] = tuple(self._deception(event))
            yield from self._nuisances[event.id]
        for label, begin, end in self._labels():
            truth, _, what = label.truth.partition(":")
            if truth != "real" and begin <= now:
                role: Role = "benign" if truth == "benign" else "nuisance"
                yield Nuisance(label.id, what or truth, role, label.device, label.hazard, iso(begin), iso(end))

    def _deception(self, event: Event) -> Iterator[Nuisance]:
        kind = KINDS[event.what]
        if kind.role in ("nuisance", "benign"):
            devices = self._touched(event)
            until = None if event.until is None else iso(event.until)
            for device in devices:
                name = event.id if len(devices) == 1 else f"{event.id}-{device.id}"
                yield Nuisance(name, event.what, kind.role, device.id, kind.hazard, iso(event.at), until)

    # What a person said of recorded devices.

    def _labels(self) -> Iterator[tuple[Label, int, int]]:
        for label in self._world.scenario.label:
            begin, end = (self._world.start + round(seconds(edge) * NANOSECONDS) for edge in label.window)
            yield label, begin, end

    def _of_labels(self, now: int) -> Iterator[Incident]:
        for label, begin, end in self._labels():
            if label.truth.partition(":")[0] == "real" and begin <= now:
                device = self._devices[label.device]
                yield _incident(label.id, label.hazard, device.site, [device], (begin, end), now)

    # What water does.

    def _of_water(self, now: int) -> Iterator[Incident]:
        for water in self._waters:
            water.watch(now)
            for number, stretch in enumerate(water.stretches, 1):
                levels = tuple(Level(level, iso(at)) for level, at in stretch.levels.items())
                name, span = f"{water.hazard}-{water.name}-{number}", (stretch.onset, stretch.end)
                yield _incident(name, water.hazard, water.site, water.devices, span, now, levels)

    def _floods(self) -> Iterator["_Water"]:
        """Ponding at underpasses, second by second."""
        world, hazard = self._world, self._world.scenario.hazard.flood
        for site in (underpass.site for underpass in world.scenario.underpass):
            yield _Water(
                world=world,
                hazard="flood",
                name=site,
                site=site,
                devices=[one for one in world.district.device if one.site == site and one.kind in _WATER],
                every=NANOSECONDS,
                height_m=partial(world.water.depth_m, site),
                from_m=hazard.deeper_than_m,
                over_m=hazard.over_below_m,
                area_m2=partial(world.water.area_m2, site),
                from_m2=hazard.larger_than_m2,
                levels=hazard.level,
            )

    def _surcharges(self) -> Iterator["_Water"]:
        """Water near the rim of shafts, every ten seconds: for so long a shaft's level is held."""
        world, below_m = self._world, self._world.scenario.hazard.surcharge.freeboard_below_m
        for monitor in (one for one in world.district.device if one.kind == "manhole_monitor"):
            from_m = monitor.install["shaft_depth_m"] - below_m
            yield _Water(
                world=world,
                hazard="surcharge",
                name=monitor.id,
                site=monitor.site,
                devices=[monitor],
                every=10 * NANOSECONDS,
                height_m=partial(world.water.shaft_m, monitor.id),
                from_m=from_m,
                over_m=from_m - _CLEAR_M,
            )


@dataclass(slots=True)
class _Stretch:
    """A time that water stood too high: UTC ns, ``levels`` in the order of the hazard."""

    onset: int
    end: int | None = None
    levels: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Water:
    """Water in one place against its hazard, looked at on a grid of ``every`` ns from the world's start, once.

    Where the world says that there is none for a while, it is not looked at: the answer is the same.
    """

    world: World
    hazard: str
    name: str
    site: str
    devices: Sequence[Device]
    every: int
    height_m: Callable[[Times], Floats]
    from_m: float
    over_m: float
    area_m2: Callable[[Times], Floats] | None = None
    from_m2: float = 0.0
    levels: tuple[FloodLevel, ...] = ()
    stretches: list[_Stretch] = field(default_factory=list)
    _next: int = 0

    def watch(self, now: int) -> None:
        """Go on to ``now``."""
        end = (now - self.world.start) // self.every + 1
        if end > self._next:
            self._search(self._next, end)
            self._next = end

    def _search(self, begin: int, end: int) -> None:
        """Look at rows of the grid, halving them until what is dry can be left out."""
        first, last = (self.world.start + row * self.every for row in (begin, end - 1))
        if not self._stands() and not self.world.water.wet(self.name, first, last):
            return
        if end - begin > _LOOK:
            middle = (begin + end) // 2
            self._search(begin, middle)
            self._search(middle, end)
        else:
            self._look(self.world.start + np.arange(begin, end, dtype=np.int64) * self.every)

    def _stands(self) -> bool:
        return bool(self.stretches) and self.stretches[-1].end is None

    def _look(self, at: Times) -> None:
        height = self.height_m(at)
        high = height > self.from_m
        if self.area_m2 is not None:
            high &= self.area_m2(at) > self.from_m2
        low = height < self.over_m
        row = 0
        while True:
            if not self._stands():
                row = _next(high, row)
                if row == len(at):
                    return
                self.stretches.append(_Stretch(int(at[row])))
            stretch, end = self.stretches[-1], _next(low, row)
            for level in self.levels:
                reached = _next(height[:end] > level.deeper_than_m, row)
                if reached < end:
                    stretch.levels.setdefault(level.name, int(at[reached]))
            if end == len(at):
                return
            stretch.end = int(at[end])
            row = end


def _next(holds: NDArray[np.bool_], row: int) -> int:
    """Find the first row from ``row`` on at which something holds; the number of rows where there is none."""
    later = holds[row:]
    return row + int(np.argmax(later)) if later.any() else len(holds)


def _incident(
    name: str,
    hazard: str,
    site: str,
    devices: Sequence[Device],
    span: Span,
    now: int,
    levels: tuple[Level, ...] = (),
) -> Incident:
    onset, end = span
    return Incident(
        id=name,
        hazard=hazard,
        case="device" if hazard in _DEVICE_CASES else "city",
        site=site,
        devices=tuple(device.id for device in devices),
        onset=iso(onset),
        end=None if end is None or end > now else iso(end),
        levels=levels,
        late_after_s=HAZARDS[hazard],
    )


class TruthFile:
    """Writes the truth as it grows, each time whole: a reader never sees half a file."""

    def __init__(self, path: Path, world: World, clock: Clock, emitted: Callable[[], Emitted]) -> None:
        self._path = path
        self._witness = Witness(world)
        self._clock = clock
        self._emitted = emitted

    async def run(self) -> None:
        """Write twice a wall second, for ever."""
        while True:
            self.write()
            await self._clock.sleep(WRITE_WALL_S * self._clock.speed)

    def write(self) -> None:
        """Replace the file by what is true now."""
        truth = self._witness.testify(self._clock.now(), self._emitted())
        content = msgspec.json.format(msgspec.json.encode(truth))
        with tempfile.NamedTemporaryFile(dir=self._path.parent, prefix=self._path.name, delete=False) as file:
            file.write(content)
        Path(file.name).replace(self._path)
