"""The district as declared data: units, sites, assets, devices and how they are wired. No I/O here."""

from typing import Annotated, Literal

import msgspec

from rules.declared import Refused, Source, decode, located, nearest


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One text in both languages of the screen."""

    zh: str
    en: str


class Unit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A responsible unit: ``functions`` it answers for, in ``territories`` (empty: everywhere)."""

    id: str
    name: Text
    functions: tuple[str, ...]
    territories: tuple[str, ...] = ()


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place that incidents happen at. ``outline`` is a closed ring of (longitude, latitude), WGS 84 degrees."""

    id: str
    name: Text
    kind: Literal["underpass", "road", "square"]
    territory: str
    outline: tuple[tuple[float, float], ...]


class Road(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A centre line for the map, (longitude, latitude) in WGS 84 degrees, ``width_m`` in metres."""

    name: Text
    line: tuple[tuple[float, float], ...]
    width_m: float


class Gateway(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An edge box in a street cabinet."""

    id: str
    name: Text


class Bus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One Modbus TCP endpoint of a gateway; one request is in flight on it at a time."""

    id: str
    gateway: str


class Modbus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="modbus", tag_field="by"):
    """A device on a bus, with its unit id: 1 to 247 on a line, mostly 1, 0 or 255 where a device has its own endpoint.

    Where one unit serves many devices, as a DALI gateway does, the registers of this one are its profile's, ``base``
    further on.
    """

    bus: str
    unit: Annotated[int, msgspec.Meta(ge=0, le=255)]
    base: int = 0


class Chirpstack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="chirpstack", tag_field="by"):
    """A LoRaWAN device behind ChirpStack v4: ``dev_eui`` in lower-case hex."""

    application: str
    dev_eui: str


class Onvif(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="onvif", tag_field="by"):
    """A camera's ONVIF event broker, by its topic prefix."""

    prefix: str


class ThingsStack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="things_stack", tag_field="by"):
    """A LoRaWAN device behind The Things Stack v3: ``dev_eui`` in hex, ``tenant`` empty where there is only one."""

    application: str
    tenant: str
    device: str
    dev_eui: str


class Frigate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="frigate", tag_field="by"):
    """A camera that Frigate watches, by the name it has there; ``prefix`` is that of Frigate's topics."""

    camera: str
    prefix: str = "frigate"


class Senml(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="senml", tag_field="by"):
    """A device that publishes SenML packs (RFC 8428, JSON or CBOR) to a topic.

    The names of its records begin with ``base``; empty: all of the topic's are its own.
    """

    topic: str
    base: str = ""


class PlainJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="plain", tag_field="by"):
    """A device that publishes JSON objects to a topic; ``device`` is its name in them, where several share a topic."""

    topic: str
    device: str = ""


class Sparkplug(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sparkplug", tag_field="by"):
    """A device of a Sparkplug B edge ``node`` (empty ``device``: the node itself)."""

    group: str
    node: str
    device: str = ""


class Pushed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="push", tag_field="by"):
    """A device whose messages an operator's ``platform`` pushes by HTTPS, under the name that it has there."""

    platform: str
    device: str


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sensor unit on an asset.

    ``profile`` names the sensor model's file, ``component`` the asset's component code (GB/T 30428.2 style),
    ``install`` the numbers of its installation (mounting height in m, background tilt in deg, nominal power in W),
    ``interval_s`` how often it is read or reports, where that differs from its model's.
    """

    id: str
    kind: str
    profile: str
    gateway: str
    site: str
    asset: str
    component: str
    lon: float
    lat: float
    wire: Modbus | Chirpstack | ThingsStack | Senml | PlainJson | Sparkplug | Onvif | Frigate | Pushed
    install: dict[str, float] = {}
    interval_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    probation: bool = False


class District(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A district: ``functions`` and ``territories`` of its units decide who is sent."""

    id: str
    name: Text
    unit: tuple[Unit, ...]
    site: tuple[Site, ...]
    gateway: tuple[Gateway, ...]
    bus: tuple[Bus, ...]
    device: tuple[Device, ...]
    road: tuple[Road, ...] = ()


def load_district(text: str, place: str) -> District:
    """Read and check a district; ``Refused`` names the device that points nowhere or stands twice."""
    district = decode(text, District, place)
    with located(Source(place, text)):
        _check(district, place)
    return district


def _check(district: District, place: str) -> None:
    known = {
        "gateway": {gateway.id for gateway in district.gateway},
        "site": {site.id for site in district.site},
        "bus": {bus.id for bus in district.bus},
    }
    seen: set[str] = set()
    registers: dict[tuple[str, int, int], str] = {}

    def check(what: str, name: str, at: str) -> None:
        if name not in known[what]:
            raise Refused(at, f"no {what} `{name}` is declared{nearest(name, known[what])}")

    for bus in district.bus:
        check("gateway", bus.gateway, f"{place}: bus {bus.id}: gateway")
    for device in district.device:
        at = f"{place}: device {device.id}"
        if device.id in seen:
            raise Refused(at, "this id is declared twice")
        check("gateway", device.gateway, f"{at}: gateway")
        check("site", device.site, f"{at}: site")
        if isinstance(device.wire, Modbus):
            check("bus", device.wire.bus, f"{at}: wire.bus")
            other = registers.setdefault((device.wire.bus, device.wire.unit, device.wire.base), device.id)
            if other != device.id:
                raise Refused(f"{at}: wire", f"is unit {device.wire.unit} of {device.wire.bus}, and so is {other}")
        if isinstance(device.wire, Chirpstack) and device.wire.dev_eui != device.wire.dev_eui.lower():
            raise Refused(f"{at}: wire.dev_eui", "stands in lower case in ChirpStack's topics; write it so")
        seen.add(device.id)
