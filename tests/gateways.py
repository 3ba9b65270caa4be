"""A small gateway for tests: a point table, ticks to append, and a cloud's receipts."""

from collections.abc import Sequence

import numpy as np

from edge.agent import Tick
from rules.alert import Phase, Reason, Severity, Transition, alert_id
from rules.samples import POINT, QUALITY, TIME, VALUE, Block, Point, PointTable
from wire.batch import Receipt
from wire.clock import NANOSECONDS

GATEWAY = "gw-test"
START = 1_781_000_000 * NANOSECONDS  # some city time
TABLE = PointTable(
    GATEWAY,
    (
        Point("level-1", "level_sensor", "level", "m", 10.0),
        Point("cover-1", "manhole_cover", "tilt_change", "deg", 600.0, reports_on_change=True),
    ),
)


def block(count: int, taken_at: int = START, point: int = 0) -> Block:
    """So many samples of one point, a second apart, the newest at ``taken_at``."""
    times = taken_at - np.arange(count, dtype=TIME)[::-1] * NANOSECONDS
    return Block(np.full(count, point, POINT), times, np.arange(count, dtype=VALUE), np.zeros(count, QUALITY))


def transition(since: int = START) -> Transition:
    return Transition(
        alert=alert_id(GATEWAY, "flood.depth", "level-1", since),
        revision=1,
        phase=Phase.RAISED,
        rule="flood.depth",
        level="slow",
        severity=Severity.III,
        device="level-1",
        since=since,
        decided_at=since,
        reason=Reason("above", "level", {"value": 0.2, "limit": 0.15, "for_s": 30.0}),
        evidence={"level": 0.2},
    )


def tick(
    samples: int = 0,
    filtered: int = 0,
    alerts: int = 0,
    taken_at: int = START,
    state: bytes | None = None,
    point: int = 0,
) -> Tick:
    transitions = [transition(taken_at + number) for number in range(alerts)]
    return Tick(samples + filtered, filtered, block(samples, taken_at, point), transitions, state)


def accepted(seqs: Sequence[int]) -> Receipt:
    return Receipt(tuple(seqs))
