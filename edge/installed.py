"""Devices as they are installed: each with its profile and its rows in the gateway's point table."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.agent import Reading
from edge.filter import Filter
from edge.profile import INSTALL, Derived, Profile
from rules.declared import Refused, nearest
from rules.district import Device, District
from rules.samples import BAD, POINT, QUALITY, VALUE, Point, PointTable, Quality
from wire.clock import NANOSECONDS


@dataclass(frozen=True, slots=True, eq=False)
class Installed:
    """One device, its profile, and its ``rows`` in the point table, in the order of ``profile.quantities``."""

    device: Device
    profile: Profile
    rows: NDArray[np.int32]

    def reading(
        self,
        taken_at: int,
        value: NDArray[np.float64],
        quality: NDArray[np.uint8],
        settle: Callable[[], None] | None = None,
    ) -> Reading:
        """Make a reading of the ``profile.measured`` quantities and add the derived ones.

        A NaN in ``value`` means that the quantity was not told; what derives from it is not there either.
        """
        every = list(zip(value.tolist(), quality.tolist(), strict=True))
        known = {quantity.metric: sample for quantity, sample in zip(self.profile.measured, every, strict=True)}
        for derived in self.profile.derived:
            known[derived.metric] = self._derive(derived, known)
        values, qualities = np.array(list(known.values()), VALUE).T
        there = ~np.isnan(values)
        return Reading(self.rows[there], taken_at, values[there], qualities[there].astype(QUALITY), settle)

    def bad(self, taken_at: int, cause: Quality) -> Reading:
        """Say of all quantities that there is no value, and why."""
        count = len(self.rows)
        return Reading(self.rows, taken_at, np.zeros(count, VALUE), np.full(count, cause, QUALITY))

    def _derive(self, derived: Derived, known: Mapping[str, tuple[float, int]]) -> tuple[float, int]:
        terms = [
            (self.device.install[term.removeprefix(INSTALL)], 0) if term.startswith(INSTALL) else known[term]
            for term in derived.of
        ]
        values = [value for value, _ in terms]
        quality = max(quality for _, quality in terms)
        if quality >= BAD and not any(map(math.isnan, values)):
            return 0.0, quality
        return _compute(derived.how, values) * derived.scale, quality


def _compute(how: str, terms: list[float]) -> float:
    match how, terms:
        case "minus", [a, b]:
            return a - b
        case "difference", [a, b]:
            return abs(a - b)
        case "hypot", [a, b, c, d]:
            return math.hypot(a - b, c - d)
        case _:
            divisor = math.prod(terms[1:])
            return terms[0] / divisor if divisor else math.nan


def installed(district: District, gateway: str, profiles: Mapping[str, Profile]) -> tuple[Installed, ...]:
    """Give a gateway's devices their rows; ``Refused`` names the device that does not fit its profile."""
    places: list[Installed] = []
    first = 0
    for device in district.device:
        if device.gateway == gateway:
            profile = _profile_of(device, profiles)
            rows = np.arange(first, first + len(profile.quantities), dtype=POINT)
            places.append(Installed(device, profile, rows))
            first += len(rows)
    return tuple(places)


def table_of(district: District, gateway: str, profiles: Mapping[str, Profile]) -> PointTable:
    """Name the points of a gateway; ``Refused`` as ``installed``."""
    return PointTable(
        gateway,
        tuple(
            Point(
                place.device.id,
                place.device.kind,
                quantity.metric,
                quantity.unit,
                place.profile.profile.interval_s,
                place.profile.profile.reports_on_change,
            )
            for place in installed(district, gateway, profiles)
            for quantity in place.profile.quantities
        ),
    )


def filter_of(places: Iterable[Installed]) -> Filter:
    """Make the filter that the profiles declare, for all points of a gateway."""
    quantities = [quantity for place in places for quantity in place.profile.quantities]
    heartbeats = [quantity.heartbeat_s * NANOSECONDS for quantity in quantities]
    return Filter(np.array([quantity.deadband for quantity in quantities]), np.array(heartbeats, np.int64))


def _profile_of(device: Device, profiles: Mapping[str, Profile]) -> Profile:
    place = f"device {device.id}"
    profile = profiles.get(device.profile)
    if profile is None:
        raise Refused(f"{place}: profile", f"no profile `{device.profile}` is known{nearest(device.profile, profiles)}")
    protocol = type(device.wire).__name__.lower()
    if protocol != profile.profile.protocol:
        raise Refused(f"{place}: wire", f"is {protocol}, but `{profile.id}` speaks {profile.profile.protocol}")
    if device.kind != profile.profile.kind:
        raise Refused(f"{place}: kind", f"is {device.kind}, but `{profile.id}` is a {profile.profile.kind}")
    for name in profile.install_names():
        if name not in device.install:
            raise Refused(f"{place}: install.{name}", f"is missing; `{profile.id}` needs it")
    return profile
