"""The crew's own few calls: their open orders, and accept, arrive, handle. Nothing else is theirs to reach."""

import hashlib
import secrets
from typing import Annotated, Literal

from fastapi import APIRouter, Cookie, Depends, HTTPException, Response
from pydantic import BaseModel
from sqlalchemy import Column, Connection, String, Table, select
from sqlalchemy.dialects.sqlite import insert
from starlette.requests import HTTPConnection

from cloud.api import city, models, orders
from cloud.api.context import Shared
from cloud.records import from_row
from cloud.store import Store, metadata
from cloud.workorders.order import State, WorkOrder, order_table

COOKIE = "streetwarden_crew"
THEIRS = (State.DISPATCHED, State.ACCEPTED, State.ARRIVED, State.HANDLED, State.FEEDBACK)


# Hashes only: who reads the store's file can still not come in. A restart neither opens the door again nor shuts it.
crew_entry = Table(
    "crew_entry",
    metadata,
    Column("token", String, primary_key=True),
    Column("cookie", String, nullable=False),
)


class Door:
    """Lets in whoever holds the one-time token, and knows them by a cookie afterwards."""

    def __init__(self, store: Store, token: str) -> None:
        self._store = store
        self._token = _hash(token)

    async def enter(self, token: str) -> str:
        """Give the cookie's value for the token, once; ``PermissionError`` for anything else."""
        cookie = secrets.token_urlsafe(32)
        entry = insert(crew_entry).values(token=self._token, cookie=_hash(cookie)).on_conflict_do_nothing()
        right = secrets.compare_digest(_hash(token), self._token)
        if not right or not await self._store.write(lambda connection: connection.execute(entry).rowcount):
            raise PermissionError("this code is not valid, or was used before")
        return cookie

    async def knows(self, cookie: str) -> bool:
        entered = select(crew_entry.c.cookie).where(crew_entry.c.token == self._token)
        known = await self._store.read(lambda connection: connection.scalar(entered))
        return known is not None and secrets.compare_digest(_hash(cookie), known)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Token(BaseModel, extra="forbid"):
    token: str


class CrewAction(models.ActionRequest):
    action: Literal["accept", "arrive", "handle"]
    role: Literal["crew"] = "crew"


async def _inside(connection: HTTPConnection, cookie: Annotated[str, Cookie(alias=COOKIE)] = "") -> None:
    door: Door | None = connection.app.state.door
    if door is not None and not await door.knows(cookie):
        raise HTTPException(401, "open the code shown in the district centre first")


router = APIRouter(prefix="/crew", tags=["crew"])


@router.post("/session", status_code=204)
async def session(connection: HTTPConnection, request: Token) -> Response:
    """Exchange the one-time token for a cookie that no script can read."""
    door: Door | None = connection.app.state.door
    response = Response(status_code=204)
    if door is not None:
        try:
            secret = await door.enter(request.token)
        except PermissionError as error:
            raise HTTPException(403, str(error)) from error
        response.set_cookie(COOKIE, secret, httponly=True, samesite="strict", path="/crew")
    return response


@router.get("/api/work-orders", dependencies=[Depends(_inside)])
async def work_orders(shared: Shared) -> models.Page[models.WorkOrderView]:
    """Every order that is in the crews' hands, the last opened first."""
    query = (
        select(order_table)
        .where(order_table.c.state.in_([state.value for state in THEIRS]))
        .order_by(order_table.c.opened_at.desc(), order_table.c.id)
    )

    def read(connection: Connection) -> list[models.WorkOrderView]:
        found = [from_row(row, WorkOrder) for row in connection.execute(query)]
        return orders.shown(connection, shared, found, shared.clock.now())

    return models.Page[models.WorkOrderView](items=await shared.store.read(read))


@router.get("/api/clock", dependencies=[Depends(_inside)])
async def clock(shared: Shared) -> models.ClockView:
    """Tell the city's time, so that the phone's countdowns are right."""
    return await city.clock(shared)


@router.get("/api/district", dependencies=[Depends(_inside)])
async def district(shared: Shared) -> models.DistrictView:
    """Tell the district's names, so that the phone can say where to go."""
    return await city.district(shared)


@router.post("/api/work-orders/{order}/actions", dependencies=[Depends(_inside)])
async def act(shared: Shared, order: str, request: CrewAction) -> models.WorkOrderView:
    """Accept, arrive or handle; see ``POST /api/v1/work-orders/{id}/actions``."""
    return await orders.act(shared, order, request)
