"""What the handlers share: where to read, whom to ask, and what time it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends
from sqlalchemy import Connection
from starlette.requests import HTTPConnection

from cloud.balance import Balance
from cloud.desk import Desk
from cloud.events import Events
from cloud.points import PointTables
from cloud.registry import Registry, Units
from cloud.store import Store
from cloud.timeseries.port import TimeSeries
from wire.clock import Clock
from wire.counted import Counted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of the cloud that answer for the API; ``troubles`` says what cannot be stored just now, and why."""

    desk: Desk
    store: Store
    events: Events
    balance: Balance
    timeseries: TimeSeries
    points: PointTables
    registry: Registry
    clock: Clock
    counted: Counted
    troubles: Mapping[str, str]

    def units(self) -> Units:
        """Look up the units that the gateways' point tables tell."""
        return self.points.units()

    async def change(self, do: Callable[[Connection], T]) -> T:
        """Run a change in one transaction and wake whoever waits for news."""
        done = await self.store.write(do)
        await self.desk.committed()
        return done


def _context(connection: HTTPConnection) -> Context:
    context = connection.app.state.context
    assert isinstance(context, Context)  # noqa: S101 - set by the factory; narrows the type
    return context


Shared = Annotated[Context, Depends(_context)]
