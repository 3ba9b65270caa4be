"""Declared data is refused with its place and its cure."""

import msgspec
import pytest

from rules.declared import Refused, Source, decode, located, seconds
from rules.district import load_district
from rules.lines import line_of
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
    assert str(refused.value) == "box.toml:5: unknown key `many[1].prot`; did you mean `port`?"


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("\nname = 3\n", "box.toml:2: name", "Expected `str`, got `int`"),
        ("", "box.toml:1", "missing required field `name`"),
        ("\nname = \n", "box.toml:2", "not TOML: Invalid value"),
        ('\nname = """\n\n', "box.toml:3", "not TOML: Unterminated string"),
        ('name = "a"\nzzz = 1\n', "box.toml:2", "unknown key `zzz`"),
    ],
)
def test_other_faults_say_where_and_what(text: str, place: str, why: str) -> None:
    with pytest.raises(Refused) as refused:
        decode(text, Outer, "box.toml")
    assert refused.value.place == place
    assert why in refused.value.why
    assert str(refused.value) == f"{place}: {refused.value.why}"


LINES = """\
# [[many]]
name = '''
[many]
port = 1  # not here'''
"bus.south" = 'a # [['  # ]
far = [  # [[x]]
  "]", { port = 2 },
  "\\"]",
]
near.by.port = 3
[inner]  # port = 1
port = 4
[[rule]]
id = "cover.tilt"
[[rule.level]]
name = "mild"
when.above = 5
[[rule.level]]
name = "wild"
[rule.level.when]
above = 6
[[rule]]
id = "gas"
[ rule . told ]
by = "nobody"
[[rule]]
id = "cover.tilt"
[[point]]
metric = "level"
of = ["a", "b"]
[deep.er.still]
x = 1
"""


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ("", 1),
        ("name", 2),
        ("nothing", 1),
        ("far", 6),
        ("far[1].port", 6),
        ("near", 10),
        ("near.by.port", 10),
        ("inner", 11),
        ("inner.port", 12),
        ("inner.prt", 11),
        ("rule", 13),
        ("rule[0]", 13),
        ("rule[0].level[0].when.above", 17),
        ("rule[0].level[1]", 18),
        ("rule[0].level[1].when", 20),
        ("rule[0].level[1].when.above", 21),
        ("rule[1].level", 22),
        ("rule[1].told.by", 25),
        ("rule gas", 22),
        ("rule gas: told.by", 25),
        ("rule gas: level[0].name", 22),
        ("rule cover.tilt", 26),  # of two, the one too many
        ("point level: of", 30),
        ("level.of", 30),
        ("level", 28),
        ("rule nobody", 1),
        ("deep.er", 31),
        ("deep.er.still.x", 32),
    ],
)
def test_a_line_is_found_by_key_or_by_entry(entry: str, line: int) -> None:
    assert line_of(LINES, entry) == line


@pytest.mark.parametrize(
    ("why", "line"),
    [
        ("unknown key `told.by`; did you mean `id`?", 25),
        ("`told` must not stand beside `id`", 24),
        ("nothing here", 22),
        ("`gas` is no rule", 22),  # its name says which row it is, not what is wrong with it
    ],
)
def test_what_a_message_names_brings_it_nearer(why: str, line: int) -> None:
    assert line_of(LINES, "rule gas", why) == line


def test_a_value_that_a_message_quotes_is_found_too() -> None:
    assert line_of('[[many]]\nid = "x"\nlasts = ["1min", "2 moons"]\nat = "soon"\n', "many x", "'soon' is none") == 4


def test_only_what_is_refused_in_a_source_gets_its_line() -> None:
    source = Source("box.toml", LINES)
    for place, told, shown in (
        (source, "box.toml: rule gas", "box.toml:22: rule gas"),
        (source, "box.toml", "box.toml:1"),
        (source, "box.toml:7: far", "box.toml:7: far"),
        (source, "other.toml: rule gas", "other.toml: rule gas"),
        ("box.toml", "box.toml: rule gas", "box.toml: rule gas"),
    ):
        with pytest.raises(Refused) as refused, located(place):
            raise Refused(told, "why")
        assert refused.value.place == shown


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
    ("was", "instead", "line", "why"),
    [
        ('gateway = "g"', 'gateway = "x"', 19, "gateway: no gateway `x` is declared; there is g"),
        ('site = "s"', 'site = "x"', 20, "site: no site `x` is declared; there is s"),
        (
            'by = "onvif", prefix = "d"',
            'by = "modbus", bus = "b", unit = 1',
            25,
            "wire.bus: no bus `b` is declared; there is none",
        ),
    ],
)
def test_a_device_that_points_nowhere_is_named(was: str, instead: str, line: int, why: str) -> None:
    assert load_district(DISTRICT, "d.toml").device[0].id == "d"
    with pytest.raises(Refused) as refused:
        load_district(DISTRICT.replace(was, instead), "d.toml")
    assert str(refused.value) == f"d.toml:{line}: device d: {why}"


def test_a_rule_without_a_runbook_does_not_load() -> None:
    with pytest.raises(Refused, match=r"pack\.toml") as refused:
        load_rules('[[rule]]\nid = "x"\nkind = "camera"\nhazard = "h"\ncase = "city"\n', "pack.toml")
    assert "missing required field" in refused.value.why
