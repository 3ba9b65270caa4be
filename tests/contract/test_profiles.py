"""One suite over every shipped profile: adding a file adds its tests."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from edge.plan import plan
from edge.profile import Command, Derived, Flags, Head, Limits, Profile, Register, Text, load_profile, load_profiles

TESTS = Path(__file__).parent.parent
GOLDEN = TESTS / "golden"
PAGE = (TESTS.parent / "docs/add-a-sensor.md").read_text("utf-8")
# Symbols of UCUM or SenML (RFC 8428, RFC 8798), and the two of uCIFI that have none (%LEL, count): one list, so that no
# unit is spelt in two ways.
UNITS = {
    *("1", "%", "%LEL", "ppm", "count"),
    *("m", "mm", "mm/h", "m/s", "m3/s", "l/s", "deg"),
    *("V", "A", "mA", "W", "kW.h", "Hz", "dBm"),
    *("Cel", "Pa", "lx"),
    *("s", "d"),
}
PROFILES = load_profiles()
# No product, but what several makers hold to, or a program, or a map of ours.
NO_MAKERS = {"reference", "ONVIF", "Frigate", "SenML", "Sparkplug"}
_RAW = {"bit": (0, 1), "u16": (0, 0xFFFF), "s16": (-0x8000, 0x7FFF)}

each = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
each_command = pytest.mark.parametrize(
    ("profile", "command"),
    [
        pytest.param(profile, command, id=f"{profile.id}: {command.name}")
        for profile in PROFILES.values()
        for command in profile.command
    ],
)


@each
def test_cites_its_manual(profile: Profile) -> None:
    head = profile.profile
    assert head.maker
    assert head.model
    if head.maker == "reference":
        assert "this file" in head.manual
    else:
        assert "http" in head.manual


@each
def test_every_quantity_has_a_unit_and_a_name_of_its_own(profile: Profile) -> None:
    for quantity in profile.quantities:
        assert quantity.unit in UNITS, quantity.metric
        assert quantity.metric.isidentifier()
        assert quantity.metric.islower()
        assert quantity.deadband >= 0
        assert quantity.heartbeat_s > 0
    assert Counter(quantity.metric for quantity in profile.quantities).most_common(1)[0][1] == 1


def test_a_quantity_has_the_same_unit_wherever_it_is_measured() -> None:
    units: dict[str, dict[str, str]] = {}
    for profile in PROFILES.values():
        for quantity in profile.quantities:
            units.setdefault(quantity.metric, {})[quantity.unit] = profile.id
    assert {metric: found for metric, found in units.items() if len(found) > 1} == {}


@each
def test_no_register_means_two_things(profile: Profile) -> None:
    taken = Counter(
        (point.function, address)
        for point in profile.point
        if point.type != "bit"
        for address in range(point.register, point.register + point.words)
    )
    assert not [place for place, times in taken.items() if times > 1]


@each
def test_plan_covers_each_point_once_whole_and_within_limits(profile: Profile) -> None:
    requests = plan(profile.point, profile.limits)
    assert sorted(n for request in requests for n in request.points) == list(range(len(profile.point)))
    for request in requests:
        assert request.count <= profile.limits.max_registers * (16 if request.function in (1, 2) else 1)
        for n in request.points:
            point = profile.point[n]
            assert point.function == request.function
            assert request.start <= point.register
            assert point.register + point.words <= request.start + request.count


@each
def test_golden_vectors_tell_every_measured_quantity(profile: Profile) -> None:
    file = tomllib.loads((GOLDEN / f"{profile.id}.toml").read_text("utf-8"))
    assert file["profile"] == profile.id
    assert file["source"]
    vectors = [vector for kind in ("reply", "reading", "message") for vector in file.get(kind, [])]
    told = {metric for vector in vectors for metric in (*vector.get("values", {}), *vector.get("bad", {}))}
    assert {quantity.metric for quantity in profile.measured} - told == set()


@each
def test_commands_have_names_of_their_own(profile: Profile) -> None:
    names = [command.name for command in profile.command]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and name.islower() for name in names)


@each_command
def test_a_command_fits_its_register_and_can_be_read_back(profile: Profile, command: Command) -> None:
    (point,) = (point for point in profile.point if point.metric == command.read_back)
    assert point.unit == command.unit
    least, most = _RAW[command.type]
    for value in _ends(command):
        assert least <= round((value - command.offset) / command.scale) <= most
        low, high = point.range or (value, value)
        assert low <= value <= high, f"{point.metric} cannot show {value}"


@pytest.mark.parametrize("name", ["reference_manhole_monitor", "reference_lamp_controller"])
def test_reference_maps_are_one_read(name: str) -> None:
    profile = PROFILES[name]
    assert len(plan(profile.point, profile.limits)) == 1
    assert "poll_counter" in {point.metric for point in profile.point}


def test_real_products_of_every_trade_are_shipped() -> None:
    heads = [profile.profile for profile in PROFILES.values() if profile.profile.maker not in NO_MAKERS]
    assert len({(head.maker, head.model) for head in heads}) >= 16
    kinds = {head.kind for head in heads}
    assert kinds >= {"power_meter", "lamp_controller", "level_sensor", "rain_gauge", "gas_detector", "manhole_cover"}


def test_the_page_on_adding_a_sensor_shows_what_is_shipped() -> None:
    profile, golden, device = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    shipped = PROFILES["dfrobot_sen0492"]
    assert load_profile(profile, "add-a-sensor.md") == shipped
    shown = tomllib.loads(golden)
    kept = tomllib.loads((GOLDEN / f"{shipped.id}.toml").read_text("utf-8"))
    assert (shown["source"], shown["profile"]) == (kept["source"], kept["profile"])
    assert all(vector in kept["reply"] for vector in shown["reply"])
    assert set(shipped.install_names()) == set(tomllib.loads(device)["install"])


@pytest.mark.parametrize(
    "table", [Head, Limits, Register, Flags, Text, Derived, Command], ids=lambda table: table.__name__
)
def test_the_page_on_adding_a_sensor_names_every_key(table: type[msgspec.Struct]) -> None:
    assert [field.name for field in msgspec.structs.fields(table) if f"`{field.name}`" not in PAGE] == []


def _ends(command: Command) -> tuple[float, ...]:
    if command.range is not None:
        return command.range
    assert command.value is not None
    return (command.value,)
