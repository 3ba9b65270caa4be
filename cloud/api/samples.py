"""One point's stored samples, as they are: for charts, exports, and whoever counts what arrived."""

from fastapi import APIRouter

from cloud.api import models
from cloud.api.context import Shared
from cloud.api.lists import held
from cloud.api.lists import since as instant
from cloud.api.problems import BadQuery, UnknownId
from cloud.api.views import points

router = APIRouter(tags=["devices"])
MOST = 10_000


@router.get("/devices/{device}/samples", responses={404: {"model": models.Problem}})
async def samples(
    shared: Shared,
    device: str,
    metric: str,
    since: str | None = None,
    until: str | None = None,
    cursor: str | None = None,
    limit: int = MOST,
) -> models.SamplesView:
    """Samples of one metric by time, from ``since`` to before ``until``; at most ``limit`` (10,000) a part."""
    if device not in shared.registry.devices:
        raise UnknownId(f"no device {device} is registered")
    if not 1 <= limit <= MOST:
        raise BadQuery(f"limit: between 1 and {MOST}")
    try:
        start = held(int(cursor)) if cursor is not None else instant(since) or 0
    except ValueError as error:
        raise BadQuery("cursor: take it from `next_cursor` of the part before") from error
    series = await shared.timeseries.read(device, metric, start, instant(until) or shared.clock.now() + 1)
    more = str(int(series.taken_at[limit])) if len(series) > limit else None
    unit = shared.units().of_metric(device, metric)
    return models.SamplesView(device=device, metric=metric, unit=unit, items=points(series)[:limit], next_cursor=more)
