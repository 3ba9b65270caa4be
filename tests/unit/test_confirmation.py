import msgspec
import pytest

from cloud.alerts import Alert
from cloud.confirmation import Neighbour, decide
from rules.alert import Phase, Reason, Severity
from rules.rule import Rule
from tests.desk_city import at, catalog

RULES = {rule.id: rule for rule in catalog()}
FLOOD, CAMERA, COVER = RULES["flood.depth"], RULES["camera.water"], RULES["cover.open"]


def raised(rule: Rule, level: int = 0, **changes: object) -> Alert:
    """An alert of a rule, raised at 60 s and told at 61 s."""
    alert = Alert(
        id="a",
        revision=1,
        phase=Phase.RAISED,
        rule=rule.id,
        hazard=rule.hazard,
        case=rule.case,
        level=rule.level[level].name,
        severity=rule.level[level].severity,
        device="d-1",
        gateway="g",
        since=at(30),
        decided_at=at(60),
        updated_at=at(61),
        reason=Reason("above"),
        evidence={},
        raised_at=at(60),
        arrived_at=at(61),
    )
    return msgspec.structs.replace(alert, **changes)


def rain(seconds: float = 50, *, distance_m: float = 100, cleared: float | None = None, device: str = "r") -> Neighbour:
    return Neighbour(device, "rain", at(seconds), None if cleared is None else at(cleared), distance_m)


def test_auto_dispatches_at_once() -> None:
    decision = decide(raised(COVER), COVER, COVER.level[0], [], at(61))
    assert (decision.verdict, decision.code, decision.decided_at) == ("dispatched", "auto", at(60))


@pytest.mark.parametrize(
    ("neighbour", "agrees"),
    [
        (rain(), True),
        (rain(distance_m=300), True),
        (rain(distance_m=301), False),
        (rain(device="d-1"), False),
        (rain(-900, cleared=-539), True),  # the window is ten minutes before it was raised
        (rain(-900, cleared=-541), False),
        (Neighbour("x", "cover", at(50), None, 10.0), False),
    ],
)
def test_a_neighbour_corroborates_by_hazard_distance_and_window(neighbour: Neighbour, agrees: bool) -> None:
    decision = decide(raised(FLOOD), FLOOD, FLOOD.level[0], [neighbour], at(61))
    assert decision.code == ("corroborated" if agrees else "waiting_corroboration")


def test_the_later_of_both_decides_the_moment() -> None:
    assert decide(raised(FLOOD), FLOOD, FLOOD.level[0], [rain(50)], at(61)).decided_at == at(60)
    assert decide(raised(FLOOD), FLOOD, FLOOD.level[0], [rain(75)], at(76)).decided_at == at(75)
    both = [rain(90, device="r-2"), rain(75)]
    assert decide(raised(FLOOD), FLOOD, FLOOD.level[0], both, at(91)).decided_at == at(75)
    assert decide(raised(FLOOD), FLOOD, FLOOD.level[0], both, at(91)).by == ("r", "r-2")


def test_unconfirmed_waits_then_holds_or_dispatches_by_its_level() -> None:
    slow, close = raised(FLOOD), raised(FLOOD, 1)
    waiting = decide(slow, FLOOD, FLOOD.level[0], [], at(359))
    assert (waiting.verdict, waiting.deadline) == ("waiting", at(360))
    held = decide(slow, FLOOD, FLOOD.level[0], [], at(360))
    assert (held.verdict, held.code) == ("held", "not_corroborated")
    assert held.numbers == {"needed": 1.0, "found": 0.0, "within_m": 300.0, "wait_s": 300.0}
    sent = decide(close, FLOOD, FLOOD.level[1], [], at(360))
    assert (sent.verdict, sent.code, sent.decided_at) == ("dispatched", "unconfirmed_dispatched", at(360))


def test_late_ones_get_a_grace_and_are_then_decided_by_their_state() -> None:
    late = raised(COVER, arrived_at=at(121))
    assert decide(late, COVER, COVER.level[0], [], at(122)).code == "arrived_late"
    assert decide(late, COVER, COVER.level[0], [], at(123)).code == "auto"
    just = raised(COVER, arrived_at=at(120))
    assert decide(just, COVER, COVER.level[0], [], at(120)).code == "auto"


def test_what_is_over_is_held() -> None:
    before = raised(COVER, phase=Phase.CLEARED, cleared_at=at(90), decided_at=at(90), arrived_at=at(100))
    assert decide(before, COVER, COVER.level[0], [], at(100)).code == "cleared_before_arrival"
    while_waiting = raised(CAMERA, phase=Phase.CLEARED, cleared_at=at(90), decided_at=at(90))
    assert decide(while_waiting, CAMERA, CAMERA.level[0], [], at(91)).code == "not_corroborated"


def test_what_ends_while_it_waits_tells_how_many_had_confirmed_it() -> None:
    two = msgspec.structs.replace(FLOOD, confirm=msgspec.structs.replace(FLOOD.confirm, needed=2))
    over = raised(FLOOD, phase=Phase.CLEARED, cleared_at=at(90), decided_at=at(90))
    one = decide(over, two, FLOOD.level[0], [rain()], at(91))
    assert (one.code, one.numbers) == ("not_corroborated", {"needed": 2.0, "found": 1.0, "lasted_s": 30.0})
    enough = decide(over, FLOOD, FLOOD.level[0], [rain()], at(91))  # the second word came with its own end
    assert (enough.verdict, enough.code) == ("held", "cleared_before_arrival")


def test_information_and_near_misses_are_held() -> None:
    info = raised(COVER, severity=Severity.INFO)
    assert decide(info, COVER, COVER.level[0], [], at(61)).code == "information_only"
    lapsed = raised(COVER, phase=Phase.LAPSED, raised_at=None, arrived_at=None, decided_at=at(38))
    decision = decide(lapsed, COVER, COVER.level[0], [], at(39))
    assert (decision.code, decision.numbers) == ("lapsed", {"lasted_s": 8.0, "on_delay_s": 30.0})


def test_a_device_on_probation_needs_a_person_unless_lives_depend_on_it() -> None:
    held = decide(raised(COVER), COVER, COVER.level[0], [], at(61), probation=True)
    assert (held.verdict, held.code, held.numbers) == ("held", "not_corroborated", {"probation": 1.0})
    grave = msgspec.structs.replace(COVER.level[0], unconfirmed="dispatch")
    assert decide(raised(COVER), COVER, grave, [], at(61), probation=True).code == "auto"
