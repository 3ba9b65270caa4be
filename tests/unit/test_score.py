"""The scorer holds what was told against the truth, is not kind, and names the stage where the truth was lost."""

from typing import Any

import pytest

from firmware_sim.scenario import Expected
from rules.alert import Phase, Reason, Severity, Transition
from streetwarden.headless import audit
from streetwarden.matching import Incident, Nuisance, TruthFile, incident_of
from streetwarden.score import Delay, Score, delay, duplicated, missing_by_device, score
from streetwarden.told import Audit, Flaw, Run, Step, Told
from wire.clock import from_iso

DAY = "2026-06-18"
RUN = Run("storm", 1, "fast", 0.0, 3600.0)
FLOOD = Incident("f", "flood", "city", "s", ("level-1", "level-2"), f"{DAY}T12:00:00+00:00", late_after_s=120.0)
THEFT = Incident("t", "cover", "city", "s", ("cover-1",), f"{DAY}T12:00:00+00:00", f"{DAY}T12:05:00+00:00")
DEVICES = [{"id": device, "gateway": "gw-1"} for device in ("level-1", "level-2", "cover-1")]


def order(device: str, hazard: str, at: str = "12:01", **more: Any) -> dict[str, Any]:
    decided = f"{DAY}T{at}:00+00:00"
    return {
        "id": f"{device}-{at}",
        "number": f"{device}-{at}",
        "device": device,
        "hazard": hazard,
        "decided_at": decided,
        "opened_at": decided,
        "state": "dispatched",
        "alerts": [],
        "announcements": [{"level": "slow"}],
        "reason": {"code": "above", "column": "level", "numbers": {"value": 0.3}},
        **more,
    }


def alert(device: str, hazard: str, raised: str | None, verdict: str = "dispatched", **more: Any) -> dict[str, Any]:
    at = raised and f"{DAY}T{raised}+00:00"
    return {
        "id": f"{hazard}.{device}.{raised}",
        "device": device,
        "hazard": hazard,
        "rule": f"{hazard}.rule",
        "phase": "raised" if raised else "lapsed",
        "since": at or f"{DAY}T12:00:10+00:00",
        "decided_at": at or f"{DAY}T12:00:40+00:00",
        "raised_at": at,
        "cleared_at": None,
        "reason": {"code": "above", "column": "level", "numbers": {"value": 0.3, "limit": 0.25}},
        "decision": {
            "verdict": verdict,
            "code": "auto" if verdict == "dispatched" else "not_corroborated",
            "numbers": {},
        },
        "work_order": None,
        **more,
    }


def scored(
    incidents: tuple[Incident, ...] = (),
    orders: tuple[dict[str, Any], ...] = (),
    alerts: tuple[dict[str, Any], ...] = (),
    nuisances: tuple[Nuisance, ...] = (),
    **told: Any,
) -> Score:
    emitted = told.pop("emitted", {})
    truth = TruthFile(1, f"{DAY}T13:30:00+00:00", incidents, nuisances, emitted)
    return score(truth, Told(RUN, list(orders), list(alerts), DEVICES, told.pop("balance", {}), **told))


def lost(incident: Incident, **told: Any) -> tuple[str, str]:
    """Where, and why, the one missed incident was lost."""
    (detail,) = [detail for detail in scored((incident,), **told).details if detail.kind == "missed"]
    return detail.stage, detail.reason


def test_an_order_is_of_an_incident_only_by_hazard_device_and_time() -> None:
    truth = TruthFile(1, "", (FLOOD, THEFT))
    assert incident_of(order("level-2", "flood"), truth) is FLOOD
    assert incident_of(order("level-3", "flood"), truth) is None
    assert incident_of(order("level-1", "cover"), truth) is None
    assert incident_of(order("level-1", "flood", "11:54"), truth) is None
    assert incident_of(order("cover-1", "cover", "12:20"), truth) is None


def test_found_missed_misfires_and_duplicates_are_counted() -> None:
    orders = order("level-1", "flood", state="closed"), order("level-2", "flood"), order("camera-1", "flood")
    alerts = alert("level-1", "flood", "12:00:40"), alert("level-2", "flood", "12:00:30"), alert("x", "flood", None)
    result = scored((FLOOD, THEFT), orders, alerts)
    assert (result.incidents.total, result.incidents.found, result.incidents.missed) == (2, 1, 1)
    counted = result.orders
    assert (counted.opened, counted.closed, counted.real, counted.misfires, counted.duplicates) == (3, 1, 2, 1, 1)
    assert (counted.useful_share, counted.per_incident) == (0.3333, 2.0)
    assert counted.misfires_by_device == {"camera-1": 1}
    assert result.delay_s == Delay(30.0, 30.0, 30.0)
    assert [detail.kind for detail in result.details] == ["missed", "misfire", "duplicate"]
    assert not result.in_order()


def test_a_run_with_everything_found_once_is_in_order() -> None:
    result = scored((FLOOD,), (order("level-1", "flood"),), (alert("level-1", "flood", "12:00:40"),))
    assert result.in_order()
    assert result.details == ()
    assert [(row.hazard, row.found, row.orders) for row in result.hazards] == [("flood", 1, 1)]


def test_an_earlier_alert_of_the_same_lid_is_not_the_delay_of_a_later_theft() -> None:
    later = Incident("l", "cover", "city", "s", ("cover-1",), f"{DAY}T13:00:00+00:00")
    alerts = alert("cover-1", "cover", "12:01:00"), alert("cover-1", "cover", "13:01:00")
    result = scored((THEFT, later), (order("cover-1", "cover"), order("cover-1", "cover", "13:01")), alerts)
    assert (result.delay_s, result.details) == (Delay(60.0, 60.0, 60.0), ())


def test_an_incident_whose_alert_joined_an_open_order_is_found() -> None:
    again = Incident("l", "cover", "city", "s", ("cover-1",), f"{DAY}T12:30:00+00:00")
    opened = order("cover-1", "cover")
    alerts = alert("cover-1", "cover", "12:01:00"), alert("cover-1", "cover", "12:31:00", work_order=opened["id"])
    result = scored((THEFT, again), (opened,), alerts)
    assert (result.incidents.found, result.orders.duplicates) == (2, 0)


def test_an_order_told_by_a_neighbour_belongs_to_what_its_alerts_tell_of() -> None:
    told = alert("level-1", "flood", "12:00:40")
    result = scored((FLOOD,), (order("camera-1", "standing_water", alerts=[told["id"]]),), (told,))
    assert (result.incidents.found, result.orders.misfires) == (1, 0)


def test_the_delay_is_that_of_the_first_alert_by_its_own_name() -> None:
    flood = Incident("f", "flood", "city", "s", ("level-1", "camera-1"), f"{DAY}T12:00:00+00:00")
    seen, told = alert("camera-1", "standing_water", "12:00:20"), alert("level-1", "flood", "12:00:40")
    assert scored((flood,), (order("level-1", "flood"),), (seen, told)).delay_s.most == 40.0
    assert scored((flood,), (order("level-1", "flood"),), (seen,)).delay_s.most == 20.0


def test_a_feeder_shows_as_silent_controllers() -> None:
    feeder = Incident("e", "feeder", "city", "s", ("lamp-1", "lamp-2"), f"{DAY}T12:00:00+00:00")
    result = scored((feeder,), (order("lamp-1", "device_silent"), order("lamp-2", "lamp"), order("lamp-1", "gas")))
    assert (result.incidents.found, result.orders.duplicates, result.orders.misfires) == (1, 1, 1)


def test_late_says_whether_the_rule_or_the_confirmation_took_the_time() -> None:
    orders = (order("level-1", "flood", "12:09"),)
    (by_rule,) = scored((FLOOD,), orders, (alert("level-1", "flood", "12:08:00"),)).details
    (by_wait,) = scored((FLOOD,), orders, (alert("level-1", "flood", "12:01:00"),)).details
    assert (by_rule.kind, by_rule.stage, by_rule.rule) == ("late", "rules", "flood.rule")
    assert (by_wait.kind, by_wait.stage) == ("late", "confirmation")


def test_an_order_on_what_was_announced_is_benign_and_a_misfire_names_what_deceived() -> None:
    works = Nuisance(
        "w", "works_opening", "cover-1", "cover", f"{DAY}T12:00:00+00:00", f"{DAY}T12:30:00+00:00", "benign"
    )
    truck = Nuisance("b", "truck", "cover-2", "cover", f"{DAY}T12:00:00+00:00", f"{DAY}T12:00:20+00:00")
    told = alert("cover-2", "cover", "12:01:00")
    orders = (
        order("cover-1", "cover"),
        order("cover-1", "gas"),
        order("cover-2", "cover", alerts=[told["id"]]),
        order("cover-2", "cover", "12:30"),
    )
    result = scored((), orders, (told,), (works, truck))
    assert (result.orders.benign, result.orders.misfires, result.orders.useful_share) == (1, 3, 0.0)
    assert result.orders.misfires_by_rule == {"cover.rule": 1, "": 2}
    reasons = {
        (detail.device, detail.at[11:16]): detail.reason for detail in result.details if detail.kind == "misfire"
    }
    assert "truck `b`" in reasons["cover-2", "12:01"]
    assert "nothing in the street explains it" in reasons["cover-2", "12:30"]


def step(phase: Phase, **more: Any) -> Step:
    at = from_iso(f"{DAY}T12:01:00+00:00")
    reason = Reason("above", "level", {"value": 0.3, "limit": 0.25})
    names = {"alert": "a", "revision": 1, "rule": "flood.rule", "level": "slow", "device": "level-1", **more}
    return Step(
        "gw-1",
        Transition(phase=phase, severity=Severity.IV, since=at, decided_at=at, reason=reason, evidence={}, **names),
    )


def test_what_no_instrument_emitted_was_lost_there() -> None:
    nothing = {"level-1": {"reads": 0}, "level-2": {"reads": 0}}
    assert lost(FLOOD, emitted=nothing)[0] == "instrument"
    assert lost(FLOOD, emitted={**nothing, "level-2": {"reads": 1}})[0] == "rules"


@pytest.mark.parametrize(("kind", "stage"), [("garbled", "edge"), ("lost", "edge"), ("alien", "instrument")])
def test_samples_that_never_reached_the_rules_whole_are_where_it_was_lost(kind: Any, stage: Any) -> None:
    flaw = Flaw(kind, "level-2", "level", 60, stage)
    assert lost(FLOOD, audit=Audit(flaws=(flaw,)))[0] == stage


def test_samples_lost_after_the_rules_do_not_excuse_them() -> None:
    flaw = Flaw("lost", "level-1", "level", 60, "outbox")
    assert lost(FLOOD, audit=Audit(flaws=(flaw,)))[0] == "rules"


def test_what_lapsed_was_lost_at_the_rules_with_its_numbers() -> None:
    stage, reason = lost(FLOOD, alerts=(alert("level-1", "flood", None, "held"),))
    assert (stage, "lapsed after 30 s" in reason, "limit 0.25" in reason) == ("rules", True, True)
    stage, reason = lost(FLOOD, steps=(step(Phase.LAPSED),))
    assert (stage, "limit 0.25" in reason) == ("rules", True)


@pytest.mark.parametrize(
    ("told", "stage"),
    [
        ({"audit": Audit(flaws=(Flaw("lost", "level-2", "level", 9, "outbox"),))}, "outbox"),
        ({"audit": Audit(flaws=(Flaw("lost", "level-2", "level", 9, "wire"),))}, "wire"),
        ({"balance": {"gateways": [{"id": "gw-1", "in_flight": 4, "dropped": {}}]}}, "outbox"),
        ({"balance": {"gateways": [{"id": "gw-1", "in_flight": 0, "dropped": {"full": 4}}]}}, "outbox"),
        ({"balance": {"gateways": [{"id": "gw-1", "in_flight": 0, "dropped": {}}]}}, "ingest"),
    ],
)
def test_what_a_gateway_raised_and_the_centre_never_heard_was_lost_between_them(told: Any, stage: str) -> None:
    assert lost(FLOOD, steps=(step(Phase.RAISED),), **told)[0] == stage


def test_what_was_held_was_lost_at_confirmation_and_what_was_dispatched_without_an_order_there() -> None:
    stage, reason = lost(FLOOD, alerts=(alert("level-1", "flood", "12:01:00", "held"),))
    assert (stage, "not_corroborated" in reason) == ("confirmation", True)
    assert lost(FLOOD, alerts=(alert("level-1", "flood", "12:01:00", decision=None),))[0] == "confirmation"
    assert lost(FLOOD, alerts=(alert("level-1", "flood", "12:01:00"),))[0] == "order"


def test_an_alert_that_stood_before_the_incident_is_told_as_what_came_nearest() -> None:
    stage, reason = lost(FLOOD, alerts=(alert("level-1", "flood", "10:00:00"),))
    assert (stage, "stood already, raised 2026-06-18T10:00" in reason) == ("rules", True)
    over = alert("level-1", "flood", "10:00:00", cleared_at=f"{DAY}T10:30:00+00:00")
    assert "no rule came near" in lost(FLOOD, alerts=(over,))[1]


def test_a_misfire_on_garbled_samples_is_the_edges() -> None:
    flaw = Flaw("garbled", "level-1", "level", 60, "edge", note="word order")
    result = scored((), (order("level-1", "flood"),), audit=Audit(flaws=(flaw,)))
    assert [(each.kind, each.stage, "word order" in each.reason) for each in result.details] == [
        ("misfire", "edge", True),
        ("garbled", "edge", True),
    ]


def test_flaws_are_counted_and_told_with_their_stage() -> None:
    flaws = (
        Flaw("lost", "a", "level", 3, "outbox"),
        Flaw("doubled", "a", "level", 2, "ingest"),
        Flaw("lost", "b", "x", 4, "wire"),
    )
    result = scored(audit=Audit(100, 100, 40, 0, 60, 60, flaws))
    samples = result.samples
    assert (samples.lost, samples.doubled, samples.garbled, samples.aliens) == (7, 2, 0, 0)
    assert samples.missing_by_device == {"b": 4, "a": 3}
    assert [(each.kind, each.stage, each.count) for each in result.details] == [
        ("lost", "outbox", 3),
        ("lost", "wire", 4),
        ("doubled", "ingest", 2),
    ]
    assert not result.in_order()


def test_expectations_that_do_not_agree_say_whether_the_world_or_the_product_is_to_blame() -> None:
    expected = Expected("flood", 2, announcements=3, held=1), Expected("cover", 0)
    orders = order("level-1", "flood"), order("level-2", "flood")
    result = scored((FLOOD,), orders, expected=expected)
    unexpected = [(each.hazard, each.stage) for each in result.details if each.kind == "unexpected"]
    assert unexpected == [("flood", "scenario"), ("flood", "order"), ("flood", "order"), ("flood", "confirmation")]
    assert len(result.expectations) == 4
    agreed = Expected("flood", 1, orders=2, announcements=2, held=1)
    held = alert("level-1", "flood", "12:01:00", "held")
    assert scored((FLOOD,), orders, (held,), expected=(agreed,)).expectations == ()


def test_every_value_of_a_poll_counter_must_be_there_once() -> None:
    emitted = {"a": {"polls": 5}, "b": {"polls": 2}, "c": {"polls": 1}}
    stored: dict[str, list[float]] = {"a": [1, 2, 4, 4, 5], "b": [1, 2], "c": []}
    assert missing_by_device(emitted, stored) == {"a": 1, "b": 0, "c": 1}
    assert duplicated(stored) == {"a": 1, "b": 0, "c": 0}


def test_counters_that_are_missing_are_the_edges_only_if_its_gateway_counted_polls_without_an_answer() -> None:
    truth = TruthFile(1, emitted={"a": {"polls": 3}, "b": {"polls": 2}, "cover": {"uplinks": 9}})
    total = {"acquired": 30, "filtered": 10, "dropped": {"full": 1}, "committed": 19}
    gateways = {"a": "gw-1", "b": "gw-2"}
    found = audit(truth, {"a": [1, 3, 3], "b": [1]}, {"total": total}, gateways, {"gw-1": 1})
    assert (found.emitted, found.audited, found.dropped) == (5, 4, 1)
    assert [(flaw.kind, flaw.device, flaw.count, flaw.stage) for flaw in found.flaws] == [
        ("lost", "a", 1, "edge"),
        ("lost", "b", 1, "store"),
        ("doubled", "a", 1, "store"),
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], Delay()), ([2.0], Delay(2.0, 2.0, 2.0)), ([float(n) for n in range(1, 201)], Delay(100.0, 198.0, 200.0))],
)
def test_percentiles_are_values_that_were_measured(values: list[float], expected: Delay) -> None:
    assert delay(values) == expected
