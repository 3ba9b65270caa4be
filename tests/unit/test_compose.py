"""``compose.yaml`` and all it mounts, checked without a container engine."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from cloud.config import Config as CloudConfig
from firmware_sim.process import Config as SimulatorConfig
from gateway.config import GatewayConfig
from rules.declared import decode
from rules.district import load_district

ROOT = Path(__file__).parents[2]
DISTRICT = load_district((ROOT / "firmware_sim/districts/bluestone.toml").read_text(), "district.toml")
CONFIGURATIONS: dict[str, type[Any]] = {
    "cloud": CloudConfig,
    "gateway": GatewayConfig,
    "sim": SimulatorConfig,
}
filled: Callable[[str, dict[str, str]], str] = runpy.run_path(str(ROOT / "deploy/start.py"))["filled"]
_VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<word>[^}]*))?\}")


def interpolated() -> str:
    """The file as compose reads it, with every required variable set to its own name."""

    def value(match: re.Match[str]) -> str:
        return match["word"] if match["kind"] == "-" else match["name"]

    return _VARIABLE.sub(value, (ROOT / "compose.yaml").read_text())


COMPOSE: dict[str, Any] = yaml.safe_load(interpolated())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PARTS = {name: service for name, service in SERVICES.items() if "build" in service}


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Target of every mount to its source and its mode."""
    split = (str(volume).split(":") for volume in service.get("volumes", []))
    return {target: (source, "".join(mode)) for source, target, *mode in split}


def configuration(name: str) -> Any:
    """The configuration of a part, filled in as in its container and decoded by the part's own type."""
    kind, target = PARTS[name]["command"]
    source = ROOT / mounts(PARTS[name])[target][0]
    text = filled(source.read_text(), PARTS[name]["environment"])
    return decode(text, CONFIGURATIONS[kind], source.name)


def test_it_keeps_the_compose_specification() -> None:
    PyCompose.from_yaml(yaml.safe_dump(COMPOSE)).validate()


def test_a_misspelt_key_would_be_refused() -> None:
    wrong = {**COMPOSE, "services": {"cloud": {**SERVICES["cloud"], "helthcheck": {}}}}
    with pytest.raises(ValueError, match="helthcheck"):
        PyCompose.from_yaml(yaml.safe_dump(wrong))


def test_it_has_every_part() -> None:
    assert set(SERVICES) == {"broker", "influx", "cloud", "gateway-north", "gateway-south", "simulator"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_mounts_what_exists_and_only_its_volume_is_writable(name: str) -> None:
    for source, mode in mounts(SERVICES[name]).values():
        if source.startswith("."):
            assert (ROOT / source).is_file(), source
            assert mode == "ro", source
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert service["restart"] == "unless-stopped"
    assert set(service.get("depends_on", {})) <= set(SERVICES)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_built_here_and_runs_with_nothing_it_does_not_need(name: str) -> None:
    part = PARTS[name]
    assert (ROOT / part["build"]["context"] / part["build"]["dockerfile"]).is_file()
    assert part["read_only"] is True
    assert part["cap_drop"] == ["ALL"]


def test_every_named_volume_is_used() -> None:
    used = {source for service in SERVICES.values() for source, _ in mounts(service).values()}
    assert set(COMPOSE["volumes"]) <= used


def test_only_the_page_leaves_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"cloud": ["127.0.0.1:8080:8080"]}


def test_secrets_are_asked_for_and_never_given() -> None:
    asked = {match["name"]: match["kind"] for match in _VARIABLE.finditer((ROOT / "compose.yaml").read_text())}
    secret = {name for name in asked if name.endswith(("PASSWORD", "TOKEN"))}
    assert {asked[name] for name in secret} == {"?"}
    example = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "deploy/example.env").read_text(), flags=re.MULTILINE))
    assert set(example) == set(asked)
    assert {example[name] for name in secret} == {""}
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            assert value in secret or not key.endswith(("PASSWORD", "TOKEN")), key


@pytest.mark.parametrize("name", PARTS)
def test_a_part_decodes_its_configuration(name: str) -> None:
    configuration(name)


@pytest.mark.parametrize("name", ["gateway-north", "gateway-south"])
def test_a_gateway_finds_its_broker_and_its_buses_in_the_simulator(name: str) -> None:
    config, simulator = configuration(name), configuration("simulator")
    assert config.gateway == config.broker.username
    assert config.broker.host in SERVICES
    assert set(config.buses) == {bus.id for bus in DISTRICT.bus if bus.gateway == config.gateway}
    for bus, address in config.buses.items():
        assert (address.host, address.port) == ("simulator", simulator.bus[bus])


def test_every_account_of_the_broker_is_one_that_somebody_uses() -> None:
    used = {
        configuration("cloud").broker.username,
        configuration("simulator").sensors.username,
        *(gateway.id for gateway in DISTRICT.gateway),
    }
    assert set(re.findall(r"(?:'|\\n)([\w-]+):%s", (ROOT / "deploy/mosquitto.sh").read_text())) == used
    assert set(re.findall(r"^user (\S+)$", (ROOT / "deploy/mosquitto.acl").read_text(), flags=re.MULTILINE)) == used


def test_a_secret_with_quotes_stays_one_string() -> None:
    assert filled('password = "${P}"', {"P": 'a"b\\c'}) == 'password = "a\\"b\\\\c"'
    with pytest.raises(KeyError, match="Q"):
        filled("${Q}", {})
