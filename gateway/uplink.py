"""Sends what the outbox holds, and lets it go when the cloud's receipt comes; the broker's word is not enough."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

import structlog

from gateway.outbox import Outbox
from gateway.rows import Row
from wire.batch import CONTENT_TYPE, Malformed, Receipt, decode
from wire.clock import Clock
from wire.counted import Counted
from wire.session import Delivery, NotConnected, PublishRefused
from wire.topics import Lane, up

WINDOW = 32  # batches of samples, and as many of alerts, under way or waiting for their receipt
RECEIPT_S = 5.0  # wall: a batch without its receipt this long after the broker took it is sent again
TABLES_S = 1.0  # wall: until a broker that refused the point tables is asked again, twice as long each time
TABLES_MOST_S = 60.0
RECEIPTS_AT_ONCE = 64  # settled in one transaction

log = structlog.get_logger(__name__)


class Link(Protocol):
    """What the uplink needs of ``wire.session.Session``."""

    @property
    def connected(self) -> bool: ...

    @property
    def generation(self) -> int: ...

    async def wait_connected(self, after: int = 0) -> int: ...

    async def receive(self) -> Delivery: ...

    def receive_waiting(self, most: int) -> list[Delivery]: ...

    def acknowledge(self, delivery: Delivery) -> None: ...

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str = "") -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """One batch under way; ``settled`` once a receipt has named it."""

    alert: bool
    settled: asyncio.Event


class Uplink:
    """The way up of one gateway: ``run`` it for as long as the process lives.

    A window of batches is under way at any time, alerts before fresh samples before history; alerts have a window of
    their own, so that samples whose store is down never hold one back. Each batch is sent again, byte for byte, when
    its receipt is late and on every new connection, until a receipt names it.
    """

    def __init__(
        self,
        gateway: str,
        outbox: Outbox,
        link: Link,
        clock: Clock,
        counted: Counted | None = None,
        receipt_s: float = RECEIPT_S,
    ) -> None:
        self._gateway = gateway
        self._outbox = outbox
        self._link = link
        self._clock = clock
        self._counted = counted or Counted()
        self._receipt_s = receipt_s
        self._in_flight: dict[int, _Flight] = {}
        self._refusals = 0  # of the point tables, one after the other

    async def run(self) -> None:
        """Send and settle until cancelled; connections come and go meanwhile."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._settle(), name="receipts")
            tasks.create_task(self._serve(), name="uplink")

    async def _serve(self) -> None:
        generation = await self._link.wait_connected()
        while True:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send(generation), name=f"sending on connection {generation}")
                generation = await self._link.wait_connected(after=generation)
                sending.cancel()

    async def _send(self, generation: int) -> None:
        """Send on one connection: the point tables, then batches as they come and as the windows allow."""
        try:
            await self._until_tables_taken()
        except NotConnected:
            return
        async with asyncio.TaskGroup() as tasks:
            while self._link.connected and self._link.generation == generation:
                self._outbox.more.clear()
                alerts = sum(flight.alert for flight in self._in_flight.values())
                samples = len(self._in_flight) - alerts
                for row in await self._outbox.next(self._in_flight, WINDOW - alerts, WINDOW - samples):
                    self._in_flight[row.seq] = flight = _Flight(row.alert, asyncio.Event())
                    tasks.create_task(self._deliver(row, flight), name=f"batch {row.seq}")
                await self._outbox.more.wait()

    async def _until_tables_taken(self) -> None:
        """Ask until the broker takes the tables, for nothing can be read without them; the outbox keeps it all."""
        while True:
            try:
                await self._publish_tables()
            except PublishRefused as error:
                self._counted.add("uplink_refused_tables_total")
                if not self._refusals:  # told once, though some brokers hang up after each refusal
                    log.warning("point tables refused by the broker; asking again until it takes them", why=str(error))
                delay = min(TABLES_MOST_S, TABLES_S * 2 ** min(self._refusals, 10))
                self._refusals += 1
                await asyncio.sleep(delay)
            else:
                self._refusals = 0
                return

    async def _publish_tables(self) -> None:
        """Name the points before anything refers to them; the present table is the one that stays."""
        *past, present = await self._outbox.tables()
        topic = up(self._gateway, Lane.POINTS)
        for table in past:
            await self._link.publish(topic, table, content_type=CONTENT_TYPE)
        await self._link.publish(topic, present, retain=True, content_type=CONTENT_TYPE)

    async def _deliver(self, row: Row, flight: _Flight) -> None:
        """Send one batch until its receipt comes or the connection is gone."""
        try:
            while not flight.settled.is_set():
                try:
                    topic = up(self._gateway, row.lane_at(self._clock.now()))
                    await self._link.publish(topic, row.payload, content_type=CONTENT_TYPE)
                except PublishRefused as error:
                    self._counted.add("uplink_refused_batches_total")
                    log.warning("batch refused by the broker", seq=row.seq, why=str(error))
                try:
                    async with asyncio.timeout(self._receipt_s):
                        await flight.settled.wait()
                except TimeoutError:
                    self._counted.add("uplink_late_receipts_total")
        except NotConnected:
            return  # the next connection begins with what has no receipt
        finally:
            if self._in_flight.get(row.seq) is flight:
                del self._in_flight[row.seq]

    async def _settle(self) -> None:
        while True:
            deliveries = [await self._link.receive(), *self._link.receive_waiting(RECEIPTS_AT_ONCE)]
            receipts = [receipt for delivery in deliveries if (receipt := self._read(delivery)) is not None]
            await self._outbox.settle(receipts)
            for receipt in receipts:
                for seq in (*receipt.accepted, *(seq for seq, _ in receipt.rejected)):
                    if flight := self._in_flight.pop(seq, None):
                        flight.settled.set()
            self._outbox.more.set()
            for delivery in deliveries:
                self._link.acknowledge(delivery)

    def _read(self, delivery: Delivery) -> Receipt | None:
        try:
            return decode(delivery.payload, Receipt)
        except Malformed as error:
            self._counted.add("uplink_malformed_receipts_total")
            log.warning("receipt not understood", topic=delivery.topic, why=str(error))
            return None
