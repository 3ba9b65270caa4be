"""Devices as they are installed: each with its profile and its rows in the gateway's point table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.filter import Filter
from edge.profile import INSTALL, Profile
from rules.declared import Refused, nearest
from rules.district import (
    Chirpstack,
    Device,
    District,
    Frigate,
    Modbus,
    Onvif,
    PlainJson,
    Pushed,
    Senml,
    Sparkplug,
    ThingsStack,
)
from rules.samples import BAD, POINT, QUALITY, VALUE, Point, PointTable, Quality
from wire.clock import NANOSECONDS

_PROTOCOLS = {
    Modbus: "modbus",
    Chirpstack: "lorawan",
    ThingsStack: "lorawan",
    Senml: "senml",
    Sparkplug: "sparkplug",
    Onvif: "onvif",
    Frigate: "frigate",
    PlainJson: "json",
    Pushed: "json",
}


@dataclass(frozen=True, slots=True, eq=False)
class Installed:
    """One device, its profile, and its ``rows`` in the point table, in the order of ``profile.quantities``."""

    device: Device
    profile: Profile
    rows: NDArray[np.int32]

    @property
    def interval_s(self) -> float:
        """How often it is read or reports, seconds."""
        return self.device.interval_s or self.profile.profile.interval_s


def derive(
    profile: Profile,
    install: Mapping[str, float | NDArray[np.float64]],
    value: NDArray[np.float64],
    quality: NDArray[np.uint8],
    lag_s: float | NDArray[np.float64] = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Add the derived quantities to the measured ones: ``[..., measured]`` becomes ``[..., quantities]``.

    ``install`` and ``lag_s`` (seconds from reading to receipt) hold one number, or one for each reading. NaN is what
    was not told; what derives from a sample of bad quality is as bad, and 0.0.
    """
    shape = (*value.shape[:-1], len(profile.quantities))
    values, qualities = np.empty(shape, VALUE), np.empty(shape, QUALITY)
    measured = value.shape[-1]
    values[..., :measured], qualities[..., :measured] = value, quality
    column = {quantity.metric: index for index, quantity in enumerate(profile.quantities)}
    for index, derived in enumerate(profile.derived, measured):
        if derived.how == "lag":
            values[..., index], qualities[..., index] = np.multiply(lag_s, derived.scale), Quality.GOOD
            continue
        terms = [
            install[term.removeprefix(INSTALL)] if term.startswith(INSTALL) else values[..., column[term]]
            for term in derived.of
        ]
        of = [qualities[..., column[term]] for term in derived.of if not term.startswith(INSTALL)]
        worst = qualities[..., index] = np.maximum.reduce(of) if of else Quality.GOOD
        with np.errstate(over="ignore", invalid="ignore"):  # terms without a range may be as large as they like
            made = _compute(derived.how, terms) * derived.scale
            untold = np.isnan(sum(terms, start=np.zeros(shape[:-1])))  # a NaN in any of them shows in the sum
        if np.isinf(made).any():
            worst = qualities[..., index] = np.where(np.isinf(made) & (worst < BAD), Quality.BAD_RANGE, worst)
        values[..., index] = np.where((worst >= BAD) & ~untold, 0.0, made)
    return values, qualities


def _compute(how: str, terms: Sequence[float | NDArray[np.float64]]) -> NDArray[np.float64]:
    match how, terms:
        case "minus", [a, b]:
            return np.subtract(a, b)
        case "difference", [a, b]:
            apart: NDArray[np.float64] = np.abs(np.subtract(a, b))
            return apart
        case "hypot", [a, b, c, d]:
            return np.hypot(np.subtract(a, b), np.subtract(c, d))
        case "sum", _:
            return np.asarray(np.sum(np.broadcast_arrays(*terms), axis=0))
        case "product", _:
            return np.asarray(np.prod(np.broadcast_arrays(*terms), axis=0))
        case _:
            divisor = np.asarray(np.prod(np.broadcast_arrays(*terms[1:]), axis=0))
            ratio = np.full(np.broadcast(terms[0], divisor).shape, np.nan)
            np.divide(terms[0], divisor, out=ratio, where=divisor != 0)
            return ratio


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
                place.interval_s,
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
    protocol = _PROTOCOLS[type(device.wire)]
    if protocol != profile.profile.protocol:
        raise Refused(f"{place}: wire", f"carries {protocol}, but `{profile.id}` speaks {profile.profile.protocol}")
    if device.kind != profile.profile.kind:
        raise Refused(f"{place}: kind", f"is {device.kind}, but `{profile.id}` is a {profile.profile.kind}")
    if isinstance(device.wire, Modbus):
        ends = [point.register + point.words for point in profile.point]
        furthest = max(*ends, *(command.register + 1 for command in profile.command), 0)
        if not 0 <= device.wire.base <= 0x10000 - furthest:
            raise Refused(f"{place}: wire.base", f"lies between 0 and {0x10000 - furthest} for `{profile.id}`")
    for name in profile.install_names():
        if name not in device.install:
            raise Refused(f"{place}: install.{name}", f"is missing; `{profile.id}` needs it")
    return profile
