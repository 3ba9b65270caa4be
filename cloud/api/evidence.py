"""The samples that an order rests on, with the limits they crossed."""

from collections.abc import Iterator

from fastapi import APIRouter
from sqlalchemy import Connection, select

from cloud import alerts
from cloud.alerts import Alert, alert_table
from cloud.api import models, orders, views
from cloud.api.context import Shared
from cloud.records import from_row
from cloud.registry import Registry, metric_of
from cloud.workorders.order import WorkOrder
from rules.rule import Rule
from wire.clock import NANOSECONDS, iso

router = APIRouter(tags=["work orders"])
BEFORE_NS = 10 * 60 * NANOSECONDS  # shown ahead of the first sign, so that the change can be seen
AFTER_NS = 5 * 60 * NANOSECONDS
MOST_POINTS = 1200


@router.get("/work-orders/{order}/evidence", responses={404: {"model": models.Problem}})
async def evidence(shared: Shared, order: str) -> models.EvidenceView:
    """Every metric that the order's alerts and their corroborators were judged by, from before onset until handled."""

    def read(connection: Connection) -> tuple[WorkOrder, list[Alert]]:
        found = orders.known(connection, order)
        gathered = alerts.of_incident(connection, found.incident)
        return found, gathered + _corroborators(connection, shared.registry, found)

    found, gathered = await shared.store.read(read)
    units = shared.units()
    since = min(alert.since for alert in gathered)
    start = since - BEFORE_NS
    ended = found.handled_at or found.finished_at
    stop = shared.clock.now() if ended is None else ended + AFTER_NS
    wanted = {
        (alert.device, metric): shared.registry.rules[alert.rule]
        for alert in reversed(gathered)
        if alert.rule in shared.registry.rules
        for metric in metrics_of(shared.registry.rules[alert.rule])
        if units.knows(alert.device, metric)
    }
    shown = []
    for (device, metric), rule in reversed(wanted.items()):
        series = await shared.timeseries.read(device, metric, start, stop)
        shown.append(
            models.SeriesView(
                device=device,
                metric=metric,
                unit=units.of_metric(device, metric),
                points=views.points(series, -(-len(series) // MOST_POINTS) or 1),
                limits=list(_limits(rule, metric)),
            )
        )
    return models.EvidenceView(since=iso(since), decided_at=iso(found.decided_at), series=shown)


def metrics_of(rule: Rule) -> list[str]:
    """List the metrics that a rule rests on, each once, in its own order."""
    return list(dict.fromkeys(metric_of(each.column) for each in rule.comparisons()))


def _limits(rule: Rule, metric: str) -> Iterator[models.Limit]:
    """Where a chart of this metric draws its lines: the limits on the plain metric, one per level."""
    for level in rule.level:
        for each in level.when.comparisons():
            value = each.above if each.above is not None else each.below
            if each.column == metric and value is not None:
                yield models.Limit(level=level.name, title=views.text(level.title or rule.title), value=value)
                break


def _corroborators(connection: Connection, registry: Registry, order: WorkOrder) -> list[Alert]:
    """Find the newest alert of each device that confirmed the order from outside its incident (rain, say)."""
    found = list[Alert]()
    rule = registry.rules.get(order.rule)
    if rule is None:
        return found
    hazards = rule.confirm.hazards
    for device in order.confirmation.by:
        query = (
            select(alert_table)
            .where(alert_table.c.device == device, alert_table.c.hazard.in_(hazards))
            .where(alert_table.c.raised_at <= order.decided_at, alert_table.c.incident.is_distinct_from(order.incident))
            .order_by(alert_table.c.raised_at.desc())
            .limit(1)
        )
        found += [from_row(row, Alert) for row in connection.execute(query)]
    return found
