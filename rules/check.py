"""Rules are held to their own word: each one's examples are replayed through the engine that judges the street."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rules.alert import Phase, Transition
from rules.declared import seconds
from rules.engine import Engine
from rules.rule import Example, Rule
from rules.samples import POINT, QUALITY, TIME, VALUE, Block, Point, PointTable
from rules.watch import metrics_of

START = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z; any instant would do
HEARTBEAT_S = 600.0  # of an example's device that reports on change


@dataclass(frozen=True, slots=True)
class Finding:
    """An example that disagrees with its rule, or a rule that cannot work: which file, rule and example, and why."""

    place: str
    rule: str
    example: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: rule {self.rule}: {f'{self.example!r}: ' if self.example else ''}{self.why}"


def check_examples(
    rules: Sequence[Rule], place: str, metrics: Mapping[str, Collection[str]] | None = None
) -> list[Finding]:
    """Replay every rule's examples. ``metrics`` names each kind's metrics where the caller knows them."""
    return [finding for rule in rules for finding in _findings(rule, place, metrics or {})]


def replay(rule: Rule, example: Example) -> list[Transition]:
    """What ``rule`` tells while the example is told."""
    table = PointTable("example", tuple(_points(rule.kind, example)))
    engine = Engine(table, [rule])
    told = engine.advance(START) + engine.evaluate(_history(example))
    return told + engine.advance(START + round(_length_s(example) * 1e9))


def levels_raised(rule: Rule, told: Sequence[Transition]) -> list[str]:
    """The levels that ``rule`` raised in a replay, mildest first."""
    raised = {step.level for step in told if step.phase in {Phase.RAISED, Phase.UPDATED}}
    return [level.name for level in rule.level if level.name in raised]


def _findings(rule: Rule, place: str, metrics: Mapping[str, Collection[str]]) -> Iterator[Finding]:
    compared = metrics_of(rule)
    for metric in compared:
        if metric not in metrics.get(rule.kind, compared):
            yield Finding(place, rule.id, "", f"a {rule.kind} has no metric `{metric}`")
    for example in (*rule.fires_when, *rule.quiet_when):
        strange = [metric for metric in example.points if compared and metric not in compared]
        if strange:
            yield Finding(place, rule.id, example.say, f"the rule does not compare `{strange[0]}`")
    for example in rule.fires_when:
        told = replay(rule, example)
        raised = levels_raised(rule, told)
        if not raised:
            yield Finding(place, rule.id, example.say, "it should fire and stayed quiet")
        elif example.level and raised[-1] != example.level:
            yield Finding(
                place, rule.id, example.say, f"it should rise to `{example.level}` and rose to `{raised[-1]}`"
            )
        elif example.stands and told[-1].phase is Phase.CLEARED:
            yield Finding(place, rule.id, example.say, "it should still stand at the end and was cleared")
    for example in rule.quiet_when:
        raised = levels_raised(rule, replay(rule, example))
        if raised:
            yield Finding(place, rule.id, example.say, f"it should stay quiet and raised `{raised[-1]}`")


def _points(kind: str, example: Example) -> Iterator[Point]:
    on_change = example.every == "change"
    for metric in example.points:
        yield Point("example", kind, metric, "1", HEARTBEAT_S if on_change else seconds(example.every), on_change)


def _length_s(example: Example) -> float:
    return max(sum(seconds(lasts) for _, lasts in steps) for steps in example.points.values())


def _history(example: Example) -> Block:
    """The example's samples, reading by reading."""
    told = [
        (at_s, point, value)
        for point, steps in enumerate(example.points.values())
        for at_s, value in _readings(steps, example.every)
        if not math.isnan(value)
    ]
    told.sort()
    return Block(
        np.array([point for _, point, _ in told], POINT),
        np.array([START + round(at_s * 1e9) for at_s, _, _ in told], TIME),
        np.array([value for _, _, value in told], VALUE),
        np.zeros(len(told), QUALITY),
    )


def _readings(steps: Sequence[tuple[float, str]], every: str) -> Iterator[tuple[float, float]]:
    """Each (seconds since the start, value) that one metric is read at."""
    ends = np.cumsum([seconds(lasts) for _, lasts in steps])
    values = [value for value, _ in steps]
    if every == "change":
        yield from zip([0.0, *ends[:-1].tolist()], values, strict=True)
        return
    for at_s in np.arange(0.0, ends[-1], seconds(every)).tolist():
        yield at_s, values[int(np.searchsorted(ends, at_s, side="right"))]
