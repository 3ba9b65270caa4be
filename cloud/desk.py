"""The alert desk: what the gateways tell is applied, decided and turned into work orders, always with a reason."""

import asyncio
from collections.abc import Iterable, Sequence

import structlog
from sqlalchemy import Connection, and_, func, or_, select
from sqlalchemy.exc import OperationalError

from cloud import alerts, events
from cloud.alerts import Alert, Decision, alert_table
from cloud.confirmation import Neighbour, decide
from cloud.events import Events
from cloud.records import from_row
from cloud.registry import Registry
from cloud.store import Store
from cloud.workorders import acting
from cloud.workorders import order as orders
from cloud.workorders.life import Request
from cloud.workorders.opening import follow, settle
from cloud.workorders.order import WorkOrder
from rules.alert import Phase, Transition
from rules.declared import seconds
from rules.rule import Confirm
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted

GRACE_S = 2.0  # wall seconds that one which arrived late may be followed by its own clearing
RETRY_S = 0.2  # wall: until a store that is full or locked is asked again, twice as long each time
RETRY_MOST_S = 5.0
# Held, and decided again when what was wanting may have come: a second word, or a declaration that was lost.
_OPEN_CODES = ("not_corroborated", "unknown_rule", "unknown_device")

log = structlog.get_logger()


class Desk:
    """Implements ingest's ``AlertSink``. What takes a ``Connection`` runs inside the caller's transaction.

    ``now`` is city time in UTC nanoseconds, given by the caller. Call ``committed`` after each commit.
    """

    def __init__(self, registry: Registry, changes: Events, clock: Clock, counted: Counted) -> None:
        self._registry = registry
        self._changes = changes
        self._clock = clock
        self._counted = counted
        self._grace_s = GRACE_S * clock.speed
        self._woken = asyncio.Event()

    def take(self, connection: Connection, gateway: str, transitions: Sequence[Transition], now: int) -> None:
        """Apply what a gateway tells and decide what follows from it; the same told twice changes nothing."""
        touched = dict[str, Alert]()
        for step in transitions:
            alert = self._apply(connection, gateway, step, now)
            if alert is not None:
                touched[alert.id] = alert
        for alert in touched.values():
            self._decide(connection, alert.id, now)
        said = {alert.hazard for alert in touched.values() if alert.stands}
        for alert in self._undecided(connection, said):
            if alert.id not in touched:
                self._decide(connection, alert.id, now)

    def due(self, connection: Connection, now: int) -> None:
        """Decide again what has waited long enough."""
        columns = alert_table.c
        passed = select(columns.id).where(columns.verdict == "waiting", columns.deadline <= now)
        for alert in connection.scalars(passed.order_by(columns.deadline)).all():
            self._decide(connection, alert, now)

    def dispatch(self, connection: Connection, alert: str, by: str, why: str, now: int) -> WorkOrder:
        """Send a crew on a person's word for an alert that was held back: see ``acting.dispatch``."""
        return acting.dispatch(connection, self._registry, alert, by, why, now)

    def act(self, connection: Connection, order: str, request: Request, now: int) -> WorkOrder:
        """Take an order one action further on a person's word: see ``acting.act``."""
        return acting.act(connection, self._registry, order, request, now)

    async def committed(self) -> None:
        """Wake the event streams and whoever watches the deadlines."""
        self._changes.committed()
        self._woken.set()

    async def run(self, store: Store) -> None:
        """Keep the deadlines of waiting alerts until cancelled: sleep until the next, or until one may be nearer."""
        delay = RETRY_S
        while True:
            self._woken.clear()
            try:
                deadline = await self.keep(store)
            except OperationalError as error:
                self._counted.add("desk_deadline_retries_total")
                if delay == RETRY_S:  # told once an outage
                    log.warning("deadlines cannot be kept; trying again until it works", why=str(error))
                await asyncio.sleep(delay)
                delay = min(2 * delay, RETRY_MOST_S)
                continue
            delay = RETRY_S
            remaining = None if deadline is None else (deadline - self._clock.now()) / NANOSECONDS
            try:
                async with asyncio.timeout(None if remaining is None else self._clock.wall_seconds(remaining)):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def keep(self, store: Store) -> int | None:
        """Decide what is due, if anything is; the deadline that comes next (city UTC ns)."""
        deadline = await store.read(_next_deadline)
        if deadline is None or deadline > self._clock.now():
            return deadline
        await store.write(lambda connection: self.due(connection, self._clock.now()))
        self._changes.committed()
        return await store.read(_next_deadline)

    def _apply(self, connection: Connection, gateway: str, step: Transition, now: int) -> Alert | None:
        rule, device = self._registry.rules.get(step.rule), self._registry.devices.get(step.device)
        if rule is None or device is None or device.gateway != gateway or device.kind != rule.kind:
            self._counted.add("desk_unknown_transitions_total")
            log.warning("alert_of_unknown_rule_or_device", gateway=gateway, rule=step.rule, device=step.device)
            return None
        known = alerts.load(connection, step.alert)
        alert = alerts.apply(known, step, gateway, rule.hazard, rule.case, now)
        if alert is not None:
            alerts.save(connection, alert)
            events.append(connection, "alert", alert.id, now)
        return alert

    def _decide(self, connection: Connection, alert_id: str, now: int) -> None:
        alert = alerts.load(connection, alert_id)
        if alert is None or alert.phase is Phase.PENDING:
            return
        unknown = self._registry.unknown(alert.rule, alert.device)
        if unknown is not None:
            self._hold_unknown(connection, alert, unknown, now)
            return
        if alert.verdict == "dispatched":
            order = orders.of_incident(connection, alert.incident or "")
            if order is not None:
                follow(connection, self._registry, alert, order, now)
            return
        rule = self._registry.rules[alert.rule]
        decision = decide(
            alert,
            rule,
            self._registry.level(alert.rule, alert.level),
            list(self._neighbours(connection, alert, rule.confirm)),
            now,
            grace_s=self._grace_s,
            probation=self._registry.devices[alert.device].probation,
        )
        if alert.decision is not None and _same(decision, alert.decision):
            return
        if decision.verdict == "dispatched":
            settle(connection, self._registry, alert, decision, now)
        else:
            alerts.save(connection, alerts.decided(alert, decision, now))
        events.append(connection, "alert", alert.id, now)

    def _hold_unknown(self, connection: Connection, alert: Alert, code: str, now: int) -> None:
        """Hold what nobody can judge any more; a crew that is on its way already stays so."""
        if alert.verdict == "dispatched" or alert.code == code:
            return
        self._counted.add(f"desk_held_{code}_alerts_total")
        log.warning("alert held: the catalog or the district has lost it", code=code, alert=alert.id)
        alerts.save(connection, alerts.decided(alert, Decision("held", code, alert.decided_at), now))
        events.append(connection, "alert", alert.id, now)

    def _neighbours(self, connection: Connection, alert: Alert, confirm: Confirm) -> Iterable[Neighbour]:
        """Other devices' alerts that may corroborate this one; ``decide`` looks closer."""
        columns = alert_table.c
        since = (alert.raised_at or alert.since) - int(seconds(confirm.window) * NANOSECONDS)
        query = (
            select(columns.device, columns.hazard, columns.raised_at, columns.cleared_at)
            .where(columns.hazard.in_(confirm.hazards), columns.device != alert.device)
            .where(columns.raised_at.is_not(None), or_(columns.cleared_at.is_(None), columns.cleared_at >= since))
        )
        for device, hazard, raised_at, cleared_at in connection.execute(query) if confirm.hazards else ():
            if device in self._registry.devices:
                yield Neighbour(device, hazard, raised_at, cleared_at, self._registry.distance_m(alert.device, device))

    def _undecided(self, connection: Connection, said: set[str]) -> list[Alert]:
        """Alerts that wait, or were held for want of a second word and still stand, and that ``said`` could confirm."""
        if not said:
            return []
        held = and_(alert_table.c.code.in_(_OPEN_CODES), alert_table.c.cleared_at.is_(None))
        query = select(alert_table).where(or_(alert_table.c.verdict == "waiting", held)).order_by(alert_table.c.since)
        found = [from_row(row, Alert) for row in connection.execute(query)]
        return [alert for alert in found if said.intersection(self._hazards(alert.rule))]

    def _hazards(self, rule: str) -> tuple[str, ...]:
        return self._registry.rules[rule].confirm.hazards if rule in self._registry.rules else ()


def _next_deadline(connection: Connection) -> int | None:
    waiting = alert_table.c.verdict == "waiting"
    deadline: int | None = connection.scalar(select(func.min(alert_table.c.deadline)).where(waiting))
    return deadline


def _same(one: Decision, other: Decision) -> bool:
    return (one.verdict, one.code, one.by, one.deadline) == (other.verdict, other.code, other.by, other.deadline)
