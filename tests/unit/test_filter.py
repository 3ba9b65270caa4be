import numpy as np
import pytest

from edge.filter import Filter
from rules.samples import Block, Quality

SECOND = 1_000_000_000
GOOD, UNCERTAIN, BAD = Quality.GOOD, Quality.UNCERTAIN, Quality.BAD_COMMS


def _filter(points: int = 2) -> Filter:
    return Filter(np.full(points, 0.5), np.full(points, 60 * SECOND, np.int64))


def _block(*samples: tuple[int, float, float, int]) -> Block:
    point, at, value, quality = zip(*samples, strict=True)
    return Block(
        np.array(point, "i4"), (np.array(at) * SECOND).astype("i8"), np.array(value, "f8"), np.array(quality, "u1")
    )


def _keep(*samples: tuple[int, float, float, int]) -> list[bool]:
    return [bool(kept) for kept in _filter().keep(_block(*samples))]


@pytest.mark.parametrize(
    ("samples", "kept"),
    [
        ([(0, 0, 1.0, GOOD)], [True]),
        ([(0, 0, 1.0, GOOD), (0, 1, 1.5, GOOD), (0, 2, 1.51, GOOD)], [True, False, True]),
        # measured against the last kept, so that a slow drift is told
        ([(0, 0, 0.0, GOOD), (0, 1, 0.3, GOOD), (0, 2, 0.6, GOOD)], [True, False, True]),
        ([(0, 0, 1.0, GOOD), (0, 59, 1.0, GOOD), (0, 60, 1.0, GOOD), (0, 61, 1.0, GOOD)], [True, False, True, False]),
        ([(0, 0, 0.0, BAD), (0, 1, 0.0, BAD)], [True, True]),
        (
            [(0, 0, 1.0, GOOD), (0, 1, 1.0, UNCERTAIN), (0, 2, 1.0, UNCERTAIN), (0, 3, 1.0, GOOD)],
            [True, True, False, True],
        ),
        ([(0, 0, 1.0, GOOD), (1, 0, 9.0, GOOD), (0, 1, 1.0, GOOD), (1, 1, 1.0, GOOD)], [True, True, False, True]),
        # history is kept and does not disturb what is known of the present
        ([(0, 50, 1.0, GOOD), (0, 40, 9.0, GOOD), (0, 51, 1.0, GOOD)], [True, True, False]),
    ],
)
def test_what_is_kept(samples: list[tuple[int, float, float, int]], kept: list[bool]) -> None:
    assert _keep(*samples) == kept


def test_the_batching_of_samples_does_not_matter() -> None:
    random = np.random.default_rng(5)
    count = 400
    samples = [
        (int(random.integers(3)), n, float(random.normal()), int(random.choice([GOOD, GOOD, UNCERTAIN, BAD])))
        for n in range(count)
    ]
    whole = _filter(3).keep(_block(*samples)).tolist()
    one_by_one = _filter(3)
    assert [bool(one_by_one.keep(_block(sample))[0]) for sample in samples] == whole


def test_what_is_stored_lies_within_the_deadband() -> None:
    walk = np.cumsum(np.random.default_rng(6).normal(0, 0.2, 500))
    kept = _filter().keep(_block(*((0, n, float(value), GOOD) for n, value in enumerate(walk))))
    steps = walk[np.maximum.accumulate(np.where(kept, np.arange(500), 0))]
    assert np.abs(walk - steps).max() <= 0.5
    assert kept.sum() < 400


def test_nothing_in_nothing_out() -> None:
    assert _filter().keep(Block.empty()).tolist() == []
