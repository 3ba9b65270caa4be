"""Every shipped rule keeps its own word. Adding a file to the catalog adds its tests."""

import pytest

from rules.alert import Severity
from rules.catalog import catalog, packs
from rules.check import Finding, check_examples, levels_raised, replay
from rules.district import Text
from rules.rule import Example, Rule
from tests.rule_text import rule

RULES = [pytest.param(file, rule, id=rule.id) for file, pack in packs().items() for rule in pack]
FIRING = [pytest.param(r, e, id=f"{r.id}: {e.say}") for r in catalog() for e in r.fires_when]
QUIET = [pytest.param(r, e, id=f"{r.id}: {e.say}") for r in catalog() for e in r.quiet_when]
METRICS = {
    "level_sensor": {"distance", "level"},
    "rain_gauge": {"rain_total"},
    "manhole_monitor": {"tilt", "tilt_change", "level", "ch4", "h2s", "poll_counter"},
    "lamp_controller": {
        "voltage", "current", "power", "power_factor", "dim_level", "lamp_fault", "power_ratio", "poll_counter"
    },
    "manhole_cover": {"angle_x", "angle_y", "angle_z", "tilt_change", "battery"},
    "camera": {"standing_water", "object_inside"},
}  # fmt: skip


@pytest.mark.parametrize(("fires", "example"), FIRING)
def test_it_fires_on_its_example(fires: Rule, example: Example) -> None:
    assert levels_raised(fires, replay(fires, example))[-1:] == [example.level]


@pytest.mark.parametrize(("quiet", "example"), QUIET)
def test_it_stays_quiet_on_its_example(quiet: Rule, example: Example) -> None:
    assert levels_raised(quiet, replay(quiet, example)) == []


@pytest.mark.parametrize(("file", "shipped"), RULES)
def test_it_is_complete(file: str, shipped: Rule) -> None:
    assert check_examples([shipped], file, METRICS) == []
    book = shipped.runbook
    for text in (shipped.title, book.cause, book.consequence, book.response):
        assert len(text.zh) >= 2
        assert len(text.en) >= 2
    assert min(len(text.zh) for text in (book.cause, book.consequence, book.response)) >= 12
    assert shipped.source
    assert book.source
    assert {example.level for example in shipped.fires_when} >= {level.name for level in shipped.level}


@pytest.mark.parametrize(("file", "shipped"), RULES)
def test_danger_to_life_never_waits_for_ever(file: str, shipped: Rule) -> None:
    for level in shipped.level:
        if level.severity in {Severity.I, Severity.II}:
            assert level.unconfirmed == "dispatch", f"{file}: {shipped.id}: {level.name}"
        if len(shipped.level) > 1:
            assert isinstance(level.title, Text)


def test_every_rule_has_an_id_of_its_own() -> None:
    ids = [shipped.id for shipped in catalog()]
    assert len(set(ids)) == len(ids)


def test_an_example_that_disagrees_is_named() -> None:
    wrong = rule("""
        fires_when = [{ say = "too low", every = "1s", points = { level = [[1.0, "5s"]] } }]
        quiet_when = [{ say = "too high", every = "1s", points = { level = [[9.0, "5s"]] } }]
        level = [{ name = "high", severity = "II", when = { column = "level", above = 2.0 } }]""")
    assert check_examples([wrong], "pack.toml") == [
        Finding("pack.toml", "test.rule", "too low", "it should fire and stayed quiet"),
        Finding("pack.toml", "test.rule", "too high", "it should stay quiet and raised `high`"),
    ]


def test_an_example_that_should_stand_and_was_cleared_is_named() -> None:
    points = "{ level = [[9.0, '5s'], [0.0, '5s']] }"
    wrong = rule(f"""
        fires_when = [{{ say = "gone", every = "1s", points = {points}, level = "high", stands = true }}]
        level = [{{ name = "high", severity = "II", when = {{ column = "level", above = 2.0 }} }}]""")
    (finding,) = check_examples([wrong], "pack.toml")
    assert finding.why == "it should still stand at the end and was cleared"


def test_a_metric_that_the_kind_has_not_is_named() -> None:
    strange = rule("""
        fires_when = [{ say = "-", every = "1s", points = { depth = [[9.0, "5s"]] } }]
        quiet_when = [{ say = "typo", every = "1s", points = { dept = [[9.0, "5s"]] } }]
        level = [{ name = "high", severity = "II", when = { column = "rate(depth, 4s)", above = 2.0 } }]""")
    findings = [str(finding) for finding in check_examples([strange], "pack.toml", {"gauge": {"level"}})]
    assert "pack.toml: rule test.rule: a gauge has no metric `depth`" in findings
    assert "pack.toml: rule test.rule: 'typo': the rule does not compare `dept`" in findings
