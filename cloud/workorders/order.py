"""A work order: the handling of one incident, as a record and its table."""

from enum import StrEnum
from typing import Literal

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    select,
)
from sqlalchemy.dialects.sqlite import insert

from cloud.alerts import Decision
from cloud.dispatch import Choice
from cloud.records import from_row, to_values
from cloud.store import metadata
from rules.alert import Reason, Severity


class State(StrEnum):
    """Where an order stands: 立案 · 派遣 · 接单 · 到场 · 处置 · 反馈 · 核查 · 结案, and 退单 · 作废."""

    REGISTERED = "registered"
    DISPATCHED = "dispatched"
    ACCEPTED = "accepted"
    ARRIVED = "arrived"
    HANDLED = "handled"
    FEEDBACK = "feedback"
    VERIFIED = "verified"
    CLOSED = "closed"
    RETURNED = "returned"
    CANCELLED = "cancelled"


Finding = Literal["handled", "nothing_there"]
Outcome = Literal["confirmed", "benign", "misfire", "duplicate", "inconclusive"]
Cause = Literal["sensor", "installation", "environment", "threshold", "communication", "unknown"]


class Announcement(msgspec.Struct, frozen=True):
    """Everyone on the order was told of this level ``at`` (UTC ns); ``decided_at`` is the sample that brought it."""

    at: int
    rule: str
    level: str
    severity: Severity
    decided_at: int


class Closure(msgspec.Struct, frozen=True):
    """封交: the road was to be closed at ``closed_at`` and is free again since ``lifted_at`` (UTC ns)."""

    closed_at: int
    lifted_at: int | None = None


class WorkOrder(msgspec.Struct, frozen=True):
    """Times are UTC nanoseconds of city time.

    ``alert``, ``rule``, ``level``, ``severity``, ``device``, ``hazard`` and ``reason`` are those of its gravest alert,
    ``decided_at`` is ``taken_at`` of the sample (or the deadline) that settled its dispatch. ``version`` rises with
    every change.
    """

    id: str
    number: str
    incident: str
    state: State
    alert: str
    rule: str
    level: str
    severity: Severity
    hazard: str
    case: Literal["city", "device"]
    device: str
    site: str
    unit: str
    dispatch: Choice
    confirmation: Decision
    reason: Reason
    opened_at: int
    decided_at: int
    due_at: int
    limit_s: float
    announcements: tuple[Announcement, ...]
    updated_at: int
    version: int = 1
    closure: Closure | None = None
    declined: tuple[str, ...] = ()
    finding: Finding | None = None
    handled_by: str | None = None
    handled_at: int | None = None
    outcome: Outcome | None = None
    cause: Cause | None = None
    sensor_abnormal: bool = False
    finished_at: int | None = None


order_table = Table(
    "work_order",
    metadata,
    Column("id", String, primary_key=True),
    Column("number", String, nullable=False, unique=True),
    # The database itself refuses a second order for one incident.
    Column("incident", String, ForeignKey("incident.id"), nullable=False, unique=True),
    Column("state", String, nullable=False),
    Column("alert", String, nullable=False),
    Column("rule", String, nullable=False),
    Column("level", String, nullable=False),
    Column("severity", String, nullable=False),
    Column("hazard", String, nullable=False),
    Column("case", String, nullable=False),
    Column("device", String, nullable=False),
    Column("site", String, nullable=False),
    Column("unit", String, nullable=False),
    Column("dispatch", JSON, nullable=False),
    Column("confirmation", JSON, nullable=False),
    Column("reason", JSON, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("limit_s", Float, nullable=False),
    Column("announcements", JSON, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("closure", JSON(none_as_null=True)),
    Column("declined", JSON, nullable=False),
    Column("finding", String),
    Column("handled_by", String),
    Column("handled_at", BigInteger),
    Column("outcome", String),
    Column("cause", String),
    Column("sensor_abnormal", Boolean, nullable=False),
    Column("finished_at", BigInteger),
    Index("work_order_by_opening", "opened_at", "id"),
    Index("work_order_by_end", "finished_at"),
)


def load(connection: Connection, order: str) -> WorkOrder | None:
    row = connection.execute(select(order_table).where(order_table.c.id == order)).one_or_none()
    return None if row is None else from_row(row, WorkOrder)


def of_incident(connection: Connection, incident: str) -> WorkOrder | None:
    row = connection.execute(select(order_table).where(order_table.c.incident == incident)).one_or_none()
    return None if row is None else from_row(row, WorkOrder)


def save(connection: Connection, order: WorkOrder) -> None:
    values = to_values(order)
    connection.execute(insert(order_table).values(values).on_conflict_do_update(index_elements=["id"], set_=values))
