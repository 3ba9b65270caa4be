"""Who on a bus is asked next, and when: an absolute schedule, and what is left of it for devices that do not answer.

Decisions only: nothing here waits or asks. Times and spans are wall seconds of one steady clock, which the caller
reads: a step of the box's own clock moves no poll.
"""

import math
import random
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

DOWN_AFTER = 2  # failures in a row
BACKOFF_S = 0.5  # doubled with each failure up to the most, and each pause drawn from its upper half
BACKOFF_MOST_S = 10.0
TRUSTED_AFTER = 10  # answers in a row: until then the next failure goes on where the back-off had come to
BUSY_S = 0.1  # as BACKOFF_S, after each answer that the device is busy
BUSY_TRIES = 4
PROBE_SHARE = 20.0  # a device that is down costs at most one part in so many of the time that living ones are due
PROBE_ROUND = 2.0  # many of them cost more: each is probed within so many time-outs for each device of the bus
PROBE_DRAWN = 1.1  # at most so much longer is the pause after a probe
WINDOW_SLOTS = 30  # of each device, after which is told how a bus keeps its intervals
BEHIND_FROM = 0.10  # of these slots are lost: it does not
BEHIND_BELOW = 0.02  # it does again


class Turn:
    """One device's place in the schedule: its ``slot`` is the one it waits for, ``due`` when it is to be asked.

    ``failures`` are those in a row. ``resting``: it is left alone for longer than a slot, and then probed.
    """

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self.slot = 0.0
        self.due = 0.0
        self.failures = 0
        self.resting = False
        self.step = 0  # of its back-off
        self.answers = 0  # in a row
        self.tries = 0  # likewise, that it is busy


T = TypeVar("T", bound=Turn)


class Schedule(Generic[T]):
    """The schedule of one bus: each device at its own instants, spread over its interval, earliest first.

    Slots that pass while the bus is held up are lost and counted, never made up. A device that failed ``DOWN_AFTER``
    times rests, and each probe that finds it silent doubles its rest; probes that hold up living devices are paid for
    by time without any, the less of it the more devices are down, and no device waits for two probes. When nobody can
    be asked, all wait together.

    Parameters
    ----------
    turns
        One for each device, in the order of their first slots.
    timeout_s
        How long a silent device holds up the bus.

    Attributes
    ----------
    attempts
        How often in a row the bus could not be reached.
    asked_s
        The shortest interval of its devices: the cycle that is asked of the bus.
    behind
        Whether the bus loses slots all the time, since it cannot keep its intervals.
    """

    def __init__(self, turns: Sequence[T], timeout_s: float) -> None:
        self.attempts = 0
        self.asked_s = min((turn.interval_s for turn in turns), default=math.inf)
        self.behind = False
        self._turns = tuple(turns)
        self._timeout_s = timeout_s
        self._living: list[tuple[float, int]] = []  # when due, and whose turn: heaps, each turn in one of them
        self._resting: list[tuple[float, int]] = []
        self._numbers = {id(turn): number for number, turn in enumerate(self._turns)}
        self._wait_until = 0.0
        self._probe_from = self._probed = 0.0
        self._fastest = sum(turn.interval_s == self.asked_s for turn in turns)
        self._made = self._lost = 0
        self._cycle_s: float | None = None

    def begin(self, now: float) -> None:
        """Spread the first slots of all devices over their intervals."""
        for number, turn in enumerate(self._turns):
            turn.slot = turn.due = now + turn.interval_s * number / len(self._turns)
            self._put_back(turn)

    @property
    def cycle_s(self) -> float | None:
        """The time that really lies between two polls where the interval is shortest; None while it is not known."""
        if self._cycle_s is None and self._made:
            return self.asked_s * ((self._made + self._lost) / self._made)
        return self._cycle_s

    def next(self, now: float) -> tuple[float, T]:
        """Take out whose turn is next, and when; one of the methods below puts it back with what came of it."""
        living, resting = self._living, self._resting
        heap, at = living, living[0][0] if living else math.inf
        if resting:
            due = max(resting[0][0], now)
            if due + self._timeout_s > at:  # it may hold up a living one, so it has to be paid for
                due = max(due, self._probe_from)
                if at <= self._probed:
                    due = math.inf  # the last one held it up already
            if due <= max(at, now):
                heap, at = resting, due
        return max(at, self._wait_until), self._turns[heappop(heap)[1]]

    def answered(self, turn: T, now: float) -> int:
        """Note a poll that succeeded; how many slots were lost before it for want of time."""
        lost = self._next_slot(turn, now)
        if turn.resting or turn.tries:
            lost = 0  # they are the device's own doing
        turn.failures = turn.tries = 0
        turn.answers += 1
        if turn.answers == TRUSTED_AFTER:
            turn.step = 0
        turn.resting = False
        turn.due = turn.slot
        self._put_back(turn)
        if turn.interval_s == self.asked_s:
            self._measure(lost)
        return lost

    def failed(self, turn: T, began: float, now: float) -> None:
        """Note a poll that ``began`` and failed."""
        if turn.step:
            # Whom it held up: the living one that has waited longest.
            held_up_s = now - max(began, self._living[0][0]) if self._living else 0.0
            # Drawn, else it would be the same one each time.
            share = PROBE_SHARE * random.uniform(1.0, PROBE_DRAWN)
            round_share = PROBE_ROUND * len(self._turns) / (len(self._resting) + 1) * random.uniform(0.9, 1.0)
            self._probe_from = max(self._probe_from, now + (min(share, round_share) - 1.0) * held_up_s)
            self._probed = now
        self._next_slot(turn, now)
        turn.failures += 1
        turn.answers = turn.tries = 0
        turn.due = turn.slot
        if turn.failures >= DOWN_AFTER or turn.step:
            turn.resting = True
            turn.due = max(turn.slot, now + _backoff_s(turn.step))
            turn.step += 1
        self._put_back(turn)

    def busy(self, turn: T, now: float) -> bool:
        """Note an answer that the device is busy: it is asked again soon, in its slot; False when it had its tries."""
        if turn.resting or turn.tries == BUSY_TRIES:
            return False
        turn.due = now + _drawn(BUSY_S * 2.0**turn.tries)
        turn.tries += 1
        self._put_back(turn)
        return True

    def unreachable(self, turn: T, now: float) -> None:
        """Note that nobody on the bus can be asked."""
        self._wait_until = now + _backoff_s(self.attempts)
        self.attempts += 1
        self._put_back(turn)

    def reachable(self, now: float) -> None:
        """Note that the bus is there again. The slots that passed meanwhile are nobody's, but the latest of each."""
        self.attempts = 0
        for turn in self._turns:
            passed = math.floor((now - turn.slot) / turn.interval_s)
            turn.slot += max(passed, 0) * turn.interval_s
            if not turn.resting:
                turn.due = max(turn.due, turn.slot)
        self._living = [(self._turns[number].due, number) for _, number in self._living]
        heapify(self._living)

    def _put_back(self, turn: T) -> None:
        heappush(self._resting if turn.resting else self._living, (turn.due, self._numbers[id(turn)]))

    def _next_slot(self, turn: T, now: float) -> int:
        """Go on to the next slot that is still to come; how many passed unused. A timer may have ended early."""
        passed = max(math.floor((now - turn.slot) / turn.interval_s), 0)
        turn.slot += (passed + 1) * turn.interval_s
        return passed

    def _measure(self, lost: int) -> None:
        self._made += 1
        self._lost += lost
        slots = self._made + self._lost
        if slots >= WINDOW_SLOTS * self._fastest:
            self._cycle_s = self.asked_s * (slots / self._made)
            self.behind = self._lost > slots * (BEHIND_BELOW if self.behind else BEHIND_FROM)
            self._made = self._lost = 0


def _backoff_s(step: int) -> float:
    return _drawn(min(BACKOFF_S * 2.0 ** min(step, 10), BACKOFF_MOST_S))


def _drawn(most_s: float) -> float:
    """Draw a pause, so that those who fell silent together are not asked together."""
    return most_s * random.uniform(0.5, 1.0)
