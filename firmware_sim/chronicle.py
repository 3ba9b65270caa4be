"""Everything that ever happens, by kind and target, so that what overlaps a span of time is found at once."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from firmware_sim.noise import Times
from firmware_sim.scenario import Event

_NEVER = 2**63 - 1


@dataclass(slots=True)
class _Series:
    """Events in order of their begin; ``reach`` is the latest end up to each."""

    events: list[Event] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    reach: list[int] = field(default_factory=list)

    def add(self, event: Event) -> None:
        row = bisect_right(self.begins, event.at)
        self.events.insert(row, event)
        self.begins.insert(row, event.at)
        self.reach = list(accumulate((_NEVER if one.until is None else one.until for one in self.events), max))


class Chronicle:
    """The events of a world, in order of time."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events: tuple[Event, ...] = tuple(sorted(events, key=_order))
        self._of: dict[tuple[str, str], _Series] = defaultdict(_Series)
        for event in self.events:
            self._of[event.what, event.target].add(event)

    def add(self, event: Event) -> None:
        """Write down one more."""
        self.events = tuple(sorted((*self.events, event), key=_order))
        self._of[event.what, event.target].add(event)

    def of(self, what: str, target: str) -> list[Event]:
        """List the events of one kind that ever happen to a target."""
        series = self._of.get((what, target))
        return [] if series is None else series.events

    def within(self, what: str, target: str, at: Times, after: int = 0) -> list[Event]:
        """List those that last, or ended less than ``after`` ns ago, at one of the instants, and perhaps some more."""
        series = self._of.get((what, target))
        if series is None or not len(at):
            return []
        over = bisect_right(series.reach, int(at.min()) - after)
        return series.events[over : bisect_right(series.begins, int(at.max()))]

    def during(self, what: str, target: str, at: Times) -> NDArray[np.bool_]:
        """Whether one of a kind is happening to a target, by instant."""
        happening = np.zeros(len(at), np.bool_)
        for event in self.within(what, target, at):
            happening |= lasts(event, at)
        return happening


def lasts(event: Event, at: Times) -> NDArray[np.bool_]:
    """Whether an event has begun and is not over, by instant."""
    begun = at >= event.at
    return begun if event.until is None else begun & (at < event.until)


def _order(event: Event) -> tuple[int, str]:
    return event.at, event.id
