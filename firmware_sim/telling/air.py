"""Between a device and its broker: clocks that err, and messages that get lost, doubled, late or out of order."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from firmware_sim import noise
from firmware_sim.noise import Times
from firmware_sim.scenario import Event
from firmware_sim.telling.told import Told
from firmware_sim.world import World
from wire.clock import NANOSECONDS, from_iso

_EPOCHS = tuple(from_iso(f"{year}-01-01T00:00:00Z") for year in (1970, 2000))  # what a clock shows that nobody set


def stamps(world: World, device: str, at: Times) -> Times:
    """Tell what a device's own clock says at instants ``at`` (UTC ns)."""
    said = at.copy()
    for event in world.of("clock_jumps", device):
        said[_during(event, at)] += round(event.size) * NANOSECONDS
    for event in world.of("clock_unset", device):
        epoch = _EPOCHS[int(noise.draw(world.seed, event.id, "epoch") * len(_EPOCHS))]
        said = np.where(_during(event, at), epoch + at - event.at, said)
    return said


def joins(world: World, device: str, start: int) -> Times:
    """Seconds from ``start`` (UTC ns) at which a device joins: at once, and whenever it is back from the dead."""
    deaths = world.of("device_dies", device)
    return np.array([0, *(-((start - one.until) // NANOSECONDS) for one in deaths if one.until is not None)], np.int64)


def merged(*seconds: Times) -> Times:
    """Put seconds in order, each once."""
    ordered = np.sort(np.concatenate(seconds))
    is_new = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    return ordered[is_new]


class Carried(NamedTuple):
    """A record on its way: ``copies`` of it reach the broker at ``delivered_at`` (UTC ns); none when it is lost."""

    delivered_at: int
    record: Told
    copies: int = 1


class Air:
    """The way of one device's records, as the world's faults have it."""

    def __init__(self, world: World, device: str, *, by_radio: bool) -> None:
        self._world = world
        self._device = device
        self._by_radio = by_radio
        self._sent = 0
        self._held: tuple[Carried, Event] | None = None  # waits for the next one to overtake it

    def carry(self, told: Sequence[Told], to: int) -> Iterator[Carried]:
        """Carry what was told since the last call, which is all there was until ``to`` (UTC ns)."""
        dead, late, doubled, reordered = (
            self._world.of(what, self._device)
            for what in ("device_dies", "uplinks_late", "uplinks_doubled", "uplinks_reordered")
        )
        lost = self._lost(told)
        if not (dead or late or doubled or reordered or lost.any()):
            yield from [Carried(record.at, record) for record in told]
            return
        for record, is_lost in zip(told, lost.tolist(), strict=True):
            if _at(dead, record.at):
                continue
            delivered_at: int | None = record.at
            if kept := _at(late, record.at):
                delivered_at = kept.until
            if delivered_at is None:
                continue  # it is in the device for good
            carried = Carried(delivered_at, record, 0 if is_lost else 2 if _at(doubled, record.at) else 1)
            if is_lost or (swap := _at(reordered, record.at)) is None:
                yield carried
            elif self._held is None or self._held[1].id != swap.id:
                yield from self._release(record.at)
                self._held = carried, swap
            else:
                (earlier, _), self._held = self._held, None
                yield carried
                yield earlier._replace(delivered_at=delivered_at + NANOSECONDS)
        yield from self._release(to)

    def _release(self, to: int) -> Iterator[Carried]:
        """Let go of what waits when nothing more can overtake it."""
        if self._held is not None:
            carried, event = self._held
            if event.until is not None and event.until <= to:
                self._held = None
                yield carried._replace(delivered_at=max(carried.delivered_at, event.until))

    def _lost(self, told: Sequence[Told]) -> NDArray[np.bool_]:
        number = self._sent + np.arange(len(told))
        self._sent += len(told)
        share = self._world.scenario.radio_loss if self._by_radio else 0.0
        lost = noise.uniform(noise.stream(self._world.seed, "radio", self._device), number) < share
        at = np.array([record.at for record in told], np.int64)
        for event in self._world.of("uplinks_lost", self._device):
            drawn = noise.uniform(noise.stream(self._world.seed, event.id, self._device), number)
            lost |= _during(event, at) & (drawn < event.size)
        return lost


def _during(event: Event, at: Times) -> NDArray[np.bool_]:
    return (at >= event.at) & (True if event.until is None else at < event.until)


def _at(events: Sequence[Event], at: int) -> Event | None:
    """Find the event that lasts at an instant."""
    return next((event for event in events if event.during(at)), None)
