"""One real event is one incident: alerts of one place, time and hazard belong together."""

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, String, Table

from cloud.alerts import Alert
from cloud.store import metadata
from rules.rule import Confirm
from wire.clock import NANOSECONDS

QUIET_NS = 30 * 60 * NANOSECONDS  # this long without a standing alert, and a handled event is over


@dataclass(frozen=True, slots=True)
class Incident:
    """An event that alerts may still belong to.

    ``rank`` is its order's severity, ``handled`` whether the crew's work there is done, ``finished_at`` when its order
    ended, ``quiet_since`` when its last alert cleared (``None`` while one stands). Times are UTC nanoseconds.
    """

    id: str
    case: str
    hazard: str
    device: str
    rank: int
    handled: bool = False
    finished_at: int | None = None
    quiet_since: int | None = None


incident_table = Table(
    "incident",
    metadata,
    Column("id", String, primary_key=True),
    Column("case", String, nullable=False),
    Column("hazard", String, nullable=False),
    Column("device", String, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
)


def belongs(incident: Incident, alert: Alert, confirm: Confirm, distance_m: float) -> bool:
    """Whether this alert, ``distance_m`` metres from the incident, is part of it.

    A sick sensor is an incident of its own, one per device. In the city, what one device says of one hazard is one
    event, and so is what devices near each other say of hazards that corroborate each other.
    """
    return _same_place(incident, alert, confirm, distance_m) and _same_time(incident, alert)


def _same_place(incident: Incident, alert: Alert, confirm: Confirm, distance_m: float) -> bool:
    if incident.case != alert.case:
        return False
    if alert.case == "device":
        return incident.device == alert.device
    if incident.device == alert.device and incident.hazard == alert.hazard:
        return True
    return incident.hazard in confirm.hazards and distance_m <= confirm.within_m


def _same_time(incident: Incident, alert: Alert) -> bool:
    if incident.finished_at is not None:
        # What was true before the case was closed is part of it, however late it is told; graver news never is.
        return alert.decided_at <= incident.finished_at and alert.severity.rank <= incident.rank
    if not incident.handled or incident.quiet_since is None:
        return True
    return alert.since <= incident.quiet_since + QUIET_NS
