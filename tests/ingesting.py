"""A cloud in memory for tests of ingest: links without a broker, and a store of samples that can be made to fail."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import Connection

from cloud.balance import Balance
from cloud.events import Events
from cloud.ingest import Ingest
from cloud.points import PointTables
from cloud.store import Store
from cloud.timeseries.memory import MemoryTimeSeries
from cloud.timeseries.port import SampleBatch
from rules.alert import Phase, Reason, Severity, Transition
from rules.samples import POINT, QUALITY, TIME, VALUE, Block, Point, PointTable
from wire.batch import Batch, Receipt, Status, columns, decode, encode
from wire.clock import HOUR, Clock
from wire.counted import Counted
from wire.session import Delivery, NotConnected
from wire.topics import Lane, up

T0 = 1_781_782_200_000_000_000  # 2026-06-18T11:30:00Z
HOUR_0 = T0 // HOUR * HOUR
WITHIN_S = 5.0

TABLE = PointTable(
    "gw-north",
    (Point("level-s1", "level_sensor", "level", "m", 10), Point("lamp-1", "lamp_controller", "power", "W", 30)),
)


class MemoryLink:
    """A session without a broker: what is put in arrives; what is published and acknowledged is noted, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []  # ("receipt", (topic, Receipt)) or ("acknowledged", Delivery)
        self.connected = True
        self._inbox: deque[Delivery] = deque()
        self._moved = asyncio.Condition()
        self._put = 0
        self._acknowledged = 0

    async def put(self, topic: str, payload: bytes, *, retained: bool = False, content_type: str = "") -> None:
        self._put += 1
        self._inbox.append(Delivery(topic, payload, retained, content_type, self._put, 1, 1))
        async with self._moved:
            self._moved.notify_all()

    async def receive(self) -> Delivery:
        async with self._moved:
            await self._moved.wait_for(lambda: bool(self._inbox))
            return self._inbox.popleft()

    def receive_waiting(self, most: int) -> list[Delivery]:
        return [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]

    def acknowledge(self, delivery: Delivery) -> None:
        self.told.append(("acknowledged", delivery))
        self._acknowledged += 1

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str = "") -> None:
        if not self.connected:
            raise NotConnected("the test says so")
        self.told.append(("receipt", (topic, decode(payload, Receipt))))

    async def all_acknowledged(self) -> None:
        """Wait until everything that was put in has been acknowledged."""
        await until(lambda: self._acknowledged == self._put)

    @property
    def accepted(self) -> list[int]:
        return [seq for receipt in self.receipts for seq in receipt.accepted]

    @property
    def rejected(self) -> list[tuple[int, str]]:
        return [rejection for receipt in self.receipts for rejection in receipt.rejected]

    @property
    def receipts(self) -> list[Receipt]:
        found = [what for kind, what in self.told if kind == "receipt"]
        return [what[1] for what in found if isinstance(what, tuple)]


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something holds; ``TimeoutError`` when it does not."""
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.001)


class FailingTimeSeries(MemoryTimeSeries):
    """Raises ``failure`` while there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self.tried = 0

    async def write(self, batches: Sequence[SampleBatch]) -> set[tuple[str, int]]:
        self.tried += 1
        if self.failure is not None:
            raise self.failure
        return await super().write(batches)


class Sink:
    """Remembers what it was told; fails on the alerts named in ``stumbles_over``."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, int]] = []
        self.stumbles_over: set[str] = set()
        self.commits = 0

    def take(self, connection: Connection, gateway: str, transitions: Sequence[Transition], now: int) -> None:
        for step in transitions:
            if step.alert in self.stumbles_over:
                raise KeyError(step.alert)
            self.taken.append((gateway, step.alert, step.revision))

    async def committed(self) -> None:
        self.commits += 1


class World:
    """Everything ingest touches."""

    def __init__(self, store: Store) -> None:
        self.counted = Counted()
        self.alerts, self.samples = MemoryLink(), MemoryLink()
        self.store = store
        self.timeseries = FailingTimeSeries()
        self.sink = Sink()
        self.points = PointTables(store)
        clock = Clock(speed=1.0)
        self.balance = Balance(store, Events(store), ["gw-north"], clock)
        self.ingest = Ingest(
            self.alerts,
            self.samples,
            store,
            self.timeseries,
            self.sink,
            self.points,
            self.balance,
            {"gw-north"},
            clock,
            self.counted,
        )

    async def send(self, lane: Lane, message: Batch | Status | PointTable | bytes, gateway: str = "gw-north") -> None:
        link = self.alerts if lane in {Lane.ALERT, Lane.STATUS} else self.samples
        payload = message if isinstance(message, bytes) else encode(message)
        await link.put(up(gateway, lane), payload, retained=lane is Lane.POINTS)

    async def quiet(self) -> None:
        """Wait until all that was sent has been handled."""
        await self.alerts.all_acknowledged()
        await self.samples.all_acknowledged()

    async def values(self, device: str = "level-s1", metric: str = "level") -> list[float]:
        values: list[float] = (await self.timeseries.read(device, metric, -(2**63), 2**63 - 1)).value.tolist()
        return values


@asynccontextmanager
async def world(folder: Path, *, run: bool = True) -> AsyncIterator[World]:
    """Open a cloud in memory; ``run`` starts its ingest."""
    async with Store(folder / "cloud.sqlite") as store:
        made = World(store)
        await made.points.load()
        if not run:
            yield made
            return
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(made.ingest.run(), name="ingest")
            yield made
            running.cancel()


def sample_batch(
    seq: int,
    *values: float,
    point: int = 0,
    gateway: str = "gw-north",
    table: PointTable = TABLE,
    hour: int = HOUR_0,
) -> Batch:
    """Make a batch of samples of one point, a second apart from ``T0`` + ``seq`` minutes."""
    count = len(values)
    block = Block(
        np.full(count, point, POINT),
        T0 + seq * 60 * 10**9 + np.arange(count, dtype=TIME) * 10**9,
        np.array(values, VALUE),
        np.zeros(count, QUALITY),
    )
    return Batch(gateway, "boot", seq, 0, hour, table.digest(), True, columns(block))


def alert_batch(seq: int, alert: str, revision: int = 1) -> Batch:
    """Make a batch with one step of one alert."""
    step = Transition(
        alert, revision, Phase.RAISED, "flood.depth", "slow", Severity.III, "level-s1", T0, T0, Reason("above"), {}
    )
    return Batch("gw-north", "boot", seq, 0, HOUR_0, TABLE.digest(), True, transitions=(step,))
