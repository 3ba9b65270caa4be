"""Lids: how they are lifted and put back, what traffic does to them, and how a frame settles under them."""

import numpy as np

from firmware_sim import chance, noise
from firmware_sim.chronicle import Chronicle, lasts
from firmware_sim.noise import Floats, Times
from firmware_sim.scenario import Event
from wire.clock import NANOSECONDS

RISE = 3 * NANOSECONDS  # how long it takes to lift a lid, or to lower it
LIFTING = ("cover_stolen", "cover_lifted", "cover_ajar", "works_opening")
_SETTLES = 86400 * NANOSECONDS  # how long a frame takes that is not told otherwise
_CARS_DEG = 0.25
_BEAT = NANOSECONDS // 4


class Lids:
    """How every lid of a district lies, in degrees against how it was installed."""

    def __init__(self, chronicle: Chronicle, seed: int) -> None:
        self._chronicle = chronicle
        self._seed = seed

    def lift_deg(self, device: str, at: Times) -> Floats:
        """How far a lid stands lifted out of its frame; it takes ``RISE`` up and down."""
        lift = np.zeros(len(at))
        for what in LIFTING:
            for event in self._chronicle.within(what, device, at):
                up = (at - event.at) / RISE
                down = np.inf if event.until is None else (event.until - at) / RISE
                lift = np.maximum(lift, event.size * np.clip(np.minimum(up, down), 0.0, 1.0))
        return lift

    def lift_crossing(self, event: Event, above_deg: float) -> tuple[int, int | None]:
        """When the lid of a lifting event passes an angle upwards and downwards again, UTC ns.

        ``ValueError`` when the event does not lift it that far.
        """
        if event.size <= above_deg:
            raise ValueError(f"`{event.id}` lifts its lid by {event.size:.1f} degrees only")
        late = int(RISE * above_deg / event.size) + 1
        return event.at + late, None if event.until is None else event.until - late

    def swing_deg(self, device: str, at: Times) -> Floats:
        """How far traffic tips a closed lid for an instant; a truck shakes it hard and leaves it as it was."""
        swing = np.abs(noise.normal(chance.stream(self._seed, device, "cars"), at // NANOSECONDS)) * _CARS_DEG
        for event in self._chronicle.within("truck", device, at):
            beat = noise.uniform(chance.stream(self._seed, event.id, "beat"), at // _BEAT)
            swing = np.where(lasts(event, at), event.size * (0.4 + 0.6 * beat), swing)
        return swing

    def settled_deg(self, device: str, at: Times) -> Floats:
        """How far the frame itself has tipped with the road; it stays so."""
        settled = np.zeros(len(at))
        for event in self._chronicle.of("frame_settles", device):
            over = _SETTLES if event.until is None else event.until - event.at
            settled += event.size * np.clip((at - event.at) / over, 0.0, 1.0)
        return settled
