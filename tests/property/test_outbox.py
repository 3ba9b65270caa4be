"""Whatever happens in whatever order, the outbox loses nothing that it does not count, and says nothing twice."""

import tempfile
import time
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.rows import Bounds, Rows
from tests.gateways import START, TABLE, tick
from wire.batch import Batch, Receipt, decode
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted

AGES_S = st.sampled_from([0, 30, 61, 600, 1801, 90_000])


class Box(RuleBasedStateMachine):
    """Appends, settles and reopens a real file; the model is plain Python."""

    @initialize(max_bytes=st.sampled_from([1500, 6000, 10_000_000]))
    def begin(self, max_bytes: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="outbox-")
        self.bounds = Bounds(max_bytes=max_bytes, max_age_s=86_400.0)
        self.counted = Counted()
        self.payloads: dict[int, bytes] = {}  # every batch ever seen
        self.samples: dict[int, int] = {}
        self.accepted = self.acquired = self.filtered = 0
        self.settled: set[int] = set()
        self.rows = self.opened()

    def opened(self) -> Rows:
        clock = Clock(wall=time.time_ns(), city=START, speed=1e-6)
        return Rows(Path(self.folder.name) / "box.sqlite", TABLE, clock, self.bounds, self.counted)

    def waiting(self) -> dict[int, bytes]:
        return {row.seq: row.payload for row in self.rows.next((), 10_000, 10_000)}

    @rule(samples=st.integers(0, 200), filtered=st.integers(0, 5), alerts=st.integers(0, 3), age=AGES_S)
    def append(self, samples: int, filtered: int, alerts: int, age: int) -> None:
        before = set(self.payloads)
        self.rows.append(tick(samples, filtered, alerts, START - age * NANOSECONDS), "boot")
        self.acquired += samples + filtered
        self.filtered += filtered
        for seq, payload in self.waiting().items():
            assert self.payloads.setdefault(seq, payload) == payload, "a batch changed while it waited"
            self.samples[seq] = len(decode(payload, Batch).block())
        fresh = set(self.payloads) - before
        assert not before or all(seq > max(before) for seq in fresh), "a number came again"

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Receipts name what waits, what is gone, and what never was, in any mixture, and come twice."""
        known = sorted(self.payloads) or [1]
        accepted = data.draw(st.lists(st.sampled_from(known), max_size=6))
        rejected = data.draw(st.lists(st.sampled_from([*known, 77]), max_size=2))
        receipts = [Receipt(tuple(accepted), tuple((seq, "malformed") for seq in rejected))]
        waiting = set(self.waiting())
        self.rows.settle(receipts)
        self.rows.settle(receipts)
        self.accepted += sum(self.samples[seq] for seq in set(accepted) & waiting)
        self.settled |= (set(accepted) | set(rejected)) & waiting

    @rule()
    def reopen(self) -> None:
        waiting = self.waiting()
        self.rows.close()
        self.rows = self.opened()
        assert self.waiting() == waiting

    @precondition(lambda self: len(self.payloads) > 1)
    @rule(alerts=st.integers(0, 3), samples=st.integers(0, 3), data=st.data())
    def choose(self, alerts: int, samples: int, data: st.DataObject) -> None:
        in_flight = data.draw(st.sets(st.sampled_from(sorted(self.payloads))))
        rows = self.rows.next(in_flight, alerts, samples)
        assert sum(row.alert for row in rows) <= alerts
        assert sum(not row.alert for row in rows) <= samples
        assert not in_flight & {row.seq for row in rows}
        urgency = [(not row.alert, row.history_from <= START) for row in rows]
        assert urgency == sorted(urgency), "alerts, then fresh samples, then history"

    @invariant()
    def nothing_is_lost_uncounted(self) -> None:
        report = self.rows.report()
        assert sum(tally.acquired for tally in report.tallies) == self.acquired
        assert sum(tally.filtered for tally in report.tallies) == self.filtered
        assert sum(tally.sent for tally in report.tallies) == self.accepted
        dropped = sum(sum(tally.dropped.values()) for tally in report.tallies)
        assert self.acquired == self.filtered + self.accepted + dropped + report.samples

    @invariant()
    def it_holds_what_it_says_within_its_bounds(self) -> None:
        waiting = self.waiting()
        report = self.rows.report()
        assert len(waiting) == report.batches
        assert sum(self.samples[seq] for seq in waiting) == report.samples
        assert sum(map(len, waiting.values())) == self.rows.size <= self.bounds.max_bytes
        assert not self.settled & set(waiting), "a settled batch would be sent again"

    @invariant()
    def what_is_settled_below_is_gone(self) -> None:
        waiting = self.waiting()
        for payload in waiting.values():
            assert decode(payload, Batch).settled_below <= min(waiting)

    def teardown(self) -> None:
        if hasattr(self, "rows"):
            self.rows.close()
            self.folder.cleanup()


Box.TestCase.settings = settings(max_examples=40, stateful_step_count=20)


TestBox = Box.TestCase
