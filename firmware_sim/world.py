"""The city as it really is: a pure function of district, scenario, seed, what visitors did, and time.

Every quantity takes instants (UTC ns, shape ``[n]``) and gives values of that shape, whatever was asked before.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from firmware_sim import noise
from firmware_sim.hydraulics import Dip, Sky
from firmware_sim.noise import Floats, Times
from firmware_sim.scenario import Event, Scenario, What, events
from rules.district import Device, District, Modbus
from wire.clock import NANOSECONDS

RISE = 3 * NANOSECONDS  # how long it takes to lift a lid, or to lower it
_PUSH: dict[What, tuple[float, float]] = {
    "cover_stolen": (62.0, 85.0),
    "cover_lifted": (20.0, 45.0),
}  # degrees that a lid ends up lifted by
_SHAKE = (14.0, 18.0)  # degrees at most while a truck passes
_STANDBY_W = 2.6  # what a controller draws for itself when its lamp is dead


class World:
    """State of everything in a district.

    Parameters
    ----------
    start
        City time of scenario time 0, UTC ns.
    """

    def __init__(self, district: District, scenario: Scenario, seed: int, start: int) -> None:
        self.district = district
        self.scenario = scenario
        self.seed = seed
        self.start = start
        self.events: tuple[Event, ...] = ()
        self._of: dict[tuple[What, str], list[Event]] = defaultdict(list)
        self._sky = Sky(scenario.rain, seed, start)
        self._dips = {underpass.site: Dip(underpass, self._sky, start) for underpass in scenario.underpass}
        self._streams: dict[tuple[str, ...], noise.Stream] = {}
        for event in events(scenario, district, seed, start):
            self.add(event)

    def add(self, event: Event) -> None:
        """Let something happen; only what lies after its instant may change by it."""
        self.events = tuple(sorted((*self.events, event), key=lambda one: (one.at, one.id)))
        self._of[event.what, event.target].append(event)
        if event.what == "burst_main":
            self._dips[event.target].burst(event)

    def of(self, what: What, target: str) -> list[Event]:
        """List the events of one kind that ever happen to a target."""
        return self._of.get((what, target), [])

    # Water.

    def rain_mm(self, at: Times) -> Floats:
        """Rain fallen since the start, mm."""
        return self._sky.fallen_mm(at)

    def depth_m(self, site: str, at: Times) -> Floats:
        """Ponding on the road of an underpass (0 elsewhere), m at the lowest kerb point."""
        return self._dips[site].depth_m(at) if site in self._dips else np.zeros(len(at))

    def area_m2(self, site: str, at: Times) -> Floats:
        """Ponded road surface, m²."""
        return self._dips[site].area_m2(at) if site in self._dips else np.zeros(len(at))

    def water_seen(self, site: str, at: Times) -> Floats:
        """Whether somebody looking there sees standing water, 0 or 1."""
        return self._dips[site].seen(at) if site in self._dips else np.zeros(len(at))

    def wet_sites(self, now: int) -> set[str]:
        """Name the underpasses that are more than damp at an instant."""
        at = np.array([now], np.int64)
        return {site for site in self._dips if self.depth_m(site, at)[0] > 0.10}

    def shaft_m(self, device: str, at: Times) -> Floats:
        """Water in a manhole's shaft above its bottom, m: a trickle, and its share of what the sewers hold."""
        trickle = noise.between(0.15, 0.35, self.seed, device, "trickle")
        share = noise.between(0.05, 0.09, self.seed, device, "share")
        wander = 0.02 * noise.smooth(self._stream(device, "shaft"), at, 300.0)
        return trickle + wander + share * self._sky.held_mm(at)

    # Covers.

    def lift_deg(self, device: str, at: Times) -> Floats:
        """How far a lid stands lifted out of its frame, degrees; it takes ``RISE`` up and down."""
        lift = np.zeros(len(at))
        for what, (low, high) in _PUSH.items():
            for event in self.of(what, device):
                up = (at - event.at) / RISE
                down = np.inf if event.until is None else (event.until - at) / RISE
                peak = noise.between(low, high, self.seed, event.id, "angle")
                lift = np.maximum(lift, peak * np.clip(np.minimum(up, down), 0.0, 1.0))
        return lift

    def lift_crossing(self, event: Event, above_deg: float) -> tuple[int, int | None]:
        """When the lid of a lifting event passes an angle upwards and downwards again, UTC ns."""
        peak = noise.between(*_PUSH[event.what], self.seed, event.id, "angle")
        late = int(RISE * above_deg / peak) + 1
        return event.at + late, None if event.until is None else event.until - late

    def swing_deg(self, device: str, at: Times) -> Floats:
        """How far traffic tips a closed lid for an instant, degrees; a truck shakes it hard and leaves it as it was."""
        cars = np.abs(noise.normal(self._stream(device, "cars"), at // NANOSECONDS)) * 0.25
        swing = cars
        for event in self.of("truck", device):
            beat = noise.uniform(self._stream(event.id, "beat"), at // (NANOSECONDS // 4))
            peak = noise.between(*_SHAKE, self.seed, event.id, "peak")
            during = (at >= event.at) & (at < (event.until or event.at))
            swing = np.where(during, peak * (0.4 + 0.6 * beat), swing)
        return swing

    # Air, power, light.

    def ch4_lel(self, device: str, at: Times) -> Floats:
        """Methane in a shaft, % of the lower explosive limit."""
        return 1.2 + 0.8 * noise.smooth(self._stream(device, "ch4"), at, 900.0)

    def h2s_ppm(self, device: str, at: Times) -> Floats:
        """Hydrogen sulphide in a shaft, ppm."""
        return 0.8 + 0.6 * noise.smooth(self._stream(device, "h2s"), at, 700.0)

    def voltage_v(self, device: Device, at: Times) -> Floats:
        """Of the feeder, which all lamps of a bus share."""
        feeder = device.wire.bus if isinstance(device.wire, Modbus) else device.site
        slow = noise.smooth(self._stream(feeder, "feeder"), at, 420.0)
        return 227.0 + 3.5 * slow + 0.5 * noise.smooth(self._stream(feeder, "flicker"), at, 15.0)

    def dim_level(self, device: Device, at: Times) -> Floats:
        """Commanded level of a lamp, percent."""
        del device
        return np.full(len(at), self.scenario.dim_level)

    def lamp_dead(self, device: str, at: Times) -> NDArray[np.bool_]:
        return self.during("lamp_fails", device, at)

    def power_w(self, device: Device, at: Times) -> Floats:
        """Draw of lamp and controller together."""
        wander = 1.0 + 0.02 * noise.smooth(self._stream(device.id, "power"), at, 240.0)
        lit = device.install["nominal_power_w"] * self.dim_level(device, at) / 100.0 * wander
        return np.where(self.lamp_dead(device.id, at), _STANDBY_W * wander, np.maximum(lit, _STANDBY_W))

    # What deceives.

    def dazzled(self, camera: str, at: Times) -> NDArray[np.bool_]:
        """Whether headlights glare into a camera's lens."""
        return self.during("headlights", camera, at)

    def during(self, what: What, target: str, at: Times) -> NDArray[np.bool_]:
        """Whether something is happening to a target."""
        happening = np.zeros(len(at), np.bool_)
        for event in self.of(what, target):
            happening |= (at >= event.at) & (True if event.until is None else at < event.until)
        return happening

    def _stream(self, *names: str) -> noise.Stream:
        if names not in self._streams:
            self._streams[names] = noise.stream(self.seed, *names)
        return self._streams[names]
