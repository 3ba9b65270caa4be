"""The uplink against a link in memory: what is sent when, what is sent again, and what lets it go."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway import uplink as module
from gateway.health import Health, will
from gateway.outbox import Outbox
from gateway.uplink import WINDOW, Uplink
from rules.samples import PointTable
from tests.gateways import GATEWAY, START, TABLE, accepted, tick
from wire.batch import CONTENT_TYPE, Batch, Receipt, Status, decode, encode
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted
from wire.session import Delivery, NotConnected, PublishRefused
from wire.topics import Lane, parse_up, up

LIMIT_S = 5.0


class MemoryLink:
    """The twin of ``Session``: remembers what was published, and fails when it is not connected."""

    def __init__(self) -> None:
        self.generation = 0
        self.connected = False
        self.published: list[tuple[Lane, bytes, bool]] = []
        self.acknowledged: list[Delivery] = []
        self.told = asyncio.Event()
        self.refuses_tables = 0  # how many more
        self._intake: asyncio.Queue[Delivery] = asyncio.Queue(100)
        self._changed = asyncio.Condition()

    async def connect(self) -> None:
        async with self._changed:
            self.generation += 1
            self.connected = True
            self._changed.notify_all()

    async def lose(self) -> None:
        async with self._changed:
            self.connected = False
            self._changed.notify_all()

    async def wait_connected(self, after: int = 0) -> int:
        async with self._changed:
            await self._changed.wait_for(lambda: self.connected and self.generation > after)
            return self.generation

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str = "") -> None:
        await asyncio.sleep(0)
        if not self.connected:
            raise NotConnected("no link")
        gateway, lane = parse_up(topic)
        assert (gateway, content_type) == (GATEWAY, CONTENT_TYPE)
        if lane is Lane.POINTS and self.refuses_tables:
            self.refuses_tables -= 1
            raise PublishRefused("Not authorized")
        async with self._changed:
            self.published.append((lane, payload, retain))
            self._changed.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S), self._changed:
            await self._changed.wait_for(holds)

    def tell(self, payload: bytes) -> None:
        self._intake.put_nowait(Delivery("receipt", payload, False, CONTENT_TYPE, 1, 1, self.generation))

    async def receive(self) -> Delivery:
        return await self._intake.get()

    def receive_waiting(self, most: int) -> list[Delivery]:
        return [self._intake.get_nowait() for _ in range(min(most, self._intake.qsize()))]

    def acknowledge(self, delivery: Delivery) -> None:
        self.acknowledged.append(delivery)
        self.told.set()

    def has_told(self, lane: Lane, times: int) -> bool:
        return [each for each, _, _ in self.published].count(lane) >= times

    def batches(self) -> list[tuple[Lane, Batch]]:
        return [
            (lane, decode(payload, Batch))
            for lane, payload, _ in self.published
            if lane not in (Lane.POINTS, Lane.STATUS)
        ]


class Scene:
    def __init__(self, folder: Path, receipt_s: float) -> None:
        self.link = MemoryLink()
        self.counted = Counted()
        self.clock = Clock(wall=time.time_ns(), city=START, speed=1e-6)
        self.outbox = Outbox(folder, TABLE, self.clock, counted=self.counted)
        self.uplink = Uplink(GATEWAY, self.outbox, self.link, self.clock, self.counted, receipt_s)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.outbox, asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self.uplink.run(), name="uplink under test")
            yield
            running.cancel()

    async def until_settled(self, receipts: int) -> None:
        """Receipts are acknowledged once they are settled."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.link.acknowledged) < receipts:
                self.link.told.clear()
                await self.link.told.wait()

    async def waiting(self) -> int:
        return (await self.outbox.report()).batches


def play(folder: Path, script: Callable[[Scene], Coroutine[Any, Any, None]], receipt_s: float = 60.0) -> Scene:
    async def scenario() -> Scene:
        scene = Scene(folder, receipt_s)
        async with scene.running():
            await script(scene)
        return scene

    return asyncio.run(scenario())


def test_the_point_table_is_retained_before_any_batch_on_every_connection(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        await scene.outbox.append(tick(samples=1))
        await scene.link.connect()
        await scene.link.until(lambda: len(scene.link.published) == 2)
        await scene.link.lose()
        await scene.link.connect()
        await scene.link.until(lambda: len(scene.link.published) == 4)

    published = play(tmp_path, script).link.published
    assert [(lane, retain) for lane, _, retain in published] == [(Lane.POINTS, True), (Lane.LIVE, False)] * 2
    assert decode(published[0][1], PointTable) == TABLE
    assert published[1] == published[3]  # byte for byte


def test_a_refused_point_table_is_sent_again_until_the_broker_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TABLES_S", 0.001)

    async def script(scene: Scene) -> None:
        scene.link.refuses_tables = 3
        await scene.outbox.append(tick(samples=1))
        await scene.link.connect()
        await scene.link.until(lambda: len(scene.link.published) == 2)

    scene = play(tmp_path, script)
    assert [lane for lane, _, _ in scene.link.published] == [Lane.POINTS, Lane.LIVE]
    assert scene.counted["uplink_refused_tables_total"] == 3


def test_an_alert_leaves_at_once_though_the_window_is_full_of_samples(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        for _ in range(WINDOW + 5):
            await scene.outbox.append(tick(samples=1))
        await scene.link.connect()
        await scene.link.until(lambda: len(scene.link.batches()) == WINDOW)
        began = time.monotonic()
        await scene.outbox.append(tick(alerts=1))
        await scene.link.until(lambda: len(scene.link.batches()) == WINDOW + 1)
        assert time.monotonic() - began < 0.5  # milliseconds on a quiet machine
        assert scene.link.batches()[-1][0] is Lane.ALERT

    play(tmp_path, script)


def test_a_receipt_opens_the_window_for_the_next(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        for _ in range(WINDOW + 2):
            await scene.outbox.append(tick(samples=1))
        await scene.link.connect()
        await scene.link.until(lambda: len(scene.link.batches()) == WINDOW)
        first = [batch.seq for _, batch in scene.link.batches()[:2]]
        scene.link.tell(encode(accepted(first)))
        await scene.link.until(lambda: len(scene.link.batches()) == WINDOW + 2)
        await scene.until_settled(1)
        assert await scene.waiting() == WINDOW

    play(tmp_path, script)


def test_without_a_receipt_a_batch_is_sent_again_and_a_repeated_receipt_does_no_harm(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        await scene.link.connect()
        await scene.outbox.append(tick(samples=3))
        await scene.link.until(lambda: len(scene.link.batches()) == 3)
        (_, batch), *_ = scene.link.batches()
        for _ in range(2):
            scene.link.tell(encode(Receipt((batch.seq,), ((999, "malformed"),))))
        await scene.until_settled(2)
        assert await scene.waiting() == 0
        sent = len(scene.link.batches())
        await asyncio.sleep(0.1)
        assert len(scene.link.batches()) == sent
        assert scene.counted["uplink_late_receipts_total"] >= 2

    published = play(tmp_path, script, receipt_s=0.03).link.published
    assert len({payload for lane, payload, _ in published if lane is Lane.LIVE}) == 1


def test_a_rejected_batch_is_given_up_and_counted(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        await scene.link.connect()
        await scene.outbox.append(tick(samples=3))
        await scene.link.until(lambda: len(scene.link.batches()) == 1)
        scene.link.tell(encode(Receipt((), ((scene.link.batches()[0][1].seq, "malformed"),))))
        await scene.until_settled(1)
        assert await scene.waiting() == 0
        assert (await scene.outbox.report()).tallies[0].dropped == {"rejected_malformed": 3}

    play(tmp_path, script)


def test_a_receipt_that_is_none_is_counted_and_the_next_one_works(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        await scene.link.connect()
        await scene.outbox.append(tick(samples=3))
        await scene.link.until(lambda: len(scene.link.batches()) == 1)
        scene.link.tell(b"not a receipt")
        scene.link.tell(encode(accepted([scene.link.batches()[0][1].seq])))
        await scene.until_settled(2)
        assert await scene.waiting() == 0
        assert scene.counted["uplink_malformed_receipts_total"] == 1

    play(tmp_path, script)


def test_what_was_gathered_while_offline_goes_as_history_behind_the_present(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        for minutes in (30, 20, 10):
            await scene.outbox.append(tick(samples=1, taken_at=START - minutes * 60 * NANOSECONDS))
        await scene.outbox.append(tick(samples=1, alerts=1))
        await scene.link.connect()
        await scene.link.until(lambda: len(scene.link.batches()) == 5)

    lanes = [lane for lane, _ in play(tmp_path, script).link.batches()]
    assert lanes == [Lane.ALERT, Lane.LIVE, *[Lane.BACKFILL] * 3]


def test_the_status_tells_the_whole_account_and_the_will_tells_the_end(tmp_path: Path) -> None:
    async def script(scene: Scene) -> None:
        await scene.outbox.append(tick(samples=3, filtered=2))
        down, cycles = (lambda: ("level-1",)), (lambda: {"bus-1": 12.5})
        health = Health(GATEWAY, scene.outbox, scene.link, scene.clock, scene.counted, down, cycles)
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(health.run(), name="health under test")
            for connection in (1, 2):  # told again at once on a new one
                await scene.link.connect()
                await scene.link.until(partial(scene.link.has_told, Lane.STATUS, connection))
                await scene.link.lose()
            telling.cancel()

    scene = play(tmp_path, script)
    payload, retained = next((payload, retain) for lane, payload, retain in scene.link.published if lane is Lane.STATUS)
    status = decode(payload, Status)
    assert retained
    assert (status.online, status.outbox_batches, status.outbox_samples) == (True, 1, 3)
    assert (status.tallies[0].acquired, status.tallies[0].filtered) == (5, 2)
    assert (status.devices_down, status.boot, status.gateway) == (("level-1",), scene.outbox.boot, GATEWAY)
    assert status.bus_cycles == {"bus-1": 12.5}
    topic, last = will(GATEWAY, scene.outbox.boot, scene.clock)
    assert topic == up(GATEWAY, Lane.STATUS)
    assert not decode(last, Status).online
