"""The harness finds what it looks for: faults of decoders, by the input that brought them, and again by its number.

A decoder here takes eight bytes as a number; the planted fault is in what it does with some of them.
"""

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog

from edge.decoders.sparkplug import SparkplugHost, _Node
from edge.decoding import Decoding
from edge.installed import Installed
from edge.reading import Reading
from tests import readings
from tests.fuzz import __main__ as command
from tests.fuzz import mutator, part, running
from tests.fuzz.decoders import DECODERS
from tests.fuzz.mutator import Mutator
from tests.fuzz.running import DECODED, EPISODE, Decoder, Input, Run, Samples, Tally, Wrong, episode, longest
from wire.batch import Malformed

pytestmark = pytest.mark.timeout(900)  # it may get no more than what other work leaves
NUMBER = struct.Struct(">d")
VALID = NUMBER.pack(2.5)
MUTATE = Mutator(mutator.BYTES, [VALID])
PLACE = readings.place("x")


class Numbers(Run):
    """Decodes a number; ``fault`` does what no decoder may, with some of them."""

    def __init__(self, fault: Callable[[float], object]) -> None:
        super().__init__()
        self._fault = fault
        self._samples = Samples([PLACE])

    def take(self, choice: int, mutations: Sequence[int]) -> str:
        data = MUTATE(VALID, mutations)
        self.given = Input("here", data)
        try:
            told: Any = self._fault(_number(data))
        except Malformed as error:
            return type(error).__name__
        at = 2**63 if told == "never" else 0
        self._samples.add(Reading(PLACE, at, None if told is None else (told,)), self.given)
        return DECODED

    def settle(self) -> int:
        self._samples.settle()
        return 0


@pytest.fixture(autouse=True)
def quietly() -> Iterator[None]:
    running.quiet()
    yield
    structlog.reset_defaults()


def planted(fault: Callable[[float], object]) -> Decoder:
    return Decoder("planted", lambda: Numbers(fault))


def _number(data: bytes) -> float:
    if len(data) != NUMBER.size:
        raise Malformed("not eight bytes")
    (number,) = NUMBER.unpack(data)
    assert isinstance(number, float)
    return number


def _sound(number: float) -> float:
    if number != number:
        raise Malformed("not a number")
    return number


def _raises(number: float) -> float:
    if number < 0:
        raise KeyError("not documented")
    return abs(number)


def _hangs(number: float) -> float:
    while number < 0:
        pass
    return abs(number)


FAULTS: dict[str, tuple[Callable[[float], object], str]] = {
    "raises": (_raises, "KeyError"),
    "hangs": (_hangs, "no end within"),
    "gives an integer": (lambda number: -1 if number < 0 else 1.0, "-1 is told, not a float"),
    "gives a text": (lambda number: "x" if number < 0 else 1.0, "'x' is told, not a float"),
    "gives a time beyond 64 bits": (lambda number: "never" if number < 0 else 1.0, "64 bits do not hold"),
}


def test_a_sound_decoder_survives_and_what_became_of_its_inputs_is_told() -> None:
    tally, broken = episode(planted(_sound), seed=1, number=0, count=3000)
    assert broken is None
    assert tally.inputs == 3000
    assert set(tally.outcomes) == {DECODED, "Malformed"}
    assert 0.1 < tally.decoded < 0.9
    assert tally.seconds > 0


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_found_again_by_its_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PATIENCE_S", 1.0)
    fault, words = FAULTS[name]
    tally, broken = episode(planted(fault), seed=1, number=3, count=3000)
    assert broken is not None
    assert words in broken.trace
    assert NUMBER.unpack(broken.given.data)[0] < 0, "this input has the fault, and no other"
    assert broken.index == 3 * EPISODE + tally.inputs
    assert f"input: {broken.given.data.hex()}" in str(broken)
    assert f"again: python -m tests.fuzz --only planted --seed 1 --at {broken.index}" in str(broken)
    _, again = episode(planted(fault), seed=1, number=3, count=broken.index % EPISODE + 1)
    assert again is not None
    assert (again.index, again.given) == (broken.index, broken.given)


def test_what_only_the_decoding_of_many_shows_is_found_in_the_one_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(Decoding):
        """Lets pass what lies beyond the range."""

        def block(self, readings: Sequence[Reading]) -> Any:
            block = super().block(readings)
            block.quality[:] = 0
            told: Any = [reading.told for reading in readings]
            block.value[:] = [number for (number,) in told]
            return block

    monkeypatch.setattr(running, "Decoding", Careless)
    _, broken = episode(planted(_sound), seed=1, number=0, count=3000)
    assert broken is not None
    assert "counts with" in broken.trace
    assert not np.isfinite(NUMBER.unpack(broken.given.data)[0])
    _, again = episode(planted(_sound), seed=1, number=0, count=broken.index + 1)
    assert again is not None
    assert (again.index, again.given) == (broken.index, broken.given)


def test_a_range_is_looked_at() -> None:
    profile = readings.place("x").profile
    field = msgspec.structs.replace(profile.field[0], range=(0.0, 10.0))
    place = Installed(PLACE.device, msgspec.structs.replace(profile, field=(field,)), PLACE.rows)
    samples = Samples([place])
    samples.add(Reading(place, 0, (5.0,)), Input("", b""))
    samples.add(Reading(place, 0, (50.0,)), Input("", b""))  # decoded as bad
    assert samples.settle().tolist() == [0]
    other = Samples([place])
    other.add(Reading(PLACE, 0, (50.0,)), Input("", b"z"))  # by a profile that declares no range
    with pytest.raises(Wrong, match=r"lies between 0\.0 and 10\.0") as caught:
        other.settle()
    assert caught.value.given == Input("", b"z")


def test_the_longest_container_is_measured() -> None:
    assert longest({}) == 0
    assert longest({"a": [1, 2, (3,)]}) == 3
    assert longest(readings.place("x", "y")) == 0, "declared data never grows"
    assert longest(Samples([PLACE])) == 0, "only what is edge's or wire's own"
    decoding = Decoding()
    decoding._fields_of(PLACE.profile)
    assert longest(decoding) == 1
    host = SparkplugHost((), "x", 0)
    assert longest(host) == 0
    host._nodes["a", "b"] = _Node("a", "b", held=dict.fromkeys(range(7)))  # type: ignore[arg-type]
    assert longest(host) == 7, "slots are attributes too"


def test_the_command_repeats_one_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(DECODERS, "planted", planted(_raises))
    _, broken = episode(DECODERS["planted"], seed=5, number=1, count=EPISODE)
    assert broken is not None
    assert command.main(["--only", "planted", "--seed", "5", "--at", str(broken.index)]) == 1
    assert str(broken.given.data.hex()) in capsys.readouterr().out
    assert command.main(["--only", "planted", "--seed", "5", "--at", str(broken.index - 1)]) == 0
    assert "survives" in capsys.readouterr().out


def test_the_command_runs_in_processes_and_tells_a_table() -> None:
    arguments = ("-m", "tests.fuzz", "--only", "modbus_tcp", "--inputs", "12000", "--jobs", "2")
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    assert "12,000" in done.stdout
    assert "Misfit" in done.stdout
    assert not done.stderr, "no progress where nobody looks"


def test_ctrl_c_tells_what_was_reached(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(reached: command.Reached, _: int) -> None:
        one = next(reached.parts())
        reached.add(one, *replace(one, count=100).work())
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_run", interrupted)
    assert command.main(["--only", "modbus_rtu"]) == 130
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "interrupted"
    assert lines[2].split()[:2] == ["modbus_rtu", "100"]


def test_a_run_fails_when_too_little_decodes_or_something_broke() -> None:
    reached = command.Reached(["a"], seed=1, inputs=20)
    rare = Tally()
    rare.outcomes.update({DECODED: 1, "Malformed": 19})
    reached.add(part.Part("a", 1, 0, 20), rare, None)
    assert reached.fails()
    often = Tally()
    often.outcomes.update({DECODED: 20})
    reached.add(part.Part("a", 1, 0, 20), often, None)
    assert not reached.fails()
    _, broken = episode(planted(_raises), seed=1, number=0, count=3000)
    assert broken is not None
    reached.add(part.Part("a", 1, 0, 20), often, broken)
    assert reached.fails()
    assert not list(reached.parts()), "nothing more of what is broken"
    assert "BROKEN" in reached.table()
