"""Whatever arrives, and however it was batched, the engine tells what a plain scalar reference tells."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.alert import Transition
from rules.engine import Engine
from rules.samples import POINT, QUALITY, TIME, VALUE, Block, Point, PointTable, Quality
from tests.property.reference import Reference, Sample, Told
from tests.rule_text import rule

SECOND = 1_000_000_000
START = 1_767_225_600 * SECOND

POINTS = tuple(
    Point(device, kind, metric, "1", interval_s, on_change)
    for device, kind, metrics, interval_s, on_change in [
        ("gauge-1", "gauge", ("level", "flow"), 10.0, False),
        ("gauge-2", "gauge", ("level", "flow"), 10.0, False),
        ("lid-1", "lid", ("tilt", "water"), 60.0, True),
        ("lid-2", "lid", ("tilt", "water"), 60.0, True),
    ]
    for metric in metrics
)
TABLE = PointTable("gw", POINTS)

RULES = (
    rule("""
        id = "ladder"
        [[level]]
        name = "low"
        severity = "III"
        on_delay = "20s"
        when = { column = "level", above = 1.0, clear = 0.5 }
        [[level]]
        name = "mid"
        severity = "II"
        on_delay = "10s"
        off_delay = "15s"
        when = { any = [
          { column = "level", above = 2.0 },
          { all = [{ column = "level", above = 1.0 }, { column = "rate(level, 40s)", above = 90.0, clear = 45.0 }] },
        ] }
        [[level]]
        name = "high"
        severity = "I"
        when = { column = "level", above = 3.0, clear = 2.0 }"""),
    rule("""
        id = "both"
        [[level]]
        name = "on"
        severity = "IV"
        on_delay = "10s"
        off_delay = "10s"
        when = { all = [
          { column = "flow", below = 1.0, clear = 2.0 },
          { column = "level", above = 1.0 },
          { not = { column = "unchanged(level)", above = 30.0 } },
        ] }"""),
    rule("""
        id = "steady"
        level = [{ name = "on", severity = "IV", when = { column = "unchanged(flow)", above = 25.0 } }]"""),
    rule("""
        id = "strangers"
        [[level]]
        name = "flows"
        severity = "III"
        on_delay = "15s"
        off_delay = "5s"
        when = { all = [
          { column = "flow", above = 1.0, clear = 0.5 },
          { not = { column = "unchanged(flow)", above = 12.0 } },
        ] }
        [[level]]
        name = "stands"
        severity = "II"
        on_delay = "25s"
        when = { column = "level", above = 1.0 }"""),
    rule("""
        id = "doubted"
        doubt = { any = [{ column = "unchanged(level)", above = 25.0 }, { column = "flow", above = 2.0, clear = 1.0 }] }
        [[level]]
        name = "low"
        severity = "III"
        on_delay = "10s"
        off_delay = "10s"
        when = { column = "level", above = 1.0, clear = 0.5 }
        [[level]]
        name = "high"
        severity = "II"
        when = { column = "level", above = 2.0 }"""),
    rule("""
        id = "knotted"
        [[level]]
        name = "some"
        severity = "III"
        on_delay = "10s"
        off_delay = "10s"
        when = { any = [
          { column = "level", above = 2.0, clear = 0.5 },
          { all = [
            { column = "flow", above = 1.0, clear = 0.5 },
            { not = { column = "level", above = 1.5, clear = 0.5 } },
          ] },
        ] }
        [[level]]
        name = "all"
        severity = "II"
        on_delay = "20s"
        when = { all = [
          { column = "level", above = 1.0, clear = 0.5 },
          { any = [
            { column = "flow", above = 1.5, clear = 0.5 },
            { column = "rate(level, 40s)", above = 90.0, clear = 0.0 },
          ] },
        ] }"""),
    rule("""
        id = "quiet"
        level = [{ name = "on", severity = "IV", when = { column = "silence", above = 2.5 } }]"""),
    rule("""
        id = "open"
        kind = "lid"
        [[level]]
        name = "ajar"
        severity = "III"
        on_delay = "20s"
        off_delay = "10s"
        when = { column = "tilt", above = 1.0, clear = 0.5 }
        [[level]]
        name = "gone"
        severity = "II"
        on_delay = "30s"
        when = { any = [{ column = "tilt", equals = 3.0 }, { column = "water", above = 2.0, clear = 1.0 }] }"""),
    rule("""
        id = "tangled"
        kind = "lid"
        [[level]]
        name = "on"
        severity = "IV"
        on_delay = "20s"
        off_delay = "5s"
        when = { any = [
          { column = "tilt", above = 2.0, clear = 0.5 },
          { not = { column = "water", above = 1.0, clear = 0.5 } },
        ] }"""),
    rule("""
        id = "braced"
        kind = "lid"
        doubt = { column = "water", above = 1.0 }
        level = [{ name = "on", severity = "IV", on_delay = "20s", when = { column = "tilt", above = 1.0 } }]"""),
    rule("""
        id = "lid"
        kind = "lid"
        level = [{ name = "on", severity = "IV", when = { column = "silence", above = 1.0 } }]"""),
)

Reading = list[Sample]
# Values stand on the limits, beside them, and often between a limit and its clear level. Most stamps go forward, some
# repeat, go back, or lie far in the future.
BETWEEN = [0.6, 0.7, 0.8, 0.9, 1.2, 1.7, 1.9, 2.2, 2.7]
VALUES = [*BETWEEN, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, float("nan"), float("inf"), -1e300]
QUALITIES = [0] * 12 + [int(quality) for quality in Quality if quality != Quality.BAD_CLOCK]
STEPS = [1, 5, 10, 10, 10, 10, 15, 20, 30, 60, 300, 0, -5, -40]


def history_of(seed: int, length: int) -> list[Reading]:
    """A dirty history: readings in order of arrival, where each device keeps a clock of its own."""
    draw = Random(seed)
    clocks = dict.fromkeys(sorted({point.device for point in POINTS}), START)
    history: list[Reading] = []
    for _ in range(length):
        device = draw.choice(list(clocks))
        own = [index for index, point in enumerate(POINTS) if point.device == device]
        chosen = draw.choices(own, k=draw.randint(1, 3))  # with repetition: duplicates inside a reading
        at = clocks[device] + draw.choice(STEPS) * SECOND
        if draw.random() < 0.05:
            at += 10**6 * SECOND
            reading = [(point, at, draw.choice(VALUES), int(Quality.BAD_CLOCK)) for point in chosen]
        else:
            clocks[device] = max(clocks[device], at)
            reading = [(point, at, draw.choice(VALUES), draw.choice(QUALITIES)) for point in chosen]
        # A reading is one device at one instant: what follows with the same stamp belongs to it.
        if history and POINTS[history[-1][0][0]].device == device and history[-1][0][1] == at:
            history[-1] += reading
        else:
            history.append(reading)
    return history


# One seed makes one history: hypothesis shrinks its length, and a hundred thousand draws a test would be slow.
histories = st.builds(history_of, st.integers(0, 2**32), st.integers(1, 80))


def block(readings: Iterable[Reading]) -> Block:
    samples = [sample for reading in readings for sample in reading]
    return Block(
        np.array([point for point, *_ in samples], POINT),
        np.array([at for _, at, *_ in samples], TIME),
        np.array([value for *_, value, _ in samples], VALUE),
        np.array([quality for *_, quality in samples], QUALITY),
    )


def plain(told: Sequence[Transition]) -> list[Told]:
    return [(t.decided_at, t.rule, t.device, t.phase.value, t.level, t.since, t.revision) for t in told]


def by_alert(told: Sequence[Transition]) -> list[Transition]:
    """In an order that does not depend on which device was told of first."""
    return sorted(told, key=lambda t: (t.device, t.rule, t.decided_at, t.since, t.revision))


def horizon(history: list[Reading]) -> int:
    return max(at for reading in history for _, at, _, _ in reading) + 1 if history else START


def promised(history: list[Reading]) -> list[int]:
    """The latest watermark that may stand before each reading: nothing older than it is still to come."""
    marks, mark = [], START + 10**7 * SECOND
    for reading in reversed(history):
        mark = min([mark, *(at for _, at, _, quality in reading if quality != Quality.BAD_CLOCK)])
        marks.append(mark)
    return marks[::-1]


@given(histories)
@settings(max_examples=300)
def test_it_tells_what_the_reference_tells(history: list[Reading]) -> None:
    reference = Reference(POINTS, RULES)
    engine = Engine(TABLE, RULES)
    reference.advance(START)
    told = engine.advance(START)
    for reading in history:
        reference.reading(reading)
    told += engine.evaluate(block(history))
    end = horizon(history) + 500 * SECOND
    reference.advance(end)
    told += engine.advance(end)
    assert sorted(plain(told)) == sorted(reference.told)
    assert engine.late == reference.late


@given(histories, st.integers(0, 2**32))
@settings(max_examples=200)
def test_batching_ticks_and_restarts_change_nothing(history: list[Reading], seed: int) -> None:
    whole = Engine(TABLE, RULES)
    end = horizon(history) + 500 * SECOND
    expected = whole.advance(START) + whole.evaluate(block(history)) + whole.advance(end)

    pieces = Engine(TABLE, RULES)
    told = pieces.advance(START)
    marks = promised(history)
    draw, done = Random(seed), 0
    while done < len(history):
        what = draw.choice(["nothing", "tick", "restart"])
        if what == "tick":
            told += pieces.advance(max(START, draw.randint(marks[done] - 100 * SECOND, marks[done])))
        elif what == "restart":
            saved = pieces.save()
            pieces = Engine(TABLE, RULES)
            pieces.restore(saved, listened=True)
        size = draw.randint(1, len(history) - done)
        told += pieces.evaluate(block(history[done : done + size]))
        done += size
    told += pieces.advance(end)

    assert by_alert(told) == by_alert(expected)
    assert pieces.save() == whole.save()


@given(histories)
@settings(max_examples=100)
def test_one_reading_at_a_time_is_the_whole_block(history: list[Reading]) -> None:
    whole, single = Engine(TABLE, RULES), Engine(TABLE, RULES)
    expected = whole.evaluate(block(history))
    told = [transition for reading in history for transition in single.evaluate(block([reading]))]
    assert by_alert(told) == by_alert(expected)
    assert single.save() == whole.save()


@given(histories)
@settings(max_examples=100)
def test_the_size_of_tiles_changes_nothing(history: list[Reading]) -> None:
    whole, small = Engine(TABLE, RULES), Engine(TABLE, RULES)
    expected = whole.evaluate(block(history))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rules.tile._ROOMY", 1)
        patch.setattr("rules.engine._PART", 7)
        told = small.evaluate(block(history))
    assert by_alert(told) == by_alert(expected)
    assert small.save() == whole.save()


@given(histories)
@settings(max_examples=100)
def test_an_alert_is_told_as_one_story(history: list[Reading]) -> None:
    """Revisions count up from 1, times never step back, it begins once and ends at most once."""
    engine = Engine(TABLE, RULES)
    told = engine.evaluate(block(history)) + engine.advance(horizon(history) + 500 * SECOND)
    for _, steps in groupby(sorted(told, key=lambda t: (t.alert, t.revision)), key=lambda t: t.alert):
        story = list(steps)
        phases = [step.phase.value for step in story]
        assert [step.revision for step in story] == list(range(1, len(story) + 1))
        assert [step.decided_at for step in story] == sorted(step.decided_at for step in story)
        assert phases[0] in {"pending", "raised"}
        assert not {"lapsed", "cleared"} & set(phases[:-1])
        assert phases.count("raised") <= 1
        assert all(step.since == story[0].since <= step.decided_at for step in story)
