"""Work orders: the list, one of them, its actions, its trail."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Connection, select

from cloud import trail
from cloud.alerts import alert_table
from cloud.api import lists, models, views
from cloud.api.context import Context, Shared
from cloud.api.problems import UnknownId
from cloud.records import from_row
from cloud.workorders import order as store
from cloud.workorders.life import Request
from cloud.workorders.order import State, WorkOrder, order_table
from wire.clock import iso

router = APIRouter(tags=["work orders"])
Limit = Annotated[int, Query(ge=1, le=500)]
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": models.Problem}}
_REFUSED: dict[int | str, dict[str, Any]] = {**_UNKNOWN, 409: {"model": models.Problem}, 422: {"model": models.Problem}}


@router.get("/work-orders")
async def work_orders(
    shared: Shared,
    state: State | None = None,
    updated_since: str | None = None,
    cursor: str | None = None,
    limit: Limit = 100,
) -> models.Page[models.WorkOrderView]:
    """Every work order, the last opened first."""
    query = select(order_table)
    since = lists.since(updated_since)
    if state is not None:
        query = query.where(order_table.c.state == state.value)
    if since is not None:
        query = query.where(order_table.c.updated_at >= since)
    part = lists.after(query, order_table.c.opened_at, order_table.c.id, cursor, limit)

    def read(connection: Connection) -> models.Page[models.WorkOrderView]:
        found = [from_row(row, WorkOrder) for row in connection.execute(part)]
        following = lists.cursor_of(found[limit - 1].opened_at, found[limit - 1].id) if len(found) > limit else None
        items = shown(connection, shared, found[:limit], shared.clock.now())
        return models.Page[models.WorkOrderView](items=items, next_cursor=following)

    return await shared.store.read(read)


@router.get("/work-orders/{order}", responses=_UNKNOWN)
async def work_order(shared: Shared, order: str) -> models.WorkOrderView:
    def read(connection: Connection) -> models.WorkOrderView:
        return shown(connection, shared, [known(connection, order)], shared.clock.now())[0]

    return await shared.store.read(read)


@router.post("/work-orders/{order}/actions", responses=_REFUSED)
async def act(shared: Shared, order: str, request: models.ActionRequest) -> models.WorkOrderView:
    """Take the order one action further; 409 when its life, its hands or its version do not allow it."""
    asked = Request(**request.model_dump())

    def do(connection: Connection) -> models.WorkOrderView:
        now = shared.clock.now()
        try:
            moved = shared.desk.act(connection, order, asked, now)
        except LookupError as error:
            raise UnknownId(*error.args) from error
        return shown(connection, shared, [moved], now)[0]

    return await shared.change(do)


@router.get("/work-orders/{order}/trail", responses=_UNKNOWN)
async def trail_of(shared: Shared, order: str) -> models.TrailView:
    """Who did what, when and why, checked entry by entry."""

    def read(connection: Connection) -> list[trail.Entry]:
        known(connection, order)
        return trail.entries_of(connection, order)

    entries = await shared.store.read(read)
    return models.TrailView(
        valid=trail.valid(entries),
        entries=[
            models.TrailEntry(
                n=entry.n,
                at=iso(entry.at),
                who=entry.who,
                action=entry.action,
                why=entry.why,
                detail=entry.detail,
                previous=entry.previous,
                hash=entry.hash,
            )
            for entry in entries
        ],
    )


def known(connection: Connection, order: str) -> WorkOrder:
    found = store.load(connection, order)
    if found is None:
        raise UnknownId(f"there is no work order `{order}`")
    return found


def shown(connection: Connection, shared: Context, orders: Sequence[WorkOrder], now: int) -> list[models.WorkOrderView]:
    """Orders as the API shows them, with the alerts that each gathered."""
    gathered = defaultdict[str, list[str]](list)
    pairs = select(alert_table.c.incident, alert_table.c.id).where(
        alert_table.c.incident.in_([order.incident for order in orders])
    )
    for incident, alert in connection.execute(pairs.order_by(alert_table.c.since, alert_table.c.id)):
        gathered[incident].append(alert)
    told = shared.units()
    return [views.work_order(order, gathered[order.incident], shared.registry, told, now) for order in orders]
