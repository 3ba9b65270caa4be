"""Between world and register: what every instrument of a district makes of the truth."""

from collections.abc import Callable

import numpy as np

from firmware_sim import chance, measuring, noise
from firmware_sim.lighting import STANDBY_W
from firmware_sim.noise import Floats, Times
from firmware_sim.world import World
from rules.district import Device
from wire.clock import NANOSECONDS

Shown = dict[str, Floats]

_BLIND_M = 0.05  # nearer than this a level sensor hears its own pulse
_RAIN_FULL = 65536  # tenths of a millimetre, in the gauge's one register
CLEARED = "rain_partial"  # a metric whose register starts again at 0 with every read
_CELLS = {"tilt": 0.05, "level": 0.003, "ch4": 0.1, "h2s": 0.1, "o2": 0.05}  # deviation of their noise
_METERS = {"voltage": 0.1, "power": 0.2, "power_factor": 0.004, "leakage": 0.1}


class Instruments:
    """What every device of a district shows, as a pure function of time: its points' values in their units.

    NaN is "no value": a register shows its profile's sentinel for it.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._kinds: dict[str, Callable[[Device, Times], Shown]] = {
            "level_sensor": self._level,
            "rain_gauge": self._rain,
            "manhole_monitor": self._manhole,
            "lamp_controller": self._lamp,
            "manhole_cover": self._cover,
            "camera": self._camera,
        }

    def show(self, device: Device, at: Times) -> Shown:
        """Tell the values at instants ``at`` (UTC ns, shape ``[n]``), by metric ``[n]``.

        A recorded device shows what was recorded of it. ``unit_code`` and ``decimals`` of its installation are shown
        beside its values, for a map that scales by them.
        """
        shown = self._kinds[device.kind](device, at)
        recorded = self.world.recordings.get(device.id)
        if recorded is not None:
            shown = {metric: recorded.column(metric, at - self.world.start) for metric in shown}
        if "unit_code" in device.install:
            code, decimals = (device.install[name] for name in ("unit_code", "decimals"))
            shown |= {"unit_code": np.full(len(at), code), "decimals": np.full(len(at), decimals)}
        return shown

    def _level(self, device: Device, at: Times) -> Shown:
        chronicle, name = self.world.chronicle, device.id
        at = measuring.held(at, chronicle, "level_freezes", name)
        seen = self.world.water.depth_m(device.site, at)
        seen = measuring.covered(seen, at, self._stream(name, "debris"), chronicle, name)
        seen = measuring.drifted(seen, at, chronicle, name)
        seen = measuring.spiked(seen, at, self._stream(name, "spikes"), chronicle, name)
        # ±2 mm: a live sensor never stands still.
        flicker = np.floor(5.0 * noise.uniform(self._stream(name, "distance"), at // NANOSECONDS)) - 2.0
        metres = (np.round((device.install["mounting_height_m"] - seen) * 1000.0) + flicker) / 1000.0
        blind = (metres < _BLIND_M) | chronicle.during("level_blind", name, at)
        return {"distance": np.where(blind, np.nan, metres)}

    def _rain(self, device: Device, at: Times) -> Shown:
        before = chance.between(50.0, 400.0, self.world.seed, device.id, "before")
        total = measuring.caught(self.world.water.rain_mm, at, self.world.chronicle, device.id)
        return {"rain_total": np.floor((before + total) * 10.0) % _RAIN_FULL / 10.0}

    def _manhole(self, device: Device, at: Times) -> Shown:
        lid, lids = device.id, self.world.lids
        tilt, level, ch4, h2s, o2 = self._noise(lid, _CELLS, at)
        air = self.world.air.shaft(lid, at)
        lies = lids.lift_deg(lid, at) + lids.swing_deg(lid, at) + lids.settled_deg(lid, at)
        return {
            "tilt": device.install["background_tilt_deg"] + lies + tilt,
            "level": np.maximum(0.0, self.world.water.shaft_m(lid, at) + level),
            "ch4": np.maximum(0.0, measuring.catalytic(air.ch4_lel, air.o2_percent) + ch4),
            "h2s": np.maximum(0.0, air.h2s_ppm + h2s),
            "o2": np.maximum(0.0, air.o2_percent + o2),
        }

    def _lamp(self, device: Device, at: Times) -> Shown:
        lamps = self.world.lamps
        noises = self._noise(device.id, _METERS, at)
        voltage, power = lamps.voltage_v(device, at), lamps.power_w(device, at)
        lit = power > 2.0 * STANDBY_W
        factor = np.where(lit, 0.955, 0.42) + noises[2]
        live = voltage > 0
        return {
            "voltage": np.maximum(0.0, voltage + noises[0] * live),
            "current": np.divide(power, voltage * factor, out=np.zeros(len(at)), where=live),
            "power": power + noises[1] * live,
            "power_factor": factor,
            "dim_level": lamps.dim_level(device, at),
            "lamp_fault": lamps.fault_told(device.id, at).astype(np.float64),
            "leakage": np.maximum(0.0, lamps.leakage_ma(device, at) + noises[3] * live),
        }

    def _cover(self, device: Device, at: Times) -> Shown:
        """Angles as an EM310-TILT lying flat gives them: x and y near 0, z near 90; it tips towards one side."""
        lids, seed = self.world.lids, self.world.seed
        lies = lids.lift_deg(device.id, at) + lids.swing_deg(device.id, at) + lids.settled_deg(device.id, at)
        # A unit vector without trigonometry: the rational parametrisation of a quarter of the circle.
        half = chance.between(0.0, 1.0, seed, device.id, "side")
        x, y = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
        install = device.install
        return {
            "angle_x": np.round(install["background_x_deg"] + lies * x, 2),
            "angle_y": np.round(install["background_y_deg"] + lies * y, 2),
            "angle_z": np.round(90.0 - np.minimum(lies, 90.0), 2),
            "battery": np.full(len(at), 80.0 + round(chance.between(0.0, 20.0, seed, device.id, "battery"))),
        }

    def _camera(self, device: Device, at: Times) -> Shown:
        cameras = self.world.cameras
        return {
            "standing_water": cameras.standing_water(device, at),
            "object_inside": cameras.object_inside(device, at),
        }

    def _stream(self, device: str, metric: str) -> noise.Stream:
        return chance.stream(self.world.seed, "instrument", device, metric)

    def _noise(self, device: str, deviations: dict[str, float], at: Times) -> list[Floats]:
        """Noise of each of a device's cells, new every second."""
        of = chance.streams(self.world.seed, "instrument", device, of=tuple(deviations))
        drawn = noise.normal(of, at // NANOSECONDS)
        return [row * deviation for row, deviation in zip(drawn, deviations.values(), strict=True)]


class ReadClearing:
    """Instruments whose rain gauges also count what fell since they were read last, in ``rain_partial``.

    Like the register itself it remembers, so it serves units that are read in order of time. The first reading counts
    from 0.
    """

    def __init__(self, instruments: Instruments) -> None:
        self.world = instruments.world
        self._instruments = instruments
        self._read: dict[str, float] = {}

    def show(self, device: Device, at: Times) -> Shown:
        """Tell the values as ``Instruments`` does; every instant is a read, ``at`` ascends."""
        shown = self._instruments.show(device, at)
        if "rain_total" in shown and len(at):
            tenths = np.round(shown["rain_total"] * 10.0)
            fallen = np.diff(tenths, prepend=self._read.get(device.id, tenths[0]))
            self._read[device.id] = float(tenths[-1])
            shown[CLEARED] = fallen % _RAIN_FULL / 10.0
        return shown
