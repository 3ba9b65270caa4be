"""One alert's life, sample by sample: ``T`` true, ``F`` false, ``U`` unknown, one letter a level."""

from rules.alert import Phase
from rules.life import Alert, Delays
from rules.plan import FALSE, TRUE, UNKNOWN

S = 1_000_000_000
LETTERS = {"T": TRUE, "F": FALSE, "U": UNKNOWN}


def live(delays: Delays, *steps: tuple[int, str]) -> list[tuple[int, Phase, int]]:
    """What is told, at which second and on which level, until nothing is left of the alert."""
    alert = Alert.opened(len(delays.on), steps[0][0] * S)
    told = []
    for at_s, truths in steps:
        phase = alert.sample(at_s * S, [LETTERS[letter] for letter in truths], delays)
        if phase is not None:
            alert.revision += 1
            told.append((at_s, phase, alert.told))
    return told


def delays(on: tuple[int, ...], off: tuple[int, ...] = ()) -> Delays:
    return Delays(tuple(x * S for x in on), tuple(x * S for x in off or (0,) * len(on)))


def test_without_an_on_delay_it_is_raised_at_once() -> None:
    assert live(delays((0,)), (0, "T"), (10, "T"), (20, "F")) == [(0, Phase.RAISED, 1), (20, Phase.CLEARED, 1)]


def test_an_on_delay_is_confirmed_by_a_sample() -> None:
    told = live(delays((30,)), (0, "T"), (10, "T"), (29, "T"), (30, "T"), (40, "F"))
    assert told == [(0, Phase.PENDING, 0), (30, Phase.RAISED, 1), (40, Phase.CLEARED, 1)]


def test_what_falls_away_before_its_on_delay_lapses() -> None:
    assert live(delays((30,)), (0, "T"), (20, "F")) == [(0, Phase.PENDING, 0), (20, Phase.LAPSED, 0)]


def test_the_unknown_holds_what_was() -> None:
    told = live(delays((30,)), (0, "T"), (10, "U"), (40, "U"), (50, "T"), (60, "U"), (70, "F"))
    assert told == [(0, Phase.PENDING, 0), (50, Phase.RAISED, 1), (70, Phase.CLEARED, 1)]


def test_an_off_delay_bridges_gaps_in_the_truth() -> None:
    told = live(delays((0,), (20,)), (0, "T"), (10, "F"), (20, "T"), (30, "F"), (40, "F"), (50, "F"))
    assert told == [(0, Phase.RAISED, 1), (50, Phase.CLEARED, 1)]


def test_a_rise_is_told_once_and_a_fall_too() -> None:
    told = live(delays((0, 0, 0)), (0, "TFF"), (10, "TTT"), (20, "TTT"), (30, "TTF"), (40, "FFF"))
    assert told == [(0, Phase.RAISED, 1), (10, Phase.UPDATED, 3), (30, Phase.UPDATED, 2), (40, Phase.CLEARED, 2)]


def test_a_higher_level_has_an_on_delay_of_its_own() -> None:
    told = live(delays((0, 20)), (0, "TF"), (10, "TT"), (20, "TT"), (30, "TT"))
    assert told == [(0, Phase.RAISED, 1), (30, Phase.UPDATED, 2)]


def test_an_alert_lasts_while_a_lower_level_is_on_its_way() -> None:
    told = live(delays((30, 0)), (0, "TT"), (10, "TF"), (30, "TF"), (40, "FF"))
    assert told == [(0, Phase.RAISED, 2), (30, Phase.UPDATED, 1), (40, Phase.CLEARED, 1)]


def test_a_last_value_that_counts_on_has_a_deadline() -> None:
    on_delay = delays((30,), (10,))
    alert = Alert.opened(1, 0)
    assert alert.sample(0, [TRUE], on_delay) is Phase.PENDING
    alert.revision = 1
    assert alert.due(on_delay, [True]) == 30 * S
    assert alert.due(on_delay, [False]) is None
    assert alert.expire(30 * S, on_delay, [True]) is Phase.RAISED
    assert alert.due(on_delay, [True]) is None
    assert alert.sample(50 * S, [FALSE], on_delay) is None
    assert alert.due(on_delay, [True]) == 60 * S
    assert alert.expire(60 * S, on_delay, [True]) is Phase.CLEARED
