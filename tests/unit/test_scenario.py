"""A scenario with a mistake in it is refused with its place and the cure."""

import re
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from firmware_sim import swarm
from firmware_sim.happenings import KINDS
from firmware_sim.scenario import Scenario, check, events, load_scenario, load_scenario_district
from rules.declared import Refused, decode, seconds
from tests.city import START, district
from wire.clock import NANOSECONDS


def test_every_shipped_scenario_fits_its_district() -> None:
    for file in (resources.files("firmware_sim") / "scenarios").iterdir():
        scenario, place = load_scenario(file.name.removesuffix(".toml"))
        check(scenario, load_scenario_district(scenario, place), place)


SCENARIO = """\
# A comment that looks like [[event]] and says nothing.
name = "small"
title = { zh = "小", en = "Small" }
length = "1h"

[rain]
at_varies = "12s"
recorded = [
  ["5min", 20.0],  # mm/h
  ["10min", 4.0],
]

[[rain.burst]]
at = "3min"
half = "96s"
peak_mm_h = 47

[[rain.burst]]
at = "20min"
half = "5min"
peak_mm_h = 115

[[underpass]]
site = "underpass-bluestone"
catchment_m2 = 23700
runoff = 0.85
lag = "78s"
width_m = 14
slope = 0.0275
pump_m3_s = 0.216
pump_from_m = 0.06
pump_full_m = 0.28

[[event]]
id = "theft"
what = "cover_stolen"
window = ["6min", "14min"]

[[event]]
id = "freeze"
what = "level_freezes"
among = [
  "level-s1",
  "level-s2",
]
window = ["6min", "10min"]
lasts = ["1min", "2min"]

[[recording]]
device = "level-n1"
file = "level-n1.csv"

[[label]]
id = "was-a-truck"
device = "manhole-n1"
window = ["1min", "2min"]
truth = "misfire:truck"
hazard = "cover"

[[hazard.flood.level]]
name = "slow"
deeper_than_m = 0.15

[[hazard.flood.level]]
name = "close"
deeper_than_m = 0.25

[[truth]]
hazard = "cover"
incidents = 1
"""


def refusal(text: str, folder: Path) -> str:
    file = folder / "small.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(Refused) as refused:
        check(load_scenario(str(file))[0], district(), load_scenario(str(file))[1])
    return str(refused.value).removeprefix(f"{folder}/")


def test_without_a_mistake_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text(SCENARIO, "utf-8")
    scenario, place = load_scenario(str(tmp_path))
    check(scenario, district(), place)
    assert place == str(tmp_path / "scenario.toml")


@pytest.mark.parametrize(
    ("written", "instead", "line", "says"),
    [
        ('"小", en =', '"小" en =', 3, "not TOML: Unclosed inline table"),
        ("[rain]", "[rain", 6, "not TOML: Expected ']' at the end of a table declaration"),
        ('hazard = "cover"\nincidents = 1\n', 'hazard = """', 69, "not TOML: Unterminated string"),
        ("at_varies", "at_varys", 7, "unknown key `rain.at_varys`; did you mean `at_varies`?"),
        ('en = "Small"', 'eng = "Small"', 3, "unknown key `title.eng`; did you mean `en`?"),
        ('lasts = ["1min', 'untill = "1h"\nlasts = ["1min', 47, "unknown key `event[1].untill`"),
        ("[[recording]]", "[[recordings]]", 49, "unknown key `recordings`; did you mean `recording`?"),
        ('name = "small"\n', "", 1, "Object missing required field `name`"),
        ('id = "freeze"\n', "", 39, "event[1]: Object missing required field `id`"),
        ('"小", en = "Small"', '"小", en = 4', 3, "title.en: Expected `str`, got `int`"),
        ("peak_mm_h = 115", 'peak_mm_h = "much"', 21, "rain.burst[1].peak_mm_h: Expected `float`, got `str`"),
        ('["10min", 4.0]', '["10min", true]', 8, "rain.recorded[1][1]: Expected `float`, got `bool`"),
        ('window = ["6min", "14min"]', 'window = ["6min"]', 37, "event[0].window: Expected `array` of length 2"),
        ('at = "20min"', 'at = "soon"', 19, "rain.burst[1]: 'soon' is not a duration"),
        ('length = "1h"', 'length = "an hour"', 4, "'an hour' is not a duration"),
        ('lasts = ["1min", "2min"]', 'lasts = ["1min", "2 moons"]', 47, "event[1]: '2 moons' is not a duration"),
        ('half = "96s"', 'half = "0s"', 15, "rain.burst[0]: `half` of a burst of rain must be above 0s"),
        ('["10min", 4.0]', '["4min", 4.0]', 8, "rain: the steps of `recorded` rain must stand in order"),
        ("pump_from_m = 0.06", "pump_from_m = 0.6", 31, "underpass[0]: `pump_from_m` must lie below"),
        ('what = "cover_stolen"', 'what = "cover_stole"', 36, "did you mean `cover_stolen`"),
        ('["6min", "14min"]', '["14min", "6min"]', 37, "event[0]: `theft`: the span 14min to 6min ends before"),
        ('["1min", "2min"]\n\n[[rec', '["3min", "2min"]\n\n[[rec', 47, "the span 3min to 2min ends before it begins"),
        ('["6min", "14min"]', '["6min", "2h"]', 37, "event theft: window: it ends after the scenario's length of 1h"),
        ('id = "freeze"', 'id = "theft"', 40, "event theft: id: this id is declared twice"),
        ('  "level-s2",\n', '  "lamp-s2",\n', 42, "event freeze: among: `level_freezes` cannot happen to `lamp-s2`"),
        ('"underpass-bluestone"', '"underpass-blue"', 24, "did you mean `underpass-bluestone`"),
        ('device = "level-n1"', 'device = "level-n9"', 50, "recording level-n9: device: no such device is declared"),
        ('device = "manhole-n1"', 'device = "manhole-n"', 55, "label was-a-truck: device: no device `manhole-n`"),
        ('["1min", "2min"]\ntruth', '["1min", "2h"]\ntruth', 56, "label was-a-truck: window: it must end"),
        ('["1min", "2min"]\ntruth', '["1min", "then"]\ntruth', 56, "label was-a-truck: window: 'then' is not"),
        ('"misfire:truck"', '"truck"', 57, "label was-a-truck: truth: `truck` says nothing; write `real`"),
        ('"misfire:truck"\nhazard = "cover"', '"real"\nhazard = "lid"', 58, "label was-a-truck: hazard: no such"),
        ("deeper_than_m = 0.25", "deeper_than_m = 0.05", 66, "hazard.flood.level[1].deeper_than_m: each level"),
        ('hazard = "cover"\ninc', 'hazard = "covers"\ninc', 69, "truth covers: hazard: no such hazard is known"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_its_file_line_and_reason(
    tmp_path: Path, written: str, instead: str, line: int, says: str
) -> None:
    assert SCENARIO.count(written) == 1
    message = refusal(SCENARIO.replace(written, instead), tmp_path)
    assert message.startswith(f"small.toml:{line}: ")
    assert says in message


def test_a_scenario_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"scenario hurricane: none of that name is shipped; there are .*storm"):
        load_scenario("hurricane")
    with pytest.raises(Refused, match=r"nowhere.toml: no such file"):
        load_scenario(str(tmp_path / "nowhere.toml"))


def test_a_swarm_raises_lids_at_its_rate_and_at_any_phase() -> None:
    city = swarm.swarm(devices=100, buses=4, gateways=2)
    scenario = decode(swarm.scenario_text(per_minute=30, length_s=700, lasts_s=60), Scenario, "swarm")
    check(scenario, city, "swarm")
    drawn = events(scenario, city, 1, START)
    assert len(drawn) == 345
    phases = sorted(event.at % NANOSECONDS / NANOSECONDS for event in drawn)
    assert phases[0] < 0.05 < 0.95 < phases[-1]
    for name in {event.target for event in drawn}:
        mine = [event for event in drawn if event.target == name]
        for earlier, later in pairwise(mine):
            assert earlier.until is not None
            assert later.at > earlier.until + seconds("60s") * NANOSECONDS


def test_a_swarm_that_does_not_fit_its_buses_is_refused() -> None:
    with pytest.raises(ValueError, match="600 devices do not fit on 2 buses"):
        swarm.swarm(devices=600, buses=2)


ROW = r"^\| `(\w+)` \| ([^|]+) \| ((?:incident|benign|nuisance|fault)[^|]*) \| ([^|]*) \| .+ \|$"
WORDS = {
    ("manhole_cover", "manhole_monitor"): "lids",
    ("level_sensor", "rain_gauge", "manhole_monitor", "lamp_controller", "bus"): "polled, bus",
    ("manhole_cover", "camera"): "told",
    ("level_sensor", "rain_gauge", "manhole_monitor", "lamp_controller", "manhole_cover", "camera"): "any device",
}


def test_the_documents_table_tells_every_kind_of_happening_as_it_is() -> None:
    written = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text("utf-8")
    rows = re.findall(ROW, written, re.MULTILINE)
    told = {}
    for what, kind in KINDS.items():
        on = WORDS.get(kind.on, ", ".join(kind.on))
        low, high = (f"{edge:g}" for edge in kind.size)
        size = f"{low if low == high else f'{low} to {high}'} {kind.unit}" if kind.unit else ""
        told[what] = (on, f"{kind.role} `{kind.hazard}`" if kind.hazard else kind.role, size)
    assert {what: (on, truth, size.strip()) for what, on, truth, size in rows} == told
    assert len(rows) == len(KINDS)
