"""Declared data is refused with its place and its cure."""

import msgspec
import pytest

from rules.declared import Refused, decode, seconds
from rules.district import load_district
from rules.rule import load_rules


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    port: int = 0


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()


def test_an_unknown_key_is_refused_with_its_path_and_the_nearest_known_one() -> None:
    with pytest.raises(Refused) as refused:
        decode('name = "a"\n[[many]]\nport = 1\n[[many]]\nprot = 2\n', Outer, "box.toml")
    assert str(refused.value) == "box.toml: unknown key `many[1].prot`; did you mean `port`?"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name = 3\n", "Expected `str`, got `int`"),
        ("", "missing required field `name`"),
        ("name = \n", "not TOML"),
        ('name = "a"\nzzz = 1\n', "unknown key `zzz`"),
    ],
)
def test_other_faults_say_where_and_what(text: str, why: str) -> None:
    with pytest.raises(Refused, match=r"box\.toml") as refused:
        decode(text, Outer, "box.toml")
    assert why in refused.value.why


@pytest.mark.parametrize(
    ("text", "expected"), [("30s", 30.0), ("5min", 300.0), ("2h", 7200.0), ("250ms", 0.25), ("1.5 d", 129_600.0)]
)
def test_durations_carry_their_unit(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["30", "s", "-5s", "5 weeks", ""])
def test_a_duration_without_a_known_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a number with"):
        seconds(text)


DISTRICT = """
id = "1"
name = { zh = "区", en = "District" }
unit = []
bus = []
[[site]]
id = "s"
name = { zh = "路", en = "Road" }
kind = "road"
territory = "t"
outline = []
[[gateway]]
id = "g"
name = { zh = "网关", en = "Gateway" }
[[device]]
id = "d"
kind = "camera"
profile = "p"
gateway = "g"
site = "s"
asset = "a"
component = "c"
lon = 0.0
lat = 0.0
wire = { by = "onvif", prefix = "d" }
"""


@pytest.mark.parametrize(
    ("was", "instead", "why"),
    [
        ('gateway = "g"', 'gateway = "x"', "gateway: no gateway `x` is declared; there is g"),
        ('site = "s"', 'site = "x"', "site: no site `x` is declared; there is s"),
        (
            'by = "onvif", prefix = "d"',
            'by = "modbus", bus = "b", unit = 1',
            "wire.bus: no bus `b` is declared; there is none",
        ),
    ],
)
def test_a_device_that_points_nowhere_is_named(was: str, instead: str, why: str) -> None:
    assert load_district(DISTRICT, "d.toml").device[0].id == "d"
    with pytest.raises(Refused) as refused:
        load_district(DISTRICT.replace(was, instead), "d.toml")
    assert str(refused.value) == f"d.toml: device d: {why}"


def test_a_rule_without_a_runbook_does_not_load() -> None:
    with pytest.raises(Refused, match=r"pack\.toml") as refused:
        load_rules('[[rule]]\nid = "x"\nkind = "camera"\nhazard = "h"\ncase = "city"\n', "pack.toml")
    assert "missing required field" in refused.value.why
