"""Holds what the cloud told against the simulator's truth. The truth file is read here and by nothing else."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streetwarden.report import DeviceRow, Orders, Rate, Report, Run, Samples, Spread, Truth, spread
from wire.clock import NANOSECONDS, from_iso

EARLY_S = 300.0  # an alert may run ahead of the hazard's own definition by this much and still be of it
LATE_S = 600.0  # and one decided this long after the hazard has ended is no longer of it


class Incident(msgspec.Struct, frozen=True):
    """One true incident of the scenario: ``devices`` are those that may tell of it."""

    id: str
    hazard: str
    case: str
    site: str
    devices: tuple[str, ...]
    onset: str
    end: str | None = None


class TruthFile(msgspec.Struct, frozen=True):
    """What the simulator writes; ``emitted`` counts by device: ``polls`` of its counter, ``uplinks`` it sent."""

    seed: int
    at: str = ""
    incidents: tuple[Incident, ...] = ()
    emitted: dict[str, dict[str, int]] = {}


def read_truth(path: Path) -> TruthFile:
    return msgspec.json.decode(path.read_bytes(), type=TruthFile)


def incident_of(order: Mapping[str, Any], truth: TruthFile) -> Incident | None:
    """The true incident that a work order is about; ``None`` when the street has none: a misfire."""
    return next((incident for incident in truth.incidents if _is_of(order, order["decided_at"], incident)), None)


def _is_of(told: Mapping[str, Any], at: str, incident: Incident) -> bool:
    """Whether an order or alert, decided ``at``, is of an incident: by its hazard, its device and its time."""
    if told["hazard"] != incident.hazard or told["device"] not in incident.devices:
        return False
    begins = from_iso(incident.onset) - int(EARLY_S * NANOSECONDS)
    ends = from_iso(incident.end) + int(LATE_S * NANOSECONDS) if incident.end else from_iso(at)
    return begins <= from_iso(at) <= ends


def judge(
    truth: TruthFile, orders: Sequence[Mapping[str, Any]], alerts: Sequence[Mapping[str, Any]]
) -> tuple[Truth, Orders, Spread, list[str]]:
    """Score found, missed, misfires, duplicates and the delay from true onset to the first alert."""
    details: list[str] = []
    of_incident: dict[str, list[Mapping[str, Any]]] = {incident.id: [] for incident in truth.incidents}
    misfires = 0
    for order in orders:
        incident = incident_of(order, truth)
        if incident is None:
            misfires += 1
            details.append(f"misfire: order {order['number']} ({order['hazard']} on {order['device']}) has no incident")
        else:
            of_incident[incident.id].append(order)
    delays: list[float] = []
    for incident in truth.incidents:
        if not of_incident[incident.id]:
            details.append(f"missed: {incident.hazard} at {incident.site} since {incident.onset}")
            continue
        raised = [
            from_iso(alert["raised_at"])
            for alert in alerts
            if alert["raised_at"] and _is_of(alert, alert["raised_at"], incident)
        ]
        if raised:
            delays.append((min(raised) - from_iso(incident.onset)) / NANOSECONDS)
    found = sum(1 for matched in of_incident.values() if matched)
    return (
        Truth(len(truth.incidents), found, len(truth.incidents) - found, misfires),
        Orders(
            len(orders),
            sum(1 for order in orders if order["state"] == "closed"),
            sum(max(0, len(matched) - 1) for matched in of_incident.values()),
        ),
        spread(delays),
        details,
    )


def missing_by_device(
    emitted: Mapping[str, Mapping[str, int]], stored: Mapping[str, Sequence[float]]
) -> dict[str, int]:
    """How many values 1 … n of each poll counter are not in the store."""
    return {
        device: len(set(range(1, emitted[device]["polls"] + 1)) - {int(value) for value in values})
        for device, values in stored.items()
    }


def duplicated(stored: Mapping[str, Sequence[float]]) -> int:
    """How many values of poll counters are in the store more than once."""
    return sum(len(values) - len(set(values)) for values in stored.values())


def compile_report(
    run: Run,
    truth: TruthFile,
    orders: Sequence[Mapping[str, Any]],
    alerts: Sequence[Mapping[str, Any]],
    devices: Sequence[Mapping[str, Any]],
    balance: Mapping[str, Any],
    counters: Mapping[str, Sequence[float]],
    latencies: list[float],
) -> Report:
    scored, work_orders, delay, details = judge(truth, orders, alerts)
    total = balance["total"]
    missing = sum(missing_by_device(truth.emitted, counters).values())
    return Report(
        run=run,
        samples=Samples(total["acquired"], total["filtered"], total["committed"], missing, duplicated(counters)),
        truth=scored,
        work_orders=work_orders,
        delay_s=delay,
        latency_s=spread(latencies),
        devices=tuple(
            DeviceRow(
                device["id"],
                device["kind"],
                device["alerts"],
                device["outcomes"],
                msgspec.convert(device["misfire_rate"], Rate),
            )
            for device in devices
        ),
        held_back=Counter(
            alert["decision"]["code"]
            for alert in alerts
            if alert["decision"] is not None and alert["decision"]["verdict"] == "held"
        ),
        details=tuple(details),
    )
