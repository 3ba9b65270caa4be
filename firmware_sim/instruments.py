"""Between world and register: what an instrument makes of the truth. Noise, resolution, and a clock that may stop."""

from collections.abc import Callable

import numpy as np

from firmware_sim import noise
from firmware_sim.noise import Floats, Times
from firmware_sim.world import World
from rules.district import Device
from wire.clock import NANOSECONDS

Shown = dict[str, Floats]


class Instruments:
    """What every device of a district shows, as a pure function of time: its points' values in their units."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._streams: dict[tuple[str, str], noise.Stream] = {}
        self._kinds: dict[str, Callable[[Device, Times], Shown]] = {
            "level_sensor": self._level,
            "rain_gauge": self._rain,
            "manhole_monitor": self._manhole,
            "lamp_controller": self._lamp,
            "manhole_cover": self._cover,
            "camera": self._camera,
        }

    def show(self, device: Device, at: Times) -> Shown:
        """Tell the values at instants ``at`` (UTC ns), by metric; a frozen instrument shows the instant it froze at."""
        for event in self.world.of("level_freezes", device.id):
            frozen = (at >= event.at) & (True if event.until is None else at < event.until)
            at = np.where(frozen, event.at, at)
        return self._kinds[device.kind](device, at)

    def _level(self, device: Device, at: Times) -> Shown:
        depth = self.world.depth_m(device.site, at)
        flicker = np.floor(5.0 * self._uniform(device, "distance", at)) - 2.0  # ±2 mm: a live sensor never stands still
        millimetres = np.round((device.install["mounting_height_m"] - depth) * 1000.0) + flicker
        return {"distance": millimetres / 1000.0}

    def _rain(self, device: Device, at: Times) -> Shown:
        before = noise.between(50.0, 400.0, self.world.seed, device.id, "before")
        return {"rain_total": np.floor((before + self.world.rain_mm(at)) * 10.0) % 65536 / 10.0}

    def _manhole(self, device: Device, at: Times) -> Shown:
        world, lid = self.world, device.id
        moved = world.lift_deg(lid, at) + world.swing_deg(lid, at)
        return {
            "tilt": device.install["background_tilt_deg"] + moved + 0.05 * self._normal(device, "tilt", at),
            "level": np.maximum(0.0, world.shaft_m(lid, at) + 0.003 * self._normal(device, "level", at)),
            "ch4": np.maximum(0.0, world.ch4_lel(lid, at) + 0.1 * self._normal(device, "ch4", at)),
            "h2s": np.maximum(0.0, world.h2s_ppm(lid, at) + 0.1 * self._normal(device, "h2s", at)),
        }

    def _lamp(self, device: Device, at: Times) -> Shown:
        world = self.world
        voltage, power = world.voltage_v(device, at), world.power_w(device, at)
        dead = world.lamp_dead(device.id, at)
        factor = np.where(dead, 0.42, 0.955) + 0.004 * self._normal(device, "power_factor", at)
        return {
            "voltage": voltage + 0.1 * self._normal(device, "voltage", at),
            "current": power / (voltage * factor),
            "power": power + 0.2 * self._normal(device, "power", at),
            "power_factor": factor,
            "dim_level": world.dim_level(device, at),
            "lamp_fault": dead.astype(np.float64),
        }

    def _cover(self, device: Device, at: Times) -> Shown:
        """Angles as an EM310-TILT lying flat gives them: x and y near 0, z near 90; it tips towards one side."""
        moved = self.world.lift_deg(device.id, at) + self.world.swing_deg(device.id, at)
        # A unit vector without trigonometry: the rational parametrisation of a quarter of the circle.
        half = noise.draw(self.world.seed, device.id, "side")
        x, y = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
        install = device.install
        return {
            "angle_x": np.round(install["background_x_deg"] + moved * x, 2),
            "angle_y": np.round(install["background_y_deg"] + moved * y, 2),
            "angle_z": np.round(90.0 - np.minimum(moved, 90.0), 2),
            "battery": np.full(len(at), 80.0 + round(20 * noise.draw(self.world.seed, device.id, "battery"))),
        }

    def _camera(self, device: Device, at: Times) -> Shown:
        """Headlights on a wet road look like standing water to its analytics."""
        water = np.maximum(self.world.water_seen(device.site, at), self.world.dazzled(device.id, at))
        return {"standing_water": water, "object_inside": np.zeros(len(at))}

    def _uniform(self, device: Device, metric: str, at: Times) -> Floats:
        return noise.uniform(self._stream(device, metric), at // NANOSECONDS)

    def _normal(self, device: Device, metric: str, at: Times) -> Floats:
        return noise.normal(self._stream(device, metric), at // NANOSECONDS)

    def _stream(self, device: Device, metric: str) -> noise.Stream:
        name = (device.id, metric)
        if name not in self._streams:
            self._streams[name] = noise.stream(self.world.seed, "instrument", *name)
        return self._streams[name]
