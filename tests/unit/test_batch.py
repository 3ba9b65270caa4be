"""Batches cross the wire unchanged, and garbage is named."""

import msgspec
import numpy as np
import pytest
import zstandard

from rules.samples import Block, Point, PointTable
from wire.batch import MAX_BYTES, Batch, Columns, Malformed, Receipt, columns, decode, encode
from wire.topics import Lane, parse_up, up


def _batch(samples: Columns | None) -> Batch:
    return Batch("gw-1", "boot", 7, 3, 0, "digest", clock_ok=True, samples=samples)


def test_columns_come_back_as_they_were_sent() -> None:
    block = Block(
        np.array([3, 1], np.int32),
        np.array([10, -1], np.int64),
        np.array([0.1, np.inf], np.float64),
        np.array([0, 19], np.uint8),
    )
    back = decode(encode(_batch(columns(block))), Batch).block()
    for sent, got in ((block.point, back.point), (block.taken_at, back.taken_at), (block.quality, back.quality)):
        assert np.array_equal(sent, got)
    assert back.value.tobytes() == block.value.tobytes()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"garbage",
        encode(Receipt((1, 2))),
        zstandard.compress(b"\xc1"),
        zstandard.compress(msgspec.msgpack.encode({"gateway": "g"})),
        zstandard.compress(b"\0" * (MAX_BYTES + 1)),
        zstandard.compress(msgspec.msgpack.encode({"gateway": "gw"}).replace(b"gw", b"g\xff")),
    ],
    ids=["empty", "no frame", "a receipt", "no msgpack", "half a batch", "too large", "no UTF-8"],
)
def test_garbage_is_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed, match="not a Batch"):
        decode(payload, Batch)


def test_columns_of_different_lengths_are_malformed() -> None:
    with pytest.raises(Malformed, match="batch 7 of gw-1"):
        _batch(Columns(b"\0" * 8, b"\0" * 8, b"\0" * 8, b"\0")).block()


def test_a_point_table_is_versioned_by_its_content() -> None:
    table = PointTable("gw-1", (Point("d", "camera", "standing_water", "1", 60.0),))
    assert table.digest() == decode(encode(table), PointTable).digest()
    assert table.digest() != PointTable("gw-2", table.points).digest()


def test_topics_are_read_as_they_are_written() -> None:
    assert parse_up(up("gw-1", Lane.LIVE)) == ("gw-1", Lane.LIVE)
    for topic in ("streetwarden/v1/gw-1/down/receipt", "streetwarden/v1/gw-1/up/nothing", "other"):
        with pytest.raises(ValueError, match=r"is not a"):
            parse_up(topic)
