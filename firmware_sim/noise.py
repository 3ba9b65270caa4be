"""Seeded chance as a pure function: a stream and a bucket give the same number, whoever asks, whenever, in any order.

Only integer hashing and + − × are used: no library function whose last bit could differ between machines.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Times = NDArray[np.int64]
Stream = NDArray[np.uint64]

_GOLDEN = np.array([0x9E3779B97F4A7C15], np.uint64)
_FIRST = np.array([0xBF58476D1CE4E5B9], np.uint64)
_SECOND = np.array([0x94D049BB133111EB], np.uint64)


def stream(seed: int, *names: str) -> Stream:
    """Open the stream of one quantity of one thing, shape ``[1]``; ``names`` tell it from every other."""
    digest = hashlib.blake2b("\n".join((str(seed), *names)).encode(), digest_size=8).digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)


def _hash(of: Stream, bucket: Times) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea, Flood 2014) at position ``bucket`` of a stream."""
    mixed = of + (bucket.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    hashed: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return hashed


def uniform(of: Stream, bucket: Times) -> Floats:
    """In [0, 1), shape of ``bucket``."""
    return (_hash(of, bucket) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(of: Stream, bucket: Times) -> Floats:
    """About normal with mean 0 and deviation 1 (the sum of four 16-bit uniforms), never beyond ±3.5."""
    word = _hash(of, bucket)
    low = np.uint64(0xFFFF)
    lanes = (word & low) + (word >> np.uint64(16) & low) + (word >> np.uint64(32) & low) + (word >> np.uint64(48))
    spread: Floats = (lanes.astype(np.float64) * 2.0**-16 - 2.0) * 1.7320508075688772
    return spread


def smooth(of: Stream, at: Times, period_s: float) -> Floats:
    """Wander slowly in [−1, 1]: eased from one random knot to the next, a knot every ``period_s`` seconds."""
    period = round(period_s * 1_000_000_000)
    knot = at // period
    part = (at - knot * period) / period
    eased = part * part * (3.0 - 2.0 * part)
    left, right = uniform(of, knot), uniform(of, knot + 1)
    return 2.0 * (left + (right - left) * eased) - 1.0


def draw(seed: int, *names: str) -> float:
    """One number in [0, 1) for one decision, named by ``names``."""
    return float(uniform(stream(seed, *names), np.zeros(1, np.int64))[0])


def between(low: float, high: float, seed: int, *names: str) -> float:
    """One number in [low, high) for one decision, named by ``names``."""
    return low + (high - low) * draw(seed, *names)
