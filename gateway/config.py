"""What one gateway process is told: its TOML file, and the declared data that it names."""

import ssl
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import msgspec

from edge.commands import Act
from edge.commands import check as check_commands
from edge.decoders.chirpstack import TOPIC
from edge.decoders.chirpstack import check as check_topic
from edge.drivers.address import Address
from edge.drivers.platforms import Push, doors
from edge.installed import Installed, installed, table_of
from edge.profile import load_profiles
from edge.sources import MqttSource
from gateway.rows import Bounds
from rules.declared import Refused, Source, decode, located, nearest
from rules.district import District, Pushed, load_district
from rules.district import Modbus as OnBus
from rules.engine import Engine
from rules.rule import Rule, load_rules
from rules.samples import PointTable
from wire.clock import Clock
from wire.files import declared_in, read
from wire.session import Broker


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One gateway process. Paths count from the file's own folder.

    ``broker`` is the way to the cloud; ``sensors`` the broker of LoRaWAN sensors and cameras (the same one, when it is
    not given), ``chirpstack_topic`` the template of ChirpStack's topics there. ``push`` is where operators' platforms
    push to. ``buses`` gives every bus of this gateway its address. ``rules`` and ``profiles`` name folders that
    replace the shipped ones (empty: those). ``tick_s`` is in wall seconds.

    ``allow`` names by device the commands that may be written to it, by the centre or by ``act``: what local rules do.
    """

    gateway: str
    district: str
    data: str
    broker: Broker
    sensors: Broker | None = None
    chirpstack_topic: str = TOPIC
    push: Push | None = None
    buses: dict[str, Address] = {}
    clock: Clock = Clock()
    rules: str = ""
    profiles: str = ""
    tick_s: float = 0.1
    outbox: Bounds = Bounds()
    allow: dict[str, tuple[str, ...]] = {}
    act: tuple[Act, ...] = ()

    def __post_init__(self) -> None:
        check_topic(self.chirpstack_topic)


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
    if config.push is not None:
        config = msgspec.structs.replace(config, push=config.push.below(here))
    with located(Source(str(path), text)):
        _check(config, path)
    return config


def _check(config: GatewayConfig, path: Path) -> None:
    declared = declared_of(config, str(path))
    Engine(declared.table, declared.rules)  # refuses a rule that does not fit the points
    buses = {bus.id for bus in declared.district.bus if bus.gateway == config.gateway}
    at: dict[str, str] = {}
    for bus, address in config.buses.items():
        if bus not in buses:
            raise Refused(f"{path}: buses.{bus}", f"no such bus belongs to {config.gateway}{nearest(bus, buses)}")
        # Two connections to one line would talk into each other, and many a box has one session to give.
        other = at.setdefault(address.name, bus)
        if other != bus:
            why = f"is at {address.name}, and so is `{other}`; declare one bus and put the devices of both on it"
            raise Refused(f"{path}: buses.{bus}", why)
    _check_acts(config, declared, path)
    _check_messages(config, declared, path)
    for place in declared.places:
        if isinstance(place.device.wire, OnBus) and place.device.wire.bus not in config.buses:
            bus = place.device.wire.bus
            why = f"is missing, but {place.device.id} is on it; give its `host` and `port`, or its `serial` line"
            raise Refused(f"{path}: buses.{bus}", why)


def _check_messages(config: GatewayConfig, declared: Declared, path: Path) -> None:
    """Check what sends messages: each device is known by its own, and platforms can push."""
    try:
        MqttSource(declared.places, config.clock, chirpstack_topic=config.chirpstack_topic)
        if config.push is not None:
            doors(config.push, declared.places)
    except Refused as refused:
        file = config.district if refused.place.startswith("device ") else path
        raise Refused(f"{file}: {refused.place}", refused.why) from refused
    if config.push is None:
        for place in declared.places:
            if isinstance(place.device.wire, Pushed):
                raise Refused(f"{path}: push", f"is missing, but {place.device.id} is pushed; say where to")
        return
    if find_spec("uvicorn") is None or find_spec("starlette") is None:
        raise Refused(f"{path}: push", "needs what is not installed here: pip install 'streetwarden[push]'")
    if config.push.certificate:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                config.push.certificate, config.push.key
            )
        except OSError as error:
            raise Refused(f"{path}: push.certificate", f"is not in order with its key: {error}") from error


def _check_acts(config: GatewayConfig, declared: Declared, path: Path) -> None:
    try:
        check_commands({place.device.id: place for place in declared.places}, config.allow, config.act)
    except Refused as refused:
        raise Refused(f"{path}: {refused.place}", refused.why) from refused
    levels = {rule.id: [level.name for level in rule.level] for rule in declared.rules}
    for act in config.act:
        at = f"{path}: act {act.device}"
        if act.rule not in levels:
            raise Refused(at, f"no rule `{act.rule}`{nearest(act.rule, levels)}")
        for level in act.levels:
            if level not in levels[act.rule]:
                raise Refused(at, f"rule `{act.rule}` has no level `{level}`{nearest(level, levels[act.rule])}")


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
