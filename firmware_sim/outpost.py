"""A gateway without a street: it makes batches, keeps each until a receipt names it, and keeps its own ledger."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from firmware_sim import noise
from firmware_sim.noise import Floats
from rules.alert import Phase, Reason, Severity, Transition, alert_id
from rules.samples import POINT, QUALITY, TIME, Block, PointTable
from wire.batch import Batch, Columns, Receipt, Status, Tally, columns, encode
from wire.clock import HOUR, NANOSECONDS
from wire.topics import Lane

RULE, LEVEL, KIND = "cover.open.monitor", "open", "manhole_monitor"  # what alerts are about
COUNTER = "poll_counter"  # the metric that counts readings from 1: what is lost or doubled shows in the store
PREPARED = 64  # columns of values, made once and used in turn
_PRESENT_S = 60.0  # city: samples that wait longer than this are history


def prepared(points: int, seed: int = 1) -> Floats:
    """Make columns of values in turn, shape ``[PREPARED, points]``: each point its own level, noise, two decimals.

    They cost a store and a compressor what measured values cost; nothing about them is physical.
    """
    of = noise.stream(seed, "load")
    cells = np.arange(PREPARED * points, dtype=np.int64).reshape(PREPARED, points)
    level = 8.0 * noise.uniform(noise.stream(seed, "levels"), np.arange(points, dtype=np.int64))
    return np.round(level + 0.05 * noise.normal(of, cells), 2)


@dataclass(slots=True, eq=False)
class Kept:
    """One encoded batch that waits for its receipt; ``made_at`` is monotonic seconds, ``history_from`` UTC ns."""

    seq: int
    alert: bool
    hour: int
    samples: int
    history_from: int
    payload: bytes
    made_at: float
    sends: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def lane_at(self, now: int) -> Lane:
        """Name the lane it travels on at this instant of city time."""
        if self.alert:
            return Lane.ALERT
        return Lane.LIVE if self.history_from > now else Lane.BACKFILL


class Outpost:
    """One gateway's side of the uplink contract, without I/O.

    Parameters
    ----------
    table
        Its points; all of them are read together.
    boot
        Which life of it this is.
    values
        ``prepared`` for as many points or more.
    window
        So many batches of samples, and as many of alerts, may wait for a receipt; beyond it nothing new is made and
        ``held`` counts what was not.
    """

    def __init__(self, table: PointTable, boot: str, values: Floats, window: int) -> None:
        self.table = table
        self.boot = boot
        self.waiting: dict[int, Kept] = {}
        self.made, self.receipted, self.rejected = Counter[str](), Counter[str](), Counter[str]()
        self.held = 0
        self._values = values
        self._window = window
        self._digest = table.digest()
        # Numbers go on from one run to the next: the cloud never stores a number twice.
        self._seq = time.time_ns() // 1_000_000
        points = len(table.points)
        self._point = np.arange(points, dtype=POINT)
        self._quality = np.zeros(points, QUALITY)
        self._counters = np.array([point.metric == COUNTER for point in table.points])
        readings = np.unique([point.device for point in table.points], return_inverse=True)[1]
        self._earlier = (readings.max() - readings).astype(TIME) * (NANOSECONDS // 1000)  # a device a millisecond
        self._kinds = {point.device: point.kind for point in table.points}
        self._lids = [device for device, kind in self._kinds.items() if kind == KIND]
        self._reads = 0
        self._raised: list[tuple[str, str, int]] = []
        self._tallies: dict[int, Counter[str]] = {}

    def read(self, now: int) -> Kept | None:
        """Read every point once, at ``now`` (UTC ns); the batch, or None while the window is full."""
        if not self._room(alert=False):
            return None
        self._reads += 1
        value = self._values[self._reads % PREPARED, : len(self._point)].copy()
        value[self._counters] = self._reads
        return self._keep(now, columns(Block(self._point, now - self._earlier, value, self._quality)), ())

    def alert(self, number: int, now: int) -> Kept | None:
        """Raise an alert about the lid of this ``number``, or clear the one it has; the batch, or None as ``read``."""
        if not self._room(alert=True):
            return None
        device = self._lids[number % len(self._lids)]
        open_ = next((raised for raised in self._raised if raised[0] == device), None)
        if open_ is None:
            since = now - 60 * NANOSECONDS
            open_ = (device, alert_id(self.table.gateway, RULE, device, since), since)
            self._raised.append(open_)
            phase, revision, tilt, code = Phase.RAISED, 1, 72.0, "above"
        else:
            self._raised.remove(open_)
            phase, revision, tilt, code = Phase.CLEARED, 2, 0.4, "below"
        reason = Reason(code, "tilt_change", {"value": tilt, "limit": 10.0, "for_s": 60.0})
        step = Transition(
            *(open_[1], revision, phase, RULE, LEVEL, Severity.II, device, open_[2], now, reason),
            evidence={"tilt_change": tilt},
        )
        return self._keep(now, None, (step,))

    def settle(self, receipt: Receipt) -> list[Kept]:
        """Let go of what a receipt names; what was let go (a repeated receipt lets go of nothing)."""
        gone = [self._gone(seq, "") for seq in receipt.accepted]
        gone += [self._gone(seq, why) for seq, why in receipt.rejected]
        return [kept for kept in gone if kept is not None]

    def status(self, now: int, *, online: bool) -> Status:
        """Tell what it made and what became of it."""
        tallies = tuple(
            Tally(
                hour, tally["acquired"], 0, tally["sent"], {"rejected": tally["rejected"]} if tally["rejected"] else {}
            )
            for hour, tally in self._tallies.items()
        )
        samples = sum(kept.samples for kept in self.waiting.values())
        return Status(self.table.gateway, self.boot, now, online, len(self.waiting), samples, tallies)

    def _room(self, *, alert: bool) -> bool:
        if sum(kept.alert == alert for kept in self.waiting.values()) < self._window:
            return True
        self.held += 1
        return False

    def _keep(self, now: int, samples: Columns | None, steps: tuple[Transition, ...]) -> Kept:
        self._seq += 1
        hour, count = now - now % HOUR, 0 if samples is None else len(self._point)
        settled_below = next(iter(self.waiting), self._seq)
        batch = Batch(
            *(self.table.gateway, self.boot, self._seq, settled_below, hour, self._digest),
            clock_ok=True,
            samples=samples,
            transitions=steps,
        )
        present = now + int(max(_PRESENT_S, 3 * self.table.points[0].interval_s) * NANOSECONDS)
        kept = Kept(self._seq, bool(steps), hour, count, present, encode(batch), time.monotonic())
        self.waiting[kept.seq] = kept
        self.made.update(_amounts(kept))
        self._tallies.setdefault(hour, Counter())["acquired"] += count
        return kept

    def _gone(self, seq: int, rejected: str) -> Kept | None:
        kept = self.waiting.pop(seq, None)
        if kept is not None:
            kept.settled.set()
            self._tallies[kept.hour]["rejected" if rejected else "sent"] += kept.samples
            if rejected:
                self.rejected[rejected] += 1
            else:
                self.receipted.update(_amounts(kept))
        return kept


def _amounts(kept: Kept) -> dict[str, int]:
    return {"samples": kept.samples, "alert_batches" if kept.alert else "sample_batches": 1}
