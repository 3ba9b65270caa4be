import pytest

from cloud.alerts import Decision
from cloud.dispatch import Choice
from cloud.workorders.life import STEPS, Action, Incomplete, NotAllowed, Request, Stale, act, allowed
from cloud.workorders.order import State, WorkOrder
from rules.alert import Reason, Severity


def order(state: State = State.DISPATCHED, handled_by: str | None = None) -> WorkOrder:
    return WorkOrder(
        id="o",
        number="1",
        incident="i",
        state=state,
        alert="a",
        rule="r",
        level="l",
        severity=Severity.II,
        hazard="h",
        case="city",
        device="d",
        site="s",
        unit="u",
        dispatch=Choice("u", "function_territory", "f", "t"),
        confirmation=Decision("dispatched", "auto", 0),
        reason=Reason("above"),
        opened_at=0,
        decided_at=0,
        due_at=0,
        limit_s=1.0,
        announcements=(),
        updated_at=0,
        handled_by=handled_by,
    )


def test_the_straight_road_ends_closed() -> None:
    now = order()
    requests = [
        Request("accept", "c", "crew"),
        Request("arrive", "c", "crew"),
        Request("handle", "c", "crew", finding="handled"),
        Request("verify", "v", "verifier", outcome="misfire", cause="sensor"),
        Request("close", "d", "duty_officer"),
    ]
    told = []
    for request in requests:
        for step, moved in act(now, request, 5):
            told.append(step)
            assert moved.version == now.version + 1
            now = moved
    assert told == ["accept", "arrive", "handle", "feedback", "verify", "close"]
    assert (now.state, now.handled_by, now.outcome, now.cause) == (State.CLOSED, "c", "misfire", "sensor")
    assert now.finished_at == 5


@pytest.mark.parametrize("state", list(State))
def test_what_is_not_offered_is_refused_and_says_what_is(state: State) -> None:
    every: list[Action] = ["accept", "arrive", "handle", "verify", "close", "return", "cancel", "redispatch"]
    for action in every:
        if action in STEPS[state]:
            continue
        with pytest.raises(NotAllowed) as refused:
            act(order(state), Request(action, "x", "crew", why="w", finding="handled"), 1)
        assert refused.value.allowed == allowed(state)


def test_whoever_handled_does_not_verify() -> None:
    handled = order(State.FEEDBACK, handled_by="li")
    with pytest.raises(NotAllowed, match="does not verify"):
        act(handled, Request("verify", "li", "verifier", outcome="confirmed"), 1)
    with pytest.raises(NotAllowed, match="verifier"):
        act(handled, Request("verify", "wang", "crew", outcome="confirmed"), 1)


@pytest.mark.parametrize(
    "request_",
    [
        Request("return", "c", "crew", why=" "),
        Request("cancel", "c", "crew"),
    ],
)
def test_a_reason_is_asked_for(request_: Request) -> None:
    with pytest.raises(Incomplete, match="why"):
        act(order(), request_, 1)


def test_findings_outcomes_and_causes_are_asked_for() -> None:
    with pytest.raises(Incomplete, match="finding"):
        act(order(State.ARRIVED), Request("handle", "c", "crew"), 1)
    feedback = order(State.FEEDBACK, "c")
    with pytest.raises(Incomplete, match="outcome"):
        act(feedback, Request("verify", "v", "verifier"), 1)
    with pytest.raises(Incomplete, match="cause"):
        act(feedback, Request("verify", "v", "verifier", outcome="misfire"), 1)
    with pytest.raises(Incomplete, match="cause"):
        act(feedback, Request("verify", "v", "verifier", outcome="confirmed", cause="sensor"), 1)


def test_a_stale_version_is_refused() -> None:
    with pytest.raises(Stale):
        act(order(), Request("accept", "c", "crew", version=7), 1)


def test_a_returned_order_remembers_who_declined() -> None:
    ((_, returned),) = act(order(), Request("return", "c", "crew", why="not ours"), 1)
    assert (returned.state, returned.declined) == (State.RETURNED, ("u",))
    assert allowed(returned.state) == ("redispatch", "cancel")
