"""All devices of one kind under all rules on that kind: columns, truth and the alerts that stand."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rules.alert import Phase, Transition, alert_id
from rules.columns import parse
from rules.detectors.detector import Detector
from rules.detectors.kinds import DETECTORS
from rules.life import Alert, Delays
from rules.plan import TRUE, UNKNOWN, Plan
from rules.reason import Sight, reason, watch
from rules.rule import Rule
from rules.samples import BAD, Point
from rules.silence import Silence
from rules.tile import ABSENT, NEVER, Tile, earlier, hold


class Watch:
    """One kind's state in arrays: ``N`` devices, ``M`` metrics, ``C`` columns.

    A device's clock is the newest stamp judged so far, a nanosecond on for a reading that is older: life never steps
    back, and no two alerts begin at one instant.
    """

    def __init__(self, gateway: str, rules: Sequence[Rule], devices: Sequence[Sequence[Point]]) -> None:
        self._gateway = gateway
        self.devices = tuple(points[0].device for points in devices)
        judged = [rule for rule in rules if not rule.watches_silence]
        metrics = dict.fromkeys(point.metric for points in devices for point in points)
        for rule in judged:
            metrics |= dict.fromkeys(metrics_of(rule))
        self.metrics: Mapping[str, int] = {metric: index for index, metric in enumerate(metrics)}
        self.plan = Plan(judged, self.metrics)
        self.silence = Silence(gateway, [rule for rule in rules if rule.watches_silence], devices)
        self.alerts: dict[tuple[int, int], Alert] = {}  # by rule and row, those that stand or are on their way
        self._delays = tuple(Delays.of(rule) for rule in judged)
        self._counts_on = _counts_on(self.plan, devices)
        self._on_change = np.array([any(point.reports_on_change for point in points) for points in devices])

        count = len(devices)
        self._newest = np.full((len(self.metrics), count), NEVER, np.int64)
        self._clock = np.full(count, NEVER, np.int64)
        self._columns = np.full((len(self.plan.columns), count), np.nan)
        self._latches = np.zeros((len(self.plan.latched), count), np.bool_)
        self._open = np.zeros((len(judged), count), np.bool_)
        self._detectors = tuple(_detectors(self.plan, count))

    @property
    def state(self) -> dict[str, NDArray[np.generic]]:
        """Every array it carries, by name."""
        own = {
            "newest": self._newest,
            "clock": self._clock,
            "columns": self._columns,
            "latches": self._latches,
            "open": self._open,
        }
        parts: dict[str, Mapping[str, NDArray[np.generic]]] = {"silence": self.silence.state}
        parts |= {name: detector.state for name, _, detector in self._detectors}
        return {**own, **{f"{part}.{name}": x for part, arrays in parts.items() for name, x in arrays.items()}}

    def step(self, tile: Tile, told: list[Transition]) -> int:
        """Judge a tile; add what is to be told to ``told`` and return how many samples came late or twice."""
        rows, at = tile.rows, tile.at
        present = tile.quality != ABSENT
        newest_before = self._newest[:, rows]
        newest = np.maximum(np.maximum.accumulate(np.where(present, at, NEVER), axis=-1), newest_before[..., None])
        judged = present & (at > earlier(newest, newest_before))
        self._newest[:, rows] = newest[..., -1]
        told.extend(self.silence.hear(rows, at, judged, tile.quality))
        if self.plan.rules:
            known = judged & (tile.quality < BAD) & np.isfinite(tile.value)
            self._judge(rows, at, self._tick(rows, at, judged.any(axis=0)), tile.value, known, told)
        return tile.repeated + int(np.count_nonzero(present)) - int(np.count_nonzero(judged))

    def advance(self, until: int, on_change_until: int, told: list[Transition]) -> None:
        """Nothing taken before these instants is still to come: let deadlines pass."""
        of_device = np.where(self._on_change, np.int64(on_change_until), np.int64(until))
        told.extend(self.silence.advance(of_device))
        for rule, row in list(self.alerts):
            told.extend(self._expire(rule, row, int(of_device[row]), partial(self._sight, self._columns, row)))

    def _tick(self, rows: NDArray[np.intp], at: NDArray[np.int64], judged: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Each device's clock at each reading ``[n, T]``: rising by a nanosecond at least where something is judged."""
        count = np.cumsum(judged, axis=-1)
        newest = np.maximum.accumulate(np.where(judged, at - count, NEVER), axis=-1)
        clock = np.maximum(newest, self._clock[rows, None]) + count
        self._clock[rows] = clock[:, -1]
        return clock

    def _judge(
        self,
        rows: NDArray[np.intp],
        at: NDArray[np.int64],
        clock: NDArray[np.int64],
        value: NDArray[np.float64],
        known: NDArray[np.bool_],
        told: list[Transition],
    ) -> None:
        plan = self.plan
        raw = value[plan.metric_of]
        fresh = known[plan.metric_of]
        for _, index, detector in self._detectors:
            raw[index] = detector.update(rows, at, raw[index], fresh[index])
        columns_before = self._columns[:, rows]
        columns = hold(raw, fresh, columns_before)
        truth, judged, latches = plan.truth(columns, self._latches[:, rows])
        self._columns[:, rows], self._latches[:, rows] = columns[..., -1], latches[..., -1]

        for level, metrics in enumerate(plan.metrics_of_level):
            # A level steps only when a sample of its own came: a neighbour's must not confirm it.
            judged[level] &= known[metrics].any(axis=0)
        truth[~judged] = UNKNOWN
        hot = np.logical_or.reduceat((truth == TRUE).any(axis=-1), plan.first, axis=0) | self._open[:, rows]

        for rule, line in np.argwhere(hot).tolist():
            row, levels = int(rows[line]), plan.slices[rule]
            truths, judges = truth[levels, line], judged[levels, line]
            sight = partial(self._sight, columns_before, line)
            for step in np.flatnonzero(known[plan.metrics_of_rule[rule], line].any(axis=0)).tolist():
                now = int(clock[line, step])
                told.extend(self._expire(rule, row, now, sight))
                sight = partial(self._sight, columns[..., step], line)
                at_step = truths[:, step].tolist(), judges[:, step].tolist()
                told.extend(self._sample(rule, row, now, *at_step, sight()))

    def _sight(self, columns: NDArray[np.float64], line: int) -> Sight:
        return Sight(self.plan, columns[:, line].tolist())

    def _sample(
        self, rule: int, row: int, at: int, truths: list[int], judged: list[bool], sight: Sight
    ) -> Iterator[Transition]:
        alert = self.alerts.get((rule, row))
        if alert is None:
            if TRUE not in truths:
                return
            alert = self.alerts[rule, row] = Alert.opened(len(truths), at)
            self._open[rule, row] = True
        self._hold(rule, alert, truths, judged, sight)
        highest = alert.highest_true
        phase = alert.sample(at, truths, self._delays[rule])
        if alert.watched < 0:
            alert.watched = sight.deciding(self.plan.rules[rule].level[alert.highest_true - 1].when, TRUE, ())
            alert.extreme = sight.columns[self.plan.limits[alert.watched].column]
        if not alert.told and alert.stands:
            watch(alert, sight)
        if phase is not None:
            yield self._told(phase, rule, row, at, alert, highest, sight)

    def _hold(self, rule: int, alert: Alert, truths: list[int], judged: list[bool], sight: Sight) -> None:
        """Bring what hysteresis holds up to this sample, and let it speak in ``truths`` for levels that are up."""
        for number, level in enumerate(self.plan.rules[rule].level):
            up = alert.up[number]
            before = alert.held[number] if up else ()
            clearing = self.plan.clearing[self.plan.first[rule] + number]
            held = alert.held[number] = tuple(limit for limit in clearing if sight.met(limit, before))
            if up and held and judged[number]:
                truths[number] = sight.truth(level.when, held)

    def _expire(self, rule: int, row: int, before: int, sight: Callable[[], Sight]) -> Iterator[Transition]:
        """Let the delays that ran out before an instant take effect, in their order, stamped with when they did."""
        alert, delays, counts_on = self.alerts.get((rule, row)), self._delays[rule], self._counts_on[rule][row]
        while alert is not None and (due := alert.due(delays, counts_on)) is not None and due < before:
            phase = alert.expire(due, delays, counts_on)
            self._clock[row] = max(self._clock[row], due)  # should a promise be broken, time does not run backwards
            if phase is not None:
                yield self._told(phase, rule, row, due, alert, alert.highest_true, sight())
            alert = self.alerts.get((rule, row))

    def _told(self, phase: Phase, rule: int, row: int, at: int, alert: Alert, highest: int, sight: Sight) -> Transition:
        """One more step of an alert, told; ``highest`` is the highest level true just before it."""
        alert.revision += 1
        number = alert.told or alert.highest_true or highest
        declared, device = self.plan.rules[rule], self.devices[row]
        level = declared.level[number - 1]
        if not alert.stands:
            del self.alerts[rule, row]
            self._open[rule, row] = False
        return Transition(
            alert=alert_id(self._gateway, declared.id, device, alert.since),
            revision=alert.revision,
            phase=phase,
            rule=declared.id,
            level=level.name,
            severity=level.severity,
            device=device,
            since=alert.since,
            decided_at=at,
            reason=reason(phase, alert, number, level.when, at, self._delays[rule], sight),
            evidence=sight.evidence(rule),
        )


def metrics_of(rule: Rule) -> tuple[str, ...]:
    """The metrics a rule rests on; none for one on silence."""
    columns = [parse(comparison.column) for comparison in rule.comparisons()]
    return tuple(dict.fromkeys(column.metric for column in columns if column.metric))


def _counts_on(plan: Plan, devices: Sequence[Sequence[Point]]) -> tuple[tuple[tuple[bool, ...], ...], ...]:
    """Per rule, device and level: whether all it compares reports on change, so that its last value counts on.

    A doubt stops that: a deadline that ran out while the sensor was not believed must not take effect afterwards.
    """
    on_change = [{point.metric: point.reports_on_change for point in points} for points in devices]
    return tuple(
        tuple(
            tuple(
                rule.doubt is None and all(of.get(parse(c.column).metric, False) for c in level.when.comparisons())
                for level in rule.level
            )
            for of in on_change
        )
        for rule in plan.rules
    )


def _detectors(plan: Plan, devices: int) -> Iterator[tuple[str, NDArray[np.intp], Detector]]:
    """One detector of each kind that the plan needs, with the columns that are its series."""
    for name, detector in DETECTORS.items():
        index = np.flatnonzero([column.detector == name for column in plan.columns])
        if index.size:
            yield name, index, detector([plan.columns[column].window_s for column in index], devices)
