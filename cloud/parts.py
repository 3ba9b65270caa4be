"""The cloud's parts, put together over whatever carries the batches: MQTT sessions, or a short circuit."""

from dataclasses import dataclass

from fastapi import FastAPI

from cloud.api.app import create_app
from cloud.balance import Balance
from cloud.desk import Desk
from cloud.events import Events
from cloud.ingest import Ingest, Link
from cloud.points import PointTables
from cloud.registry import Registry
from cloud.store import Store
from cloud.timeseries.port import TimeSeries
from wire.clock import Clock
from wire.counted import Counted


@dataclass(frozen=True, slots=True)
class Parts:
    """What takes batches in, decides, keeps the ledger and answers."""

    registry: Registry
    store: Store
    timeseries: TimeSeries
    events: Events
    points: PointTables
    balance: Balance
    desk: Desk
    ingest: Ingest
    clock: Clock
    counted: Counted

    def app(self, host: str) -> FastAPI:
        """Make the district centre's application, to be served on ``host``."""
        return create_app(
            self.desk,
            self.store,
            self.events,
            self.balance,
            self.timeseries,
            self.points,
            self.registry,
            self.clock,
            self.counted,
            self.ingest.troubles,
            host,
        )


async def put_together(
    registry: Registry,
    store: Store,
    timeseries: TimeSeries,
    links: tuple[Link, Link],
    clock: Clock,
    counted: Counted,
) -> Parts:
    """Build the parts on open stores and read back what they kept; ``links`` carry alerts and samples."""
    events, points = Events(store), PointTables(store)
    await points.load()
    gateways = {gateway.id for gateway in registry.district.gateway}
    balance = Balance(store, events, gateways, clock)
    await balance.load(timeseries)
    desk = Desk(registry, events, clock, counted)
    ingest = Ingest(*links, store, timeseries, desk, points, balance, gateways, clock, counted)
    return Parts(registry, store, timeseries, events, points, balance, desk, ingest, clock, counted)
