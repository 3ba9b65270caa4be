"""What the relational store keeps for InfluxDB: which batches it holds, and the lines it would not take."""

from collections.abc import Iterable, Sequence

from sqlalchemy import BigInteger, Column, Connection, Integer, String, Table, func, select, tuple_
from sqlalchemy.dialects.sqlite import insert

from cloud.store import metadata
from cloud.timeseries.port import SampleBatch

sample_ledger = Table(
    "sample_ledger",
    metadata,
    Column("gateway", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("hour", BigInteger, nullable=False),
    Column("samples", Integer, nullable=False),
)

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("line", String, nullable=False),
    Column("why", String, nullable=False),  # the server's own words
)


def known(connection: Connection, batches: Sequence[SampleBatch]) -> set[tuple[str, int]]:
    """Keys of those batches that stand in the ledger already."""
    key = tuple_(sample_ledger.c.gateway, sample_ledger.c.seq)
    standing = select(sample_ledger.c.gateway, sample_ledger.c.seq).where(key.in_([batch.key for batch in batches]))
    return set(connection.execute(standing).all())


def enter(
    connection: Connection, batches: Iterable[SampleBatch], dead: Sequence[tuple[str, str]]
) -> set[tuple[str, int]]:
    """Enter batches whose points are stored, and park the lines that were not taken; the keys that were new."""
    if dead:
        connection.execute(dead_letter.insert(), [{"line": line, "why": why} for line, why in dead])
    rows = [
        {"gateway": batch.gateway, "seq": batch.seq, "hour": batch.hour, "samples": len(batch.block)}
        for batch in batches
    ]
    claim = insert(sample_ledger).on_conflict_do_nothing().returning(sample_ledger.c.gateway, sample_ledger.c.seq)
    return set(connection.execute(claim, rows).all()) if rows else set()


def committed(connection: Connection, gateway: str) -> dict[int, int]:
    """Count a gateway's samples by hour."""
    of = sample_ledger.c
    rows = select(of.hour, func.sum(of.samples)).where(of.gateway == gateway).group_by(of.hour).order_by(of.hour)
    return dict(connection.execute(rows).all())
