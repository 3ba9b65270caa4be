"""An alert as the cloud knows it, and its table: transitions applied in the order of their revisions."""

from typing import Literal

import msgspec
from sqlalchemy import JSON, BigInteger, Column, Connection, Index, Integer, String, Table, select
from sqlalchemy.dialects.sqlite import insert

from cloud.records import from_row, to_values
from cloud.store import metadata
from rules.alert import Phase, Reason, Severity, Transition

Verdict = Literal["dispatched", "held", "waiting"]


class Decision(msgspec.Struct, frozen=True):
    """What became of an alert, and why: a code with its numbers, ``by`` the devices that said so too.

    ``decided_at`` is city time, UTC nanoseconds: ``taken_at`` of the sample that settled it, or the deadline that did.
    A ``waiting`` one is decided again at its ``deadline`` at the latest.
    """

    verdict: Verdict
    code: str
    decided_at: int
    numbers: dict[str, float] = {}
    by: tuple[str, ...] = ()
    deadline: int | None = None


class Alert(msgspec.Struct, frozen=True):
    """One rule on one device, at its newest known revision. Times are UTC nanoseconds of city time.

    ``arrived_at`` is when the cloud first heard that it was raised, ``updated_at`` when the cloud last changed the row.
    A cleared alert keeps the level that it stood at.
    """

    id: str
    revision: int
    phase: Phase
    rule: str
    hazard: str
    case: Literal["city", "device"]
    level: str
    severity: Severity
    device: str
    gateway: str
    since: int
    decided_at: int
    updated_at: int
    reason: Reason
    evidence: dict[str, float]
    raised_at: int | None = None
    arrived_at: int | None = None
    cleared_at: int | None = None
    decision: Decision | None = None
    incident: str | None = None
    # Copies of the decision's own, for look-ups.
    verdict: Verdict | None = None
    code: str | None = None
    deadline: int | None = None

    @property
    def stands(self) -> bool:
        return self.raised_at is not None and self.cleared_at is None


alert_table = Table(
    "alert",
    metadata,
    Column("id", String, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("phase", String, nullable=False),
    Column("rule", String, nullable=False),
    Column("hazard", String, nullable=False),
    Column("case", String, nullable=False),
    Column("level", String, nullable=False),
    Column("severity", String, nullable=False),
    Column("device", String, nullable=False),
    Column("gateway", String, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("reason", JSON, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("raised_at", BigInteger),
    Column("arrived_at", BigInteger),
    Column("cleared_at", BigInteger),
    Column("decision", JSON(none_as_null=True)),
    Column("incident", String),
    Column("verdict", String),
    Column("code", String),
    Column("deadline", BigInteger),
    Index("alert_by_update", "updated_at", "id"),
    Index("alert_by_verdict", "verdict", "deadline"),
    Index("alert_by_hazard", "hazard", "cleared_at"),
    Index("alert_by_device", "device", "updated_at"),
    Index("alert_by_incident", "incident"),
)


def apply(
    known: Alert | None,
    step: Transition,
    gateway: str,
    hazard: str,
    case: Literal["city", "device"],
    now: int,
) -> Alert | None:
    """Give the alert after one more transition, or ``None`` when that changes nothing.

    Revisions only rise: an earlier or repeated one never overwrites a later, but an earlier ``raised`` still tells when
    the alert was raised.
    """
    if known is not None and step.revision <= known.revision:
        earlier = _earliest(known.raised_at, step.decided_at if step.phase is Phase.RAISED else None)
        if earlier == known.raised_at:
            return None
        return msgspec.structs.replace(known, raised_at=earlier, updated_at=now)
    told_raised = step.phase in {Phase.RAISED, Phase.UPDATED}
    cleared = step.phase is Phase.CLEARED
    keeps_level = known is not None and known.raised_at is not None and cleared
    return Alert(
        id=step.alert,
        revision=step.revision,
        phase=step.phase,
        rule=step.rule,
        hazard=hazard,
        case=case,
        level=known.level if known is not None and keeps_level else step.level,
        severity=known.severity if known is not None and keeps_level else step.severity,
        device=step.device,
        gateway=gateway,
        since=step.since,
        decided_at=step.decided_at,
        updated_at=now,
        reason=known.reason if known is not None and keeps_level else step.reason,
        evidence=known.evidence if known is not None and keeps_level else step.evidence,
        # One whose raising never came is known to have been raised by what followed.
        raised_at=_earliest(known.raised_at if known else None, step.decided_at if told_raised else None),
        arrived_at=known.arrived_at if known is not None and known.arrived_at else (now if told_raised else None),
        cleared_at=step.decided_at if cleared else None,
        decision=known.decision if known else None,
        incident=known.incident if known else None,
        verdict=known.verdict if known else None,
        code=known.code if known else None,
        deadline=known.deadline if known else None,
    )


def decided(alert: Alert, decision: Decision, now: int, incident: str | None = None) -> Alert:
    """Note on the alert what became of it."""
    return msgspec.structs.replace(
        alert,
        decision=decision,
        verdict=decision.verdict,
        code=decision.code,
        deadline=decision.deadline,
        incident=incident or alert.incident,
        updated_at=now,
    )


def load(connection: Connection, alert: str) -> Alert | None:
    row = connection.execute(select(alert_table).where(alert_table.c.id == alert)).one_or_none()
    return None if row is None else from_row(row, Alert)


def of_incident(connection: Connection, incident: str) -> list[Alert]:
    """Every alert that an incident gathered, oldest first."""
    columns = alert_table.c
    query = select(alert_table).where(columns.incident == incident).order_by(columns.since, columns.id)
    return [from_row(row, Alert) for row in connection.execute(query)]


def save(connection: Connection, alert: Alert) -> None:
    values = to_values(alert)
    connection.execute(insert(alert_table).values(values).on_conflict_do_update(index_elements=["id"], set_=values))


def _earliest(known: int | None, told: int | None) -> int | None:
    return min((at for at in (known, told) if at is not None), default=None)
