"""Meters made by hand: devices of one profile on a bus, and what they show as a matrix."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edge.counters import Counters
from edge.installed import Installed
from edge.profile import Head, Profile, Register
from rules.district import Device, Modbus
from rules.samples import POINT, QUALITY, Quality
from wire.counted import Counted

HEAD = Head("meter", "power_meter", "any", "any", "any", "modbus", 1.0)


def places(points: Sequence[Register], devices: Iterable[str]) -> list[Installed]:
    profile = Profile(HEAD, point=tuple(points))
    return [
        Installed(
            Device(name, "power_meter", "meter", "gw", "s", "a", "0120", 0.0, 0.0, Modbus("bus", unit)),
            profile,
            np.arange(len(points), dtype=POINT),
        )
        for unit, name in enumerate(devices, 1)
    ]


class Meters:
    """Counters of one profile, advanced by readings: a device, what each point shows, how good that is."""

    def __init__(self, points: Sequence[Register], devices: Iterable[str] = ("a",)) -> None:
        self.counted = Counted()
        self._places = places(points, devices)
        self.counters = Counters(self._places, self.counted)
        self.judged: list[int] = []  # the first point's quality in the last readings

    def advance(self, *readings: tuple[str, Sequence[float], Quality]) -> list[list[float]]:
        value = np.array([shown for _, shown, _ in readings], float)
        before = value.copy()
        quality = np.array([[good] * value.shape[1] for _, _, good in readings], QUALITY)
        profile = self._places[0].profile
        totals = self.counters.advance(profile, [device for device, _, _ in readings], value, quality)
        np.testing.assert_array_equal(value, before)
        self.judged = quality[:, 0].tolist()
        told: Any = totals.tolist()
        return list(told)

    def shows(self, *values: float, device: str = "a") -> list[float]:
        """The totals of a device's only point, over good readings that come at once."""
        return [total for (total,) in self.advance(*((device, [value], Quality.GOOD) for value in values))]
