"""Samples are columns: one block type from driver to rules to outbox to wire to store."""

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

POINT = np.dtype("<i4")
TIME = np.dtype("<i8")
VALUE = np.dtype("<f8")
QUALITY = np.dtype("u1")

Instant = Annotated[int, msgspec.Meta(ge=0, le=2**62)]  # UTC ns, 1970 to 2116: adding to it still fits ``TIME``


class Quality(IntEnum):
    """What is known of a sample's worth; everything from ``BAD_RANGE`` up is bad, with its cause."""

    GOOD = 0
    UNCERTAIN = 1
    BAD_RANGE = 16
    BAD_SENTINEL = 17
    BAD_STUCK = 18
    BAD_COMMS = 19
    BAD_STALE = 20
    BAD_CLOCK = 21


BAD = int(Quality.BAD_RANGE)


class Point(msgspec.Struct, frozen=True):
    """One quantity of one device.

    ``unit`` is a UCUM/SenML symbol, ``interval_s`` the point's own reporting interval in seconds. A point that
    ``reports_on_change`` is silent while nothing changes: its last value counts on.
    """

    device: str
    kind: str
    metric: str
    unit: str
    interval_s: float
    reports_on_change: bool = False


class PointTable(msgspec.Struct, frozen=True):
    """The points of one gateway, in the order that sample columns refer to by index."""

    gateway: str
    points: tuple[Point, ...]

    def digest(self) -> str:
        """Tell the table's version: batches name it, so that an index is never read against another table."""
        # An interval written as 10 arrives as 10.0: the digest is of the table as its receiver has it.
        arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(self), type=PointTable)
        return hashlib.sha256(msgspec.msgpack.encode(arrived)).hexdigest()[:16]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Parallel columns of one shape ``[n]``; readings (one device at one instant) are contiguous and in arrival order.

    ``taken_at`` is UTC in nanoseconds, the time of reading; ``point`` indexes the gateway's point table.
    """

    point: NDArray[np.int32]
    taken_at: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if not self.point.shape == self.taken_at.shape == self.value.shape == self.quality.shape:
            raise ValueError("the columns of a block have one length")

    def __len__(self) -> int:
        return len(self.point)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Block":
        return Block(self.point[rows], self.taken_at[rows], self.value[rows], self.quality[rows])

    @classmethod
    def empty(cls) -> Self:
        return cls(
            np.empty(0, POINT),
            np.empty(0, TIME),
            np.empty(0, VALUE),
            np.empty(0, QUALITY),
        )

    @classmethod
    def concatenate(cls, blocks: "list[Block]") -> Self:
        if not blocks:
            return cls.empty()
        return cls(
            np.concatenate([block.point for block in blocks]),
            np.concatenate([block.taken_at for block in blocks]),
            np.concatenate([block.value for block in blocks]),
            np.concatenate([block.quality for block in blocks]),
        )
