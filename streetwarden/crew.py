"""The crew, verifier and clock-watcher of a run without a person: drives orders by the scenario's truth."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx

from streetwarden.centre import Centre
from streetwarden.score import Incident, TruthFile, incident_of
from wire.clock import Clock, from_iso

PATROL_S = 1.0  # wall seconds between two looks when nothing happens

Known = Callable[[int], TruthFile]  # what is true in the street at an instant, UTC ns


class Crew:
    """Follows the stream from outside, notes when it first saw each order, and works the orders off."""

    def __init__(self, centre: Centre, clock: Clock, truth: Callable[[], TruthFile]) -> None:
        self._centre = centre
        self._clock = clock
        self._truth = truth
        self.first_seen: dict[str, int] = {}  # order → wall, UTC ns

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="watch the stream")
            group.create_task(self._patrol(), name="work orders off")

    async def _watch(self) -> None:
        while True:
            try:
                async for kind in self._centre.events():
                    if kind == "work_order":
                        await self._orders()
            except httpx.HTTPError:
                await asyncio.sleep(PATROL_S)  # the cloud is being restarted

    async def _patrol(self) -> None:
        while True:
            try:
                for order in await self._orders():
                    await self._work(order)
            except httpx.HTTPError:
                pass  # an order that moved meanwhile, or a cloud that is away: the next round sees it as it is
            await asyncio.sleep(PATROL_S)

    async def _orders(self) -> list[Any]:
        orders = await self._centre.items("/api/v1/work-orders")
        seen = time.time_ns()
        for order in orders:
            self.first_seen.setdefault(order["id"], seen)
        return orders

    async def _work(self, order: dict[str, Any]) -> None:
        step = next_step(order, incident_of(order, self._truth()), self._clock.now())
        if step is not None:
            await self._centre.post(f"/api/v1/work-orders/{order['id']}/actions", step)


def next_step(order: dict[str, Any], incident: Incident | None, now: int) -> dict[str, Any] | None:
    """Say what is to be done on an order as the body of an action; ``None`` while there is nothing to do.

    What is true in the street decides what the crew finds.
    """
    allowed = order["actions"]
    if "accept" in allowed:
        return _action(order, "accept", "crew")
    if "arrive" in allowed:
        return _action(order, "arrive", "crew")
    if "handle" in allowed and _is_over(incident, now):
        return _action(order, "handle", "crew", finding="handled" if incident else "nothing_there")
    if "verify" in allowed:
        outcome = {"outcome": "confirmed"} if incident else {"outcome": "misfire", "cause": "environment"}
        return _action(order, "verify", "verifier", **outcome)
    return _action(order, "close", "officer") if "close" in allowed else None


def _is_over(incident: Incident | None, now: int) -> bool:
    """Water must have gone before a crew can say it is handled; anything else they mend by hand."""
    if incident is None or incident.hazard != "flood":
        return True
    return incident.end is not None and from_iso(incident.end) <= now


def _action(order: dict[str, Any], action: str, role: str, **more: str) -> dict[str, Any]:
    return {"action": action, "by": f"{role}-simulated", "role": role, "version": order["version"], **more}
