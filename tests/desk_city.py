"""A desk over the demo's own district, with a small catalog, driven second by second: what the desk's tests share."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, select

from cloud import trail
from cloud.alerts import Alert, alert_table
from cloud.desk import Desk
from cloud.events import Events
from cloud.records import from_row
from cloud.registry import Registry
from cloud.store import Store
from cloud.workorders.life import Action, Request
from cloud.workorders.order import Cause, Finding, Outcome, WorkOrder, order_table
from rules.alert import Phase, Reason, Severity, Transition, alert_id
from rules.district import load_district
from rules.rule import Rule, load_rules
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted

T = TypeVar("T")
START = 1_781_782_200 * NANOSECONDS  # 2026-06-18T11:30:00Z
DISTRICT = Path(__file__).parents[1] / "firmware_sim" / "districts" / "bluestone.toml"

_TEXT = '{ zh = "字", en = "word" }'


def _rule(
    rule: str,
    kind: str,
    hazard: str,
    levels: Sequence[tuple[str, str, str]],
    confirm: str,
    function: str,
    case: str = "city",
    limit: str = "2h",
) -> str:
    text = f"""
[[rule]]
id = "{rule}"
kind = "{kind}"
hazard = "{hazard}"
case = "{case}"
title = {{ zh = "{rule}", en = "{rule}" }}
confirm = {confirm}
source = "s"
fires_when = [{{ say = "s", every = "10s", points = {{}} }}]
quiet_when = [{{ say = "s", every = "10s", points = {{}} }}]
"""
    runbook = {"function": function, "limit": limit, "source": "s"}
    told = ", ".join(f'{key} = "{value}"' for key, value in runbook.items())
    text += f"runbook = {{ cause = {_TEXT}, consequence = {_TEXT}, response = {_TEXT}, {told} }}\n"
    for name, severity, more in levels:
        text += f"""
[[rule.level]]
name = "{name}"
severity = "{severity}"
title = {{ zh = "{name}", en = "{name}" }}
on_delay = "30s"
when = {{ column = "level", above = 0.15 }}
{more}
"""
    return text


_GRAVE = 'unconfirmed = "dispatch"\ncloses_road = true'
AUTO = '{ policy = "auto" }'
CATALOG = "".join(
    [
        _rule(
            "flood.depth",
            "level_sensor",
            "flood",
            [("slow", "III", ""), ("close", "II", _GRAVE), ("severe", "I", _GRAVE)],
            '{ policy = "corroborate", hazards = ["flood", "rain", "standing_water"], within_m = 300.0 }',
            "drainage",
        ),
        _rule("rain.heavy", "rain_gauge", "rain", [("heavy", "info", "")], AUTO, "drainage"),
        _rule("cover.open", "manhole_cover", "cover", [("open", "II", "")], AUTO, "covers"),
        _rule(
            "camera.water",
            "camera",
            "standing_water",
            [("seen", "IV", "")],
            '{ policy = "corroborate", hazards = ["flood"], within_m = 300.0, wait = "5min" }',
            "drainage",
        ),
        _rule("lamp.out", "lamp_controller", "lamp", [("out", "IV", "")], AUTO, "lighting", limit="48h"),
        _rule("device.stuck.level", "level_sensor", "device_stuck", [("stuck", "IV", "")], AUTO, "sensing", "device"),
        _rule(
            "device.silent.level", "level_sensor", "device_silent", [("silent", "IV", "")], AUTO, "sensing", "device"
        ),
    ]
)


def catalog() -> tuple[Rule, ...]:
    return load_rules(CATALOG, "tests")


def registry() -> Registry:
    return Registry(load_district(DISTRICT.read_text(encoding="utf-8"), "district.toml"), catalog())


def at(seconds: float) -> int:
    """City time, ``seconds`` after the start."""
    return START + round(seconds * NANOSECONDS)


def told(
    rule: str,
    device: str,
    phase: Phase,
    level: str,
    seconds: float,
    revision: int,
    *,
    since: float = 0.0,
    severity: str = "",
) -> Transition:
    """A transition as a gateway tells it: decided at ``seconds``, of the alert that began at ``since``."""
    found = {rule.id: rule for rule in catalog()}[rule]
    grade = Severity(severity) if severity else {each.name: each.severity for each in found.level}[level]
    return Transition(
        alert_id("gw", rule, device, at(since)),
        revision,
        phase,
        rule,
        level,
        grade,
        device,
        at(since),
        at(seconds),
        Reason("above", "level", {"value": 0.3, "limit": 0.15, "for_s": 30.0}),
        {"level": 0.3},
    )


class City:
    """A desk over a real store. Every step takes its time in city seconds after the start."""

    def __init__(self, store: Store, registry: Registry, speed: float = 1.0) -> None:
        self.store = store
        self.registry = registry
        self.counted = Counted()
        self.events = Events(store)
        self.desk = Desk(registry, self.events, Clock(speed=speed), self.counted)

    async def tell(self, now: float, *transitions: Transition) -> None:
        gateways = [self.registry.devices[step.device].gateway for step in transitions]
        for gateway in dict.fromkeys(gateways):
            mine = [step for step, of in zip(transitions, gateways, strict=True) if of == gateway]

            def take(connection: Connection, gateway: str = gateway, mine: list[Transition] = mine) -> None:
                self.desk.take(connection, gateway, mine, at(now))

            await self.store.write(take)

    async def due(self, now: float) -> None:
        await self.store.write(lambda connection: self.desk.due(connection, at(now)))

    async def act(
        self,
        now: float,
        order: str,
        action: Action,
        by: str = "crew-1",
        role: str = "crew",
        why: str = "",
        finding: Finding | None = None,
        outcome: Outcome | None = None,
        cause: Cause | None = None,
    ) -> WorkOrder:
        return await self.ask(now, order, Request(action, by, role, why, finding, outcome, cause))

    async def ask(self, now: float, order: str, request: Request) -> WorkOrder:
        return await self.store.write(lambda connection: self.desk.act(connection, order, request, at(now)))

    async def close(self, now: float, order: str) -> WorkOrder:
        """Drive an order from dispatched to closed."""
        await self.act(now, order, "accept")
        await self.act(now, order, "arrive")
        await self.act(now, order, "handle", finding="handled")
        await self.act(now, order, "verify", by="verifier-1", role="verifier", outcome="confirmed")
        return await self.act(now, order, "close", by="duty-1", role="duty_officer")

    async def orders(self) -> list[WorkOrder]:
        query = select(order_table).order_by(order_table.c.opened_at, order_table.c.number)
        return await self.store.read(lambda c: [from_row(row, WorkOrder) for row in c.execute(query)])

    async def order(self) -> WorkOrder:
        """The one order there is."""
        orders = await self.orders()
        assert len(orders) == 1, orders
        return orders[0]

    async def alerts(self) -> dict[str, Alert]:
        """Alerts by device."""
        query = select(alert_table).order_by(alert_table.c.since)
        found = await self.store.read(lambda c: [from_row(row, Alert) for row in c.execute(query)])
        return {alert.device: alert for alert in found}

    async def trail(self, order: str) -> list[trail.Entry]:
        return await self.store.read(lambda connection: trail.entries_of(connection, order))


def in_city(folder: Path, story: Callable[[City], Awaitable[T]], of: Registry | None = None) -> T:
    """Tell a story to a fresh city."""

    async def run() -> T:
        async with Store(folder / "cloud.sqlite") as store:
            return await story(City(store, of or registry()))

    return asyncio.run(run())
