"""Load for a cloud: a thousand gateways that speak the uplink contract from one process.

``python -m firmware_sim.load CONFIG.toml DISTRICT.toml`` writes the district that the cloud must know beforehand;
``python -m firmware_sim.load CONFIG.toml`` runs, prints what came of it as JSON, and ends with 0 when every batch that
was made has its receipt.

Topics, batches, point tables, statuses, receipts and repeats are a gateway's. What differs from a street: a few
connections (``connections``) carry all gateways, so that broker and cloud see as many messages but not as many sockets,
and nobody has a last will; a gateway's points are all read at one instant, so that it makes few large batches; and what
waits is in memory, at most ``window`` batches each.
"""

import asyncio
import contextlib
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from edge.profile import load_profiles
from firmware_sim.fleet import Fleet, district_of
from firmware_sim.outpost import Kept, Outpost, prepared
from firmware_sim.swarm import district_text
from rules.declared import Refused, decode, seconds
from rules.district import District
from rules.samples import Point, PointTable
from wire import logs
from wire.batch import CONTENT_TYPE, Receipt, encode
from wire.batch import decode as decode_message
from wire.clock import Clock
from wire.counted import Counted
from wire.files import read
from wire.refusing import refusing
from wire.session import Broker, NotConnected, Session
from wire.topics import Lane, receipt, up

RECEIPT_S = 5.0  # wall: a batch without its receipt this long after the broker took it is sent again
STATUS_S = 2.0  # wall: between two statuses of one gateway
# paho waits with select(2), which knows descriptors below 1024; a connection takes three of them, and a thread.
CONNECTIONS_MOST = 300
CONNECT_S = 20.0  # wall: for one connection
TURN_S = 0.005  # wall: batches that are due within it are made together
RECEIPTS_AT_ONCE = 64
DELAYS_KEPT = 100_000


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the load is.

    Every gateway of ``fleet`` sends one batch of all its points each ``fleet.every``; ``alerts_per_minute`` (of the
    wall, in all) are raised and soon cleared. After ``lasts`` nothing new is made, and receipts may take ``drain``.
    """

    broker: Broker
    fleet: Fleet = Fleet(gateways=1000, manhole_monitors=100_000, every="60s")
    alerts_per_minute: float = 60.0
    lasts: str = "60s"
    drain: str = "60s"
    connections: int = 8
    window: int = 32
    clock: Clock = Clock()

    def __post_init__(self) -> None:
        seconds(self.drain)
        if seconds(self.lasts) <= 0 or self.alerts_per_minute < 0 or self.window < 1:
            raise ValueError("`lasts` and `window` must be above 0, and `alerts_per_minute` not below")
        if not 1 <= self.connections <= min(self.fleet.gateways, CONNECTIONS_MOST):
            raise ValueError(f"`connections` lies between 1 and the number of gateways, {CONNECTIONS_MOST} at most")
        if self.alerts_per_minute and not self.fleet.manhole_monitors:
            raise ValueError("alerts are about lids: set `alerts_per_minute = 0` or add `manhole_monitors`")


class Outcome(msgspec.Struct, frozen=True):
    """The ledger of a run, in batches and samples.

    ``made`` is what gateways kept, ``receipted`` what receipts named, ``rejected`` what the cloud will never take (by
    reason), ``waiting`` what has no receipt, ``held`` what was not made for full windows. Batches were
    made for ``lasted_s``, and the last receipt came after ``settled_s``. ``receipt_s`` is from making a batch to its
    receipt, wall seconds at p50 and p99. ``cpu_s`` is of the whole process; ``making_cpu_s`` of it went
    into making and encoding batches.
    """

    gateways: int
    devices: int
    connections: int
    lasted_s: float
    settled_s: float
    made: dict[str, int]
    receipted: dict[str, int]
    rejected: dict[str, int]
    waiting: int
    held: int
    resent: int
    connections_lost: int
    receipt_s: dict[str, tuple[float, float]]
    cpu_s: float
    making_cpu_s: float

    @property
    def balanced(self) -> bool:
        return self.made == self.receipted and not self.rejected and not self.waiting


class Shard:
    """Some gateways on one connection."""

    def __init__(self, session: Session, outposts: Sequence[Outpost], clock: Clock) -> None:
        self.outposts = {outpost.table.gateway: outpost for outpost in outposts}
        self.resent = 0
        self.delays: dict[bool, deque[float]] = {alert: deque(maxlen=DELAYS_KEPT) for alert in (False, True)}
        self._session = session
        self._clock = clock
        self._fresh: deque[tuple[Outpost, Kept]] = deque()  # all of it waits, and so it is bounded
        self._more = asyncio.Event()

    async def run(self) -> None:
        """Send, settle and tell the status until cancelled; connections come and go meanwhile."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._settle(), name="receipts")
            tasks.create_task(self._serve(), name="batches")
            tasks.create_task(self._tell(), name="statuses")

    def send(self, outpost: Outpost, kept: Kept) -> None:
        self._fresh.append((outpost, kept))
        self._more.set()

    async def goodbye(self) -> None:
        """Tell every gateway's last status; ``NotConnected`` when that does not get through."""
        for outpost in self.outposts.values():
            await self._tell_one(outpost, online=False)

    async def _serve(self) -> None:
        generation = await self._session.wait_connected()
        while True:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send(), name=f"sending on connection {generation}")
                generation = await self._session.wait_connected(after=generation)
                sending.cancel()

    async def _send(self) -> None:
        """Send on one connection: the point tables, what has no receipt, then what is new."""
        with contextlib.suppress(NotConnected):
            for gateway, outpost in self.outposts.items():
                table = encode(outpost.table)
                await self._session.publish(up(gateway, Lane.POINTS), table, retain=True, content_type=CONTENT_TYPE)
            waiting = [(outpost, kept) for outpost in self.outposts.values() for kept in outpost.waiting.values()]
            self._fresh = deque(sorted(waiting, key=lambda one: not one[1].alert))
            async with asyncio.TaskGroup() as tasks:
                while True:
                    while self._fresh:
                        tasks.create_task(self._deliver(*self._fresh.popleft()))
                    self._more.clear()
                    await self._more.wait()

    async def _deliver(self, outpost: Outpost, kept: Kept) -> None:
        """Send one batch, byte for byte again, until its receipt comes or the connection is gone."""
        with contextlib.suppress(NotConnected):
            while not kept.settled.is_set():
                self.resent += kept.sends > 0
                kept.sends += 1
                topic = up(outpost.table.gateway, kept.lane_at(self._clock.now()))
                await self._session.publish(topic, kept.payload, content_type=CONTENT_TYPE)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECEIPT_S):
                        await kept.settled.wait()

    async def _settle(self) -> None:
        while True:
            deliveries = [await self._session.receive(), *self._session.receive_waiting(RECEIPTS_AT_ONCE)]
            for delivery in deliveries:
                outpost = self.outposts[delivery.topic.split("/")[2]]
                now = time.monotonic()
                for kept in outpost.settle(decode_message(delivery.payload, Receipt)):
                    self.delays[kept.alert].append(now - kept.made_at)
                self._session.acknowledge(delivery)

    async def _tell(self) -> None:
        while True:
            for outpost in self.outposts.values():
                await self._session.wait_connected()
                with contextlib.suppress(NotConnected):
                    await self._tell_one(outpost, online=True)
                await asyncio.sleep(STATUS_S / len(self.outposts))

    async def _tell_one(self, outpost: Outpost, *, online: bool) -> None:
        status = encode(outpost.status(self._clock.now(), online=online))
        topic = up(outpost.table.gateway, Lane.STATUS)
        await self._session.publish(topic, status, retain=True, content_type=CONTENT_TYPE)


async def run(config: Config) -> Outcome:
    """Run the load to its end.

    ``Refused`` when gateways would have no device, ``TimeoutError`` when the broker cannot be reached.
    """
    outposts = await asyncio.to_thread(_outposts, config)
    counted = Counted()
    began_cpu = time.process_time()
    async with AsyncExitStack() as opened:
        shards = []
        for number in range(config.connections):
            mine = outposts[number :: config.connections]
            topics = [receipt(outpost.table.gateway) for outpost in mine]
            session = Session(config.broker, f"load-{number}", topics, clean=True, counted=counted)
            await opened.enter_async_context(session)
            async with asyncio.timeout(CONNECT_S):
                await session.wait_connected()  # one by one: a thousand handshakes at once outlast their own limit
            shards.append(Shard(session, mine, config.clock))
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(shard.run(), name="shard") for shard in shards]
            maker = _Maker(shards, config)
            await maker.run()
            lasted = time.monotonic() - began
            await _drained(outposts, seconds(config.drain))
            settled = time.monotonic() - began
            with contextlib.suppress(NotConnected):
                for shard in shards:
                    await shard.goodbye()
            for task in running:
                task.cancel()
        lost = counted["mqtt_connections_ended_total"]
    delays = {name: [*_of(shards, alert)] for name, alert in (("samples", False), ("alerts", True))}
    return Outcome(
        gateways=len(outposts),
        devices=len({point.device for outpost in outposts for point in outpost.table.points}),
        connections=config.connections,
        lasted_s=round(lasted, 3),
        settled_s=round(settled, 3),
        made=_sum(outpost.made for outpost in outposts),
        receipted=_sum(outpost.receipted for outpost in outposts),
        rejected=_sum(outpost.rejected for outpost in outposts),
        waiting=sum(len(outpost.waiting) for outpost in outposts),
        held=maker.late + sum(outpost.held for outpost in outposts),
        resent=sum(shard.resent for shard in shards),
        connections_lost=lost,
        receipt_s={name: _percentiles(found) for name, found in delays.items() if found},
        cpu_s=round(time.process_time() - began_cpu, 3),
        making_cpu_s=round(maker.cpu_s, 3),
    )


class _Maker:
    """Makes every gateway's batches at an even pace, each gateway at a phase of its own."""

    def __init__(self, shards: Sequence[Shard], config: Config) -> None:
        self.cpu_s = 0.0
        self.late = 0  # batches that were not made because the one before was not made in time
        self._places = [(shard, outpost) for shard in shards for outpost in shard.outposts.values()]
        self._clock = config.clock
        self._lasts_s = seconds(config.lasts)
        interval_s = config.clock.wall_seconds(self._places[0][1].table.points[0].interval_s)
        self._gap_s = interval_s / len(self._places)
        self._steps_a_second = 2 * config.alerts_per_minute / 60.0  # each alert is raised, and cleared one step later

    async def run(self) -> None:
        began = time.monotonic()
        reads = steps = 0
        while (passed := time.monotonic() - began) < self._lasts_s:
            before = time.thread_time()
            due = int(passed / self._gap_s) + 1
            self.late += max(0, due - len(self._places) - reads)
            for number in range(max(reads, due - len(self._places)), due):
                shard, outpost = self._places[number % len(self._places)]
                _send(shard, outpost, outpost.read(self._clock.now()))
            reads = due
            due = int(passed * self._steps_a_second)
            for number in range(steps, due):
                lid, place = divmod(number // 2, len(self._places))
                shard, outpost = self._places[place]
                _send(shard, outpost, outpost.alert(lid, self._clock.now()))
            steps = due
            self.cpu_s += time.thread_time() - before
            await asyncio.sleep(max(TURN_S, min(self._gap_s, self._lasts_s - passed)))


def _send(shard: Shard, outpost: Outpost, kept: Kept | None) -> None:
    if kept is not None:
        shard.send(outpost, kept)


def _outposts(config: Config) -> list[Outpost]:
    tables = point_tables(district_of(config.fleet))
    if len(tables) < config.fleet.gateways:
        raise Refused("fleet", f"only {len(tables)} of {config.fleet.gateways} gateways have a device")
    values = prepared(max(len(table.points) for table in tables))
    return [Outpost(table, secrets.token_hex(8), values, config.window) for table in tables]


def point_tables(district: District) -> list[PointTable]:
    """Name the points of every gateway that has any, as its profiles list them."""
    profiles = load_profiles()
    points: dict[str, list[Point]] = {}
    for device in district.device:
        head, quantities = profiles[device.profile].profile, profiles[device.profile].quantities
        interval_s = device.interval_s or head.interval_s
        points.setdefault(device.gateway, []).extend(
            Point(device.id, device.kind, quantity.metric, quantity.unit, interval_s, head.reports_on_change)
            for quantity in quantities
        )
    return [PointTable(gateway, tuple(listed)) for gateway, listed in points.items()]


async def _drained(outposts: Iterable[Outpost], within_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            for outpost in outposts:
                for kept in [*outpost.waiting.values()]:
                    await kept.settled.wait()


def _of(shards: Sequence[Shard], alert: bool) -> Iterable[float]:
    for shard in shards:
        yield from shard.delays[alert]


def _sum(parts: Iterable[Counter[str]]) -> dict[str, int]:
    total = Counter[str]()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items()))


def _percentiles(found: Sequence[float]) -> tuple[float, float]:
    half, most = np.percentile(found, (50, 99))
    return round(float(half), 4), round(float(most), 4)


def load_config(path: Path) -> Config:
    """Read a configuration; ``Refused`` names the key."""
    return decode(read(path), Config, str(path))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``python -m firmware_sim.load CONFIG.toml [DISTRICT.toml]``; exits with 1 when a batch has no receipt."""
    given = [*map(Path, sys.argv[1:] if arguments is None else arguments)]
    if not 1 <= len(given) <= 2:
        sys.exit("usage: python -m firmware_sim.load CONFIG.toml [DISTRICT.toml: written, and nothing is sent]")
    with refusing():
        config = load_config(given[0])
        if len(given) == 2:
            given[1].write_text(district_text(district_of(config.fleet)), encoding="utf-8")
            return
        logs.configure()
        outcome = uvloop.run(run(config))
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(outcome)).decode() + "\n")
    sys.exit(0 if outcome.balanced else 1)


if __name__ == "__main__":
    main()
