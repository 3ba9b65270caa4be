"""A gateway without its process: its engine, filter and outbox, and an uplink that is a short circuit to the centre."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edge.agent import Tick, judge
from edge.filter import Filter
from edge.installed import Installed, filter_of
from gateway.rows import Bounds, Row, Rows
from rules.alert import Transition
from rules.engine import Engine
from rules.rule import Rule
from rules.samples import Block, PointTable
from streetwarden.fast.audit import Passed
from streetwarden.fast.clock import VirtualClock
from wire.batch import CONTENT_TYPE, Receipt, Status, encode
from wire.clock import Clock
from wire.counted import Counted
from wire.session import Delivery
from wire.topics import Lane, up

WINDOW = 32  # batches of each lane at once
BOOT = "00000000-0000-5000-8000-000000000000"

RowsFactory = Callable[[Path | None, PointTable, Clock, Bounds, Counted], Rows]


class Box:
    """One gateway."""

    def __init__(
        self,
        gateway: str,
        places: Sequence[Installed],
        table: PointTable,
        rules: Sequence[Rule],
        clock: VirtualClock,
        folder: Path,
        rows: RowsFactory = Rows,
    ) -> None:
        self.gateway = gateway
        self.counted = Counted()
        self.table = table
        folder.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._engine = Engine(table, rules)
        self._filter: Filter = filter_of(places)
        self._rows = rows(folder / "outbox.sqlite", table, clock, Bounds(), self.counted)

    def judge(self, block: Block, until: int, on_change_until: int) -> Tick:
        """Judge what was read; the watermarks are UTC ns."""
        return judge(self._engine, self._filter, block, (until, on_change_until))

    def restarted(self) -> None:
        """Come back from being switched off: what was not heard meanwhile says nothing of a device."""
        self._engine.restore(self._engine.save())

    def append(self, tick: Tick) -> None:
        """Make a tick durable."""
        self._rows.append(tick, BOOT)

    def tell(self, transitions: Sequence[Transition]) -> None:
        """Make alerts durable that go ahead of the samples they rest on."""
        if transitions:
            self.append(Tick(0, 0, Block.empty(), list(transitions), None))

    def waiting(self) -> tuple[list[Delivery], list[Delivery]]:
        """List what waits to be sent, as far as the window goes: alerts, and samples."""
        rows = self._rows.next((), WINDOW, WINDOW)
        return [self._delivery(row) for row in rows if row.alert], [
            self._delivery(row) for row in rows if not row.alert
        ]

    def settle(self, receipt: Receipt | None) -> None:
        """Let go of what was taken; ``RuntimeError`` when nothing was: it would wait for ever."""
        if receipt is None:
            raise RuntimeError(f"the centre gave no receipt to {self.gateway}")
        self._rows.settle([receipt])

    def status(self) -> Delivery:
        """Tell the gateway's account, as ``gateway.health`` does."""
        report = self._rows.report()
        status = Status(
            self.gateway,
            BOOT,
            self._clock.now(),
            online=True,
            outbox_batches=report.batches,
            outbox_samples=report.samples,
            tallies=report.tallies,
            counters=self.counted.snapshot(),
        )
        return _delivery(up(self.gateway, Lane.STATUS), encode(status))

    def passed(self, judged: int, committed: int) -> Passed:
        """Say how many samples each stage has let through, of those ``judged``."""
        report = self._rows.report(since=0)
        return Passed(
            judged,
            sum(tally.acquired for tally in report.tallies),
            sum(tally.filtered for tally in report.tallies),
            sum(sum(tally.dropped.values()) for tally in report.tallies),
            report.samples,
            sum(tally.sent for tally in report.tallies),
            committed,
        )

    def points(self) -> Delivery:
        return _delivery(up(self.gateway, Lane.POINTS), encode(self.table))

    def close(self) -> None:
        self._rows.close()

    def _delivery(self, row: Row) -> Delivery:
        return _delivery(up(self.gateway, row.lane_at(self._clock.now())), row.payload)


def _delivery(topic: str, payload: bytes) -> Delivery:
    return Delivery(topic, payload, retained=False, content_type=CONTENT_TYPE, message_id=0, qos=1, generation=1)


def rounded(transition: Transition) -> Transition:
    """A copy to compare runs by: floats rounded to six figures, whose last bits may differ between machines."""
    rounded = {name: float(f"{value:.6g}") for name, value in transition.evidence.items()}
    return msgspec.structs.replace(transition, evidence=rounded)
