"""Every decoder against mutated messages, for as long as ``STREETWARDEN_FUZZ_S`` says (seconds each, 2 by itself).

``python -m tests.fuzz`` is the long form: the same mutations, millions of them.
"""

import os
import time
from collections.abc import Iterator
from itertools import count

import pytest
import structlog
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import mutator
from tests.fuzz.decoders import DECODERS
from tests.fuzz.running import LEAST, Hang, Tally, episode, patience, quiet

pytestmark = pytest.mark.timeout(900)  # it may get no more than what other work leaves
SECONDS = float(os.environ.get("STREETWARDEN_FUZZ_S", "2"))
LEAST_ROUNDS = 8  # always the same ones: however slow the machine, enough for the share
HALF = st.integers(0, 2**16 - 1)  # hypothesis draws no longer number evenly
MUTATION = st.builds(mutator.code, st.integers(0, 2**8 - 1), HALF, st.integers(0, 2**24 - 1))
CHOICE = st.builds(lambda high, low: high << 16 | low, HALF, HALF)
INPUT = st.tuples(CHOICE, st.lists(MUTATION, min_size=1, max_size=2))


@pytest.fixture(autouse=True)
def quietly() -> Iterator[None]:
    quiet()
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("name", DECODERS)
def test_it_survives_and_a_tenth_decodes(name: str) -> None:
    decoder, tally = DECODERS[name], Tally()

    @settings(
        max_examples=50,
        deadline=None,
        database=None,
        derandomize=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(INPUT, min_size=1, max_size=30))
    def survives(inputs: list[tuple[int, list[int]]]) -> None:
        run = decoder.begin()
        with patience():
            try:
                for choice, mutations in inputs:
                    tally.outcomes[run.take(choice, mutations)] += 1
                tally.settle(run.settle())
            except (Exception, Hang) as error:
                error.add_note(f"where: {run.given.where}\ninput: {run.given.data.hex()}")
                raise

    until = time.monotonic() + SECONDS
    for number in count():
        seed(number)(survives)()
        if number >= LEAST_ROUNDS - 1 and time.monotonic() >= until:
            break
    assert tally.decoded >= LEAST, f"{tally.decoded:.1%} of {tally.inputs} inputs"


@pytest.mark.parametrize("name", DECODERS)
def test_it_survives_the_first_inputs_of_the_long_form(name: str) -> None:
    tally, broken = episode(DECODERS[name], seed=1, number=0, count=1000)
    assert broken is None, str(broken)
    assert tally.inputs == 1000
