"""What the API answers, as records that make the OpenAPI page. Times are ISO 8601 with zone, on the city's clock."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from cloud.workorders.life import Action
from cloud.workorders.order import Cause, Finding, Outcome, State

Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Severity = Literal["I", "II", "III", "IV", "info"]
Item = TypeVar("Item", bound=BaseModel)


class Text(BaseModel):
    zh: str
    en: str


class Page(BaseModel, Generic[Item]):
    """A part of a list; ``next_cursor`` asks for the next part, null at the end."""

    items: list[Item]
    next_cursor: str | None = None


class Problem(BaseModel):
    """RFC 9457 problem details; ``allowed`` names the actions that an order would take."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    allowed: list[str] | None = None


class ClockView(BaseModel):
    """City time ``now``, at the wall instant ``wall``; ``speed`` city seconds pass in a wall second."""

    now: Instant
    speed: float
    wall: Instant


class SiteView(BaseModel):
    id: str
    name: Text
    kind: str
    territory: str
    outline: list[tuple[float, float]]


class RoadView(BaseModel):
    name: Text
    line: list[tuple[float, float]]
    width_m: float


class UnitView(BaseModel):
    id: str
    name: Text
    functions: list[str]
    territories: list[str]


class Named(BaseModel):
    id: str
    name: Text


class DistrictView(BaseModel):
    """Positions are (longitude, latitude), WGS 84 degrees."""

    id: str
    name: Text
    sites: list[SiteView]
    roads: list[RoadView]
    units: list[UnitView]
    gateways: list[Named]


class Latest(BaseModel):
    """``quality``: 0 good, 1 uncertain, 16 and above bad."""

    value: float | None
    unit: str
    taken_at: Instant
    quality: int


class MisfireRate(BaseModel):
    """Share of misfires among ``n`` verified alerts, with its 95 % interval; null below n = 5."""

    n: int
    mean: float | None
    low: float | None
    high: float | None


class DeviceView(BaseModel):
    id: str
    kind: str
    profile: str
    site: str
    gateway: str
    asset: str
    component: str
    lon: float
    lat: float
    state: Literal["ok", "alert", "fault"]
    latest: dict[str, Latest]
    alerts: int
    outcomes: dict[str, int]
    misfire_rate: MisfireRate


class ReasonView(BaseModel):
    code: str
    column: str
    unit: str
    numbers: dict[str, float]


class DecisionView(BaseModel):
    """``by``: the devices that corroborated."""

    verdict: Literal["dispatched", "held", "waiting"]
    code: str
    numbers: dict[str, float]
    by: list[str]
    decided_at: Instant
    deadline: Instant | None


class AlertView(BaseModel):
    """One rule on one device. ``decision`` is null while the alert is pending.

    A rule or device that is not declared any more is shown by its id; its ``kind`` and ``site`` are empty.
    """

    id: str
    revision: int
    phase: Literal["pending", "lapsed", "raised", "updated", "cleared"]
    rule: str
    title: Text
    hazard: str
    case: Literal["city", "device"]
    level: str
    level_title: Text | None
    severity: Severity
    device: str
    kind: str
    site: str
    gateway: str
    since: Instant
    decided_at: Instant
    raised_at: Instant | None
    updated_at: Instant
    cleared_at: Instant | None
    reason: ReasonView
    evidence: dict[str, float]
    decision: DecisionView | None
    incident: str | None
    work_order: str | None


class DispatchReason(BaseModel):
    code: Literal["function_territory", "function_everywhere", "function_elsewhere"]
    function: str
    territory: str


class RunbookView(BaseModel):
    cause: Text
    consequence: Text
    response: Text
    function: str
    limit: str
    source: str


class CaseClock(BaseModel):
    """How much of the handling limit is left; it stops when the crew has handled the case."""

    kind: Literal["continuous"]
    limit_s: float
    remaining_s: float
    overdue: bool


class AnnouncementView(BaseModel):
    at: Instant
    level: str
    level_title: Text | None
    severity: Severity
    decided_at: Instant


class ClosureView(BaseModel):
    """封交, and 解封 when ``lifted_at`` is set."""

    closed_at: Instant
    lifted_at: Instant | None


class WorkOrderView(BaseModel):
    """The handling of one incident; ``actions`` are those its life allows now.

    Where its device is not declared any more, ``lon`` and ``lat`` are null and ``asset`` is empty; ``runbook`` is null
    where its rule is not.
    """

    id: str
    number: str
    incident: str
    state: State
    hazard: str
    case: Literal["city", "device"]
    severity: Severity
    level: str
    level_title: Text | None
    title: Text
    site: str
    lon: float | None
    lat: float | None
    device: str
    asset: str
    alerts: list[str]
    unit: Named
    dispatch_reason: DispatchReason
    reason: ReasonView
    confirmation: DecisionView
    runbook: RunbookView | None
    opened_at: Instant
    decided_at: Instant
    due_at: Instant
    updated_at: Instant
    clock: CaseClock
    announcements: list[AnnouncementView]
    closure: ClosureView | None
    finding: Finding | None
    outcome: Outcome | None
    cause: Cause | None
    sensor_abnormal: bool
    actions: list[str]
    version: int


class ActionRequest(BaseModel, extra="forbid"):
    """``handle`` needs ``finding``; ``verify`` ``outcome`` (misfire: ``cause``); ``return``, ``cancel``: ``why``."""

    action: Action
    by: Annotated[str, Field(min_length=1, max_length=100)]
    role: Annotated[str, Field(min_length=1, max_length=50)]
    why: Annotated[str, Field(max_length=2000)] = ""
    finding: Finding | None = None
    outcome: Outcome | None = None
    cause: Cause | None = None
    version: int | None = None


class DispatchRequest(BaseModel, extra="forbid"):
    by: Annotated[str, Field(min_length=1, max_length=100)]
    why: Annotated[str, Field(min_length=1, max_length=2000)]


class TrailEntry(BaseModel):
    n: int
    at: Instant
    who: str
    action: str
    why: str
    detail: dict[str, Any]
    previous: str
    hash: str


class TrailView(BaseModel):
    """``valid``: every entry still carries the hash of what it says and of the entry before it."""

    valid: bool
    entries: list[TrailEntry]


class Limit(BaseModel):
    level: str
    title: Text
    value: float


class SeriesView(BaseModel):
    """``points``: (time in ms since 1970, value, quality)."""

    device: str
    metric: str
    unit: str
    points: list[tuple[int, float | None, int]]
    limits: list[Limit]


class SamplesView(BaseModel):
    """A part of one point's samples; ``items`` as ``SeriesView.points``."""

    device: str
    metric: str
    unit: str
    items: list[tuple[int, float | None, int]]
    next_cursor: str | None


class EvidenceView(BaseModel):
    since: Instant
    decided_at: Instant
    series: list[SeriesView]


class GatewayBalance(BaseModel):
    """Samples: ``acquired`` = ``committed`` + ``filtered`` + ``dropped`` + ``in_flight`` + ``missing``.

    ``devices_down`` do not answer; ``counters`` are the gateway's own, since it started.
    """

    id: str
    state: Literal["online", "behind", "silent"]
    last_seen_at: Instant | None
    acquired: int
    filtered: int
    dropped: dict[str, int]
    committed: int
    in_flight: int
    missing: int
    devices_down: list[str]
    counters: dict[str, int]


class TotalBalance(BaseModel):
    acquired: int
    filtered: int
    dropped: dict[str, int]
    committed: int
    in_flight: int
    missing: int


class BalanceView(BaseModel):
    closes: bool
    gateways: list[GatewayBalance]
    total: TotalBalance
