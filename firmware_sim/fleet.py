"""Districts by the number: any count of devices of each kind, laid out along invented streets."""

from collections.abc import Iterator
from itertools import count

import msgspec

from rules.declared import nearest, seconds
from rules.district import Bus, Chirpstack, Device, District, Gateway, Modbus, Onvif, Site, Text, Unit

_BUS_MOST = 100  # units on one bus: at 10 s a reading and 50 ms an answer it is half full
_STEP = 0.0006  # degrees between neighbours: some 60 m
_ROW = 50
_ORIGIN = (121.30, 31.15)
TOLD = ("covers", "cameras")  # those that speak by themselves
_COUNTED = {
    "level_sensor": "level_sensors",
    "rain_gauge": "rain_gauges",
    "manhole_monitor": "manhole_monitors",
    "lamp_controller": "lamps",
    "manhole_cover": "covers",
    "camera": "cameras",
}
COUNTS = tuple(_COUNTED.values())
_FUNCTIONS = ("drainage", "covers", "lighting", "gas", "sensing")


class Fleet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many devices of each kind, behind how many gateways.

    ``every`` replaces the models' own intervals: one for all that are polled, or by kind: ``{ lamps = "15min" }``.

    Every two level sensors share an underpass, ``underpass-01`` and on; cameras look at the underpasses first.
    """

    gateways: int = 2
    level_sensors: int = 0
    rain_gauges: int = 0
    manhole_monitors: int = 0
    lamps: int = 0
    covers: int = 0
    cameras: int = 0
    every: str | dict[str, str] = ""

    def __post_init__(self) -> None:
        counts = [getattr(self, kind) for kind in COUNTS]
        if self.gateways < 1 or min(counts) < 0 or not any(counts):
            raise ValueError("a fleet has a gateway and a device or more")
        if isinstance(self.every, dict):
            for kind in self.every.keys() - COUNTS:
                raise ValueError(f"`every`: no devices are called `{kind}`{nearest(kind, COUNTS)}")
        if any((self.interval_s(kind) or 1.0) <= 0 for kind in COUNTS):
            raise ValueError("`every` must be above 0s")

    def interval_s(self, kind: str) -> float | None:
        """How often devices of a kind (``COUNTS``) are read or report, seconds; ``None``: as their model does."""
        if isinstance(self.every, dict):
            return seconds(self.every[kind]) if kind in self.every else None
        return seconds(self.every) if self.every and kind not in TOLD else None


def district_of(fleet: Fleet) -> District:
    """Lay out the district of a fleet; the same fleet gives the same district."""
    gateways = tuple(_gateway(number) for number in range(1, fleet.gateways + 1))
    underpasses = tuple(_underpass(number) for number in range(1, (fleet.level_sensors + 1) // 2 + 1))
    road = _site("road", Text("试验路", "Test Road"), "road", *_ORIGIN, 0.06)
    buses: list[Bus] = []
    devices: list[Device] = []
    place = count()

    def wired(prefix: str, amount: int) -> Iterator[Modbus]:
        """Spread a kind's devices over buses of its own, the buses over the gateways."""
        for first in range(0, amount, _BUS_MOST):
            gateway = gateways[len(buses) % len(gateways)].id
            buses.append(Bus(f"bus-{prefix}-{first // _BUS_MOST + 1}", gateway))
            yield from (Modbus(buses[-1].id, unit) for unit in range(1, min(_BUS_MOST, amount - first) + 1))

    def add(
        prefix: str,
        number: int,
        kind: str,
        profile: str,
        component: str,
        wire: Modbus | Chirpstack | Onvif,
        install: dict[str, float],
        site: Site = road,
    ) -> None:
        nth = next(place)
        gateway = (
            next(bus.gateway for bus in reversed(buses) if bus.id == wire.bus)
            if isinstance(wire, Modbus)
            else gateways[number % len(gateways)].id
        )
        lon, lat = _ORIGIN[0] + _STEP * (nth % _ROW), _ORIGIN[1] + _STEP * (nth // _ROW)
        if site is not road:
            lon, lat = site.outline[0][0] + 0.0003 * (number % 2), site.outline[0][1] + 0.0002
        devices.append(
            Device(
                id=f"{prefix}-{number:04d}",
                kind=kind,
                profile=profile,
                gateway=gateway,
                site=site.id,
                asset=f"{component}{nth:010d}",
                component=component,
                lon=round(lon, 4),
                lat=round(lat, 4),
                wire=wire,
                install=install,
                interval_s=fleet.interval_s(_COUNTED[kind]),
            )
        )

    for number, wire in enumerate(wired("level", fleet.level_sensors), 1):
        site = underpasses[(number - 1) // 2]
        add("level", number, "level_sensor", "dfrobot_sen0492", "0120", wire, {"mounting_height_m": 3.5}, site)
    for number, wire in enumerate(wired("rain", fleet.rain_gauges), 1):
        near = underpasses[(number - 1) % len(underpasses)] if underpasses else road
        add("rain", number, "rain_gauge", "xunchip_xm9505", "0121", wire, {}, near)
    for number, wire in enumerate(wired("monitor", fleet.manhole_monitors), 1):
        install = {"background_tilt_deg": 0.5 + 0.1 * (number % 20), "shaft_depth_m": 2.6 + 0.1 * (number % 12)}
        add("monitor", number, "manhole_monitor", "reference_manhole_monitor", "0102", wire, install)
    for number, wire in enumerate(wired("lamp", fleet.lamps), 1):
        install = {"nominal_power_w": (90.0, 120.0, 150.0)[number % 3]}
        add("lamp", number, "lamp_controller", "reference_lamp_controller", "0137", wire, install)
    for number in range(1, fleet.covers + 1):
        install = {"background_x_deg": 0.1 * (number % 15) - 0.7, "background_y_deg": 0.1 * (number % 11) - 0.5}
        radio = Chirpstack("17c82e96-be03-4f38-aef3-f83d48582d97", f"24e124136b{number:06x}")
        add("cover", number, "manhole_cover", "milesight_em310_tilt", "0103", radio, install)
    for number in range(1, fleet.cameras + 1):
        site = underpasses[number - 1] if number <= len(underpasses) else road
        add("camera", number, "camera", "onvif_profile_m", "0135", Onvif(f"cam-{number:04d}"), {}, site)
    return District(
        id="fleet",
        name=Text("试验区", "Test District"),
        unit=tuple(Unit(f"unit-{function}", Text(function, function), (function,)) for function in _FUNCTIONS),
        site=(road, *underpasses),
        gateway=gateways,
        bus=tuple(buses),
        device=tuple(devices),
    )


def _gateway(number: int) -> Gateway:
    return Gateway(f"gw-{number}", Text(f"网关柜{number}", f"Cabinet {number}"))


def _underpass(number: int) -> Site:
    # Kilometres apart, so that no two of them confirm each other.
    lon, lat = _ORIGIN[0] + 0.02 * (number % 10), _ORIGIN[1] + 0.1 + 0.02 * (number // 10)
    return _site(
        f"underpass-{number:02d}", Text(f"下立交{number}", f"Underpass {number}"), "underpass", lon, lat, 0.003
    )


def _site(name: str, title: Text, kind: str, lon: float, lat: float, size: float) -> Site:
    east, north = round(lon + size, 4), round(lat + size / 3, 4)
    lon, lat = round(lon, 4), round(lat, 4)
    ring = ((lon, lat), (east, lat), (east, north), (lon, north), (lon, lat))
    return msgspec.convert(
        {"id": name, "name": title, "kind": kind, "territory": "all", "outline": ring}, Site, from_attributes=True
    )
