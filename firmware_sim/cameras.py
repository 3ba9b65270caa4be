"""What the analytics of a camera make of its picture: hits, misses, and what deceives them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from firmware_sim import chance, noise
from firmware_sim.chronicle import Chronicle
from firmware_sim.noise import Floats, Times
from rules.district import Device
from wire.clock import NANOSECONDS

DECEIVES = ("headlights", "rain_on_lens")  # glare on a wet road, drops on the glass: both look like standing water
OBJECTS = ("object_in_zone", "parked_car")
_HOUR = 3600 * NANOSECONDS
_PASSERS_BY = 0.25  # hours with somebody who crosses the zone
_PASSES_S = (2.0, 9.0)


class Cameras:
    """What every camera of a district reports, 0 or 1 by instant; ``seen`` tells of the water at a site."""

    def __init__(self, chronicle: Chronicle, seen: Callable[[str, Times], Floats], seed: int) -> None:
        self._chronicle = chronicle
        self._seen = seen
        self._seed = seed

    def standing_water(self, device: Device, at: Times) -> Floats:
        """Whether it takes the road for flooded: what is there, unless it misses it, and what is not."""
        seen = self._seen(device.site, at) * ~self._chronicle.during("camera_misses", device.id, at)
        for what in DECEIVES:
            seen = np.maximum(seen, self._chronicle.during(what, device.id, at))
        return seen

    def object_inside(self, device: Device, at: Times) -> Floats:
        """Whether something stays in its zone; now and then somebody walks through it."""
        inside = self._passes(device.id, at)
        for what in OBJECTS:
            inside |= self._chronicle.during(what, device.id, at)
        return inside.astype(np.float64)

    def _passes(self, device: str, at: Times) -> NDArray[np.bool_]:
        hour = at // _HOUR
        come, begin, lasts = noise.uniform(chance.streams(self._seed, device, of=("comes", "begin", "lasts")), hour)
        stays = _PASSES_S[0] + (_PASSES_S[1] - _PASSES_S[0]) * lasts
        since = (at - hour * _HOUR) / NANOSECONDS - begin * (3600.0 - _PASSES_S[1])
        passes: NDArray[np.bool_] = (come < _PASSERS_BY) & (since >= 0.0) & (since < stays)
        return passes
