"""What one gateway process is told: its TOML file, and the declared data that it names."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import msgspec

from edge.profile import load_profiles
from edge.sources import Installed, installed, table_of
from gateway.rows import Bounds
from rules.declared import Refused, Source, decode, located, nearest
from rules.district import District, load_district
from rules.district import Modbus as OnBus
from rules.engine import Engine
from rules.rule import Rule, load_rules
from rules.samples import PointTable
from wire.clock import Clock
from wire.files import declared_in, read
from wire.session import Broker


class BusAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a Modbus TCP bus listens; ``timeout_s`` is what one answer may take, wall seconds."""

    host: str
    port: int
    timeout_s: float = 1.0


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One gateway process. Paths count from the file's own folder.

    ``broker`` is the way to the cloud; ``sensors`` the broker of LoRaWAN sensors and cameras (the same one, when it is
    not given). ``buses`` gives every bus of this gateway its address. ``rules`` and ``profiles`` name folders that
    replace the shipped ones (empty: those). ``tick_s`` is in wall seconds.
    """

    gateway: str
    district: str
    data: str
    broker: Broker
    sensors: Broker | None = None
    buses: dict[str, BusAddress] = {}
    clock: Clock = Clock()
    rules: str = ""
    profiles: str = ""
    tick_s: float = 0.1
    outbox: Bounds = Bounds()


@dataclass(frozen=True, slots=True)
class Declared:
    """The declared data of one gateway, read and checked."""

    district: District
    places: tuple[Installed, ...]
    table: PointTable
    rules: tuple[Rule, ...]


def load_config(path: Path) -> GatewayConfig:
    """Read a configuration and check all it names; ``Refused`` says where, what and what would mend it."""
    text = read(path)
    config = decode(text, GatewayConfig, str(path))
    here = path.resolve().parent
    paths = {name: getattr(config, name) for name in ("district", "data", "rules", "profiles")}
    config = msgspec.structs.replace(config, **{name: str(here / path) for name, path in paths.items() if path})
    with located(Source(str(path), text)):
        _check(config, path)
    return config


def _check(config: GatewayConfig, path: Path) -> None:
    declared = declared_of(config, str(path))
    Engine(declared.table, declared.rules)  # refuses a rule that does not fit the points
    buses = {bus.id for bus in declared.district.bus if bus.gateway == config.gateway}
    for bus in config.buses:
        if bus not in buses:
            raise Refused(f"{path}: buses.{bus}", f"no such bus belongs to {config.gateway}{nearest(bus, buses)}")
    for place in declared.places:
        if isinstance(place.device.wire, OnBus) and place.device.wire.bus not in config.buses:
            bus = place.device.wire.bus
            raise Refused(f"{path}: buses.{bus}", f"is missing, but {place.device.id} is on it; give its host and port")


def declared_of(config: GatewayConfig, place: str = "configuration") -> Declared:
    """Read the declared data that a configuration names; ``Refused`` as ``load_config``."""
    text = read(Path(config.district))
    district = load_district(text, config.district)
    known = {gateway.id for gateway in district.gateway}
    if config.gateway not in known:
        why = f"`{config.gateway}` is not declared in {config.district}{nearest(config.gateway, known)}"
        raise Refused(f"{place}: gateway", why)
    profiles = load_profiles(Path(config.profiles) if config.profiles else None)
    with located(Source(config.district, text)):
        try:
            places = installed(district, config.gateway, profiles)
        except Refused as refused:
            raise Refused(f"{config.district}: {refused.place}", refused.why) from refused
    return Declared(district, places, table_of(district, config.gateway, profiles), _rules(config.rules))


def _rules(folder: str) -> tuple[Rule, ...]:
    found: dict[str, Rule] = {}
    for file in declared_in(Path(folder) if folder else resources.files("rules") / "catalog"):
        for rule in load_rules(read(file), str(file)):
            if rule.id in found:
                raise Refused(f"{file}: rule {rule.id}", "this id is declared in another pack of the folder too")
            found[rule.id] = rule
    return tuple(found.values())
