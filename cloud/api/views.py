"""Records as the API shows them: ids resolved to texts and units, nanoseconds to ISO 8601."""

import math
from collections.abc import Sequence

from cloud.alerts import Alert, Decision
from cloud.api import models
from cloud.registry import Registry, Units
from cloud.timeseries.port import Series
from cloud.workorders import life
from cloud.workorders.order import WorkOrder
from rules.alert import Reason
from rules.district import Text
from wire.clock import NANOSECONDS, iso


def text(said: Text) -> models.Text:
    return models.Text(zh=said.zh, en=said.en)


def _maybe(at: int | None) -> str | None:
    return None if at is None else iso(at)


def _level_title(registry: Registry, rule: str, level: str) -> models.Text | None:
    title = registry.level_title(rule, level)
    return text(title) if title else None


def _title(registry: Registry, rule: str) -> models.Text:
    known = registry.rules.get(rule)
    return text(known.title) if known else models.Text(zh=rule, en=rule)


def _unit(registry: Registry, unit: str) -> models.Named:
    known = registry.units.get(unit)
    return models.Named(id=unit, name=text(known.name) if known else models.Text(zh=unit, en=unit))


def _runbook(registry: Registry, rule: str) -> models.RunbookView | None:
    known = registry.rules.get(rule)
    if known is None:
        return None
    return models.RunbookView(
        cause=text(known.runbook.cause),
        consequence=text(known.runbook.consequence),
        response=text(known.runbook.response),
        function=known.runbook.function,
        limit=known.runbook.limit,
        source=known.runbook.source,
    )


def reason(said: Reason, device: str, units: Units) -> models.ReasonView:
    unit = units.of_column(device, said.column)
    return models.ReasonView(code=said.code, column=said.column, unit=unit, numbers=said.numbers)


def decision(taken: Decision) -> models.DecisionView:
    return models.DecisionView(
        verdict=taken.verdict,
        code=taken.code,
        numbers=taken.numbers,
        by=list(taken.by),
        decided_at=iso(taken.decided_at),
        deadline=_maybe(taken.deadline),
    )


def alert(of: Alert, work_order: str | None, registry: Registry, units: Units) -> models.AlertView:
    device = registry.devices.get(of.device)
    return models.AlertView(
        id=of.id,
        revision=of.revision,
        phase=of.phase.value,
        rule=of.rule,
        title=_title(registry, of.rule),
        hazard=of.hazard,
        case=of.case,
        level=of.level,
        level_title=_level_title(registry, of.rule, of.level),
        severity=of.severity.value,
        device=of.device,
        kind=device.kind if device else "",
        site=device.site if device else "",
        gateway=of.gateway,
        since=iso(of.since),
        decided_at=iso(of.decided_at),
        raised_at=_maybe(of.raised_at),
        updated_at=iso(of.updated_at),
        cleared_at=_maybe(of.cleared_at),
        reason=reason(of.reason, of.device, units),
        evidence=of.evidence,
        decision=decision(of.decision) if of.decision else None,
        incident=of.incident,
        work_order=work_order,
    )


def work_order(
    of: WorkOrder, alerts: Sequence[str], registry: Registry, units: Units, now: int
) -> models.WorkOrderView:
    device = registry.devices.get(of.device)
    return models.WorkOrderView(
        id=of.id,
        number=of.number,
        incident=of.incident,
        state=of.state,
        hazard=of.hazard,
        case=of.case,
        severity=of.severity.value,
        level=of.level,
        level_title=_level_title(registry, of.rule, of.level),
        title=_title(registry, of.rule),
        site=of.site,
        lon=device.lon if device else None,
        lat=device.lat if device else None,
        device=of.device,
        asset=device.asset if device else "",
        alerts=list(alerts),
        unit=_unit(registry, of.unit),
        dispatch_reason=models.DispatchReason(
            code=of.dispatch.code, function=of.dispatch.function, territory=of.dispatch.territory
        ),
        reason=reason(of.reason, of.device, units),
        confirmation=decision(of.confirmation),
        runbook=_runbook(registry, of.rule),
        opened_at=iso(of.opened_at),
        decided_at=iso(of.decided_at),
        due_at=iso(of.due_at),
        updated_at=iso(of.updated_at),
        clock=_clock(of, now),
        announcements=[
            models.AnnouncementView(
                at=iso(each.at),
                level=each.level,
                level_title=_level_title(registry, each.rule, each.level) or _title(registry, each.rule),
                severity=each.severity.value,
                decided_at=iso(each.decided_at),
            )
            for each in of.announcements
        ],
        closure=models.ClosureView(closed_at=iso(of.closure.closed_at), lifted_at=_maybe(of.closure.lifted_at))
        if of.closure
        else None,
        finding=of.finding,
        outcome=of.outcome,
        cause=of.cause,
        sensor_abnormal=of.sensor_abnormal,
        actions=list(life.allowed(of.state)),
        version=of.version,
    )


def _clock(of: WorkOrder, now: int) -> models.CaseClock:
    ends = [at for at in (of.handled_at, of.finished_at) if at is not None]
    remaining_s = (of.due_at - min([now, *ends])) / NANOSECONDS
    return models.CaseClock(
        kind="continuous", limit_s=of.limit_s, remaining_s=round(remaining_s, 3), overdue=remaining_s < 0
    )


def points(series: Series, stride: int = 1) -> list[tuple[int, float | None, int]]:
    """Samples as (time in ms since 1970, value, quality), every ``stride``-th; what is not finite has no value."""
    taken_ms = (series.taken_at[::stride] // 1_000_000).tolist()
    value = [each if math.isfinite(each) else None for each in series.value[::stride].tolist()]
    return list(zip(taken_ms, value, series.quality[::stride].tolist(), strict=True))
