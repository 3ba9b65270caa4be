"""What really happened: incidents from the world's own definitions, nuisances, and what was emitted.

Nothing but the scorer reads the file. Every record follows from the world, never from a rule.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from firmware_sim.scenario import Event
from firmware_sim.world import World
from rules.district import Device
from wire.clock import NANOSECONDS, Clock, iso

WRITE_WALL_S = 0.5
Emitted = dict[str, dict[str, int]]
_WATER = ("level_sensor", "camera")


class Level(msgspec.Struct, frozen=True):
    """A level of a hazard, and when the world first reached it within the incident."""

    name: str
    onset: str


class Incident(msgspec.Struct, frozen=True):
    """One real event. ``devices`` are those that may tell of it; times are ISO 8601 of city time."""

    id: str
    hazard: Literal["flood", "cover", "lamp", "device_stuck"]
    case: Literal["city", "device"]
    site: str
    devices: tuple[str, ...]
    onset: str
    end: str | None
    levels: tuple[Level, ...] = ()


class Nuisance(msgspec.Struct, frozen=True):
    """Something that looks like a ``hazard`` to ``device`` and is none."""

    id: str
    kind: Literal["truck", "headlights"]
    device: str
    hazard: str
    at: str
    until: str


class Truth(msgspec.Struct, frozen=True):
    """The truth file; ``emitted`` counts answered ``reads``, ``polls`` of the counter, and ``uplinks``, by device."""

    seed: int
    at: str
    incidents: tuple[Incident, ...]
    nuisances: tuple[Nuisance, ...]
    emitted: Emitted


def truth_at(world: World, now: int, emitted: Emitted) -> Truth:
    """Everything that is true at ``now`` (UTC ns)."""
    return Truth(world.seed, iso(now), tuple(incidents(world, now)), tuple(nuisances(world, now)), emitted)


def incidents(world: World, now: int) -> Iterator[Incident]:
    """Every incident whose onset has come, by kind."""
    for underpass in world.scenario.underpass:
        yield from _floods(world, underpass.site, now)
    by_id = {device.id: device for device in world.district.device}
    for event in world.events:
        device = by_id.get(event.target)
        if device is None:
            continue
        found = _of_device(world, event, device)
        if found is not None and found[1] <= now:
            hazard, onset, end = found
            case: Literal["city", "device"] = "device" if hazard == "device_stuck" else "city"
            shown_end = None if end is None or end > now else iso(end)
            yield Incident(event.id, hazard, case, device.site, (device.id,), iso(onset), shown_end)


def nuisances(world: World, now: int) -> Iterator[Nuisance]:
    """Every deception that has begun."""
    for event in world.events:
        if event.at <= now and event.until is not None:
            if event.what == "truck":
                yield Nuisance(event.id, "truck", event.target, "cover", iso(event.at), iso(event.until))
            elif event.what == "headlights":
                yield Nuisance(event.id, "headlights", event.target, "standing_water", iso(event.at), iso(event.until))


def _of_device(
    world: World, event: Event, device: Device
) -> tuple[Literal["cover", "lamp", "device_stuck"], int, int | None] | None:
    """Hazard, onset and end of what an event makes of its device; None when it makes none."""
    if event.what in ("cover_stolen", "cover_lifted"):
        return "cover", *world.lift_crossing(event, world.scenario.hazard.cover.gap_from_deg)
    if event.what == "lamp_fails" and world.dim_level(device, np.array([event.at]))[0] > 0:
        return "lamp", event.at, event.until
    if event.what == "level_freezes":
        return "device_stuck", event.at, event.until
    return None


def _floods(world: World, site: str, now: int) -> Iterator[Incident]:
    """Floods of one underpass, on the world's grid of seconds."""
    hazard = world.scenario.hazard.flood
    at = np.arange(world.start, now + 1, NANOSECONDS, dtype=np.int64)
    depth, area = world.depth_m(site, at), world.area_m2(site, at)
    meets = np.flatnonzero((depth > hazard.deeper_than_m) & (area > hazard.larger_than_m2))
    over = np.flatnonzero(depth < hazard.over_below_m)
    devices = tuple(one.id for one in world.district.device if one.site == site and one.kind in _WATER)
    row, number = 0, 0
    while (first := np.searchsorted(meets, row)) < len(meets):
        number += 1
        onset = int(meets[first])
        after = np.searchsorted(over, onset)
        end = int(over[after]) if after < len(over) else None
        during = depth[onset:end]
        levels = tuple(
            Level(level.name, iso(int(at[onset + int(np.argmax(during > level.deeper_than_m))])))
            for level in hazard.level
            if (during > level.deeper_than_m).any()
        )
        shown_end = None if end is None else iso(int(at[end]))
        name = f"flood-{site}-{number}"
        yield Incident(name, "flood", "city", site, devices, iso(int(at[onset])), shown_end, levels)
        if end is None:
            return
        row = end


class TruthFile:
    """Writes the truth as it grows, each time whole: a reader never sees half a file."""

    def __init__(
        self, path: Path, world: World, clock: Clock, emitted: Callable[[], dict[str, dict[str, int]]]
    ) -> None:
        self._path = path
        self._world = world
        self._clock = clock
        self._emitted = emitted

    async def run(self) -> None:
        """Write twice a wall second, for ever."""
        while True:
            self.write()
            await self._clock.sleep(WRITE_WALL_S * self._clock.speed)

    def write(self) -> None:
        """Replace the file by what is true now."""
        content = msgspec.json.format(msgspec.json.encode(truth_at(self._world, self._clock.now(), self._emitted())))
        with tempfile.NamedTemporaryFile(dir=self._path.parent, prefix=self._path.name, delete=False) as file:
            file.write(content)
        Path(file.name).replace(self._path)
