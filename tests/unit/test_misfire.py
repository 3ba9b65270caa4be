import pytest

from cloud.misfire import rate


def test_below_five_there_is_a_count_but_no_percentage() -> None:
    assert rate({"confirmed": 2, "misfire": 2}) == rate({"misfire": 4})
    assert rate({"misfire": 4}).mean is None


def test_only_confirmed_and_misfire_count() -> None:
    counted = rate({"confirmed": 4, "misfire": 1, "benign": 50, "duplicate": 9, "inconclusive": 3})
    assert (counted.n, counted.mean) == (5, 0.2)


@pytest.mark.parametrize(
    ("misfires", "n", "low", "high"),
    [(1, 10, 0.01787621, 0.40415003), (0, 10, 0.0, 0.27753280), (81, 263, 0.25528818, 0.36625160)],
)
def test_the_interval_is_wilsons(misfires: int, n: int, low: float, high: float) -> None:
    """Reference values: Newcombe 1998, table I (81/263: 0.2553 to 0.3662), and scipy's binomtest."""
    found = rate({"misfire": misfires, "confirmed": n - misfires})
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)
