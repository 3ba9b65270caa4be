"""One gateway's account: what it says it acquired, against what the cloud has committed. Pure: no I/O, no clock."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

import msgspec

from wire.batch import Status, Tally

SILENT_S = 10.0  # wall: a gateway tells its status every two seconds
BEHIND_BATCHES = 20  # an outbox that holds more than two seconds of ticks is catching up

State = Literal["online", "behind", "silent"]


class Amounts(msgspec.Struct, frozen=True):
    """Samples, and what became of them; ``dropped`` by reason."""

    acquired: int
    filtered: int
    dropped: dict[str, int]
    committed: int
    in_flight: int
    missing: int


class GatewayBalance(msgspec.Struct, frozen=True):
    """One gateway's line; ``last_seen_at`` is city time, UTC nanoseconds.

    ``devices_down`` and ``counters`` are the gateway's own, as it last told them.
    """

    id: str
    state: State
    last_seen_at: int | None
    amounts: Amounts
    devices_down: tuple[str, ...] = ()
    counters: dict[str, int] = {}


class View(msgspec.Struct, frozen=True):
    """The balance now. It ``closes`` when nothing is missing and nothing was committed twice."""

    closes: bool
    gateways: tuple[GatewayBalance, ...]
    total: Amounts


class HourBalance(msgspec.Struct, frozen=True):
    """One row of the gap ledger: ``open`` samples of this hour are in flight or missing."""

    tally: Tally
    committed: int
    open: int


class Account:
    """What is known of one gateway."""

    def __init__(self, gateway: str) -> None:
        self.gateway = gateway
        self.tallies: dict[int, Tally] = {}
        self.committed: dict[int, int] = {}
        self.status: Status | None = None
        self.heard_at: float | None = None  # monotonic seconds
        self.last_seen_at: int | None = None
        self.twice = 0
        self._committed_at_status = 0

    def told(self, status: Status) -> None:
        # A will was written long before it is told. A status counts even when it is stamped before the last one: else a
        # clock that was ahead once would keep its gateway from ever being heard again.
        if self.status is None or status.online or status.at >= self.status.at:
            self.tallies.update((tally.hour, tally) for tally in status.tallies)
            # All that was committed when the status before came is acquired by now: what exceeds it came twice.
            self.twice = max(0, self._committed_at_status - self._kept())
            self._committed_at_status = sum(self.committed.values())
            self.status = status
        elif not status.online:
            self.status = msgspec.structs.replace(self.status, online=False)

    def line(self, now: float) -> GatewayBalance:
        """Draw its line at a wall instant, monotonic seconds."""
        down, counters = (self.status.devices_down, self.status.counters) if self.status else ((), {})
        return GatewayBalance(self.gateway, self.state(now), self.last_seen_at, self.amounts(), down, counters)

    def state(self, now: float) -> State:
        if self.status is None or not self.status.online or self.heard_at is None or now - self.heard_at >= SILENT_S:
            return "silent"
        return "behind" if self.status.outbox_batches > BEHIND_BATCHES else "online"

    def amounts(self) -> Amounts:
        committed = sum(self.committed.values())
        # A status is some seconds old and its outbox may have been committed since, so neither number stands alone.
        open_ = max(0, self._kept() - committed)
        in_flight = open_ if self.status is None else min(open_, self.status.outbox_samples)
        filtered = sum(tally.filtered for tally in self.tallies.values())
        dropped = add_up(tally.dropped for tally in self.tallies.values())
        accounted = filtered + sum(dropped.values()) + committed + open_
        return Amounts(accounted, filtered, dropped, committed, in_flight, open_ - in_flight)

    def hours(self) -> list[HourBalance]:
        found = []
        for hour in sorted({*self.tallies, *self.committed}):
            tally, committed = self.tallies.get(hour, Tally(hour, 0, 0, 0)), self.committed.get(hour, 0)
            found.append(HourBalance(tally, committed, kept(tally) - committed))
        return found

    def _kept(self) -> int:
        return sum(kept(tally) for tally in self.tallies.values())


def kept(tally: Tally) -> int:
    """Count what the cloud should have of an hour, sooner or later."""
    return tally.acquired - tally.filtered - sum(tally.dropped.values())


def add_up(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add counts by reason."""
    sums = Counter[str]()
    for part in parts:
        sums.update(part)
    return dict(sums)


def total(parts: list[Amounts]) -> Amounts:
    """Add the balances of several gateways."""
    return Amounts(
        acquired=sum(part.acquired for part in parts),
        filtered=sum(part.filtered for part in parts),
        dropped=add_up(part.dropped for part in parts),
        committed=sum(part.committed for part in parts),
        in_flight=sum(part.in_flight for part in parts),
        missing=sum(part.missing for part in parts),
    )
