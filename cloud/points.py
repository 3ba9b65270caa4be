"""The point tables that gateways sent: without its table a batch's indices mean nothing."""

from collections.abc import Iterable

import structlog
from sqlalchemy import BigInteger, Column, LargeBinary, String, Table, select
from sqlalchemy.dialects.sqlite import insert

from cloud.registry import Units
from cloud.store import Store, metadata
from rules.samples import PointTable
from wire.batch import decode, encode

point_table = Table(
    "point_table",
    metadata,
    Column("digest", String, primary_key=True),
    Column("gateway", String, nullable=False),
    Column("first_seen_at", BigInteger, nullable=False),  # city time, UTC nanoseconds
    Column("payload", LargeBinary, nullable=False),
)

log = structlog.get_logger(__name__)


class PointTables:
    """Every table ever seen, by its digest, kept in the relational store: one object for one table."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, PointTable] = {}
        self._units: Units | None = None

    async def load(self) -> None:
        """Read back what was kept before this process began."""
        rows = select(point_table.c.digest, point_table.c.payload).order_by(point_table.c.first_seen_at)
        for digest, payload in await self._store.read(lambda connection: connection.execute(rows).all()):
            self._known[digest] = decode(payload, PointTable)

    def get(self, digest: str) -> PointTable | None:
        return self._known.get(digest)

    def units(self) -> Units:
        """Look up the units that the tables tell; of a point that several name, the newest tells it."""
        if self._units is None:  # a hundred thousand points are not read anew for every answer
            self._units = Units(self._known.values())
        return self._units

    async def keep(self, tables: Iterable[PointTable], now: int) -> None:
        """Remember tables, on disk first; ``now`` is city time in UTC nanoseconds."""
        new = {digest: table for table in tables if (digest := table.digest()) not in self._known}
        if not new:
            return
        rows = [
            {"digest": digest, "gateway": table.gateway, "first_seen_at": now, "payload": encode(table)}
            for digest, table in new.items()
        ]
        keep = insert(point_table).on_conflict_do_nothing()
        await self._store.write(lambda connection: connection.execute(keep, rows))
        self._known.update(new)
        self._units = None
        for digest, table in new.items():
            log.info("point table kept", gateway=table.gateway, points=len(table.points), digest=digest)
