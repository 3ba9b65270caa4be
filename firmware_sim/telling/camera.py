"""When a camera tells: its state on joining, and every change of what its analytics see."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from firmware_sim.happenings import KINDS
from firmware_sim.instruments import Instruments
from firmware_sim.noise import Times
from firmware_sim.telling.air import joins, merged, stamps
from firmware_sim.telling.told import Phase, Sighting
from rules.district import Device
from wire.clock import NANOSECONDS

LOOK_S = 2  # who passes through the picture takes as long
SETTLED_S = 60
STAYS_S = 10  # what is still there then is no passer-by
METRICS = ("standing_water", "object_inside")
_HAPPENS_TO_CAMERAS = tuple(what for what, kind in KINDS.items() if kind.hazard and kind.on == ("camera",))


class Scene(NamedTuple):
    """What a camera saw last of one metric: since which second, and in which it will say that it stays."""

    inside: bool = False
    began: int = 0
    stays: int | None = None


class Step(NamedTuple):
    second: int
    metric: str
    phase: Phase
    began: int
    stayed: bool = False


class Camera:
    """A walk over a camera's seconds: each around what happens to it, else every other one, and those before a change.

    Seconds count from ``start`` (UTC ns), when it joins.
    """

    def __init__(self, device: Device, instruments: Instruments, start: int) -> None:
        self._device = device
        self._instruments = instruments
        self._start = start
        self._scenes = dict.fromkeys(METRICS, Scene())

    def tell(self, first: int, last: int) -> list[Sighting]:
        """Tell what is seen in the seconds ``first`` to ``last``; they follow those of the last call."""
        joining = joins(self._instruments.world, self._device.id, self._start)
        second = self._looks(first, last, joining)
        inside = self._see(second)
        if len(gaps := self._gaps(first, second, inside)):
            second = merged(second, gaps)
            inside = self._see(second)
        steps: list[Step] = []
        scenes = {}
        for metric, seen in zip(METRICS, inside, strict=True):
            found, scenes[metric] = _follow(metric, self._scenes[metric], second, seen, joining)
            steps += found
        self._scenes = scenes
        return list(self._sightings(sorted(steps, key=lambda step: step.second)))

    def _looks(self, first: int, last: int, joining: Times) -> Times:
        looks = [np.arange(first + -first % LOOK_S, last + 1, LOOK_S, dtype=np.int64), np.array([last]), joining]
        for what in _HAPPENS_TO_CAMERAS:
            for event in self._instruments.world.of(what, self._device.id):
                begins = (event.at - self._start) // NANOSECONDS
                over = last if event.until is None else (event.until - self._start) // NANOSECONDS + SETTLED_S
                looks.append(np.arange(begins, min(last, over) + 1, dtype=np.int64))
        every = merged(*looks)
        return every[(first <= every) & (every <= last)]

    def _see(self, second: Times) -> NDArray[np.bool_]:
        """Whether something is there, shape ``[metrics, seconds]``."""
        shown = self._instruments.show(self._device, self._start + second * NANOSECONDS)
        return np.stack([shown[metric] > 0.5 for metric in METRICS])

    def _gaps(self, first: int, second: Times, inside: NDArray[np.bool_]) -> Times:
        """Seconds between two looks that saw different things."""
        seen_before = np.array([[self._scenes[metric].inside] for metric in METRICS])
        changed = np.diff(inside, axis=1, prepend=seen_before).any(axis=0)
        looked_before = np.concatenate([[first - 1], second[:-1]])
        gaps = [np.arange(looked_before[row] + 1, second[row]) for row in np.flatnonzero(changed)]
        return np.concatenate([np.empty(0, np.int64), *gaps])

    def _sightings(self, steps: list[Step]) -> Iterator[Sighting]:
        world, name = self._instruments.world, self._device.id
        at, began = (
            self._start + np.array([step[field] for step in steps], np.int64) * NANOSECONDS for field in (0, 3)
        )
        never_ends = world.during("event_end_lost", name, at)
        said = zip(
            steps, at.tolist(), stamps(world, name, at).tolist(), stamps(world, name, began).tolist(), strict=True
        )
        for (step, when, stamp, since), is_lost in zip(said, never_ends.tolist(), strict=True):
            if not (is_lost and step.phase == "ends"):
                yield Sighting(when, stamp, step.metric, step.phase, since, step.stayed)


def _follow(
    metric: str, scene: Scene, second: Times, inside: NDArray[np.bool_], joining: Times
) -> tuple[list[Step], Scene]:
    """Follow one metric through looks that miss no change of it."""
    steps: list[Step] = []
    joins_here = np.isin(second, joining)
    changes = np.diff(inside, prepend=scene.inside)
    for row in np.flatnonzero(joins_here | changes).tolist():
        now, is_there = int(second[row]), bool(inside[row])
        if scene.stays is not None and scene.stays < now:
            steps.append(Step(scene.stays, metric, "stays", scene.began, stayed=True))
        if joins_here[row] and now > 0:
            steps.append(Step(now, metric, "deleted", now))
        if is_there:
            scene = Scene(inside=True, began=now, stays=now + STAYS_S)
            steps.append(Step(now, metric, "begins", now))
        else:
            stayed = scene.stays is None or scene.stays < now
            ends = Step(now, metric, "ends", scene.began, stayed)
            steps.append(Step(now, metric, "clear", now) if joins_here[row] else ends)
            scene = Scene()
    if scene.stays is not None and scene.stays <= second[-1]:
        steps.append(Step(scene.stays, metric, "stays", scene.began, stayed=True))
        scene = scene._replace(stays=None)
    return steps, scene
