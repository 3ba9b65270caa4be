"""The schedule of a bus, played without one: time goes on only by what polls take."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from edge.schedule import BACKOFF_MOST_S, BACKOFF_S, BUSY_TRIES, DOWN_AFTER, PROBE_ROUND, PROBE_SHARE, Schedule, Turn

TIMEOUT_S = 1.0
ANSWER_S = 0.004


class Device(Turn):
    def __init__(self, number: int, interval_s: float = 1.0) -> None:
        super().__init__(interval_s)
        self.number = number


class Bus:
    """A bus on which some devices are dead (``dead`` says which, by number and time), and what went on there."""

    def __init__(self, intervals_s: Sequence[float], dead: Callable[[int, float], bool] = lambda *_: False) -> None:
        self.devices = [Device(number, interval_s) for number, interval_s in enumerate(intervals_s)]
        self.schedule = Schedule(self.devices, TIMEOUT_S)
        self.dead = dead
        self.answer_s = ANSWER_S
        self.now = 1000.0
        self.began = self.now
        self.polls: list[tuple[float, int, bool]] = []  # when, whom, whether it answered
        self.lost = 0
        self.schedule.begin(self.now)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            at, device = self.schedule.next(self.now)
            self.now = max(self.now, at)
            silent = self.dead(device.number, self.now - self.began)
            began, self.now = self.now, self.now + (TIMEOUT_S if silent else self.answer_s)
            self.polls.append((began - self.began, device.number, not silent))
            if silent:
                self.schedule.failed(device, began, self.now)
            else:
                self.lost += self.schedule.answered(device, self.now)
            if self.now >= until:
                return

    def times(self, number: int, *, answered: bool = True) -> list[float]:
        return [at for at, whom, ok in self.polls if whom == number and ok == answered]

    def slots(self, number: int, begin: float, end: float) -> int:
        """How many different slots of a device had an answer."""
        phase = number / len(self.devices) - 1e-6
        return len({int(at - phase) for at in self.times(number) if begin <= at < end})


def test_each_device_is_asked_once_in_each_of_its_slots_and_never_drifts() -> None:
    bus = Bus([1.0, 1.0, 2.0, 5.0])
    bus.run(100)
    for device, phase, interval_s in zip(bus.devices, (0, 0.25, 1.0, 3.75), (1, 1, 2, 5), strict=True):
        times = bus.times(device.number)
        assert len(times) in (int(100 / interval_s), int(100 / interval_s) + 1)
        assert [at % interval_s for at in times] == pytest.approx([phase % interval_s] * len(times), abs=0.02)
    assert bus.lost == 0
    assert bus.schedule.cycle_s == 1.0
    assert not bus.schedule.behind


def test_slots_that_passed_are_lost_and_counted_and_not_made_up() -> None:
    bus = Bus([1.0] * 4)
    bus.run(10)
    bus.now += 5.3  # held up from outside
    bus.run(10)
    after = [(at, whom) for at, whom, _ in bus.polls if at > 15]
    assert sorted(whom for _, whom in after[:4]) == [0, 1, 2, 3]  # each once, at once
    for number in range(4):
        times = [at for at, whom in after if whom == number]
        assert len({int(at - number / 4 + 1e-6) for at in times}) == len(times)
        assert times[-1] % 1.0 == pytest.approx(number / 4, abs=0.02)
    assert bus.lost == 5 + 4 + 4 + 4


def test_a_timer_that_ends_early_asks_nobody_twice() -> None:
    device = Device(0)
    schedule = Schedule([device], TIMEOUT_S)
    schedule.begin(10.0)
    at, _ = schedule.next(9.9999)
    schedule.answered(device, 9.9998)
    assert at == 10.0
    assert schedule.next(9.9999)[0] == 11.0


def test_a_silent_device_rests_longer_each_time_and_no_longer_than_said() -> None:
    bus = Bus([1.0], dead=lambda _, at: at < 200)
    bus.run(215)
    assert bus.lost == 0  # what passed while it rested was its own
    asked = bus.times(0, answered=False)
    pauses = [b - a - TIMEOUT_S for a, b in pairwise(asked)]
    assert len(asked) > 200 / (BACKOFF_MOST_S + TIMEOUT_S + 1)
    # The slot after the first failure is asked as any other; then each pause is drawn from the upper half of a bound.
    for step, pause in enumerate(pauses[1:]):
        most = min(BACKOFF_S * 2**step, BACKOFF_MOST_S)
        assert most / 2 - 0.01 <= pause <= max(most, 1.0) + 0.01
    assert len({round(pause, 3) for pause in pauses[8:]}) > 5  # drawn


def test_a_device_is_back_within_one_step_and_in_its_old_slots() -> None:
    for cured_at in range(20, 60):
        bus = Bus([10.0] * 5, dead=lambda number, at: number == 2 and at < cured_at)  # noqa: B023 - played at once
        bus.run(100)
        first = bus.times(2)[0]
        assert cured_at <= first <= cured_at + TIMEOUT_S + max(BACKOFF_MOST_S, 10.0)
        assert [at % 10 for at in bus.times(2)[1:]] == pytest.approx([4.0] * (len(bus.times(2)) - 1), abs=0.1)
        assert not bus.devices[2].resting


@pytest.mark.parametrize("count", [1, 5, 10, 25, 40])
def test_dead_devices_cost_a_part_that_grows_with_their_number_and_each_is_probed_in_time(count: int) -> None:
    share = max(1 / PROBE_SHARE, count / (PROBE_ROUND * 50))
    bus = Bus([1.0] * 50, dead=lambda number, _: number < count)
    bus.run(30 + 3 * count)
    begin = bus.now - bus.began  # all of them are known to be dead
    assert sum(device.failures >= DOWN_AFTER for device in bus.devices) == count
    bus.run(1200)
    probes = [at for at, whom, _ in bus.polls if whom < count and at > begin]
    slots = [second + number / 50 for second in (0, 1) for number in range(count, 50)]
    held_up = [at % 1 + TIMEOUT_S - min(slot for slot in slots if slot >= at % 1) for at in probes]
    assert 0.8 * share <= sum(held_up) / 1200 <= share * (1.0 if count == 1 else 1 / 0.9)
    assert {whom for at, whom, _ in bus.polls if at > begin} == set(range(50))
    for number in range(count, 50):
        assert bus.slots(number, begin, begin + 1200) >= 0.95 * 1200
    assert not bus.schedule.behind
    for number in range(count):
        longest_s = max(b - a for a, b in pairwise(bus.times(number, answered=False)))
        assert longest_s <= PROBE_ROUND * 50 * TIMEOUT_S + BACKOFF_MOST_S
    # Between two of its polls a living device waits for one probe at most.
    waited: defaultdict[int, int] = defaultdict(int)
    for at, whom, answered in bus.polls:
        waited[whom] = 0
        for number in range(count, 50) if at > begin and not answered else ():  # in a time-out all have a slot
            waited[number] += 1
            assert waited[number] <= 1


def test_probes_that_hold_up_nobody_are_not_limited() -> None:
    bus = Bus([10.0] * 4, dead=lambda number, _: number < 3)
    bus.run(600)
    for number in range(3):
        assert len(bus.times(number, answered=False)) > 600 / (BACKOFF_MOST_S + 10 + TIMEOUT_S)
    assert len(bus.times(3)) >= 60
    assert bus.lost == 0


def test_a_probe_need_not_be_paid_for_where_it_is_over_in_time() -> None:
    bus = Bus([5.0, 5.0], dead=lambda number, _: number == 1)
    bus.run(3000)  # some probes were begun within a time-out of the other's slot
    asked = bus.times(1, answered=False)
    assert max(b - a for a, b in pairwise(asked)) <= TIMEOUT_S + BACKOFF_MOST_S + TIMEOUT_S + 0.1


def test_where_all_are_dead_all_are_probed_and_the_first_that_is_cured_is_found() -> None:
    bus = Bus([1.0] * 10, dead=lambda number, at: number != 7 or at < 300)
    bus.run(400)
    asked: defaultdict[int, int] = defaultdict(int)
    for at, whom, _ in bus.polls:
        asked[whom] += 50 < at < 300
    assert min(asked.values()) > 15
    assert bus.times(7)[0] < 300 + BACKOFF_MOST_S + 10 * TIMEOUT_S


def test_a_device_that_flutters_is_not_trusted_at_once() -> None:
    told: defaultdict[int, int] = defaultdict(int)

    def dead(number: int, _: float) -> bool:
        told[number] += 1
        return number == 0 and told[0] % 3 != 0  # fails twice, answers once

    bus = Bus([1.0] * 50, dead)
    bus.run(1200)
    failed = bus.times(0, answered=False)
    assert len(failed) < 1200 / BACKOFF_MOST_S * 2
    assert all(bus.slots(number, 0, 1200) >= 0.95 * 1200 for number in range(1, 50))


def test_a_busy_device_is_asked_again_in_its_slot_and_has_only_so_many_tries() -> None:
    device = Device(0)
    schedule = Schedule([device], TIMEOUT_S)
    schedule.begin(0.0)
    now, pauses = 0.0, []
    while True:
        at, _ = schedule.next(now)
        pauses.append(at - now)
        now = at
        if not schedule.busy(device, now):
            break
        assert device.failures == 0
    assert len(pauses) == 1 + BUSY_TRIES
    for number, pause in enumerate(pauses[1:]):
        assert 0.1 * 2**number / 2 <= pause <= 0.1 * 2**number
    schedule.failed(device, now, now)
    assert device.failures == 1
    at, _ = schedule.next(now)
    assert schedule.busy(device, at)  # the next slot has its own
    at, _ = schedule.next(at)
    assert schedule.answered(device, at + 2.0) == 0  # the slots that it was busy through are its own
    assert (device.failures, device.tries) == (0, 0)


def test_a_busy_device_leaves_the_bus_to_its_neighbours() -> None:
    busy, other = devices = [Device(0), Device(1)]
    schedule = Schedule(devices, TIMEOUT_S)
    schedule.begin(0.0)
    assert schedule.next(0.0)[1] is busy
    assert schedule.busy(busy, 0.5)
    assert schedule.next(0.5) == (0.5, other)


def test_when_nobody_can_be_reached_one_attempt_counts_for_all() -> None:
    bus = Bus([1.0] * 50)
    bus.run(10)
    waits = []
    for _ in range(12):
        at, device = bus.schedule.next(bus.now)
        waits.append(at - bus.now)
        bus.now = max(at, bus.now)
        bus.schedule.unreachable(device, bus.now)
    assert sum(waits) < 1 + 12 * BACKOFF_MOST_S
    assert all(BACKOFF_MOST_S / 2 <= wait <= BACKOFF_MOST_S for wait in waits[6:])
    assert bus.schedule.attempts == 12
    assert not any(device.failures for device in bus.devices)

    at, device = bus.schedule.next(bus.now)
    bus.now = at
    bus.schedule.reachable(bus.now)
    assert bus.schedule.answered(device, bus.now) == 0
    seen = len(bus.polls)
    bus.run(0.95)
    assert sorted({whom for _, whom, _ in bus.polls[seen:]} | {device.number}) == list(range(50))
    bus.run(10)
    assert bus.lost <= 1  # what passed meanwhile is nobody's
    for number in range(50):
        assert bus.times(number)[-1] % 1.0 == pytest.approx(number / 50, abs=0.1)


def test_a_bus_that_cannot_keep_its_intervals_says_so_and_when_it_can_again() -> None:
    bus = Bus([1.0] * 50)
    bus.answer_s = 0.05  # 2.5 s for all of them
    bus.run(120)
    assert bus.schedule.behind
    assert bus.schedule.asked_s == 1.0
    assert bus.schedule.cycle_s == pytest.approx(2.5, rel=0.25)
    times = [len(bus.times(number)) for number in range(50)]
    assert max(times) - min(times) <= 2  # the shortage is everybody's
    bus.answer_s = ANSWER_S
    bus.run(120)
    assert (bus.schedule.behind, bus.schedule.cycle_s) == (False, 1.0)


def test_a_cycle_is_told_before_its_window_is_full_but_not_before_anything_is_known() -> None:
    bus = Bus([600.0])
    assert bus.schedule.cycle_s is None
    bus.run(700)
    assert bus.schedule.cycle_s == 600.0
