"""Holds what was told against the truth, on either clock, and names the stage where a truth was lost."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from rules.alert import Phase, Transition
from streetwarden.matching import (
    EARLY_S,
    LATE_S,
    Case,
    Incident,
    Json,
    TruthFile,
    incident_of,
    match,
    read_truth,
    shows_as,
)
from streetwarden.told import Flaw, Run, Told
from wire.clock import NANOSECONDS, from_iso, iso

__all__ = ["Delay", "Detail", "Incident", "Score", "TruthFile", "incident_of", "read_truth", "score"]

KINDS = ("missed", "misfire", "duplicate", "lost", "doubled", "garbled", "alien", "unexpected", "late", "benign")
_BEFORE_RULES = ("instrument", "edge")
_AFTER_RULES = ("outbox", "wire", "ingest")

T = TypeVar("T")


class Delay(msgspec.Struct, frozen=True):
    """City seconds: percentiles by nearest rank, and the most; ``None`` where nothing was measured."""

    p50: float | None = None
    p99: float | None = None
    most: float | None = None


class Incidents(msgspec.Struct, frozen=True):
    """True incidents: ``late`` ones are found, but longer after their onset than they may take."""

    total: int
    found: int
    missed: int
    late: int


class HazardRow(msgspec.Struct, frozen=True):
    """One hazard: ``orders`` are those on its true incidents, ``misfires`` those that claimed it of nothing."""

    hazard: str
    incidents: int
    found: int
    missed: int
    late: int
    orders: int
    misfires: int
    delay_s: Delay


class Orders(msgspec.Struct, frozen=True):
    """Work orders: each is ``real`` (a true incident), ``benign`` (announced or harmless) or a misfire.

    ``duplicates`` are real ones beyond the first of an incident, ``per_incident`` is the mean over found incidents,
    ``useful_share`` is that of the real ones. ``held_back`` counts the alerts that became no order, by their code.
    """

    opened: int
    closed: int
    real: int
    benign: int
    misfires: int
    duplicates: int
    per_incident: float | None
    useful_share: float | None
    misfires_by_device: dict[str, int]
    misfires_by_rule: dict[str, int]
    held_back: dict[str, int]


class Samples(msgspec.Struct, frozen=True):
    """Samples of the run, as its ``told.Audit`` counted them; ``missing_by_device`` are the lost ones."""

    emitted: int
    acquired: int
    filtered: int
    dropped: int
    committed: int
    audited: int
    lost: int
    doubled: int
    garbled: int
    aliens: int
    missing_by_device: dict[str, int]


class Detail(msgspec.Struct, frozen=True):
    """One thing that is not as it should be, ``at`` an instant of city time (ISO 8601), and the stage that did it.

    ``kind`` is one of ``KINDS``. ``stage`` is one of ``told.Stage``, or ``scenario`` where the world itself is not what
    the scenario expects.
    """

    kind: str
    hazard: str
    device: str
    rule: str
    at: str
    stage: str
    reason: str
    count: int = 1


class Score(msgspec.Struct, frozen=True):
    """How a run went. ``delay_s``: true onset to the first alert; ``dispatch_s``: true onset to the first order.

    ``latency_s`` is in wall seconds (real time only). ``expectations`` are the lines of the scenario's own
    ``[[truth]]`` that do not agree with what was.
    """

    run: Run
    incidents: Incidents
    orders: Orders
    samples: Samples
    delay_s: Delay
    dispatch_s: Delay
    latency_s: Delay
    hazards: tuple[HazardRow, ...] = ()
    expectations: tuple[str, ...] = ()
    details: tuple[Detail, ...] = ()

    def in_order(self) -> bool:
        """Whether nothing was missed, invented, doubled, lost or altered, and what the scenario expects is so."""
        samples = self.samples
        flaws = samples.lost + samples.doubled + samples.garbled + samples.aliens
        amiss = self.incidents.missed or self.orders.misfires or self.orders.duplicates
        return not (amiss or flaws or self.expectations)

    def summary(self) -> str:
        """One line for the terminal."""
        held = ", ".join(f"{count} {code}" for code, count in sorted(self.orders.held_back.items())) or "nothing"
        return (
            f"found {self.incidents.found} of {self.incidents.total} incidents, {self.orders.misfires} misfires; "
            f"{self.orders.closed} of {self.orders.opened} orders closed; held back: {held}; "
            f"{self.samples.lost} samples missing, {self.samples.doubled} doubled"
        )


def score(truth: TruthFile, told: Told) -> Score:
    """Score a run: what was found, missed, invented, doubled and lost, and for each the stage that did it."""
    return _Scorer(truth, told).score()


def delay(values: Sequence[float]) -> Delay:
    """Nearest-rank percentiles: a value that was really measured, never one between two."""
    if not values:
        return Delay()
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[math.ceil(share * len(ordered)) - 1], 3)

    return Delay(at(0.5), at(0.99), at(1.0))


def missing_by_device(
    emitted: Mapping[str, Mapping[str, int]], stored: Mapping[str, Sequence[float]]
) -> dict[str, int]:
    """How many values 1 … n of each poll counter are not in the store."""
    return {
        device: len(set(range(1, emitted[device]["polls"] + 1)) - {int(value) for value in values})
        for device, values in stored.items()
    }


def duplicated(stored: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """How many values of each poll counter are in the store more than once."""
    return {device: len(values) - len(set(values)) for device, values in stored.items()}


class _Scorer:
    def __init__(self, truth: TruthFile, told: Told) -> None:
        self._truth = truth
        self._told = told
        self._matched = match(truth, told)
        self._flaws = _grouped(told.audit.flaws, lambda flaw: flaw.device)
        self._alerts = _grouped(told.alerts, lambda alert: alert["device"])
        self._steps = _grouped(told.steps, lambda step: step.transition.device)
        self._rule_of = {alert["id"]: alert["rule"] for alert in told.alerts}
        self._raised = {alert["id"] for alert in told.alerts if alert["raised_at"]}
        self._hazard_of = {alert["rule"]: alert["hazard"] for alert in told.alerts}
        self._gateway_of = {device["id"]: device["gateway"] for device in told.devices}

    def score(self) -> Score:
        matched, told = self._matched, self._told
        found = [case for case in matched.cases if case.found_at is not None]
        unmet = list(self._unmet())
        return Score(
            told.run,
            Incidents(
                len(matched.cases),
                len(found),
                len(matched.cases) - len(found),
                sum(case.late for case in matched.cases),
            ),
            self._orders(len(found)),
            self._samples(),
            delay([case.delay_s for case in found if case.delay_s is not None]),
            delay([case.after(case.orders[0]["opened_at"]) for case in found if case.orders]),
            delay(told.latency_s),
            tuple(self._hazards()),
            tuple(detail.reason for detail in unmet),
            tuple(sorted((*self._of_cases(), *self._of_orders(), *self._of_flaws(), *unmet), key=_gravity)),
        )

    def _orders(self, found: int) -> Orders:
        told, matched = self._told, self._matched
        real = sum(len(case.orders) for case in matched.cases)
        duplicates = sum(max(0, len(case.orders) - 1) for case in matched.cases)
        return Orders(
            opened=len(told.orders),
            closed=sum(order["state"] == "closed" for order in told.orders),
            real=real,
            benign=len(matched.benign),
            misfires=len(matched.misfires),
            duplicates=duplicates,
            per_incident=round(real / found, 3) if found else None,
            useful_share=round((real - duplicates) / len(told.orders), 4) if told.orders else None,
            misfires_by_device=dict(Counter(order["device"] for order, _ in matched.misfires).most_common()),
            misfires_by_rule=dict(Counter(self._rule(order) for order, _ in matched.misfires).most_common()),
            held_back=dict(sorted(Counter(alert["decision"]["code"] for alert in self._held()).items())),
        )

    def _samples(self) -> Samples:
        audit = self._told.audit
        count: Counter[str] = Counter()
        missing: Counter[str] = Counter()
        for flaw in audit.flaws:
            count[flaw.kind] += flaw.count
            if flaw.kind == "lost":
                missing[flaw.device] += flaw.count
        return Samples(
            audit.emitted,
            audit.acquired,
            audit.filtered,
            audit.dropped,
            audit.committed,
            audit.audited,
            count["lost"],
            count["doubled"],
            count["garbled"],
            count["alien"],
            dict(missing.most_common()),
        )

    def _hazards(self) -> Iterator[HazardRow]:
        misfires = Counter(order["hazard"] for order, _ in self._matched.misfires)
        cases = _grouped(self._matched.cases, lambda case: case.incident.hazard)
        for hazard in sorted({*cases, *misfires}):
            of = cases.get(hazard, [])
            found = [case for case in of if case.found_at is not None]
            yield HazardRow(
                hazard,
                len(of),
                len(found),
                len(of) - len(found),
                sum(case.late for case in of),
                sum(len(case.orders) for case in of),
                misfires[hazard],
                delay([case.delay_s for case in found if case.delay_s is not None]),
            )

    def _held(self) -> list[Json]:
        decided = [alert for alert in self._told.alerts if alert["decision"] is not None]
        return [alert for alert in decided if alert["decision"]["verdict"] == "held"]

    def _rule(self, order: Json) -> str:
        return next((self._rule_of[alert] for alert in order["alerts"] if alert in self._rule_of), "")

    # --- what is not as it should be ---

    def _of_cases(self) -> Iterator[Detail]:
        for case in self._matched.cases:
            incident = case.incident
            if case.found_at is None:
                device, rule, stage, reason = self._lost_at(case)
                reason = f"{incident.id}: {reason}{self._cut_short(incident)}"
                yield Detail("missed", incident.hazard, device, rule, incident.onset, stage, reason)
            elif case.late:
                yield self._late(case, case.found_at)

    def _late(self, case: Case, found_at: int) -> Detail:
        """Say where the time went: until a rule raised it, or from there until it was decided."""
        incident, first = case.incident, case.first
        took_s = case.after(iso(found_at))
        raised_s = case.delay_s or 0.0
        device, rule = (first["device"], first["rule"]) if first else (incident.devices[0], "")
        stage = "rules" if first is None or raised_s >= took_s - raised_s else "confirmation"
        reason = f"{incident.id}: found {span(took_s)} after its onset, {span(incident.late_after_s)} are allowed"
        reason += f"; raised after {span(raised_s)}" if first else ""
        return Detail("late", incident.hazard, device, rule, incident.onset, stage, reason)

    def _lost_at(self, case: Case) -> tuple[str, str, str, str]:
        """Walk the chain from its far end: the device, rule, stage and reason of the furthest trace of an incident."""
        incident = case.incident
        if case.alerts:
            return min((_undecided(alert) for alert in case.alerts), key=lambda each: each[2] != "order")
        raised, pending = self._raised_at_gateway(incident), self._nearly(incident)
        if raised is not None:
            return raised
        garbled = self._flaw(incident, ("garbled", "alien"))
        if garbled is not None:
            return garbled
        if pending is not None:
            return pending
        lost = self._flaw(incident, ("lost",))
        if lost is not None:
            return lost
        emitted = [self._truth.emitted[device] for device in incident.devices if device in self._truth.emitted]
        first = next(iter(incident.devices), "")
        if emitted and not any(count for counts in emitted for count in counts.values()):
            return first, "", "instrument", "none of its instruments ever answered or reported"
        return first, "", "rules", f"no rule came near an alert of it on {', '.join(incident.devices) or 'any device'}"

    def _raised_at_gateway(self, incident: Incident) -> tuple[str, str, str, str] | None:
        """Find an alert that a gateway raised of an incident and the centre has never heard of."""
        for gateway, step in self._steps_of(incident):
            if step.phase in {Phase.RAISED, Phase.UPDATED} and step.alert not in self._raised:
                stage, why = self._between(gateway)
                reason = f"raised at {gateway}, {iso(step.decided_at)}, and never heard of at the centre: {why}"
                return step.device, step.rule, stage, reason
        return None

    def _between(self, gateway: str) -> tuple[str, str]:
        """Say what between a gateway and the desk loses things: by its samples' fate, then by its balance."""
        for flaw in self._told.audit.flaws:
            if self._gateway_of.get(flaw.device) == gateway and flaw.stage in _AFTER_RULES and flaw.kind == "lost":
                return flaw.stage, f"{flaw.count} samples of {flaw.device} {flaw.metric} are lost there too"
        line = next((each for each in self._told.balance.get("gateways", ()) if each["id"] == gateway), None)
        if line is not None and line["in_flight"]:
            return "outbox", f"{line['in_flight']} samples still wait in its outbox"
        if line is not None and line["dropped"]:
            return "outbox", "its outbox has dropped " + ", ".join(f"{n} {why}" for why, n in line["dropped"].items())
        return "ingest", "its samples came through"

    def _nearly(self, incident: Incident) -> tuple[str, str, str, str] | None:
        """Find what came nearest to an alert: one that a gateway held pending, or that stood already."""
        for device in incident.devices:
            for alert in self._alerts.get(device, ()):
                over = alert["cleared_at"] or (
                    self._truth.at if alert["raised_at"] and self._truth.at else alert["decided_at"]
                )
                lived = from_iso(alert["since"]), from_iso(over)
                if alert["hazard"] in shows_as(incident.hazard) and _overlaps(lived, incident):
                    return _undecided(alert) if alert["raised_at"] is None else _stood(alert)
        for _, step in self._steps_of(incident):
            if step.phase in {Phase.PENDING, Phase.LAPSED}:
                lasted = span((step.decided_at - step.since) / NANOSECONDS)
                reason = f"{step.phase.value} after {lasted}: {_say(msgspec.to_builtins(step.reason))}"
                return step.device, step.rule, "rules", reason
        return None

    def _steps_of(self, incident: Incident) -> Iterator[tuple[str, Transition]]:
        """Steps that may be of an incident; a rule that the centre never heard of could be of any hazard."""
        for device in incident.devices:
            for step in self._steps.get(device, ()):
                hazard = self._hazard_of.get(step.transition.rule)
                lived = step.transition.since, step.transition.decided_at
                if (hazard is None or hazard in shows_as(incident.hazard)) and _overlaps(lived, incident):
                    yield step.gateway, step.transition

    def _flaw(self, incident: Incident, kinds: tuple[str, ...]) -> tuple[str, str, str, str] | None:
        for device in incident.devices:
            for flaw in self._flaws.get(device, ()):
                if flaw.kind in kinds and flaw.stage in _BEFORE_RULES and not _after(flaw, incident):
                    return device, "", flaw.stage, f"its samples are {flaw.kind}: {_say_flaw(flaw)}"
        return None

    def _cut_short(self, incident: Incident) -> str:
        if not (self._truth.at and incident.late_after_s):
            return ""
        left_s = (from_iso(self._truth.at) - from_iso(incident.onset)) / NANOSECONDS
        return f"; the run ended {span(left_s)} after its onset" if left_s < incident.late_after_s else ""

    def _of_orders(self) -> Iterator[Detail]:
        for order, nuisance in self._matched.misfires:
            device, why = order["device"], f"order {order['number']}: {_say(order['reason'])}"
            what = f"it was {nuisance.kind} `{nuisance.id}`" if nuisance else "nothing in the street explains it"
            stage = "rules"
            for flaw in self._flaws.get(device, ()):
                if flaw.kind != "lost" and flaw.stage in _BEFORE_RULES:
                    stage, what = flaw.stage, f"its samples are {flaw.kind}: {_say_flaw(flaw)}"
            at, rule = order["decided_at"], self._rule(order)
            yield Detail("misfire", order["hazard"], device, rule, at, stage, f"{why}; {what}")
        for order, nuisance in self._matched.benign:
            why = f"order {order['number']} on {nuisance.kind} `{nuisance.id}`, which was announced or is harmless"
            at, rule = order["decided_at"], self._rule(order)
            yield Detail("benign", order["hazard"], order["device"], rule, at, "confirmation", why)
        for case in self._matched.cases:
            for order in case.orders[1:]:
                why = f"order {order['number']} is of {case.incident.id}, as is {case.orders[0]['number']}"
                at, rule = order["decided_at"], self._rule(order)
                yield Detail("duplicate", order["hazard"], order["device"], rule, at, "order", why)

    def _of_flaws(self) -> Iterator[Detail]:
        for flaw in self._told.audit.flaws:
            yield Detail(flaw.kind, "", flaw.device, "", flaw.first_at, flaw.stage, _say_flaw(flaw), flaw.count)

    def _unmet(self) -> Iterator[Detail]:
        """What the scenario expects and is not so: of the world, or of the product."""

        def line(hazard: str, stage: str, why: str, device: str = "", at: str = "") -> Detail:
            return Detail("unexpected", hazard, device, "", at, stage, why)

        cases = _grouped(self._matched.cases, lambda case: case.incident.hazard)
        others = [order for order, _ in (*self._matched.misfires, *self._matched.benign)]
        for expected in self._told.expected:
            hazard = expected.hazard
            of = cases.get(hazard, [])
            if len(of) != expected.incidents:
                why = f"the scenario is broken: {hazard} has {len(of)} incidents, {expected.incidents} are expected"
                yield line(hazard, "scenario", why)
            for case in of:
                if len(case.orders) > expected.orders:
                    why = f"{case.incident.id} has {len(case.orders)} orders, at most {expected.orders} are expected"
                    yield line(hazard, "order", why, case.orders[-1]["device"], case.incident.onset)
            astray = [order for order in others if order["hazard"] == hazard]
            if astray:
                why = f"{len(astray)} orders of hazard {hazard} are of no incident"
                yield line(hazard, "order", why, astray[0]["device"], astray[0]["decided_at"])
            orders = [*(order for case in of for order in case.orders), *astray]
            told = sum(len(order["announcements"]) for order in orders)
            if expected.announcements not in {None, told}:
                why = f"{hazard} was announced {told} times, {expected.announcements} are expected"
                yield line(hazard, "order", why)
            held = sum(alert["hazard"] == hazard for alert in self._held())
            if expected.held not in {None, held}:
                yield line(
                    hazard, "confirmation", f"{hazard} had {held} alerts held back, {expected.held} are expected"
                )


def _grouped(items: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _gravity(detail: Detail) -> int:
    return KINDS.index(detail.kind)


def _undecided(alert: Json) -> tuple[str, str, str, str]:
    """Device, rule, stage and reason of an alert that brought no crew."""
    decision, device, rule = alert["decision"], alert["device"], alert["rule"]
    said = _say(alert["reason"])
    if alert["raised_at"] is None:
        lived = (from_iso(alert["decided_at"]) - from_iso(alert["since"])) / NANOSECONDS
        why = f" ({_numbers(decision['numbers'])})" if decision and decision["numbers"] else ""
        return device, rule, "rules", f"{alert['phase']} after {span(lived)}{why}: {said}"
    if decision is None:
        return device, rule, "confirmation", f"raised {alert['raised_at']} and never decided: {said}"
    if decision["verdict"] == "dispatched":
        return device, rule, "order", f"dispatched ({decision['code']}), and no order holds it: {said}"
    numbers = f" ({_numbers(decision['numbers'])})" if decision["numbers"] else ""
    return device, rule, "confirmation", f"{decision['verdict']}, {decision['code']}{numbers}: {said}"


def _stood(alert: Json) -> tuple[str, str, str, str]:
    said = f"no new alert: one stood already, raised {alert['raised_at']}: {_say(alert['reason'])}"
    return alert["device"], alert["rule"], "rules", said


def span(seconds: float) -> str:
    """Write a span of seconds as a person reads it."""
    whole = abs(seconds)
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if whole >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _say(reason: Json) -> str:
    numbers = _numbers(reason["numbers"])
    return f"{reason['column']} {reason['code']}".strip() + (f" ({numbers})" if numbers else "")


def _numbers(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _say_flaw(flaw: Flaw) -> str:
    return f"{flaw.metric}, {flaw.count} of it{f' ({flaw.note})' if flaw.note else ''}"


def _overlaps(lived: tuple[int, int], incident: Incident) -> bool:
    ends = _maybe(incident.end)
    return lived[1] >= from_iso(incident.onset) - _ns(EARLY_S) and (ends is None or lived[0] <= ends + _ns(LATE_S))


def _after(flaw: Flaw, incident: Incident) -> bool:
    ends = _maybe(incident.end)
    return bool(flaw.first_at) and ends is not None and from_iso(flaw.first_at) > ends


def _maybe(at: str | None) -> int | None:
    return None if at is None else from_iso(at)


def _ns(seconds: float) -> int:
    return int(seconds * NANOSECONDS)
