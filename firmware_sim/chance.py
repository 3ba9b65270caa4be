"""Streams and draws of ``noise`` that are asked for again and again: pure, so each is worked out once and kept."""

from functools import lru_cache

import numpy as np

from firmware_sim import noise
from firmware_sim.noise import Stream

_KEPT = 1 << 17  # some of each for tens of thousands of devices


@lru_cache(_KEPT)
def stream(seed: int, *names: str) -> Stream:
    """Open one stream, shape ``[1]``."""
    return noise.stream(seed, *names)


@lru_cache(_KEPT)
def streams(seed: int, *names: str, of: tuple[str, ...]) -> Stream:
    """Open a stream for each quantity of ``of``, shape ``[k, 1]``: against instants ``[n]`` they give ``[k, n]``."""
    return np.stack([noise.stream(seed, *names, quantity) for quantity in of])


@lru_cache(_KEPT)
def between(low: float, high: float, seed: int, *names: str) -> float:
    """Draw one number in [low, high)."""
    return noise.between(low, high, seed, *names)
