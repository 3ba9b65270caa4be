"""The city as it really is: a pure function of district, scenario, seed, what visitors did, and time.

Every quantity takes instants (UTC ns, shape ``[n]``) and gives values of that shape, whatever was asked before.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from firmware_sim.air import Air
from firmware_sim.cameras import Cameras
from firmware_sim.chronicle import Chronicle
from firmware_sim.hydraulics import Water
from firmware_sim.lids import Lids
from firmware_sim.lighting import Lamps
from firmware_sim.noise import Times
from firmware_sim.recording import Recorded
from firmware_sim.scenario import Event, Scenario, events
from rules.district import District


class World:
    """State of everything in a district, by its parts: ``water``, ``lids``, ``lamps``, ``air``, ``cameras``.

    Parameters
    ----------
    start
        City time of scenario time 0, UTC ns.
    recordings
        What recorded devices show instead of this world, by device.
    """

    def __init__(
        self,
        district: District,
        scenario: Scenario,
        seed: int,
        start: int,
        recordings: Mapping[str, Recorded] | None = None,
    ) -> None:
        self.district = district
        self.scenario = scenario
        self.seed = seed
        self.start = start
        self.recordings = recordings or {}
        self.chronicle = Chronicle(events(scenario, district, seed, start))
        self.water = Water(district, scenario, seed, start)
        self.lids = Lids(self.chronicle, seed)
        self.lamps = Lamps(district, scenario.lighting, self.chronicle, seed, start)
        self.air = Air(self.chronicle, seed)
        self.cameras = Cameras(self.chronicle, self.water.seen, seed)
        for event in self.events:
            self.water.add(event)

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything that ever happens, in order of time."""
        return self.chronicle.events

    def add(self, event: Event) -> None:
        """Let something happen; only what lies after its instant may change by it."""
        self.chronicle.add(event)
        self.water.add(event)

    def of(self, what: str, target: str) -> list[Event]:
        """List the events of one kind that ever happen to a target."""
        return self.chronicle.of(what, target)

    def during(self, what: str, target: str, at: Times) -> NDArray[np.bool_]:
        """Whether something is happening to a target."""
        return self.chronicle.during(what, target, at)

    def wet_sites(self, now: int) -> set[str]:
        """Name the underpasses that are more than damp at an instant."""
        return self.water.wet_sites(now)
