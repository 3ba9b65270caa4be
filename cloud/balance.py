"""The gap ledger and its balance: what every gateway acquired, and what became of it.

acquired = filtered + dropped + committed + in flight + missing. The gateways tell acquired, filtered, dropped and in
flight in their statuses; the cloud counts what it committed; what is left over is missing.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable

import structlog
from sqlalchemy import JSON, BigInteger, Column, Connection, String, Table, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import OperationalError

from cloud import events
from cloud.account import SILENT_S, Account, HourBalance, View, total
from cloud.store import Store, metadata
from cloud.timeseries.port import TimeSeries
from wire.batch import Status, Tally
from wire.clock import Clock

EVENT_EVERY_S = 1.0  # wall

gap_ledger = Table(
    "gap_ledger",
    metadata,
    Column("gateway", String, primary_key=True),
    Column("hour", BigInteger, primary_key=True),  # UTC nanoseconds of its start
    Column("acquired", BigInteger, nullable=False),
    Column("filtered", BigInteger, nullable=False),
    Column("sent", BigInteger, nullable=False),
    Column("dropped", JSON, nullable=False),
)

log = structlog.get_logger(__name__)


class Balance:
    """Hears statuses and commits, keeps the ledger in the relational store, and tells the stream of changes.

    Load it once, then ``run`` it. For one event loop; ``monotonic`` tells wall seconds.
    """

    def __init__(
        self,
        store: Store,
        changes: events.Events,
        gateways: Iterable[str],
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock
        self._monotonic = monotonic
        self._accounts = {gateway: Account(gateway) for gateway in gateways}
        self._unkept: dict[tuple[str, int], Tally] = {}
        self._changed = asyncio.Event()

    async def load(self, timeseries: TimeSeries) -> None:
        """Read back the ledger, and count what the store of samples holds."""
        for row in await self._store.read(lambda connection: connection.execute(select(gap_ledger)).all()):
            gateway, *tally = row
            self._account(gateway).tallies[tally[0]] = Tally(*tally)
        for account in self._accounts.values():
            account.committed = await timeseries.committed(account.gateway)

    def heard(self, status: Status, *, retained: bool) -> None:
        """Take a gateway's status; a retained one is the broker's memory, no sign of life."""
        account = self._account(status.gateway)
        account.told(status)
        if not retained and status.online:
            account.heard_at, account.last_seen_at = self._monotonic(), self._clock.now()
        self._unkept.update(((status.gateway, tally.hour), tally) for tally in status.tallies)
        self._changed.set()

    def stored(self, gateway: str, hour: int, samples: int) -> None:
        """Count samples that were committed; ``hour`` as ``Batch.hour``."""
        committed = self._account(gateway).committed
        committed[hour] = committed.get(hour, 0) + samples
        self._changed.set()

    def view(self) -> View:
        """Draw the balance now."""
        now = self._monotonic()
        lines = tuple(account.line(now) for account in self._accounts.values())
        everything = total([line.amounts for line in lines])
        twice = any(account.twice for account in self._accounts.values())
        return View(everything.missing == 0 and not twice, lines, everything)

    def counters(self) -> dict[str, dict[str, int]]:
        """Every gateway's own counters, as it last told them."""
        return {name: account.status.counters for name, account in self._accounts.items() if account.status}

    def hours(self, gateway: str) -> list[HourBalance]:
        """List a gateway's gap ledger, the oldest hour first."""
        return self._account(gateway).hours()

    async def run(self) -> None:
        """Keep the ledger on disk until cancelled, and append a ``balance`` event, at most once a second."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_silence()):
                    await self._changed.wait()
            self._changed.clear()
            await self._keep()
            await asyncio.sleep(EVENT_EVERY_S)

    async def _keep(self) -> None:
        unkept, self._unkept = self._unkept, {}
        try:
            await self._store.write(lambda connection: _write(connection, unkept, self._clock.now()))
        except OperationalError:
            self._unkept = unkept | self._unkept
            self._changed.set()
            log.exception("the gap ledger cannot be written")
        else:
            self._changes.committed()

    def _until_silence(self) -> float | None:
        """Tell the wall seconds until the next gateway falls silent unless it is heard; None when there is none."""
        now = self._monotonic()
        left = [
            account.heard_at + SILENT_S - now
            for account in self._accounts.values()
            if account.heard_at is not None and account.state(now) != "silent"
        ]
        return max(0.0, min(left)) if left else None

    def _account(self, gateway: str) -> Account:
        if gateway not in self._accounts:
            self._accounts[gateway] = Account(gateway)
        return self._accounts[gateway]


def _write(connection: Connection, tallies: dict[tuple[str, int], Tally], now: int) -> None:
    rows = [
        {
            "gateway": gateway,
            "hour": hour,
            "acquired": tally.acquired,
            "filtered": tally.filtered,
            "sent": tally.sent,
            "dropped": tally.dropped,
        }
        for (gateway, hour), tally in tallies.items()
    ]
    if rows:
        keep = insert(gap_ledger)
        new = {name: keep.excluded[name] for name in ("acquired", "filtered", "sent", "dropped")}
        connection.execute(keep.on_conflict_do_update(set_=new), rows)
    events.append(connection, "balance", "", now)
    events.forget(connection)  # here, for this is what makes the table grow
