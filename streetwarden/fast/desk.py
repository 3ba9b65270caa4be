"""The district centre without its process: ingest, stores, desk and API on the virtual clock, and a crew at work."""

import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from cloud.parts import Parts, put_together
from cloud.registry import Registry
from cloud.store import Store
from cloud.timeseries.embedded import EmbeddedTimeSeries
from cloud.timeseries.port import TimeSeries
from rules.district import District
from rules.rule import Rule
from streetwarden.centre import Centre
from streetwarden.crew import Known, next_step
from streetwarden.fast.clock import VirtualClock
from streetwarden.score import incident_of
from wire.batch import Receipt
from wire.clock import NANOSECONDS, iso
from wire.counted import Counted
from wire.session import Delivery

# City seconds from the order's last step to this one; a crew that is on its way needs its time.
PACE_S = {"accept": 180.0, "arrive": 1500.0, "handle": 1200.0, "verify": 1800.0, "close": 600.0}
LOOK_AGAIN_S = 600.0  # while there is nothing to be done yet: the water still stands

StoreFactory = Callable[[Path], Awaitable[TimeSeries]]


class NoLink:
    """Nobody calls: batches are handed over directly."""

    async def receive(self) -> Delivery:
        raise NotImplementedError("batches are handed over, not received")

    def receive_waiting(self, most: int) -> list[Delivery]:
        raise NotImplementedError

    def acknowledge(self, delivery: Delivery) -> None:
        raise NotImplementedError

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str = "") -> None:
        raise NotImplementedError


class FastDesk:
    """Takes batches in at once, and lets deadlines and crews have their time in between (``pass_time``)."""

    def __init__(self, parts: Parts, clock: VirtualClock, known: Known) -> None:
        self.parts = parts
        self.centre = Centre.within(parts.app("127.0.0.1"))
        self._clock = clock
        self._known = known
        self._deadline: int | None = None
        self._looked_at = 0  # up to when new orders were looked for, UTC ns
        self._turns: list[tuple[int, str]] = []  # when the crew next turns to an order

    async def take(self, alerts: Sequence[Delivery], samples: Sequence[Delivery]) -> dict[str, Receipt]:
        """Commit what gateways send; the receipt of each that is owed one."""
        receipts: dict[str, Receipt] = {}
        for group, commit in ((alerts, self.parts.ingest.commit_alerts), (samples, self.parts.ingest.commit_samples)):
            answered = (await commit(group)).receipts() if group else {}
            for gateway, receipt in answered.items():
                before = receipts.get(gateway, Receipt(()))
                accepted, rejected = before.accepted + receipt.accepted, before.rejected + receipt.rejected
                receipts[gateway] = Receipt(accepted, rejected)
        if alerts:
            self._deadline = await self.parts.desk.keep(self.parts.store)
        return receipts

    async def hear(self, delivery: Delivery) -> None:
        """Take a status or a point table."""
        if delivery.topic.endswith("/status"):
            await self.parts.ingest.commit_alerts([delivery])
        else:
            await self.parts.ingest.commit_samples([delivery])

    async def pass_time(self, until: int) -> None:
        """Let every deadline and every turn of the crew up to an instant (UTC ns) come, each at its own time."""
        while True:
            turn = self._turns[0][0] if self._turns else None
            due = min((at for at in (self._deadline, turn) if at is not None), default=None)
            if due is None or due > until:
                break
            self._clock.set(due)
            if due == self._deadline:
                self._deadline = await self.parts.desk.keep(self.parts.store)
                await self.look()
            else:
                await self._turn(heapq.heappop(self._turns)[1])
        self._clock.set(until)

    async def look(self) -> None:
        """Give each order that is new its first turn."""
        since = iso(self._looked_at)
        waiting = {order for _, order in self._turns}
        for order in await self.centre.items("/api/v1/work-orders", state="dispatched", updated_since=since):
            if order["id"] not in waiting:
                self._come_back(order["id"], PACE_S["accept"])
        self._looked_at = self._clock.now()

    async def _turn(self, order_id: str) -> None:
        """One step on one order, by what is true in the street."""
        now = self._clock.now()
        order = await self.centre.get(f"/api/v1/work-orders/{order_id}")
        if not order["actions"]:
            return
        step = next_step(order, incident_of(order, self._known(now)), now)
        if step is None:
            self._come_back(order_id, LOOK_AGAIN_S)
            return
        moved = await self.centre.post(f"/api/v1/work-orders/{order_id}/actions", step)
        following = next((action for action in PACE_S if action in moved["actions"]), None)
        if following is not None:
            self._come_back(order_id, PACE_S[following])

    def _come_back(self, order: str, in_s: float) -> None:
        heapq.heappush(self._turns, (self._clock.now() + int(in_s * NANOSECONDS), order))


@asynccontextmanager
async def opened(
    district: District,
    rules: Sequence[Rule],
    folder: Path,
    clock: VirtualClock,
    known: Known,
    store: StoreFactory = EmbeddedTimeSeries.open,
) -> AsyncIterator[FastDesk]:
    """Open the stores in a folder that is there, and put the centre on top of them."""
    async with Store(folder / "cloud.sqlite") as relational:
        timeseries = await store(folder / "samples.duckdb")
        try:
            links = NoLink(), NoLink()
            parts = await put_together(Registry(district, rules), relational, timeseries, links, clock, Counted())
            desk = FastDesk(parts, clock, known)
            async with desk.centre:
                yield desk
        finally:
            await timeseries.close()
