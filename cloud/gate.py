"""Reads what gateways send and turns away what cannot be taken: each case is counted, logged, and never stops the next.

A batch turned away for good is *rejected* in the receipt, so that its gateway counts it as dropped; one that may be
taken later gets no receipt, and its gateway keeps it and sends it again.
"""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import msgspec
import numpy as np
import structlog

from cloud.timeseries.port import SampleBatch
from rules.samples import PointTable
from wire.batch import CONTENT_TYPE, Batch, Malformed, Receipt, Seq, Status, decode
from wire.counted import Counted
from wire.session import Delivery
from wire.topics import Lane, parse_up

T = TypeVar("T")
M = TypeVar("M", PointTable, Status)

_NOUNS = {Lane.POINTS: "tables", Lane.STATUS: "statuses"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sent:
    """A delivery of a gateway that we know."""

    delivery: Delivery
    gateway: str
    lane: Lane


class Tables(Protocol):
    """What the gate needs of ``cloud.points.PointTables``."""

    def get(self, digest: str) -> PointTable | None: ...


class Answers:
    """What the receipts of one group will say."""

    def __init__(self) -> None:
        self._accepted: dict[str, list[int]] = {}
        self._rejected: dict[str, list[tuple[int, str]]] = {}

    def accept(self, gateway: str, seq: int) -> None:
        self._accepted.setdefault(gateway, []).append(seq)

    def reject(self, gateway: str, seq: int, code: str) -> None:
        self._rejected.setdefault(gateway, []).append((seq, code))

    def receipts(self) -> dict[str, Receipt]:
        """Write one receipt for each gateway that is owed one."""
        gateways = dict.fromkeys((*self._accepted, *self._rejected))
        return {
            gateway: Receipt(tuple(self._accepted.get(gateway, ())), tuple(self._rejected.get(gateway, ())))
            for gateway in gateways
        }


class _NotTaken(Exception):  # noqa: N818 - named by what happened to the message
    """Why, and the counter's name; with ``seq`` and ``code`` its batch is rejected for good."""

    def __init__(self, counter: str, why: str, seq: int | None = None, code: str = "") -> None:
        super().__init__(why)
        self.counter = counter
        self.seq = seq
        self.code = code


class _Numbered(msgspec.Struct):
    """All that need be readable of a batch to reject it."""

    seq: Seq


class Gate:
    """Holds the known gateways, their point tables and the counters."""

    def __init__(self, gateways: Container[str], tables: Tables, counted: Counted) -> None:
        self._gateways = gateways
        self._tables = tables
        self._counted = counted

    def known(self, group: Iterable[Delivery]) -> list[Sent]:
        """Name gateway and lane of each delivery; left out are those that nobody we know has sent, or not for us."""
        named = [self._try(delivery, partial(self._sent, delivery)) for delivery in group]
        return [sent for sent in named if sent is not None]

    def message(self, sent: Sent, into: type[M]) -> M | None:
        """Read a status or a point table."""
        return self._try(sent.delivery, partial(_message, sent, into))

    def alerts(self, sent: Sent, answers: Answers) -> Batch | None:
        """Read a batch of the alert lane."""
        return self._try(sent.delivery, partial(_batch, sent), sent.gateway, answers)

    def samples(self, sent: Sent, answers: Answers) -> SampleBatch | None:
        """Read a batch of a sample lane against its point table."""
        return self._try(sent.delivery, partial(self._samples, sent), sent.gateway, answers)

    def _try(
        self, delivery: Delivery, read: Callable[[], T], gateway: str = "", answers: Answers | None = None
    ) -> T | None:
        try:
            return read()
        except _NotTaken as error:
            self._counted.add(error.counter)
            log.warning("not taken", counter=error.counter, topic=delivery.topic, why=str(error))
            if answers is not None and error.seq is not None:
                answers.reject(gateway, error.seq, error.code)
            return None

    def _sent(self, delivery: Delivery) -> Sent:
        try:
            gateway, lane = parse_up(delivery.topic)
        except ValueError as error:
            raise _NotTaken("ingest_unknown_topics_total", str(error)) from error
        if gateway not in self._gateways:
            noun = _NOUNS.get(lane, "batches")
            raise _NotTaken(f"ingest_unknown_gateway_{noun}_total", f"gateway {gateway} is not onboarded")
        if delivery.content_type not in ("", CONTENT_TYPE):
            why = f"it says it is {delivery.content_type}; this lane takes {CONTENT_TYPE}"
            raise _NotTaken("ingest_wrong_content_messages_total", why)
        return Sent(delivery, gateway, lane)

    def _samples(self, sent: Sent) -> SampleBatch:
        batch = _batch(sent)
        table = self._tables.get(batch.points)
        if table is None:
            why = f"batch {batch.seq} needs point table {batch.points}, which has not come yet"
            raise _NotTaken("ingest_unknown_points_batches_total", why)
        try:
            block = batch.block()
        except Malformed as error:
            raise _NotTaken("ingest_malformed_batches_total", str(error), batch.seq, "malformed") from error
        outside = np.count_nonzero((block.point < 0) | (block.point >= len(table.points)))
        if outside or table.gateway != batch.gateway:
            why = f"{outside} samples of batch {batch.seq} lie outside point table {batch.points} of {table.gateway}"
            raise _NotTaken("ingest_outside_table_batches_total", why, batch.seq, "outside_point_table")
        return SampleBatch(batch.gateway, batch.seq, batch.hour, table, block)


def _message(sent: Sent, into: type[M]) -> M:
    noun = _NOUNS[sent.lane]
    try:
        message = decode(sent.delivery.payload, into)
    except Malformed as error:
        raise _NotTaken(f"ingest_malformed_{noun}_total", str(error)) from error
    if message.gateway != sent.gateway:
        raise _NotTaken(f"ingest_foreign_{noun}_total", f"it names gateway {message.gateway}")
    return message


def _batch(sent: Sent) -> Batch:
    payload = sent.delivery.payload
    try:
        batch = decode(payload, Batch)
    except Malformed as error:
        raise _NotTaken("ingest_malformed_batches_total", str(error), _seq(payload), "malformed") from error
    if batch.gateway != sent.gateway:
        why = f"batch {batch.seq} names gateway {batch.gateway}"
        raise _NotTaken("ingest_foreign_batches_total", why, batch.seq, "foreign_gateway")
    if (batch.samples is not None) if sent.lane is Lane.ALERT else batch.transitions:
        why = f"batch {batch.seq}: alerts and samples have lanes of their own"
        raise _NotTaken("ingest_wrong_lane_batches_total", why, batch.seq, "wrong_lane")
    return batch


def _seq(payload: bytes) -> int | None:
    try:
        return decode(payload, _Numbered).seq
    except Malformed:
        return None
