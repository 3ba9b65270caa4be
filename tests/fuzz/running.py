"""How a decoder is fed with mutated messages, and what it must not do whatever they are.

Inputs come in episodes of ``EPISODE``: each begins with fresh state and with numbers drawn from its own seed, so that
any input of ten million is reached again by repeating no more than its episode.
"""

import signal
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from types import FrameType
from typing import NamedTuple

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from edge.decoding import Decoding
from edge.installed import Installed
from edge.profile import Field
from edge.reading import Reading, Replies
from rules.samples import BAD
from tests.fuzz import mutator

EPISODE = 10_000
BATCH = 2_000  # inputs whose readings are decoded together, as those of a tick are
PATIENCE_S = 5.0  # CPU time of a batch, which takes less than a tenth of a second: whoever takes longer hangs
CHOICE_BITS = 32
LEAST = 0.1  # of all inputs must decode
DECODED, NOTHING = "decoded", "nothing"  # what may become of an input, besides the name of a rejection


class Input(NamedTuple):
    """What a decoder was given: ``where`` it came, and when by the city's clock (UTC ns, where that matters)."""

    where: str
    data: bytes
    now: int = 0


class Wrong(AssertionError):  # noqa: N818 - what it is
    """A decoder gave what none may give; ``given`` is for what, if not for the last input."""

    def __init__(self, why: str, given: Input | None = None) -> None:
        super().__init__(why)
        self.given = given


class Hang(BaseException):
    """An input took too long; no decoder's business to catch."""


class Run(ABC):
    """A decoder with its state, from fresh on."""

    def __init__(self) -> None:
        self.given = Input("", b"")

    @abstractmethod
    def take(self, choice: int, mutations: Sequence[int]) -> str:
        """Mutate the valid message of a ``choice`` (``CHOICE_BITS``), and decode it; what became of it.

        Whatever it raises is a fault of the decoder, and ``given`` is the input then.
        """

    @abstractmethod
    def settle(self) -> int:
        """Check what could not be checked one by one since the last call; ``Wrong``.

        Gives how many of what decoded since then tell nothing, as is seen only now.
        """


@dataclass(frozen=True)
class Decoder:
    """One line of the table: its ``name``, and how its state begins."""

    name: str
    begin: Callable[[], Run]


@dataclass
class Tally:
    """What became of inputs: ``outcomes`` by name, the CPU seconds that they and the slowest took."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest_s: float = 0.0

    @property
    def inputs(self) -> int:
        return self.outcomes.total()

    @property
    def decoded(self) -> float:
        """The share that told something."""
        return self.outcomes[DECODED] / max(1, self.inputs)

    def settle(self, empty: int) -> None:
        """Take so many that decoded to nothing of worth."""
        if empty:
            self.outcomes[DECODED] -= empty
            self.outcomes[NOTHING] += empty

    def others(self) -> list[tuple[str, int]]:
        """What became of those that told nothing, the most frequent first."""
        return [(what, count) for what, count in self.outcomes.most_common() if what != DECODED]

    def add(self, other: "Tally") -> None:
        self.outcomes += other.outcomes
        self.seconds += other.seconds
        self.slowest_s = max(self.slowest_s, other.slowest_s)


@dataclass(frozen=True)
class Broken:
    """The first fault of an episode: which input brought it, and how."""

    decoder: str
    seed: int
    index: int
    given: Input
    trace: str

    def __str__(self) -> str:
        return (
            f"{self.decoder} broke at input {self.index} of seed {self.seed}\n{self.trace}\n"
            f"where: {self.given.where}\ninput: {self.given.data.hex()}\n"
            f"again: python -m tests.fuzz --only {self.decoder} --seed {self.seed} --at {self.index}"
        )


def episode(decoder: Decoder, seed: int, number: int, count: int = EPISODE) -> tuple[Tally, Broken | None]:
    """Give a decoder the first ``count`` inputs of an episode; the first fault ends it."""
    random = Random(f"{decoder.name} {seed} {number}")  # seeded by SHA-512 of the text: the same anywhere
    draw, codes = random.getrandbits, mutator.codes
    run = decoder.begin()
    tally, broken = Tally(), None
    outcomes = tally.outcomes
    given: list[Input] = []
    took = began = time.process_time()
    with patience() as more:
        try:
            for index in range(count):
                outcomes[run.take(draw(CHOICE_BITS), codes(random))] += 1
                given.append(run.given)
                before, took = took, time.process_time()
                if took - before > tally.slowest_s:
                    tally.slowest_s = took - before
                if index % BATCH == BATCH - 1 or index == count - 1:
                    tally.settle(run.settle())
                    given.clear()
                    more()
                    took = time.process_time()
        except (Exception, Hang) as error:  # noqa: BLE001 - that nothing comes here is what is shown
            culprit = (error.given if isinstance(error, Wrong) else None) or run.given
            place = next((place for place, each in enumerate(given) if each is culprit), len(given))
            at = number * EPISODE + index // BATCH * BATCH + place
            broken = Broken(decoder.name, seed, at, culprit, traceback.format_exc())
    tally.seconds = time.process_time() - began
    return tally, broken


@contextmanager
def patience() -> Iterator[Callable[[], None]]:
    """Raise ``Hang`` after ``PATIENCE_S`` of CPU time, so that a busy machine breaks nothing; calls begin it anew."""

    def begin() -> None:
        signal.setitimer(signal.ITIMER_PROF, PATIENCE_S)

    before = signal.signal(signal.SIGPROF, _hang)
    begin()
    try:
        yield begin
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def quiet() -> None:
    """Have log lines made as a gateway makes them, for nobody."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.LogfmtRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )


def _hang(_: int, __: FrameType | None) -> None:
    raise Hang(f"no end within {PATIENCE_S:g} s of computing")


class Samples:
    """Readings of installed devices, decoded a batch at a time as a gateway does, and checked.

    No sample that counts may lie outside the range that its profile declares, or be no finite number.
    """

    def __init__(self, places: Sequence[Installed], decoding: Decoding | None = None) -> None:
        self._decoding = decoding or Decoding()
        self._readings: list[Reading] = []
        self._given: list[Input] = []
        self._low = np.full(sum(len(place.rows) for place in places), -np.finfo(np.float64).max)
        self._high = -self._low
        for place in places:
            for row, quantity in zip(place.rows, place.profile.measured, strict=False):
                counts_on = not isinstance(quantity, Field) and quantity.counter  # a total leaves its meter's range
                if quantity.range and not counts_on:
                    self._low[row], self._high[row] = quantity.range

    def add(self, reading: Reading, given: Input) -> None:
        """Take a reading, checked by itself."""
        told = reading.told
        if not -(2**63) <= reading.taken_at < 2**63:
            raise Wrong(f"taken at {reading.taken_at}, which 64 bits do not hold", given)
        if isinstance(told, tuple) and not isinstance(told, Replies):
            if len(told) != len(reading.place.profile.field):
                raise Wrong(f"{len(told)} values of {len(reading.place.profile.field)} fields", given)
            for value in told:
                if value.__class__ is not float:
                    raise Wrong(f"{value!r:.60} is told, not a float", given)
        self._readings.append(reading)
        self._given.append(given)

    def settle(self) -> NDArray[np.intp]:
        """Decode and check what was taken; the places, among it, of the readings with a sample that counts."""
        readings, given = self._readings, self._given
        self._readings, self._given = [], []
        try:
            return self._settled(readings)
        except (Exception, Hang):
            for reading, each in zip(readings, given, strict=True):  # whose is it?
                try:
                    self._settled([reading])
                except Exception as error:
                    raise Wrong(f"{type(error).__name__} from {reading}: {error}", each) from error
            raise

    def _settled(self, readings: list[Reading]) -> NDArray[np.intp]:
        numbered = [Reading(r.place, n, r.told, r.quality, r.lag_ns) for n, r in enumerate(readings)]
        block = self._decoding.block(numbered)
        block = block.take(block.quality < BAD)
        value = block.value
        wrong = ~((value >= self._low[block.point]) & (value <= self._high[block.point]))
        if wrong.any():
            row, value = block.point[wrong][0], value[wrong][0]
            raise Wrong(f"row {row} counts with {value}, and lies between {self._low[row]} and {self._high[row]}")
        return np.unique(block.taken_at)


def longest(*roots: object) -> int:
    """Measure the longest container that our own objects hold on to, and those within: what grows, grows in one."""
    most, seen, todo = 0, set[int](), list(roots)
    while todo:
        each = todo.pop()
        if id(each) not in seen:
            seen.add(id(each))
            if isinstance(each, dict):
                inner: Sequence[object] = (*each, *each.values())
                most = max(most, len(each))
            elif isinstance(each, list | tuple | set | frozenset | deque):
                inner = tuple(each)
                most = max(most, len(each))
            else:
                inner = _attributes(each)
            todo += inner
    return most


def _attributes(thing: object) -> list[object]:
    """What an object with state of its own has; declared data never grows."""
    kind = type(thing)
    if kind.__module__.partition(".")[0] not in ("edge", "wire") or isinstance(
        thing, msgspec.Struct | Installed | Enum
    ):
        return []
    names = getattr(kind, "__slots__", ()) or getattr(thing, "__dict__", ())
    return [getattr(thing, name) for name in names]
