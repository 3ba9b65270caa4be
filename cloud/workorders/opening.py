"""From a confirmed alert to its incident's one work order: join or open, then keep up with what the alerts say."""

import uuid
from datetime import UTC, datetime, timedelta, timezone

import msgspec
from sqlalchemy import Connection, Integer, and_, cast, func, insert, or_, select, update

from cloud import alerts, dispatch, events, trail
from cloud.alerts import Alert, Decision
from cloud.incidents import Incident, belongs, incident_table
from cloud.records import from_row
from cloud.registry import Registry
from cloud.workorders import order as orders
from cloud.workorders.order import Announcement, Closure, State, WorkOrder, order_table
from rules.alert import NAMESPACE, Phase
from rules.declared import seconds
from wire.clock import NANOSECONDS

SYSTEM = "system"
_WORKING = frozenset({State.REGISTERED, State.DISPATCHED, State.ACCEPTED, State.ARRIVED, State.RETURNED})
_DAYS = timezone(timedelta(hours=8))  # order numbers count by the day in China


def settle(
    connection: Connection,
    registry: Registry,
    alert: Alert,
    decision: Decision,
    now: int,
    who: str = SYSTEM,
    why: str = "",
) -> Alert:
    """Save a dispatched alert with its incident: the one it belongs to, or a new one with its one order."""
    order = _order_it_belongs_to(connection, registry, alert)
    if order is None:
        order = _open(connection, registry, alert, decision, now, who, why)
    else:
        if decision.code != "dispatched_by_person":
            decision = msgspec.structs.replace(decision, code="joined_incident")
        order = _note(connection, order, alert, "join", now, who, why)
    alert = alerts.decided(alert, decision, now, order.incident)
    alerts.save(connection, alert)
    follow(connection, registry, alert, order, now)
    return alert


def follow(connection: Connection, registry: Registry, alert: Alert, order: WorkOrder, now: int) -> None:
    """Let the order keep up with one of its alerts, just saved: a rise breaks through, a repeat is only noted."""
    if _rises(alert, order):
        if order.finished_at is not None:
            # The case is closed and the street got worse: that is a new case.
            again = msgspec.structs.replace(alert, incident=None)
            decision = alert.decision or Decision("dispatched", "auto", alert.decided_at)
            settle(connection, registry, again, msgspec.structs.replace(decision, decided_at=alert.decided_at), now)
            return
        order = _upgrade(connection, registry, order, alert, now)
    elif alert.phase is Phase.CLEARED:
        order = _note(connection, order, alert, "clear", now)
    _keep_closure(connection, registry, order, alert, now)


def changed(connection: Connection, order: WorkOrder, now: int, **fields: object) -> WorkOrder:
    """Save the order with some fields changed, and tell the stream; a mere note makes no new version."""
    order = msgspec.structs.replace(order, **fields, version=order.version + bool(fields), updated_at=now)
    orders.save(connection, order)
    events.append(connection, "work_order", order.id, now)
    return order


def _rises(alert: Alert, order: WorkOrder) -> bool:
    return alert.stands and alert.severity.rank > order.severity.rank


def _order_it_belongs_to(connection: Connection, registry: Registry, alert: Alert) -> WorkOrder | None:
    """Find the newest order whose incident the alert is part of."""
    confirm = registry.rules[alert.rule].confirm
    columns = order_table.c
    # Only what `belongs` could say yes to: with hundreds of open orders, each alert must not look at all of them.
    own = and_(columns.device == alert.device, or_(columns.hazard == alert.hazard, columns.case == "device"))
    candidates = connection.execute(
        select(order_table)
        .where(columns.case == alert.case, or_(own, columns.hazard.in_(confirm.hazards)))
        .where(or_(columns.finished_at.is_(None), columns.finished_at >= alert.decided_at))
        .order_by(columns.finished_at.is_not(None), columns.opened_at.desc(), columns.id)
    )
    for row in candidates:
        order = from_row(row, WorkOrder)
        gathered = alerts.of_incident(connection, order.incident)
        cleared = [each.cleared_at or each.decided_at for each in gathered]
        incident = Incident(
            id=order.incident,
            case=order.case,
            hazard=order.hazard,
            device=order.device,
            rank=order.severity.rank,
            handled=order.state not in _WORKING,
            finished_at=order.finished_at,
            quiet_since=None if any(each.stands for each in gathered) else max(cleared, default=order.opened_at),
        )
        if belongs(incident, alert, confirm, registry.distance_m(order.device, alert.device)):
            return order
    return None


def _open(
    connection: Connection, registry: Registry, alert: Alert, decision: Decision, now: int, who: str, why: str
) -> WorkOrder:
    rule = registry.rules[alert.rule]
    site = registry.site_of(alert.device)
    # Ids that follow from the alert: the same news told twice cannot open two incidents.
    incident = str(uuid.uuid5(NAMESPACE, f"incident\n{alert.id}\n{alert.revision}"))
    choice = dispatch.choose(registry.district.unit, rule.runbook.function, site.territory)
    limit_s = seconds(rule.runbook.limit)
    order = WorkOrder(
        id=str(uuid.uuid5(NAMESPACE, f"work_order\n{incident}")),
        number=_number(connection, now),
        incident=incident,
        state=State.REGISTERED,
        alert=alert.id,
        rule=alert.rule,
        level=alert.level,
        severity=alert.severity,
        hazard=alert.hazard,
        case=alert.case,
        device=alert.device,
        site=site.id,
        unit=choice.unit,
        dispatch=choice,
        confirmation=decision,
        reason=alert.reason,
        opened_at=now,
        decided_at=decision.decided_at,
        due_at=now + int(limit_s * NANOSECONDS),
        limit_s=limit_s,
        announcements=(Announcement(now, alert.rule, alert.level, alert.severity, decision.decided_at),),
        updated_at=now,
    )
    opening = {"id": incident, "case": alert.case, "hazard": alert.hazard, "device": alert.device, "opened_at": now}
    connection.execute(insert(incident_table).values(opening))
    orders.save(connection, order)
    detail = {"alert": alert.id, "rule": alert.rule, "level": alert.level, "severity": alert.severity.value}
    decided = {"code": decision.code, "numbers": decision.numbers, "by": list(decision.by)}
    trail.append(connection, order.id, now, who, "register", why, detail | {"decision": decided})
    trail.append(connection, order.id, now, SYSTEM, "dispatch", detail=msgspec.to_builtins(choice))
    return changed(connection, order, now, state=State.DISPATCHED)


def _upgrade(connection: Connection, registry: Registry, order: WorkOrder, alert: Alert, now: int) -> WorkOrder:
    """Let a higher level break through: the order takes it over, its clock tightens, everyone on it is told."""
    limit_s = seconds(registry.rules[alert.rule].runbook.limit)
    decided_at = max(alert.decided_at, alert.decision.decided_at if alert.decision else 0)
    announcement = Announcement(now, alert.rule, alert.level, alert.severity, decided_at)
    detail = {"alert": alert.id, "rule": alert.rule, "level": alert.level, "severity": alert.severity.value}
    trail.append(connection, order.id, now, SYSTEM, "announce", detail=detail | {"from": order.severity.value})
    connection.execute(
        update(incident_table)
        .where(incident_table.c.id == order.incident)
        .values(hazard=alert.hazard, device=alert.device)
    )
    return changed(
        connection,
        order,
        now,
        alert=alert.id,
        rule=alert.rule,
        level=alert.level,
        severity=alert.severity,
        hazard=alert.hazard,
        device=alert.device,
        reason=alert.reason,
        confirmation=_turned(order.confirmation, order.device, alert.device),
        limit_s=limit_s,
        due_at=min(order.due_at, now + int(limit_s * NANOSECONDS)),
        announcements=(*order.announcements, announcement),
    )


def _turned(confirmation: Decision, was: str, now: str) -> Decision:
    """When a device that confirmed the order comes to lead it, the one that led confirms: none vouches for itself."""
    by = tuple(dict.fromkeys(was if device == now else device for device in confirmation.by))
    return msgspec.structs.replace(confirmation, by=by)


def _note(
    connection: Connection, order: WorkOrder, alert: Alert, action: str, now: int, who: str = SYSTEM, why: str = ""
) -> WorkOrder:
    detail = {"alert": alert.id, "device": alert.device, "level": alert.level, "severity": alert.severity.value}
    trail.append(connection, order.id, now, who, action, why, detail)
    return changed(connection, order, now)


def _keep_closure(connection: Connection, registry: Registry, order: WorkOrder, alert: Alert, now: int) -> None:
    """封交 while any alert of the order stands at a level that closes the road, or at one that nobody declares now."""
    standing = [each for each in alerts.of_incident(connection, order.incident) if each.stands]
    levels = [registry.level(each.rule, each.level) for each in standing]
    closing = any(level is not None and level.closes_road for level in levels)
    closed = order.closure is not None and order.closure.lifted_at is None
    if closing == closed or (closed and None in levels):  # no edit of the catalog opens a flooded road
        return
    at = alert.decided_at if alert.decision is None else max(alert.decided_at, alert.decision.decided_at)
    closure = Closure(at) if closing else Closure(order.closure.closed_at if order.closure else at, at)
    action = "closure" if closing else "lift"
    trail.append(connection, order.id, now, SYSTEM, action, detail={"alert": alert.id, "level": alert.level})
    changed(connection, order, now, closure=closure)


def _number(connection: Connection, now: int) -> str:
    """Make an order's number from the day and its place within it, as in 20260618-0007."""
    day = datetime.fromtimestamp(now // NANOSECONDS, UTC).astimezone(_DAYS).strftime("%Y%m%d")
    todays = order_table.c.number.startswith(f"{day}-")
    place = cast(func.substr(order_table.c.number, len(day) + 2), Integer)  # as text, 9999 would come after 10000
    newest = connection.scalar(select(func.max(place)).where(todays)) or 0
    return f"{day}-{newest + 1:04d}"
