"""What crosses from gateway to cloud: batches, point tables, status, and the receipts that come back.

MessagePack by msgspec, compressed with Zstandard. Sample columns travel as raw little-endian arrays: encoding is a
copy, and Zstandard finds what repeats.
"""

from typing import Annotated, TypeVar

import msgspec
import numpy as np
import zstandard

from rules.alert import Transition
from rules.samples import POINT, QUALITY, TIME, VALUE, Block, Instant, PointTable
from wire.clock import HOUR

CONTENT_TYPE = "application/vnd.streetwarden.batch+msgpack"
MAX_BYTES = 4 * 1024 * 1024  # a batch that unpacks to more than this is garbage, not history
T = TypeVar("T")
Seq = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Hour = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1, multiple_of=HOUR)]  # UTC ns of its start
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # exact in every reader


class Malformed(ValueError):  # noqa: N818 - the sender should not send it again
    """Bytes that are not what their topic says; sending them again would not help."""


class Columns(msgspec.Struct, frozen=True, array_like=True):
    """A block's columns as bytes, little-endian: int32, int64 (UTC ns), float64, uint8."""

    point: bytes
    taken_at: bytes
    value: bytes
    quality: bytes


class Batch(msgspec.Struct, frozen=True):
    """One durable unit of a gateway's outbox: samples or alert transitions. ``(gateway, seq)`` is its identity.

    ``seq`` counts over all lanes and survives restarts; no batch below ``settled_below`` will ever be sent again.
    ``hour`` is when it was acquired, whatever its samples' own stamps: both sides count it in this row of the gap
    ledger. ``points`` is the digest of the point table that the samples' indices refer to.
    """

    gateway: str
    boot: str
    seq: Seq
    settled_below: Seq
    hour: Hour
    points: str
    clock_ok: bool
    samples: Columns | None = None
    transitions: tuple[Transition, ...] = ()

    def block(self) -> Block:
        """The samples as columns; ``Malformed`` when they do not fit together."""
        if self.samples is None:
            return Block.empty()
        try:
            return Block(
                np.frombuffer(self.samples.point, POINT),
                np.frombuffer(self.samples.taken_at, TIME),
                np.frombuffer(self.samples.value, VALUE),
                np.frombuffer(self.samples.quality, QUALITY),
            )
        except ValueError as error:
            raise Malformed(f"batch {self.seq} of {self.gateway}: {error}") from error


class Receipt(msgspec.Struct, frozen=True):
    """The cloud's word that it has committed (or will never take) these batches; only then the outbox lets go."""

    accepted: tuple[int, ...]
    rejected: tuple[tuple[int, str], ...] = ()


class Tally(msgspec.Struct, frozen=True):
    """One row of the gap ledger: what a gateway acquired in an hour (UTC ns of its start) and what became of it.

    ``dropped`` counts samples by reason. ``stored`` on the cloud's side + ``filtered`` + ``dropped`` must reach
    ``acquired``; what has not yet is in the outbox.
    """

    hour: Instant
    acquired: Count
    filtered: Count
    sent: Count
    dropped: dict[str, Count] = {}


class Status(msgspec.Struct, frozen=True):
    """A gateway's own account, sent every few seconds and on each change. ``at`` is UTC ns on the city's clock.

    ``bus_cycles`` tells of each bus that answers how long those of its devices with the shortest interval really wait
    between two polls, in seconds of the city.
    """

    gateway: str
    boot: str
    at: Instant
    online: bool
    outbox_batches: Count
    outbox_samples: Count
    tallies: tuple[Tally, ...]
    devices_down: tuple[str, ...] = ()
    counters: dict[str, Count] = {}
    bus_cycles: dict[str, float] = {}


class Order(msgspec.Struct, frozen=True):
    """What the centre asks a gateway to do with one of its devices, until ``until`` (UTC ns) and no longer.

    ``id`` names it in the answer. ``value`` is in the unit of the profile's command, None where that has a fixed one.
    """

    id: str
    device: str
    command: str
    value: float | None
    until: Instant


class Answer(msgspec.Struct, frozen=True):
    """What came of an order: what the device then ``shows``; None when it was not done, and ``why``."""

    id: str
    shows: float | None
    why: str = ""


def columns(block: Block) -> Columns:
    return Columns(
        block.point.astype(POINT, copy=False).tobytes(),
        block.taken_at.astype(TIME, copy=False).tobytes(),
        block.value.astype(VALUE, copy=False).tobytes(),
        block.quality.astype(QUALITY, copy=False).tobytes(),
    )


def encode(message: Batch | Receipt | Status | PointTable | Order | Answer) -> bytes:
    return zstandard.compress(msgspec.msgpack.encode(message), 1)


def decode(payload: bytes, into: type[T]) -> T:
    """The message in a payload; ``Malformed`` when it is not one."""
    try:
        # A frame states its size: one that claims too much is refused before a byte is allocated for it.
        if zstandard.frame_content_size(payload) > MAX_BYTES:
            raise Malformed(f"not a {into.__name__}: it unpacks to more than {MAX_BYTES} bytes")
        return msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(payload, MAX_BYTES), type=into)
    except (zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError, MemoryError, RecursionError) as error:
        raise Malformed(f"not a {into.__name__}: {error}") from error
