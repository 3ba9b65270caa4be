"""What every detector owes: deterministic, resumable, blind to batches, and deaf to bad samples."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from rules.detectors.detector import Detector
from rules.detectors.kinds import DETECTORS

S = 1_000_000_000
SERIES, DEVICES, STEPS = 2, 3, 120
ROWS = np.arange(DEVICES)
KINDS = sorted(DETECTORS)

Tile = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]


def made(kind: str) -> Detector:
    return DETECTORS[kind]([20.0, 60.0] if DETECTORS[kind].windowed else [0.0, 0.0], DEVICES)


def dirty(seed: int) -> Tile:
    """Steps of 1 s to 200 s, stretches of equal values, a third of the cells unknown and full of nonsense."""
    random = np.random.default_rng(seed)
    at = np.cumsum(random.choice([1, 5, 5, 5, 7, 60, 200], (DEVICES, STEPS)), axis=-1) * S
    value = np.repeat(random.integers(0, 3, (SERIES, DEVICES, STEPS // 4)), 4, axis=-1).astype(np.float64)
    known = random.random((SERIES, DEVICES, STEPS)) > 0.3
    value[~known] = random.choice([np.nan, np.inf, -1e300, 7.0], int((~known).sum()))
    return at.astype(np.int64), value, known


def run(detector: Detector, tile: Tile, cuts: list[int]) -> NDArray[np.float64]:
    at, value, known = tile
    edges = [0, *cuts, STEPS]
    parts = [slice(a, b) for a, b in pairwise(edges)]
    return np.concatenate([detector.update(ROWS, at[:, p], value[..., p], known[..., p]) for p in parts], axis=-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_batches_make_no_difference_to_the_last_bit(kind: str, seed: int) -> None:
    tile, draw = dirty(seed), Random(seed)
    known = tile[2]
    whole, single, split = made(kind), made(kind), made(kind)
    expected = run(whole, tile, [])[known]
    cuts = sorted(draw.sample(range(1, STEPS), 9))
    assert np.array_equal(run(single, tile, list(range(1, STEPS)))[known], expected, equal_nan=True)
    assert np.array_equal(run(split, tile, cuts)[known], expected, equal_nan=True)
    for name, array in whole.state.items():
        assert array.tobytes() == single.state[name].tobytes() == split.state[name].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_from_a_saved_state(kind: str) -> None:
    at, value, known = dirty(1)
    first, second = slice(0, 50), slice(50, STEPS)
    detector, again = made(kind), made(kind)
    detector.update(ROWS, at[:, first], value[..., first], known[..., first])
    for name, array in detector.state.items():
        assert array.shape[:2] == (SERIES, DEVICES)
        again.state[name][...] = np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
    rest = [d.update(ROWS, at[:, second], value[..., second], known[..., second]) for d in (detector, again)]
    assert np.array_equal(rest[0][known[..., second]], rest[1][known[..., second]], equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_known_leaves_no_trace(kind: str) -> None:
    at, value, known = dirty(2)
    cleaned = np.where(known, value, 0.0)
    one, other = made(kind), made(kind)
    first, second = one.update(ROWS, at, value, known), other.update(ROWS, at, cleaned, known)
    assert np.array_equal(first[known], second[known], equal_nan=True)
    before = {name: array.tobytes() for name, array in one.state.items()}
    one.update(ROWS, at + 10**6 * S, value, np.zeros_like(known))
    assert {name: array.tobytes() for name, array in one.state.items()} == before


@pytest.mark.parametrize("kind", KINDS)
def test_devices_are_strangers_to_each_other(kind: str) -> None:
    at, value, known = dirty(3)
    together, alone = made(kind), made(kind)
    expected = together.update(ROWS, at, value, known)
    for row in range(DEVICES):
        one = slice(row, row + 1)
        got = alone.update(ROWS[one], at[one], value[:, one], known[:, one])
        assert np.array_equal(got[known[:, one]], expected[:, one][known[:, one]], equal_nan=True)


def test_a_rate_is_per_hour_and_unknown_until_history_suffices() -> None:
    at = np.arange(0, 200, 5, dtype=np.int64)[None] * S
    value = (at / S * 0.001)[None]  # 1 mm a second
    detector = DETECTORS["rate"]([60.0], 1)
    rate = detector.update(np.array([0]), at, value, np.ones_like(value, np.bool_))[0, 0]
    assert np.isnan(rate[:12]).all()
    assert rate[12:] == pytest.approx(3.6)
    after_gap = detector.update(np.array([0]), at[:, :1] + 900 * S, value[..., :1], np.ones((1, 1, 1), np.bool_))
    assert np.isnan(after_gap).all()


def test_unchanged_counts_from_the_sample_that_brought_the_value() -> None:
    at = np.arange(0, 60, 10, dtype=np.int64)[None] * S
    value = np.array([[[1.0, 1.0, 1.0, 2.0, 2.0, 1.0]]])
    shown = DETECTORS["unchanged"]([0.0], 1).update(np.array([0]), at, value, np.ones_like(value, np.bool_))
    assert shown[0, 0].tolist() == [0.0, 10.0, 20.0, 0.0, 10.0, 0.0]
