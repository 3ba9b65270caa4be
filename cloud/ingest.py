"""Takes what gateways send: commit, then receipt, then the broker's acknowledgement, always in that order.

Alerts and samples come over two MQTT sessions and are handled by two loops that share nothing but the relational store:
a store of samples that is slow or gone never delays an alert.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import Protocol, TypeVar

import structlog
from sqlalchemy import BigInteger, Column, Connection, String, Table
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import OperationalError

from cloud.balance import Balance
from cloud.gate import Answers, Gate, Sent
from cloud.points import PointTables
from cloud.store import Store, metadata
from cloud.timeseries.port import Misconfigured, Retry, SampleBatch, TimeSeries
from rules.alert import Transition
from rules.samples import PointTable
from wire.batch import CONTENT_TYPE, Batch, Status, encode
from wire.clock import Clock
from wire.counted import Counted
from wire.session import Delivery, NotConnected, PublishRefused
from wire.topics import ROOT, UP_FROM_ALL, Lane, receipt, up

T = TypeVar("T")

GROUP = 64  # deliveries that commit together; never waited for
RETRY_S = 0.2
RETRY_MOST_S = 5.0
MISCONFIGURED_S = 30.0
_FAILED = "ingest_failed_alert_batches_total"

# What the two sessions subscribe to. Point tables come with the samples, in their order, and so does what stands under
# no lane's topic: it is counted there, and what the alerts' session has is passed over.
ALERT_TOPICS = (up("+", Lane.ALERT), up("+", Lane.STATUS))
SAMPLE_TOPICS = (UP_FROM_ALL,)

alert_ledger = Table(
    "alert_ledger",
    metadata,
    Column("gateway", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
)

log = structlog.get_logger(__name__)


class Link(Protocol):
    """What ingest needs of ``wire.session.Session``."""

    async def receive(self) -> Delivery: ...

    def receive_waiting(self, most: int) -> list[Delivery]: ...

    def acknowledge(self, delivery: Delivery) -> None: ...

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str = "") -> None: ...


class AlertSink(Protocol):
    """Who is told of alerts: ``cloud.desk.Desk``."""

    def take(self, connection: Connection, gateway: str, transitions: Sequence[Transition], now: int) -> None:
        """Apply one batch inside ingest's transaction; when this raises, the batch is undone and comes again."""
        ...

    async def committed(self) -> None:
        """Hear that what was taken is on disk."""
        ...


class Ingest:
    """Runs both loops.

    Parameters
    ----------
    alerts, samples
        Two sessions, subscribed to ``ALERT_TOPICS`` and ``SAMPLE_TOPICS``.
    sink
        Who is told of alerts.
    points, balance
        Loaded before ``run``.
    gateways
        The ids of those that are onboarded.
    """

    def __init__(
        self,
        alerts: Link,
        samples: Link,
        store: Store,
        timeseries: TimeSeries,
        sink: AlertSink,
        points: PointTables,
        balance: Balance,
        gateways: Container[str],
        clock: Clock,
        counted: Counted,
    ) -> None:
        self._alerts = alerts
        self._samples = samples
        self._store = store
        self._timeseries = timeseries
        self._sink = sink
        self._points = points
        self._balance = balance
        self._clock = clock
        self._counted = counted
        self._gate = Gate(gateways, points, counted)
        self.troubles: dict[str, str] = {}  # why alerts or samples cannot be stored just now, for /readyz

    async def run(self) -> None:
        """Serve both sessions until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._serve(self._alerts, self.commit_alerts), name="ingest alerts")
            tasks.create_task(self._serve(self._samples, self.commit_samples), name="ingest samples")

    async def _serve(self, link: Link, commit: Callable[[Sequence[Delivery]], Awaitable[Answers]]) -> None:
        while True:
            group = [await link.receive(), *link.receive_waiting(GROUP - 1)]
            answers = await commit(group)
            await self.send_receipts(link, answers)
            self.acknowledge(link, group)

    async def commit_alerts(self, group: Sequence[Delivery]) -> Answers:
        """Commit a group's alerts and note its statuses; what the receipts shall say."""
        answers, batches = Answers(), list[Batch]()
        for sent in self._gate.known(group):
            if sent.lane is Lane.STATUS:
                status = self._gate.message(sent, Status)
                if status is not None:
                    self._balance.heard(status, retained=sent.delivery.retained)
            elif (batch := self._gate.alerts(sent, answers)) is not None:
                batches.append(batch)
        if batches:
            taken = await self._until_stored("alerts", lambda: self._store.write(self._take(batches)), asyncio.sleep)
            await self._sink.committed()
            for batch, outcome in taken:
                self._counted.add(outcome)
                if outcome != _FAILED:
                    answers.accept(batch.gateway, batch.seq)
        return answers

    async def commit_samples(self, group: Sequence[Delivery]) -> Answers:
        """Commit a group's point tables, then its samples; what the receipts shall say."""
        known = self._gate.known(_not_alerts(group))
        await self._keep_tables(known)
        answers = Answers()
        read = [self._gate.samples(sent, answers) for sent in known if sent.lane is not Lane.POINTS]
        batches = [samples for samples in read if samples is not None]
        if batches:
            new = await self._until_stored("samples", lambda: self._timeseries.write(batches), self._let_go)
            self._note_stored(batches, new)
            for samples in batches:
                answers.accept(*samples.key)
        return answers

    async def send_receipts(self, link: Link, answers: Answers) -> None:
        """Tell each gateway. A receipt that does not get through is owed again when the batch comes again."""
        for gateway, message in answers.receipts().items():
            try:
                await link.publish(receipt(gateway), encode(message), content_type=CONTENT_TYPE)
            except (NotConnected, PublishRefused) as error:
                self._counted.add("ingest_unsent_receipts_total")
                log.warning("receipt not sent", gateway=gateway, why=str(error))

    def acknowledge(self, link: Link, group: Sequence[Delivery]) -> None:
        """Tell the broker that a group is done with."""
        for delivery in group:
            link.acknowledge(delivery)

    def _take(self, batches: Sequence[Batch]) -> Callable[[Connection], list[tuple[Batch, str]]]:
        """Make the transaction that hands over each batch that is new; it returns what became of each.

        That is a counter's name, counted after the commit: a transaction that is tried again would count twice.
        """

        def take(connection: Connection) -> list[tuple[Batch, str]]:
            return [(batch, self._take_one(connection, batch)) for batch in batches]

        return take

    def _take_one(self, connection: Connection, batch: Batch) -> str:
        claim = insert(alert_ledger).values(gateway=batch.gateway, seq=batch.seq).on_conflict_do_nothing()
        try:
            with connection.begin_nested():
                if not connection.execute(claim).rowcount:
                    return "ingest_duplicate_batches_total"
                self._sink.take(connection, batch.gateway, batch.transitions, self._clock.now())
        except OperationalError:  # the store, not the batch
            raise
        except Exception:  # supervisor: one batch that the desk stumbles over must not stop every other alert
            log.exception("the desk failed on a batch; it has no receipt", gateway=batch.gateway, seq=batch.seq)
            return _FAILED
        return "ingest_alert_batches_total"

    async def _keep_tables(self, group: Sequence[Sent]) -> None:
        read = [self._gate.message(sent, PointTable) for sent in group if sent.lane is Lane.POINTS]
        tables = [table for table in read if table is not None]
        await self._until_stored("points", lambda: self._points.keep(tables, self._clock.now()), asyncio.sleep)

    def _note_stored(self, batches: Sequence[SampleBatch], new: set[tuple[str, int]]) -> None:
        fresh = {samples.key: samples for samples in batches if samples.key in new}
        for samples in fresh.values():
            self._balance.stored(samples.gateway, samples.hour, len(samples.block))
        self._counted.add("ingest_sample_batches_total", len(fresh))
        self._counted.add("ingest_samples_total", sum(len(samples.block) for samples in fresh.values()))
        self._counted.add("ingest_duplicate_batches_total", len(batches) - len(fresh))

    async def _until_stored(
        self, what: str, store: Callable[[], Awaitable[T]], wait: Callable[[float], Awaitable[None]]
    ) -> T:
        """Try until the store takes it, however long that is; nobody has a receipt meanwhile."""
        delay = RETRY_S
        while True:
            try:
                stored = await store()
            except (Retry, OperationalError) as error:
                pause = getattr(error, "after_s", None) or delay
                why = str(error)
                delay = min(2 * delay, RETRY_MOST_S)
            except Misconfigured as error:
                pause, why = MISCONFIGURED_S, str(error)
                self._counted.add("ingest_misconfigured_stores_total")
            else:
                self.troubles.pop(what, None)
                return stored
            self._counted.add(f"ingest_{what}_retries_total")
            if self.troubles.get(what) != why:
                log.error("cannot store; trying again until it works", what=what, why=why)
            self.troubles[what] = why
            await wait(pause * random.uniform(0.5, 1.0))

    async def _let_go(self, seconds: float) -> None:
        """Wait, and meanwhile let batches of samples pass without a receipt: their gateways hold them, no queue grows.

        Point tables are kept: they come once a connection.
        """
        until = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                async with asyncio.timeout_at(until):
                    first = await self._samples.receive()
            except TimeoutError:
                return
            group = [first, *self._samples.receive_waiting(GROUP - 1)]
            known = self._gate.known(_not_alerts(group))
            await self._keep_tables(known)
            self._counted.add("ingest_let_go_batches_total", sum(sent.lane is not Lane.POINTS for sent in known))
            self.acknowledge(self._samples, group)


def _not_alerts(group: Sequence[Delivery]) -> list[Delivery]:
    # Alerts come on their own session too; answers are for who asked.
    own = tuple(topic.removeprefix(f"{ROOT}/+") for topic in (*ALERT_TOPICS, up("+", Lane.ANSWER)))
    return [delivery for delivery in group if not delivery.topic.endswith(own)]
