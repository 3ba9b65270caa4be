"""A scenario with a mistake in it is refused with its place and the cure."""

from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from firmware_sim import swarm
from firmware_sim.scenario import Scenario, check, events, load_scenario
from rules.declared import Refused, decode, seconds
from tests.city import START, district
from wire.clock import NANOSECONDS

STORM = (resources.files("firmware_sim") / "scenarios" / "storm.toml").read_text(encoding="utf-8")


def refusal(old: str, new: str) -> str:
    assert old in STORM
    with pytest.raises(Refused) as refused:
        check(decode(STORM.replace(old, new, 1), Scenario, "storm.toml"), district(), "storm.toml")
    return str(refused.value)


def test_every_shipped_scenario_fits_the_shipped_district() -> None:
    for file in (resources.files("firmware_sim") / "scenarios").iterdir():
        scenario, place = load_scenario(file.name.removesuffix(".toml"))
        check(scenario, district(), place)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("peak_varies", "peak_varys", ["storm.toml", "rain.peak_varys", "did you mean `peak_varies`"]),
        ('at = "3.6min"', 'at = "soon"', ["storm.toml", "'soon' is not a duration", "rain.burst[0]"]),
        ('half = "96s"', 'half = "0s"', ["`half` of a burst", "rain.burst[0]"]),
        ('site = "underpass-bluestone"', 'site = "road-river"', ["underpass road-river", "kind `underpass`"]),
        ("pump_from_m = 0.06", "pump_from_m = 0.6", ["`pump_from_m` must lie below", "underpass[0]"]),
        ('what = "truck"', 'what = "lorry"', ["Invalid enum value 'lorry'", "event[1].what"]),
        ('window = ["6min", "14min"]', 'window = ["14min", "6min"]', ["`theft`", "ends before it begins"]),
        ('window = ["6min", "14min"]', 'window = ["6min", "2h"]', ["event theft", "after the scenario's length"]),
        ('"level-s1", "level-s2"', '"level-s1", "lamp-s2"', ["event freeze", "cannot happen to `lamp-s2`", "level-n1"]),
        ('id = "truck"', 'id = "theft"', ["event theft", "declared twice"]),
        ("[hazard.cover]", "[hazard.lid]", ["storm.toml", "hazard"]),
    ],
)
def test_a_mistake_is_refused_with_its_place(old: str, new: str, says: list[str]) -> None:
    message = refusal(old, new)
    for part in says:
        assert part in message


def test_a_scenario_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="scenario typhoon: none of that name is shipped; there are storm"):
        load_scenario("typhoon")
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
