"""A plain scalar engine to hold the columnar one against: one reading at a time, one device at a time, no arrays.

It is written from the contracts, not from the code: dictionaries and loops, and no function of the engine's own.
"""

import math
from dataclasses import dataclass, field

from rules.declared import seconds
from rules.rule import Condition, Level, Rule
from rules.samples import Point, Quality

Told = tuple[int, str, str, str, str, int, int]  # decided_at, rule, device, phase, level, since, revision
Sample = tuple[int, int, float, int]  # point, taken_at, value, quality


@dataclass
class Series:
    """One point's history, as far as it was judged."""

    newest: int | None = None
    known: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class LevelState:
    true: bool = False
    turned: int = 0
    up: bool = False
    met: dict[Condition, bool] = field(default_factory=dict)


@dataclass
class AlertState:
    since: int
    levels: list[LevelState]
    told: int = 0
    revision: int = 0


class Reference:
    def __init__(self, points: tuple[Point, ...], rules: tuple[Rule, ...]) -> None:
        self.points = points
        self.rules = rules
        self.series = {(point.device, point.metric): Series() for point in points}
        self.kind = {point.device: point.kind for point in points}
        self.on_change = {(point.device, point.metric): point.reports_on_change for point in points}
        self.interval = {device: min(p.interval_s for p in points if p.device == device) for device in self.kind}
        self.columns: dict[tuple[str, str], float] = {}
        self.doubts: dict[tuple[str, str], dict[Condition, bool]] = {}
        self.clock: dict[str, int] = {}
        self.heard: dict[str, int] = {}
        self.silent: dict[tuple[str, str], int] = {}
        self.alerts: dict[tuple[str, str], AlertState] = {}
        self.late = 0
        self.told: list[Told] = []

    # -- samples ---------------------------------------------------------------------------------------------------

    def reading(self, samples: list[Sample]) -> None:
        judged = []
        for point, at, value, quality in samples:
            if quality == Quality.BAD_CLOCK:
                continue
            of = self.points[point]
            series = self.series[of.device, of.metric]
            if series.newest is not None and at <= series.newest:
                self.late += 1
                continue
            series.newest = at
            judged.append((of, at, value, quality))
        if not judged:
            return
        device, at = judged[0][0].device, judged[0][1]
        if any(quality not in {Quality.BAD_COMMS, Quality.BAD_STALE} for *_, quality in judged):
            self.hear(device, at)
        clock = max(at, self.clock[device] + 1) if device in self.clock else at
        self.clock[device] = clock
        fresh = set()
        for of, taken_at, value, quality in judged:
            if quality < Quality.BAD_RANGE and math.isfinite(value):
                self.series[of.device, of.metric].known.append((taken_at, value))
                fresh.add(of.metric)
        for rule in self.rules:
            if rule.kind == self.kind[device] and rule.level[0].when.column != "silence":
                self.judge(rule, device, clock, fresh)

    def judge(self, rule: Rule, device: str, clock: int, fresh: set[str]) -> None:
        conditions = [level.when for level in rule.level] + ([rule.doubt] if rule.doubt else [])
        if not fresh & {metric(c.column) for condition in conditions for c in leaves(condition)}:
            return
        self.expire(rule, device, clock)
        for condition in conditions:
            for comparison in leaves(condition):
                if metric(comparison.column) in fresh:
                    self.columns[device, comparison.column] = self.column(device, comparison.column)
        doubted = False
        if rule.doubt is not None:
            met = self.doubts.setdefault((rule.id, device), {})
            self.compare(device, rule.doubt, met)
            doubted = self.truth(device, rule.doubt, met) is True
        alert = self.alerts.get((rule.id, device)) or AlertState(clock, [LevelState() for _ in rule.level])
        truths = []
        for state, level in zip(alert.levels, rule.level, strict=True):
            if not state.up:
                state.met.clear()  # nothing is remembered of a level that is not raised
            self.compare(device, level.when, state.met)
            own = fresh & {metric(c.column) for c in leaves(level.when)}
            truths.append(self.truth(device, level.when, state.met) if own and not doubted else None)
        if (rule.id, device) not in self.alerts and True not in truths:
            return
        self.alerts[rule.id, device] = alert
        highest = top(alert.levels, "true")
        for state, truth, level in zip(alert.levels, truths, rule.level, strict=True):
            if truth is None:
                continue
            if truth != state.true:
                state.true, state.turned = truth, clock
            if clock - state.turned >= delay(level, state.true):
                state.up = state.true
        self.tell(rule, device, clock, highest)

    def compare(self, device: str, condition: Condition, met: dict[Condition, bool]) -> None:
        """Bring ``met`` up to date: what stands in it holds until its clear level."""
        for comparison in leaves(condition):
            value = self.columns.get((device, comparison.column), math.nan)
            if math.isnan(value):
                continue
            if comparison.above is not None:
                clear = comparison.above if comparison.clear is None else comparison.clear
                met[comparison] = value > (clear if met.get(comparison) else comparison.above)
            elif comparison.below is not None:
                clear = comparison.below if comparison.clear is None else comparison.clear
                met[comparison] = value < (clear if met.get(comparison) else comparison.below)
            else:
                met[comparison] = value == comparison.equals

    def column(self, device: str, text: str) -> float:
        known = self.series[device, metric(text)].known
        at, value = known[-1]
        if text.startswith("unchanged"):
            changed_at = at
            for earlier_at, earlier_value in reversed(known):
                if earlier_value != value:
                    break
                changed_at = earlier_at
            return (at - changed_at) / 1e9
        if text.startswith("rate"):
            quarter = round(seconds(text.split(",")[1].strip(" )")) * 1e9 / 4)
            for anchor_at, anchor in known:
                if anchor_at // quarter == at // quarter - 4:
                    return (value - anchor) / ((at - anchor_at) / 3.6e12)
            return math.nan
        return value

    def truth(self, device: str, condition: Condition, met: dict[Condition, bool]) -> bool | None:
        if condition.column:
            unknown = math.isnan(self.columns.get((device, condition.column), math.nan))
            return None if unknown else met[condition]
        if condition.not_ is not None:
            inner = self.truth(device, condition.not_, met)
            return None if inner is None else not inner
        parts = [self.truth(device, part, met) for part in condition.all or condition.any]
        deciding = bool(condition.any)
        if deciding in parts:
            return deciding
        return None if None in parts else not deciding

    # -- time ------------------------------------------------------------------------------------------------------

    def advance(self, until: int) -> None:
        for device, kind in self.kind.items():
            heard = self.heard.setdefault(device, until)
            for rule in self.rules:
                if rule.kind != kind:
                    continue
                if rule.level[0].when.column == "silence":
                    self.quiet_until(rule, device, heard, until)
                else:
                    self.expire(rule, device, until)

    def hear(self, device: str, at: int) -> None:
        heard = self.heard.get(device)
        if heard is not None and at <= heard:
            return
        for rule in self.rules:
            if rule.kind != self.kind[device] or rule.level[0].when.column != "silence":
                continue
            if heard is not None:
                self.quiet_until(rule, device, heard, at)
            if (rule.id, device) in self.silent:
                since = self.silent.pop((rule.id, device))
                self.told.append((max(at, since), rule.id, device, "cleared", rule.level[0].name, since, 2))
        self.heard[device] = at

    def quiet_until(self, rule: Rule, device: str, heard: int, until: int) -> None:
        limit = rule.level[0].when.above
        assert limit is not None
        due = heard + round(limit * self.interval[device] * 1e9)
        if until > due and (rule.id, device) not in self.silent:
            self.silent[rule.id, device] = due
            self.told.append((due, rule.id, device, "raised", rule.level[0].name, due, 1))

    def expire(self, rule: Rule, device: str, before: int) -> None:
        while (alert := self.alerts.get((rule.id, device))) is not None:
            waiting = [
                (state.turned + delay(level, state.true), state)
                for state, level in zip(alert.levels, rule.level, strict=True)
                if state.true != state.up
                and rule.doubt is None
                and all(self.on_change[device, metric(c.column)] for c in leaves(level.when))
            ]
            due = min((at for at, _ in waiting), default=before)
            if due >= before:
                return
            for at, state in waiting:
                if at == due:
                    state.up = state.true
            self.tell(rule, device, due, top(alert.levels, "true"))

    def tell(self, rule: Rule, device: str, at: int, highest_before: int) -> None:
        alert = self.alerts[rule.id, device]
        up, true, told = top(alert.levels, "up"), top(alert.levels, "true"), alert.told
        phase = ""
        if not up and not true:
            phase = "cleared" if told else "lapsed"
            del self.alerts[rule.id, device]
        elif up and up != told:
            phase = "updated" if told else "raised"
            alert.told = up
        elif not told and not alert.revision:
            phase = "pending"
        if phase:
            alert.revision += 1
            level = rule.level[(alert.told or true or highest_before) - 1]
            self.told.append((at, rule.id, device, phase, level.name, alert.since, alert.revision))


def top(levels: list[LevelState], what: str) -> int:
    return max((number for number, state in enumerate(levels, 1) if getattr(state, what)), default=0)


def delay(level: Level, true: bool) -> int:
    return round(seconds(level.on_delay if true else level.off_delay) * 1e9)


def leaves(condition: Condition) -> list[Condition]:
    if condition.column:
        return [condition]
    parts = [*condition.all, *condition.any, *([condition.not_] if condition.not_ else [])]
    return [leaf for part in parts for leaf in leaves(part)]


def metric(text: str) -> str:
    return text.rsplit("(", maxsplit=1)[-1].split(",", maxsplit=1)[0].strip(" )")
