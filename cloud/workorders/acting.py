"""What people do to work orders: each action is checked by the order's life and written to its trail."""

import msgspec
from sqlalchemy import Connection

from cloud import alerts, events, trail
from cloud import dispatch as dispatching
from cloud.alerts import Decision
from cloud.registry import Registry
from cloud.workorders import life
from cloud.workorders import order as orders
from cloud.workorders.life import NotAllowed, Request, Step
from cloud.workorders.opening import settle
from cloud.workorders.order import WorkOrder


def act(connection: Connection, registry: Registry, order: str, request: Request, now: int) -> WorkOrder:
    """Take a person's action; ``LookupError``: unknown, ``NotAllowed`` and ``Incomplete``: see ``life``."""
    known = orders.load(connection, order)
    if known is None:
        raise LookupError(f"there is no work order `{order}`")
    gathered = alerts.of_incident(connection, known.incident)
    for action, moved in life.act(known, request, now):
        known = moved
        if action == "redispatch":
            choice = dispatching.choose(
                registry.district.unit, known.dispatch.function, known.dispatch.territory, known.declined
            )
            known = msgspec.structs.replace(known, unit=choice.unit, dispatch=choice)
        if action in {"verify", "close"}:
            abnormal = any(alert.stands for alert in gathered)
            known = msgspec.structs.replace(known, sensor_abnormal=abnormal)
        trail.append(connection, known.id, now, request.by, action, request.why, _detail(action, request, known))
    orders.save(connection, known)
    events.append(connection, "work_order", known.id, now)
    if request.action == "verify":
        for device in sorted({alert.device for alert in gathered}):
            events.append(connection, "device", device, now)
    return known


def dispatch(connection: Connection, registry: Registry, alert: str, by: str, why: str, now: int) -> WorkOrder:
    """Open the order that a person wants for an alert held back; ``LookupError``: unknown, ``NotAllowed``: not held."""
    held = alerts.load(connection, alert)
    if held is None:
        raise LookupError(f"there is no alert `{alert}`")
    if held.verdict not in {"held", "waiting"}:
        raise NotAllowed("only an alert that is held back or waiting can be dispatched by a person", ())
    if registry.unknown(held.rule, held.device):
        raise NotAllowed(f"nobody declares rule `{held.rule}` or device `{held.device}` any more: whom to send?", ())
    settled = settle(connection, registry, held, Decision("dispatched", "dispatched_by_person", now), now, by, why)
    events.append(connection, "alert", alert, now)
    order = orders.of_incident(connection, settled.incident or "")
    if order is None:
        raise LookupError(f"alert `{alert}` has no order")
    return order


def _detail(action: Step, request: Request, order: WorkOrder) -> dict[str, object]:
    """List what an entry of the trail keeps besides who, when and why."""
    told: dict[str, object] = {"role": request.role, "state": order.state.value}
    match action:
        case "handle":
            told["finding"] = order.finding
        case "verify":
            told |= {"outcome": order.outcome, "cause": order.cause, "sensor_abnormal": order.sensor_abnormal}
        case "close":
            told["sensor_abnormal"] = order.sensor_abnormal
        case "redispatch":
            told["unit"] = order.unit
        case _:
            pass
    return told
