"""The city itself: its clock, its district, its devices, and whether the samples add up."""

import math
import time
from collections import Counter, defaultdict

import msgspec
from fastapi import APIRouter
from sqlalchemy import Connection, func, select

from cloud import misfire
from cloud.alerts import alert_table
from cloud.api import models, views
from cloud.api.context import Shared
from cloud.timeseries.port import Misconfigured, Retry, Sample
from cloud.workorders.order import order_table
from rules.district import Device
from rules.samples import BAD
from wire.clock import iso

router = APIRouter(tags=["city"])
OUTCOMES = ("confirmed", "misfire", "benign", "duplicate", "inconclusive")


@router.get("/clock")
async def clock(shared: Shared) -> models.ClockView:
    wall = time.time_ns()
    return models.ClockView(now=iso(shared.clock.city_at(wall)), speed=shared.clock.speed, wall=iso(wall))


@router.get("/district")
async def district(shared: Shared) -> models.DistrictView:
    of = shared.registry.district
    return models.DistrictView(
        id=of.id,
        name=views.text(of.name),
        sites=[
            models.SiteView(
                id=site.id,
                name=views.text(site.name),
                kind=site.kind,
                territory=site.territory,
                outline=list(site.outline),
            )
            for site in of.site
        ],
        roads=[
            models.RoadView(name=views.text(road.name), line=list(road.line), width_m=road.width_m) for road in of.road
        ],
        units=[
            models.UnitView(
                id=unit.id,
                name=views.text(unit.name),
                functions=list(unit.functions),
                territories=list(unit.territories),
            )
            for unit in of.unit
        ],
        gateways=[models.Named(id=gateway.id, name=views.text(gateway.name)) for gateway in of.gateway],
    )


@router.get("/devices")
async def devices(shared: Shared) -> models.Page[models.DeviceView]:
    """Every device with its state, its newest values and how often it has cried wolf."""
    known = shared.registry.devices
    facts = await shared.store.read(_Facts)
    units = shared.units()
    try:
        latest = await shared.timeseries.latest(list(known))
    except (Retry, Misconfigured):
        # The list of devices must not go away with the history; its values are the newest known or none.
        shared.counted.add("api_latest_unavailable_total")
        latest = {}
    newest = defaultdict[str, dict[str, models.Latest]](dict)
    for (device, metric), sample in latest.items():
        newest[device][metric] = _latest(sample, units.of_metric(device, metric))
    return models.Page[models.DeviceView](
        items=[_device(device, facts, newest[device.id]) for device in known.values()],
    )


@router.get("/balance")
async def balance(shared: Shared) -> models.BalanceView:
    """Whether acquired = committed + filtered + dropped + in flight, per gateway and in total."""
    view = shared.balance.view()
    return models.BalanceView(
        closes=view.closes,
        gateways=[
            models.GatewayBalance(
                id=line.id,
                state=line.state,
                last_seen_at=None if line.last_seen_at is None else iso(line.last_seen_at),
                **msgspec.structs.asdict(line.amounts),
                devices_down=list(line.devices_down),
                counters=line.counters,
            )
            for line in view.gateways
        ],
        total=models.TotalBalance(**msgspec.structs.asdict(view.total)),
    )


class _Facts:
    """What the alerts and orders say of each device."""

    def __init__(self, connection: Connection) -> None:
        columns = alert_table.c
        raised = select(columns.device, func.count()).where(columns.raised_at.is_not(None)).group_by(columns.device)
        self.alerts: dict[str, int] = dict(iter(connection.execute(raised)))
        standing = select(columns.device, columns.case).where(
            columns.raised_at.is_not(None), columns.cleared_at.is_(None), columns.severity != "info"
        )
        self.standing = {(device, case) for device, case in connection.execute(standing)}
        # What one order found counts once for each device that spoke in it.
        verified = (
            select(columns.device, order_table.c.id, order_table.c.outcome)
            .join(order_table, order_table.c.incident == columns.incident)
            .where(order_table.c.outcome.is_not(None))
            .distinct()
        )
        self.outcomes = defaultdict[str, Counter[str]](Counter)
        for device, _, outcome in connection.execute(verified):
            self.outcomes[device][outcome] += 1


def _device(device: Device, facts: _Facts, latest: dict[str, models.Latest]) -> models.DeviceView:
    outcomes = {outcome: facts.outcomes[device.id][outcome] for outcome in OUTCOMES}
    rate = misfire.rate(outcomes)
    faulty, alarmed = (device.id, "device") in facts.standing, (device.id, "city") in facts.standing
    return models.DeviceView(
        id=device.id,
        kind=device.kind,
        profile=device.profile,
        site=device.site,
        gateway=device.gateway,
        asset=device.asset,
        component=device.component,
        lon=device.lon,
        lat=device.lat,
        state="fault" if faulty else "alert" if alarmed else "ok",
        latest=latest,
        alerts=facts.alerts.get(device.id, 0),
        outcomes=outcomes,
        misfire_rate=models.MisfireRate(n=rate.n, mean=rate.mean, low=rate.low, high=rate.high),
    )


def _latest(sample: Sample, unit: str) -> models.Latest:
    value = sample.value if sample.quality < BAD and math.isfinite(sample.value) else None  # a bad one has none
    return models.Latest(value=value, unit=unit, taken_at=iso(sample.taken_at), quality=sample.quality)
