"""The scorer holds what was told against the truth, and is not kind."""

from typing import Any

import pytest

from streetwarden.report import Spread, spread
from streetwarden.score import Incident, TruthFile, duplicated, incident_of, judge, missing_by_device

FLOOD = Incident("f", "flood", "city", "s", ("level-1", "level-2"), "2026-06-18T12:00:00+00:00")
THEFT = Incident("t", "cover", "city", "s", ("cover-1",), "2026-06-18T12:00:00+00:00", "2026-06-18T12:05:00+00:00")


def order(device: str, hazard: str, at: str = "12:01", **more: Any) -> dict[str, Any]:
    decided = f"2026-06-18T{at}:00+00:00"
    return {"number": "1", "device": device, "hazard": hazard, "decided_at": decided, "state": "dispatched", **more}


def alert(device: str, hazard: str, raised: str | None) -> dict[str, Any]:
    return {"device": device, "hazard": hazard, "raised_at": raised and f"2026-06-18T{raised}+00:00"}


def test_an_order_is_of_an_incident_only_by_hazard_device_and_time() -> None:
    truth = TruthFile(1, "", (FLOOD, THEFT))
    assert incident_of(order("level-2", "flood"), truth) is FLOOD
    assert incident_of(order("level-3", "flood"), truth) is None
    assert incident_of(order("level-1", "cover"), truth) is None
    assert incident_of(order("level-1", "flood", "11:54"), truth) is None
    assert incident_of(order("cover-1", "cover", "12:20"), truth) is None


def test_found_missed_misfires_and_duplicates_are_counted() -> None:
    orders = [order("level-1", "flood", state="closed"), order("level-2", "flood"), order("camera-1", "flood")]
    alerts = [alert("level-1", "flood", "12:00:40"), alert("level-2", "flood", "12:00:30"), alert("x", "flood", None)]
    truth, counted, delay, details = judge(TruthFile(1, "", (FLOOD, THEFT)), orders, alerts)
    assert (truth.incidents, truth.found, truth.missed, truth.misfires) == (2, 1, 1, 1)
    assert (counted.opened, counted.closed, counted.duplicate) == (3, 1, 1)
    assert delay == Spread(30.0, 30.0)
    assert len(details) == 2


def test_every_value_of_a_poll_counter_must_be_there_once() -> None:
    emitted = {"a": {"polls": 5}, "b": {"polls": 2}, "c": {"polls": 1}}
    stored: dict[str, list[float]] = {"a": [1, 2, 4, 4, 5], "b": [1, 2], "c": []}
    assert missing_by_device(emitted, stored) == {"a": 1, "b": 0, "c": 1}
    assert duplicated(stored) == 1


def test_an_earlier_alert_of_the_same_lid_is_not_the_delay_of_a_later_theft() -> None:
    later = Incident("l", "cover", "city", "s", ("cover-1",), "2026-06-18T13:00:00+00:00")
    alerts = [alert("cover-1", "cover", "12:01:00"), alert("cover-1", "cover", "13:01:00")]
    orders = [order("cover-1", "cover"), order("cover-1", "cover", "13:01")]
    _, _, delay, details = judge(TruthFile(1, "", (THEFT, later)), orders, alerts)
    assert (delay, details) == (Spread(60.0, 60.0), [])


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], Spread(None, None)), ([2.0], Spread(2.0, 2.0)), ([float(n) for n in range(1, 101)], Spread(50.0, 99.0))],
)
def test_percentiles_are_values_that_were_measured(values: list[float], expected: Spread) -> None:
    assert spread(values) == expected
