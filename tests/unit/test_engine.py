import numpy as np
import pytest

from rules.alert import Phase, Transition, alert_id
from rules.declared import Refused
from rules.engine import Engine, OtherState
from rules.rule import Rule, load_rules
from rules.samples import POINT, QUALITY, TIME, VALUE, Block, Point, PointTable, Quality
from rules.tile import NEVER
from tests.rule_text import rule

S = 1_000_000_000
START = 1_767_225_600 * S
GAUGE = Point("gauge", "gauge", "level", "m", 10.0)
LID = Point("lid", "lid", "tilt", "deg", 600.0, reports_on_change=True)

HIGH = rule("""
    [[level]]
    name = "high"
    severity = "II"
    on_delay = "30s"
    when = { column = "level", above = 1.0, clear = 0.5 }""")
OPEN = rule("""
    id = "test.open"
    kind = "lid"
    [[level]]
    name = "open"
    severity = "II"
    on_delay = "60s"
    when = { column = "tilt", above = 10.0, clear = 5.0 }""")
DOUBTED = rule("""
    id = "test.doubted"
    doubt = { column = "unchanged(level)", above = 60.0 }
    [[level]]
    name = "high"
    severity = "II"
    on_delay = "30s"
    when = { column = "level", above = 1.0, clear = 0.5 }""")
SILENT = rule("""
    id = "test.silent"
    level = [{ name = "silent", severity = "IV", when = { column = "silence", above = 3.0 } }]""")


def engine(*rules: Rule, points: tuple[Point, ...] = (GAUGE, LID)) -> Engine:
    return Engine(PointTable("gw", points), rules)


def samples(*told: tuple[float, float], point: int = 0, quality: int = 0) -> Block:
    """A block of one point from (seconds, value)."""
    return Block(
        np.full(len(told), point, POINT),
        np.array([START + round(at_s * S) for at_s, _ in told], TIME),
        np.array([value for _, value in told], VALUE),
        np.full(len(told), quality, QUALITY),
    )


def steps(told: list[Transition]) -> list[tuple[float, Phase]]:
    return [((step.decided_at - START) / S, step.phase) for step in told]


def test_an_alert_says_why_and_on_what_evidence() -> None:
    pending, raised, cleared = engine(HIGH).evaluate(samples((0, 0.0), (10, 1.5), (20, 1.6), (40, 1.7), (50, 0.5)))
    assert (pending.phase, raised.phase, cleared.phase) == (Phase.PENDING, Phase.RAISED, Phase.CLEARED)
    assert [step.revision for step in (pending, raised, cleared)] == [1, 2, 3]
    assert {step.alert for step in (pending, raised, cleared)} == {alert_id("gw", "test.rule", "gauge", START + 10 * S)}
    assert (raised.since, raised.decided_at) == (START + 10 * S, START + 40 * S)
    assert (raised.reason.code, raised.reason.column) == ("above", "level")
    assert raised.reason.numbers == {"value": 1.7, "limit": 1.0, "for_s": 30.0}
    assert raised.evidence == {"level": 1.7}
    assert cleared.reason.numbers == {"value": 0.5, "limit": 0.5, "for_s": 0.0}


def test_a_near_miss_says_how_near() -> None:
    _, lapsed = engine(HIGH).evaluate(samples((0, 1.2), (10, 1.9), (20, 0.1)))
    assert lapsed.phase is Phase.LAPSED
    assert lapsed.level == "high"
    assert lapsed.reason.numbers == {
        "value": 0.1, "limit": 1.0, "lasted_s": 20.0, "on_delay_s": 30.0, "extreme": 1.9, "for_s": 20.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "quality"),
    [(9.0, Quality.BAD_RANGE), (9.0, Quality.BAD_STUCK), (float("nan"), Quality.GOOD), (float("inf"), Quality.GOOD)],
)
def test_a_bad_sample_neither_confirms_nor_clears(value: float, quality: Quality) -> None:
    judge = engine(HIGH)
    assert steps(judge.evaluate(samples((0, 1.5)))) == [(0, Phase.PENDING)]
    assert judge.evaluate(samples((40, value), quality=quality)) == []
    assert steps(judge.evaluate(samples((50, 1.5)))) == [(50, Phase.RAISED)]


def test_doubt_does_not_clear_what_stands() -> None:
    judge = engine(DOUBTED)
    flood = samples((0, 1.4), (30, 1.5), *((at, 1.6) for at in range(40, 3600, 10)))
    assert steps(judge.evaluate(flood)) == [(0, Phase.PENDING), (30, Phase.RAISED)]
    assert steps(judge.evaluate(samples((3600, 0.2)))) == [(3600, Phase.CLEARED)]


def test_doubt_does_not_raise_and_what_is_pending_does_not_ripen() -> None:
    low = rule("""
        id = "test.low"
        doubt = { column = "unchanged(level)", above = 20.0 }
        level = [{ name = "low", severity = "II", on_delay = "30s", when = { column = "level", below = 1.0 } }]""")
    judge = engine(low)
    assert steps(judge.evaluate(samples(*((at, 0.9) for at in range(0, 600, 10))))) == [(0, Phase.PENDING)]
    assert judge.advance(START + 3600 * S) == []
    assert steps(judge.evaluate(samples((600, 1.2)))) == [(600, Phase.LAPSED)]


def test_what_can_be_doubted_is_not_confirmed_by_time_alone() -> None:
    doubted = rule("""
        id = "test.open"
        kind = "lid"
        doubt = { column = "tilt", above = 80.0 }
        level = [{ name = "open", severity = "II", on_delay = "60s", when = { column = "tilt", above = 10.0 } }]""")
    judge = engine(doubted)
    assert steps(judge.evaluate(samples((0, 72.0), (10, 90.0), point=1))) == [(0, Phase.PENDING)]
    assert judge.advance(START + 3600 * S) == []
    assert steps(judge.evaluate(samples((3600, 72.0), point=1))) == [(3600, Phase.RAISED)]


def test_a_doubt_that_is_not_known_is_none() -> None:
    judge = engine(
        rule("""
        doubt = { column = "flow", above = 1.0 }
        level = [{ name = "high", severity = "II", when = { column = "level", above = 1.0 } }]""")
    )
    assert steps(judge.evaluate(samples((0, 1.5)))) == [(0, Phase.RAISED)]


def test_silence_is_not_doubted() -> None:
    silent = 'level = [{ name = "silent", severity = "IV", when = { column = "silence", above = 3.0 } }]'
    for doubt in ('{ column = "level", above = 1.0 }', '{ column = "silence", above = 1.0 }'):
        with pytest.raises(Refused, match="`silence` goes in one level"):
            rule(f"doubt = {doubt}\n{silent}")
    with pytest.raises(Refused, match="`silence` goes in one level"):
        rule("""
            doubt = { column = "silence", above = 1.0 }
            level = [{ name = "high", severity = "II", when = { column = "level", above = 1.0 } }]""")


def test_uncertain_is_judged() -> None:
    assert engine(HIGH).evaluate(samples((0, 1.5), quality=Quality.UNCERTAIN))


def test_what_comes_late_or_twice_is_counted_and_not_judged() -> None:
    judge = engine(HIGH)
    judge.evaluate(samples((100, 0.0)))
    assert judge.evaluate(samples((90, 9.0), (100, 9.0))) == []
    assert judge.late == 2
    twice = samples((110, 0.0), (110, 9.0))
    assert judge.evaluate(twice) == []
    assert judge.late == 3


def test_a_wrong_clock_never_moves_a_clock() -> None:
    judge = engine(HIGH, SILENT)
    assert judge.evaluate(samples((10**7, 9.0), quality=Quality.BAD_CLOCK)) == []
    assert steps(judge.evaluate(samples((0, 1.5), (30, 1.5)))) == [(0, Phase.PENDING), (30, Phase.RAISED)]
    assert judge.late == 0


def test_one_spike_of_a_polled_point_is_not_confirmed_by_time() -> None:
    judge = engine(HIGH)
    judge.evaluate(samples((0, 1.5)))
    assert judge.advance(START + 3600 * S) == []


def test_the_last_word_of_a_point_that_reports_on_change_counts_on() -> None:
    judge = engine(OPEN)
    assert steps(judge.evaluate(samples((0, 72.0), point=1))) == [(0, Phase.PENDING)]
    assert judge.advance(START + 60 * S) == []  # a sample stamped with this very instant may still come
    (raised,) = judge.advance(START + 61 * S)
    assert steps([raised]) == [(60, Phase.RAISED)]
    assert raised.evidence == {"tilt": 72.0}


def test_its_deadline_passes_before_its_next_sample_too() -> None:
    told = engine(OPEN).evaluate(samples((0, 72.0), (90, 0.0), point=1))
    assert steps(told) == [(0, Phase.PENDING), (60, Phase.RAISED), (90, Phase.CLEARED)]


def test_a_truck_is_a_near_miss() -> None:
    told = engine(OPEN).evaluate(samples((0, 18.0), (20, 0.6), point=1))
    assert steps(told) == [(0, Phase.PENDING), (20, Phase.LAPSED)]


@pytest.mark.parametrize(
    "tilts",
    [
        ((0, 0.4), (100, 13.0), (120, 9.95)),  # a truck, whose last word is just below the limit
        ((0, 6.0), (100, 11.0), (120, 6.0)),  # a settled frame and one spike
    ],
)
def test_what_is_only_pending_is_not_held_by_clear(tilts: tuple[tuple[float, float], ...]) -> None:
    judge = engine(OPEN)
    told = judge.evaluate(samples(*tilts, point=1)) + judge.advance(START + 3600 * S)
    assert steps(told) == [(100, Phase.PENDING), (120, Phase.LAPSED)]
    assert told[-1].reason.numbers["limit"] == 10.0


def test_what_is_raised_is_held_until_clear() -> None:
    told = engine(OPEN).evaluate(samples((0, 72.0), (90, 9.0), (200, 5.1), (300, 5.0), (400, 9.0), point=1))
    assert steps(told) == [(0, Phase.PENDING), (60, Phase.RAISED), (300, Phase.CLEARED)]
    told = engine(HIGH).evaluate(samples((0, 1.5), (30, 1.1), (40, 0.9), (50, 0.6), (60, 0.5), (70, 0.9)))
    assert steps(told) == [(0, Phase.PENDING), (30, Phase.RAISED), (60, Phase.CLEARED)]


def test_what_is_raised_is_held_across_a_restart() -> None:
    judge, again = engine(HIGH), engine(HIGH)
    judge.evaluate(samples((0, 1.5), (30, 1.1), (40, 0.9)))
    again.restore(judge.save())
    assert steps(again.evaluate(samples((50, 0.6), (60, 0.4)))) == [(60, Phase.CLEARED)]


def test_each_level_is_held_from_its_own_rise() -> None:
    ladder = rule("""
        [[level]]
        name = "low"
        severity = "III"
        when = { column = "level", above = 1.0, clear = 0.5 }
        [[level]]
        name = "high"
        severity = "II"
        on_delay = "30s"
        when = { column = "level", above = 2.0, clear = 1.0 }""")
    told = engine(ladder).evaluate(samples((0, 2.5), (10, 1.9), (60, 1.9), (70, 0.9), (80, 0.5)))
    assert steps(told) == [(0, Phase.RAISED), (80, Phase.CLEARED)]
    assert {step.level for step in told} == {"low"}


FLOWING = (GAUGE, Point("gauge", "gauge", "flow", "1", 10.0))


def test_a_spike_from_before_it_was_raised_holds_nothing() -> None:
    judge = engine(
        rule("""
        [[level]]
        name = "either"
        severity = "II"
        on_delay = "30s"
        when = { any = [{ column = "level", above = 10.0, clear = 5.0 }, { column = "flow", above = 1.0 }] }"""),
        points=FLOWING,
    )
    judge.evaluate(samples((-10, 0.0), point=1))
    assert steps(judge.evaluate(samples((0, 11.0), (10, 6.0)))) == [(0, Phase.PENDING), (10, Phase.LAPSED)]
    assert steps(judge.evaluate(samples((20, 2.0), (50, 2.0), (60, 0.0), point=1))) == [
        (20, Phase.PENDING), (50, Phase.RAISED), (60, Phase.CLEARED)
    ]  # fmt: skip


def test_hysteresis_under_not_does_not_clear_what_was_just_raised() -> None:
    judge = engine(
        rule("""
        [[level]]
        name = "shut"
        severity = "II"
        when = { not = { column = "level", above = 10.0, clear = 5.0 } }""")
    )
    told = judge.evaluate(samples((0, 11.0), (10, 6.0), (20, 6.0), (30, 9.0), (40, 11.0)))
    assert steps(told) == [(10, Phase.RAISED), (40, Phase.CLEARED)]


def test_silence_is_stamped_with_when_it_was_due() -> None:
    judge = engine(SILENT)
    judge.evaluate(samples((0, 0.0)))
    assert judge.advance(START + 30 * S) == []
    (raised,) = judge.advance(START + 100 * S)
    assert steps([raised]) == [(30, Phase.RAISED)]
    assert (raised.reason.code, raised.reason.numbers) == ("silent", {"value": 3.0, "limit": 3.0, "for_s": 30.0})
    assert judge.advance(START + 200 * S) == []
    assert steps(judge.evaluate(samples((210, 0.0)))) == [(210, Phase.CLEARED)]


def test_a_device_never_heard_counts_from_the_first_watermark() -> None:
    judge = engine(SILENT)
    assert judge.advance(START) == []
    assert steps(judge.advance(START + 31 * S)) == [(30, Phase.RAISED)]


@pytest.mark.parametrize("quality", [Quality.BAD_COMMS, Quality.BAD_STALE])
def test_what_the_driver_says_of_a_device_is_not_the_device(quality: Quality) -> None:
    judge = engine(SILENT)
    judge.evaluate(samples((0, 0.0)))
    judge.evaluate(samples((20, 0.0), quality=quality))
    assert steps(judge.advance(START + 31 * S)) == [(30, Phase.RAISED)]


def test_what_reports_on_change_has_a_watermark_of_its_own() -> None:
    lid_silent = rule("""
        id = "test.lid.silent"
        kind = "lid"
        level = [{ name = "silent", severity = "IV", when = { column = "silence", above = 3.0 } }]""")
    judge = engine(OPEN, SILENT, lid_silent)
    judge.evaluate(samples((0, 0.0)))
    assert steps(judge.evaluate(samples((10, 72.0), point=1))) == [(10, Phase.PENDING)]
    (raised,) = judge.advance(START + 3600 * S, START + 20 * S)
    assert (raised.device, raised.phase) == ("gauge", Phase.RAISED)
    assert steps(judge.evaluate(samples((35, 0.4), point=1))) == [(35, Phase.LAPSED)]
    (silent,) = judge.advance(START + 3600 * S)
    assert (silent.device, silent.decided_at) == ("lid", START + 1835 * S)


def test_no_promise_begins_no_count_of_silence() -> None:
    judge = engine(
        rule("""
        kind = "lid"
        level = [{ name = "silent", severity = "IV", when = { column = "silence", above = 3.0 } }]""")
    )
    assert judge.advance(START, NEVER) == []
    assert judge.advance(START + 7200 * S) == []
    assert steps(judge.advance(START + 9001 * S)) == [(9000, Phase.RAISED)]


def test_after_a_broken_promise_time_still_runs_forward() -> None:
    judge = engine(OPEN)
    judge.evaluate(samples((10, 72.0), point=1))
    (raised,) = judge.advance(START + 80 * S)
    (cleared,) = judge.evaluate(samples((35, 0.4), point=1))
    assert (raised.phase, cleared.phase) == (Phase.RAISED, Phase.CLEARED)
    assert cleared.decided_at == raised.decided_at + 1 == START + 70 * S + 1
    again = judge.evaluate(samples((100, 72.0), point=1)) + judge.advance(START + 161 * S)
    assert steps(again) == [(100, Phase.PENDING), (160, Phase.RAISED)]


def test_a_restart_is_not_the_devices_silence() -> None:
    judge = engine(SILENT)
    judge.evaluate(samples((0, 0.0)))
    again = engine(SILENT)
    again.restore(judge.save())
    assert again.advance(START + 3600 * S) == []
    assert steps(again.advance(START + 3631 * S)) == [(3630, Phase.RAISED)]


def test_a_restart_goes_on_where_it_was() -> None:
    judge = engine(HIGH)
    judge.evaluate(samples((0, 1.5)))
    again = engine(HIGH)
    again.restore(judge.save())
    (raised,) = again.evaluate(samples((40, 1.5)))
    assert (raised.phase, raised.revision, raised.since) == (Phase.RAISED, 2, START)


@pytest.mark.parametrize("state", [b"", b"garbage", b"\xc1"])
def test_garbage_is_no_state(state: bytes) -> None:
    with pytest.raises(OtherState):
        engine(HIGH).restore(state)


def test_a_state_of_other_points_or_rules_is_refused_and_nothing_has_changed() -> None:
    judge = engine(HIGH)
    fresh = judge.save()
    for other in (engine(OPEN), engine(HIGH, points=(GAUGE,))):
        with pytest.raises(OtherState):
            judge.restore(other.save())
    assert judge.save() == fresh


def test_a_metric_that_a_device_has_not_leaves_its_rule_unknown() -> None:
    judge = engine(rule('level = [{ name = "x", severity = "IV", when = { column = "flow", below = 1.0 } }]'))
    assert judge.evaluate(samples((0, 0.0), (10, 0.0))) == []


def test_an_empty_block_says_nothing() -> None:
    assert engine(HIGH).evaluate(Block.empty()) == []


@pytest.mark.parametrize(
    ("points", "why"),
    [((GAUGE, GAUGE), "two points"), ((GAUGE, Point("gauge", "lid", "tilt", "deg", 1.0)), "of kind `lid`")],
)
def test_a_table_that_contradicts_itself_is_refused(points: tuple[Point, ...], why: str) -> None:
    with pytest.raises(Refused, match=why):
        engine(HIGH, points=points)


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ('{ column = "slope(level)", above = 1.0 }', "no detector `slope`"),
        (
            '{ all = [{ column = "silence", above = 1.0 }, { column = "level", above = 1.0 }] }',
            "`silence` goes in one level",
        ),
        ('{ column = "silence", below = 1.0 }', "`silence` goes in one level"),
        ('{ column = "level", abov = 1.0 }', "did you mean `above`"),
    ],
)
def test_a_rule_that_cannot_be_read_is_named(when: str, why: str) -> None:
    pack = f'[[rule]]\nid = "bad.rule"\nkind = "gauge"\nhazard = "flood"\ncase = "city"\nsource = "-"\n{WORDS}'
    pack += f'[[rule.level]]\nname = "x"\nseverity = "IV"\nwhen = {when}\n'
    with pytest.raises(Refused) as refused:
        load_rules(pack, "pack.toml")
    line = 1 if "silence" in why else 16
    assert refused.value.place.startswith(f"pack.toml:{line}: rule bad.rule")
    assert why in refused.value.why


WORDS = """
title = { zh = "-", en = "-" }
confirm = { policy = "auto" }
runbook = { cause = { zh = "-", en = "-" }, consequence = { zh = "-", en = "-" }, response = { zh = "-", en = "-" }, \
function = "f", limit = "1h", source = "-" }
fires_when = [{ say = "-", every = "1s", points = { level = [[1.0, "1s"]] } }]
quiet_when = [{ say = "-", every = "1s", points = { level = [[0.0, "1s"]] } }]
"""
