"""Is one alert enough to send a crew? A pure decision: it takes ``now``, touches nothing and returns its reason."""

from collections.abc import Sequence
from dataclasses import dataclass

from cloud.alerts import Alert, Decision
from rules.alert import Phase, Severity
from rules.declared import seconds
from rules.rule import Confirm, Level, Rule
from wire.clock import NANOSECONDS

LATE_S = 60.0  # an alert that took longer than this to arrive tells of the past, not of the street


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another device's alert, ``distance_m`` metres away. Times are UTC nanoseconds."""

    device: str
    hazard: str
    raised_at: int
    cleared_at: int | None
    distance_m: float


def decide(
    alert: Alert,
    rule: Rule,
    level: Level | None,
    neighbours: Sequence[Neighbour],
    now: int,
    *,
    grace_s: float = 2.0,
    probation: bool = False,
) -> Decision:
    """Decide what becomes of an alert that was raised, or has lapsed, given what its neighbours say.

    ``grace_s`` (city seconds) is how long one that arrived late is left to be followed by its own clearing, before it
    is taken for the state of the street. A device on ``probation`` does not send a crew by its own word, unless its
    level is one that dispatches unconfirmed.
    """
    if alert.phase is Phase.LAPSED:
        lasted = (alert.decided_at - alert.since) / NANOSECONDS
        delay = seconds(level.on_delay) if level else 0.0
        return Decision("held", "lapsed", alert.decided_at, {"lasted_s": lasted, "on_delay_s": delay})
    if alert.severity is Severity.INFO:
        return Decision("held", "information_only", alert.decided_at)
    if not alert.stands:
        return _cleared(alert, rule.confirm, neighbours, now)
    raised_at, arrived_at = alert.raised_at or alert.decided_at, alert.arrived_at or now
    late_s = (arrived_at - raised_at) / NANOSECONDS
    until = arrived_at + int(grace_s * NANOSECONDS)
    if late_s > LATE_S and now < until:
        return Decision("waiting", "arrived_late", alert.decided_at, {"late_s": late_s}, deadline=until)
    life_safety = level is not None and level.unconfirmed == "dispatch"
    if rule.confirm.policy == "auto":
        if probation and not life_safety:
            return Decision("held", "not_corroborated", alert.decided_at, {"probation": 1.0})
        return Decision("dispatched", "auto", alert.decided_at)
    return _corroborate(alert, rule.confirm, life_safety, neighbours, raised_at, now)


def agrees(neighbour: Neighbour, alert: Alert, confirm: Confirm) -> bool:
    """Whether another device's alert corroborates this one: right hazard, near enough, not over for too long."""
    window = int(seconds(confirm.window) * NANOSECONDS)
    since = alert.decided_at if alert.raised_at is None else alert.raised_at
    return (
        neighbour.device != alert.device
        and neighbour.hazard in confirm.hazards
        and neighbour.distance_m <= confirm.within_m
        and (neighbour.cleared_at is None or neighbour.cleared_at >= since - window)
    )


def _cleared(alert: Alert, confirm: Confirm, neighbours: Sequence[Neighbour], now: int) -> Decision:
    """Hold what is over with no crew sent: it ended before it, or the second word it waited for, was here."""
    cleared_at = alert.cleared_at or alert.decided_at
    numbers = {"lasted_s": (cleared_at - (alert.raised_at or alert.since)) / NANOSECONDS}
    waited = alert.arrived_at is not None and cleared_at > alert.arrived_at
    found = len(_agreeing(alert, confirm, neighbours))
    if waited and confirm.policy == "corroborate" and found < confirm.needed:
        told = {"needed": float(confirm.needed), "found": float(found), **numbers}
        return Decision("held", "not_corroborated", cleared_at, told)
    arrived = alert.arrived_at or now
    return Decision("held", "cleared_before_arrival", cleared_at, numbers | {"late_s": (arrived - alert.since) / 1e9})


def _agreeing(alert: Alert, confirm: Confirm, neighbours: Sequence[Neighbour]) -> dict[str, Neighbour]:
    """Find the devices that corroborate an alert, each with what it said first."""
    first = dict[str, Neighbour]()
    for neighbour in sorted(neighbours, key=lambda each: (each.raised_at, each.device)):
        if agrees(neighbour, alert, confirm):
            first.setdefault(neighbour.device, neighbour)
    return first


def _corroborate(
    alert: Alert,
    confirm: Confirm,
    life_safety: bool,
    neighbours: Sequence[Neighbour],
    raised_at: int,
    now: int,
) -> Decision:
    first = _agreeing(alert, confirm, neighbours)
    numbers = {"needed": float(confirm.needed), "found": float(len(first)), "within_m": confirm.within_m}
    if len(first) >= confirm.needed:
        enough = list(first.values())[: confirm.needed]
        spoken_at = max([alert.decided_at, *(neighbour.raised_at for neighbour in enough)])
        numbers["nearest_m"] = round(min(neighbour.distance_m for neighbour in first.values()), 1)
        return Decision("dispatched", "corroborated", spoken_at, numbers, tuple(first))
    deadline = raised_at + int(seconds(confirm.wait) * NANOSECONDS)
    numbers["wait_s"] = seconds(confirm.wait)
    if now < deadline:
        return Decision("waiting", "waiting_corroboration", alert.decided_at, numbers, tuple(first), deadline)
    settled_at = max(deadline, alert.decided_at)
    if life_safety:
        return Decision("dispatched", "unconfirmed_dispatched", settled_at, numbers, tuple(first))
    return Decision("held", "not_corroborated", settled_at, numbers, tuple(first))
