"""How often a device cries wolf: the share of misfires, with its uncertainty, and not before there is enough to say."""

import math
from collections.abc import Mapping

import msgspec

ENOUGH = 5  # below this many verified alerts a percentage would be a rumour
Z = 1.959963984540054  # two-sided 95 %


class Rate(msgspec.Struct, frozen=True):
    """Share of misfires among ``n`` verified alerts (0 to 1) with its 95 % interval; ``None`` while n is below 5."""

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None


def rate(outcomes: Mapping[str, int]) -> Rate:
    """Compute the misfire rate of outcomes counted by name.

    n = confirmed + misfire. ``benign`` ones were real, ``duplicate`` and ``inconclusive`` ones say nothing: all stay
    out. The interval is Wilson's (1927), which holds for small n and near 0 and 1.
    """
    misfires = outcomes.get("misfire", 0)
    n = misfires + outcomes.get("confirmed", 0)
    if n < ENOUGH:
        return Rate(n)
    share = misfires / n
    centre = share + Z * Z / (2 * n)
    spread = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    return Rate(n, share, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))
