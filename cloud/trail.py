"""What was done, by whom and why: an append-only record per work order, each entry sealed by the one before."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import JSON, BigInteger, Column, Connection, Integer, String, Table, insert, select

from cloud.records import from_row, to_values
from cloud.store import metadata

GENESIS = "0" * 64


class Entry(msgspec.Struct, frozen=True):
    """Entry ``n`` (from 1) of an order's trail; ``hash`` is SHA-256, in hex, over ``previous`` and the content."""

    work_order: str
    n: int
    at: int
    who: str
    action: str
    why: str
    detail: dict[str, Any]
    previous: str
    hash: str = ""


trail_table = Table(
    "trail",
    metadata,
    Column("work_order", String, primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("who", String, nullable=False),
    Column("action", String, nullable=False),
    Column("why", String, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous", String, nullable=False),
    Column("hash", String, nullable=False),
)


def seal(entry: Entry) -> Entry:
    """Give the entry its hash: over ``previous``, then everything else as JSON with sorted keys, no spaces, UTF-8."""
    content = {key: value for key, value in to_values(entry).items() if key not in {"previous", "hash"}}
    canonical = msgspec.json.encode(content, order="deterministic")
    return msgspec.structs.replace(entry, hash=hashlib.sha256(entry.previous.encode() + canonical).hexdigest())


def valid(entries: Sequence[Entry]) -> bool:
    """Whether this is a whole chain: counted from 1, each sealed over the one before, nothing altered."""
    previous = GENESIS
    for n, entry in enumerate(entries, 1):
        if entry.n != n or entry.previous != previous or seal(entry).hash != entry.hash:
            return False
        previous = entry.hash
    return True


def append(
    connection: Connection,
    work_order: str,
    at: int,
    who: str,
    action: str,
    why: str = "",
    detail: Mapping[str, Any] | None = None,
) -> Entry:
    """Add an entry at ``at`` (UTC ns of city time); one writer at a time keeps the chain whole."""
    newest = connection.execute(
        select(trail_table.c.n, trail_table.c.hash)
        .where(trail_table.c.work_order == work_order)
        .order_by(trail_table.c.n.desc())
        .limit(1)
    ).one_or_none()
    n, previous = (1, GENESIS) if newest is None else (newest.n + 1, newest.hash)
    entry = seal(Entry(work_order, n, at, who, action, why, dict(detail or {}), previous))
    connection.execute(insert(trail_table).values(to_values(entry)))
    return entry


def entries_of(connection: Connection, work_order: str) -> list[Entry]:
    query = select(trail_table).where(trail_table.c.work_order == work_order).order_by(trail_table.c.n)
    return [from_row(row, Entry) for row in connection.execute(query)]
