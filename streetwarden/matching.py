"""Finds for every alert and order the true incident that it is about. The truth file is read here and nowhere else."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from streetwarden.told import Told
from wire.clock import NANOSECONDS, from_iso

EARLY_S = 300.0  # an alert may run ahead of the hazard's own definition by this much and still be of it
LATE_S = 600.0  # and one decided this long after the hazard has ended is no longer of it

# What a true hazard may rightly be told as, where that is more than its own name: a street without voltage is dark and
# silent, a gateway that is off hears none of its devices, a gauge may drift into its stop, a cycling lamp is often out,
# and what a camera sees of a flood is standing water.
SHOWS_AS = {
    "feeder": {"feeder", "device_silent", "lamp"},
    "gateway_silent": {"gateway_silent", "device_silent"},
    "device_drift": {"device_drift", "device_stuck"},
    "cycling": {"cycling", "lamp"},
    "flood": {"flood", "standing_water"},
}
Json = Mapping[str, Any]


class Level(msgspec.Struct, frozen=True):
    """A level of a hazard, and when the world first reached it."""

    name: str
    onset: str


class Incident(msgspec.Struct, frozen=True):
    """One true incident: ``devices`` are those that may tell of it; found after ``late_after_s``, it is found late."""

    id: str
    hazard: str
    case: str
    site: str
    devices: tuple[str, ...]
    onset: str
    end: str | None = None
    levels: tuple[Level, ...] = ()
    late_after_s: float = 0.0  # 0: nobody asks


class Nuisance(msgspec.Struct, frozen=True):
    """What looks like ``hazard`` to ``device``: nothing at all, or (``benign``) real, but announced or harmless."""

    id: str
    kind: str
    device: str
    hazard: str
    at: str
    until: str | None = None
    role: Literal["nuisance", "benign"] = "nuisance"


class TruthFile(msgspec.Struct, frozen=True):
    """What the simulator writes; ``emitted`` counts by device: ``reads``, ``polls`` of its counter, ``uplinks``."""

    seed: int
    at: str = ""
    incidents: tuple[Incident, ...] = ()
    nuisances: tuple[Nuisance, ...] = ()
    emitted: dict[str, dict[str, int]] = {}


def read_truth(path: Path) -> TruthFile:
    return msgspec.json.decode(path.read_bytes(), type=TruthFile)


def incident_of(order: Json, truth: TruthFile) -> Incident | None:
    """Find the true incident that a work order is about; ``None`` when the street has none."""
    return Street(truth).incident(order["hazard"], order["device"], from_iso(order["decided_at"]))


def shows_as(hazard: str) -> set[str]:
    return SHOWS_AS.get(hazard, {hazard})


class Street:
    """The truth by device, to be asked what there was at an instant (UTC ns)."""

    def __init__(self, truth: TruthFile) -> None:
        self._incidents: dict[str, list[tuple[int, int | None, Incident]]] = defaultdict(list)
        self._nuisances: dict[str, list[tuple[int, int | None, Nuisance]]] = defaultdict(list)
        for incident in truth.incidents:
            begins, ends = from_iso(incident.onset), _maybe(incident.end)
            for device in incident.devices:
                self._incidents[device].append((begins, ends, incident))
        for nuisance in truth.nuisances:
            self._nuisances[nuisance.device].append((from_iso(nuisance.at), _maybe(nuisance.until), nuisance))

    def incident(self, hazard: str, device: str, at: int) -> Incident | None:
        """Find the incident that ``hazard``, told of a device, is about: of its own name first, then the nearest."""
        fitting = [
            (hazard != incident.hazard, _away(at, begins, ends), -begins, incident)
            for begins, ends, incident in self._incidents.get(device, ())
            if hazard in shows_as(incident.hazard) and _within(at, begins - _ns(EARLY_S), ends)
        ]
        return min(fitting, key=lambda each: each[:3])[3] if fitting else None

    def nuisance(self, hazard: str, device: str, at: int) -> Nuisance | None:
        """Find what may have deceived a device: what looks like ``hazard`` first, then the latest."""
        fitting = [
            (hazard in shows_as(nuisance.hazard), begins, nuisance)
            for begins, ends, nuisance in self._nuisances.get(device, ())
            if _within(at, begins, ends)
        ]
        return max(fitting, key=lambda each: each[:2])[2] if fitting else None


@dataclass(slots=True)
class Case:
    """One true incident, with the orders opened for it and the alerts raised of it, each in order of time.

    ``joined`` are the alerts that joined an order opened for something else.
    """

    incident: Incident
    orders: list[Json] = field(default_factory=list)
    alerts: list[Json] = field(default_factory=list)
    joined: list[Json] = field(default_factory=list)

    @property
    def found_at(self) -> int | None:
        """When a crew was first decided on for it, by its own order or one that was open already (UTC ns)."""
        decided = [from_iso(order["decided_at"]) for order in self.orders]
        return min([*decided, *(from_iso(alert["raised_at"]) for alert in self.joined)], default=None)

    @property
    def first(self) -> Json | None:
        """The alert that told of it first, by its own name if any did."""
        own = [alert for alert in self.alerts if alert["hazard"] == self.incident.hazard]
        return next(iter(own or self.alerts), None)

    @property
    def delay_s(self) -> float | None:
        """City seconds from the onset to the first alert."""
        return None if self.first is None else self.after(self.first["raised_at"])

    def after(self, at: str) -> float:
        return (from_iso(at) - from_iso(self.incident.onset)) / NANOSECONDS

    @property
    def late(self) -> bool:
        allowed, found = self.incident.late_after_s, self.found_at
        return allowed > 0 and found is not None and found - from_iso(self.incident.onset) > _ns(allowed)


@dataclass(slots=True)
class Matched:
    """Every order and alert with what it is about: ``cases`` in order of onset, the others by their nuisance if any."""

    cases: list[Case]
    benign: list[tuple[Json, Nuisance]]
    misfires: list[tuple[Json, Nuisance | None]]


def match(truth: TruthFile, told: Told) -> Matched:
    """Find for every order and raised alert the incident that it is about.

    An order is about the incident that its own device tells of; failing that, what an alert it gathered tells of.
    """
    street = Street(truth)
    cases = {incident.id: Case(incident) for incident in sorted(truth.incidents, key=lambda each: each.onset)}
    matched = Matched(list(cases.values()), [], [])
    about: dict[str, Incident] = {}
    for alert in sorted((alert for alert in told.alerts if alert["raised_at"]), key=lambda each: each["raised_at"]):
        incident = street.incident(alert["hazard"], alert["device"], from_iso(alert["raised_at"]))
        if incident is not None:
            about[alert["id"]] = incident
            cases[incident.id].alerts.append(alert)
    for order in sorted(told.orders, key=lambda each: each["decided_at"]):
        hazard, device, at = order["hazard"], order["device"], from_iso(order["decided_at"])
        gathered = [about[alert] for alert in order["alerts"] if alert in about]
        incident = street.incident(hazard, device, at) or next(iter(gathered), None)
        if incident is not None:
            cases[incident.id].orders.append(order)
            continue
        nuisance = street.nuisance(hazard, device, at)
        if nuisance is not None and nuisance.role == "benign" and hazard in shows_as(nuisance.hazard):
            matched.benign.append((order, nuisance))
        else:
            matched.misfires.append((order, nuisance))
    known = {order["id"] for order in told.orders}
    for case in matched.cases:
        others = known - {order["id"] for order in case.orders}
        case.joined = [alert for alert in case.alerts if alert["work_order"] in others]
    return matched


def _within(at: int, begins: int, ends: int | None) -> bool:
    return begins <= at and (ends is None or at <= ends + _ns(LATE_S))


def _away(at: int, begins: int, ends: int | None) -> int:
    return max(begins - at, 0 if ends is None else at - ends, 0)


def _maybe(at: str | None) -> int | None:
    return None if at is None else from_iso(at)


def _ns(seconds: float) -> int:
    return int(seconds * NANOSECONDS)
