"""Alerts, and those held back: each with what became of it and why."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Connection, Select, select

from cloud.alerts import Alert, alert_table
from cloud.api import lists, models, orders, views
from cloud.api.context import Context, Shared
from cloud.api.problems import UnknownId
from cloud.records import from_row
from cloud.workorders.order import order_table
from rules.alert import Phase

router = APIRouter(tags=["alerts"])
Limit = Annotated[int, Query(ge=1, le=500)]
AlertPage = models.Page[models.AlertView]


@router.get("/alerts")
async def alerts(
    shared: Shared,
    phase: Phase | None = None,
    device: str | None = None,
    updated_since: str | None = None,
    cursor: str | None = None,
    limit: Limit = 100,
) -> AlertPage:
    """Every alert at its newest revision, the last changed first."""
    query = select(alert_table)
    since = lists.since(updated_since)
    if phase is not None:
        query = query.where(alert_table.c.phase == phase.value)
    if device is not None:
        query = query.where(alert_table.c.device == device)
    if since is not None:
        query = query.where(alert_table.c.updated_at >= since)
    return await shared.store.read(lambda connection: _page(connection, shared, query, cursor, limit))


@router.get("/held-back")
async def held_back(shared: Shared, cursor: str | None = None, limit: Limit = 100) -> AlertPage:
    """Everything that became no order (or waits), newest first, each with its reason; near misses included."""
    query = select(alert_table).where(alert_table.c.verdict.in_(["held", "waiting"]))
    return await shared.store.read(lambda connection: _page(connection, shared, query, cursor, limit))


@router.post("/held-back/{alert}/dispatch", responses={404: {"model": models.Problem}, 409: {"model": models.Problem}})
async def dispatch(shared: Shared, alert: str, request: models.DispatchRequest) -> models.WorkOrderView:
    """Send a crew all the same: a person's word, with its reason, opens the order."""

    def do(connection: Connection) -> models.WorkOrderView:
        now = shared.clock.now()
        try:
            order = shared.desk.dispatch(connection, alert, request.by, request.why, now)
        except LookupError as error:
            raise UnknownId(*error.args) from error
        return orders.shown(connection, shared, [order], now)[0]

    return await shared.change(do)


def _page(connection: Connection, shared: Context, query: Select[Any], cursor: str | None, limit: int) -> AlertPage:
    part = lists.after(query, alert_table.c.updated_at, alert_table.c.id, cursor, limit)
    found = [from_row(row, Alert) for row in connection.execute(part)]
    shown = found[:limit]
    incidents = {alert.incident for alert in shown if alert.incident}
    pairs = connection.execute(
        select(order_table.c.incident, order_table.c.id).where(order_table.c.incident.in_(incidents))
    )
    order_of: dict[str, str] = dict(iter(pairs))
    units = shared.units()
    return AlertPage(
        items=[views.alert(alert, order_of.get(alert.incident or ""), shared.registry, units) for alert in shown],
        next_cursor=lists.cursor_of(found[limit - 1].updated_at, found[limit - 1].id) if len(found) > limit else None,
    )
