"""Fast time: a scenario in one process on a virtual clock, from the world to work orders, without a socket.

The code is the gateways' and the cloud's own: registers, codec, engine, filter, outbox, batches, ingest, stores, desk
and API. Left out are the sockets, the broker and the waiting.
"""

import asyncio
import contextlib
import hashlib
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from cloud.timeseries.embedded import EmbeddedTimeSeries
from edge.agent import Tick
from edge.installed import installed, table_of
from edge.profile import Profile, load_profiles
from edge.sources import MqttSource
from firmware_sim.happenings import BROKER
from firmware_sim.instruments import Instruments
from firmware_sim.recording import load_recordings
from firmware_sim.scenario import check, load_scenario, load_scenario_district
from firmware_sim.telling.telling import Message, Telling
from firmware_sim.truth import Truth, digest, truth_at
from firmware_sim.world import World
from gateway.rows import Rows
from rules.alert import Phase, Transition
from rules.declared import seconds
from rules.rule import Rule, load_rules
from rules.samples import Block
from streetwarden.fast.audit import Auditor, Passed, Scanned
from streetwarden.fast.box import Box, RowsFactory, rounded
from streetwarden.fast.clock import VirtualClock
from streetwarden.fast.desk import FastDesk, StoreFactory, opened
from streetwarden.fast.street import Emitted, Street, grouped, slices
from streetwarden.score import TruthFile
from streetwarden.told import Audit, Run, Step, Told, write_told
from wire.clock import NANOSECONDS, from_iso
from wire.files import declared_in, read

LATENCY = NANOSECONDS  # from the deciding sample to the centre: a tick, the watermark's slack and the way
BLOCK = 50_000  # samples judged and sent at once: what spreads numpy's fixed cost
CHUNK = 2_000_000  # samples made at once
SLICE_MOST_S = 1800
QUIET = (Phase.PENDING, Phase.LAPSED)
IN_MEMORY = 30_000_000  # samples: half a gigabyte of stores
DAY_S = 86_400
LISTS = ("work-orders", "alerts", "devices")


@dataclass(frozen=True, slots=True)
class Parts:
    """The ports that a test may wrap."""

    rows: RowsFactory = Rows
    timeseries: StoreFactory = EmbeddedTimeSeries.open


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come: ``done_s`` of ``length_s`` city seconds."""

    done_s: float
    length_s: float
    samples: int
    alerts: int


@dataclass(frozen=True, slots=True)
class FastRun:
    """What is to be run.

    ``rules`` and ``profiles`` replace the shipped folders at the gateways and the centre; the simulator keeps its own
    register maps. ``length_s`` cuts the scenario short (city seconds). ``folder`` receives ``truth.json``,
    ``told.json`` and the stores.
    """

    scenario: str
    seed: int
    folder: Path
    rules: Path | None = None
    profiles: Path | None = None
    length_s: float | None = None
    parts: Parts = Parts()
    progress: Callable[[Progress], None] | None = None


@dataclass(slots=True)
class Stages:
    """Wall seconds and samples of each stage of a run."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    samples: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @contextlib.contextmanager
    def of(self, stage: str, samples: int = 0) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - began
            self.samples[stage] += samples


async def run_fast(run: FastRun, stages: Stages | None = None) -> Told:
    """Run a scenario and leave its folder ready for the scorer; ``Refused`` when what is declared is not in order."""
    return await _Fast(run, stages or Stages()).run()


class _Fast:
    """One run under way. ``passed`` counts the samples judged at each gateway."""

    def __init__(self, run: FastRun, stages: Stages) -> None:
        self.asked = run
        self.stages = stages
        self.scenario, place = load_scenario(run.scenario)
        self.district = load_scenario_district(self.scenario, place)
        check(self.scenario, self.district, place)
        length_s = seconds(self.scenario.length)
        self.length_s = min(length_s, run.length_s or length_s)
        self.start = from_iso(self.scenario.starts)
        self.end = self.start + int(self.length_s * NANOSECONDS)
        recordings = load_recordings(self.scenario, place)
        self.world = World(self.district, self.scenario, run.seed, self.start, recordings)
        self.instruments = Instruments(self.world)
        self.clock = VirtualClock.at(self.start)
        self.emitted = Emitted()
        self.steps: list[Step] = []
        self.boxes: dict[str, Box] = {}
        self.streets: dict[str, Street] = {}
        self.passed: Counter[str] = Counter()
        self._raised = 0
        self._maps = load_profiles()
        self._rate = sum(  # samples a second
            len(profile.quantities) / (device.interval_s or profile.profile.interval_s)
            for device in self.district.device
            for profile in [self._maps[device.profile]]
        )
        self._gateway_of = {device.id: device.gateway for device in self.district.device}
        gateways = [gateway.id for gateway in self.district.gateway]
        self._waiting: dict[str, list[Message]] = {gateway: [] for gateway in gateways}
        broker = _spans(self.world, ("broker_down",), BROKER, self.end)
        self._off = {name: _spans(self.world, ("gateway_off",), name, self.end) for name in gateways}
        self._deaf = {name: self._off[name] + broker for name in gateways}  # hears no sensor that speaks MQTT
        self._cut = {name: self._deaf[name] + _spans(self.world, ("link_cut",), name, self.end) for name in gateways}

    async def run(self) -> Told:
        await asyncio.to_thread(self.asked.folder.mkdir, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="streetwarden-", dir=_scratch(self.length_s * self._rate)) as stores:
            return await self._run(Path(stores))

    async def _run(self, stores: Path) -> Told:
        asked = self.asked
        rules = _rules(asked.rules)
        truth = truth_at(self.world, self.end, {})
        self._build(stores, load_profiles(asked.profiles), rules)
        telling = Telling(self.district, self.instruments, self.start)
        store, cloud = asked.parts.timeseries, stores / "cloud"
        await asyncio.to_thread(cloud.mkdir, parents=True, exist_ok=True)
        async with opened(self.district, rules, cloud, self.clock, _Known(truth), store) as desk:
            try:
                for box in self.boxes.values():
                    await desk.hear(box.points())
                slice_s, chunk_s = _sizes(self._rate)
                for begin in range(self.start, self.end, chunk_s * NANOSECONDS):
                    end = min(begin + chunk_s * NANOSECONDS, self.end)
                    await self._chunk(begin, end, slice_s * NANOSECONDS, telling, desk)
                await self._settle(desk)
                return await self._told(desk, truth)
            finally:
                for box in self.boxes.values():
                    box.close()

    def _build(self, stores: Path, profiles: Mapping[str, Profile], rules: Sequence[Rule]) -> None:
        """Set up every gateway, its outbox in the folder ``stores``."""
        for name in self._off:
            places = installed(self.district, name, profiles)
            table = table_of(self.district, name, profiles)
            rows = self.asked.parts.rows
            box = self.boxes[name] = Box(name, places, table, rules, self.clock, stores / name, rows)
            elsewhere = [device for device in self.district.device if device.gateway != name]
            hears = VirtualClock.at(self.start)  # of its own: a slice is heard whole before it is told step by step
            source = MqttSource(places, hears, box.counted, elsewhere)
            off = np.array(self._off[name], np.int64).reshape(-1, 2)
            groups = grouped(places, self._maps, self.start)
            # A camera tells of one thing at a time.
            fields = {each.device.id: 1 if each.device.kind == "camera" else len(each.profile.field) for each in places}
            self.streets[name] = Street(self.world, self.instruments, hears, source, groups, off, fields, self.emitted)

    async def _chunk(self, begin: int, end: int, step: int, telling: Telling, desk: FastDesk) -> None:
        """Make everything that is read until ``end``, then judge and send it, a slice of time after the other."""
        count = -(-(end - begin) // step)
        with self.stages.of("street"):
            cut = {name: slices(street.polls(end), begin, step, count) for name, street in self.streets.items()}
            messages = self._routed(telling.until(end - 1))
        for first in range(begin, end, step):
            until = min(first + step, end)
            ticks: dict[str, Tick] = {}
            for name, box in self.boxes.items():
                with self.stages.of("street"):
                    told = self.streets[name].messages(_until(messages[name], until))
                    block = Block.concatenate([next(cut[name]), told])
                with self.stages.of("rules", len(block)):
                    if any(first <= back < until for _, back in self._off[name]):
                        box.restarted()
                    ticks[name] = box.judge(
                        block, self._promise(self._off[name], until), self._promise(self._deaf[name], until)
                    )
                self.passed[name] += len(block)
            await self._tell(ticks, first, until, desk)
            for name, tick in ticks.items():
                with self.stages.of("outbox", len(tick.block)):
                    self.boxes[name].append(replace(tick, transitions=[]))
            await self._send(self.boxes, until, desk)
        self._show(end)

    async def _tell(self, ticks: Mapping[str, Tick], begin: int, until: int, desk: FastDesk) -> None:
        """Tell a slice's transitions one after the other, each when it was decided; links come back in between."""
        decided = sorted(
            ((step.decided_at, name, step) for name, tick in ticks.items() for step in tick.transitions),
            key=lambda each: each[:2],
        )
        self.steps += [Step(name, rounded(step)) for _, name, step in decided]
        self._raised += sum(step.phase is Phase.RAISED for _, _, step in decided)
        ups: list[tuple[int, str, Transition | None]] = [
            (up, name, None) for name, spans in self._cut.items() for _, up in spans if begin <= up < until
        ]
        told = [(max(at, begin) + LATENCY, name, step) for at, name, step in decided]
        happens = sorted([*told, *ups], key=lambda each: each[:2])
        quiet: dict[str, list[Transition]] = defaultdict(list)  # they change nothing yet, so they go with what does
        for at, name, step in happens:
            if step is not None:
                quiet[name].append(step)
                if step.phase in QUIET:
                    continue
            await desk.pass_time(min(at, until))
            self.boxes[name].tell(quiet.pop(name, []))
            await self._send([name], self.clock.now(), desk)
            if step is None or step.phase is not Phase.CLEARED:
                await desk.look()
        await desk.pass_time(until)
        for name, steps in quiet.items():
            self.boxes[name].tell(steps)

    async def _send(self, names: Iterable[str], now: int, desk: FastDesk) -> None:
        """Send what waits at some gateways, but where the way is cut."""
        open_ = [name for name in names if not any(begin <= now < end for begin, end in self._cut[name])]
        with self.stages.of("ingest"):
            while waiting := {name: held for name in open_ if any(held := self.boxes[name].waiting())}:
                alerts = [delivery for held, _ in waiting.values() for delivery in held]
                samples = [delivery for _, held in waiting.values() for delivery in held]
                receipts = await desk.take(alerts, samples)
                for name in waiting:
                    self.boxes[name].settle(receipts.get(name))

    async def _settle(self, desk: FastDesk) -> None:
        """Let every way come back and every account be told: what is lost now is lost for good."""
        await desk.pass_time(self.end + LATENCY)
        self._cut = {name: [] for name in self._cut}
        await self._send(self.boxes, self.end + LATENCY, desk)
        for box in self.boxes.values():
            await desk.hear(box.status())

    async def _told(self, desk: FastDesk, truth: Truth) -> Told:
        centre = desk.centre
        orders, alerts, devices = [await centre.items(f"/api/v1/{each}") for each in LISTS]
        with self.stages.of("audit"):
            audit = await self._audit(desk)
        told = Told(
            run=Run(self.asked.scenario, self.asked.seed, "fast", 0.0, self.length_s),
            orders=orders,
            alerts=alerts,
            devices=devices,
            balance=await centre.get("/api/v1/balance"),
            expected=self.scenario.truth if self.length_s == seconds(self.scenario.length) else (),
            audit=audit,
            steps=tuple(self.steps),
            digest={
                "truth": digest(truth),
                "emitted": self.emitted.digest(),
                "told": hashlib.sha256(
                    msgspec.json.encode([self.steps, _rounded(alerts), _rounded(orders)])
                ).hexdigest(),
            },
        )
        emitted = {name: {"polls": polls} for name, polls in sorted(self.emitted.polls.items())}
        (self.asked.folder / "truth.json").write_bytes(
            msgspec.json.encode(msgspec.structs.replace(truth, emitted=emitted))
        )
        write_told(self.asked.folder, told)
        return told

    async def _audit(self, desk: FastDesk) -> Audit:
        passed: dict[str, Passed] = {}
        for name, box in self.boxes.items():
            committed = sum((await desk.parts.timeseries.committed(name)).values())
            passed[name] = box.passed(self.passed[name], committed)
        auditor = Auditor(self.district.device, self._maps, self.instruments, self.emitted, passed)
        flaws = await auditor.audit(cast("Scanned", desk.parts.timeseries), self.start, self.end)
        return Audit(
            emitted=self.emitted.samples,
            acquired=sum(each.acquired for each in passed.values()),
            filtered=sum(each.filtered for each in passed.values()),
            dropped=sum(each.dropped for each in passed.values()),
            committed=sum(each.committed for each in passed.values()),
            audited=auditor.audited,
            flaws=flaws,
        )

    def _routed(self, messages: Sequence[Message]) -> dict[str, list[Message]]:
        """Give each gateway the messages of its devices; while the broker is away they wait, and so while it is off."""
        for message in messages:
            name = self._gateway_of[message.device]
            back = [end for begin, end in self._deaf[name] if begin <= message.delivered_at < end]
            late = msgspec.structs.replace(message, delivered_at=max(back)) if back else message
            self._waiting[name].append(late)
        return self._waiting

    def _promise(self, spans: Sequence[tuple[int, int]], until: int) -> int:
        """How far nothing older is still to come: not beyond the moment from which on nothing is heard."""
        return min([until, *(begin for begin, end in spans if begin < until < end)])

    def _show(self, now: int) -> None:
        if self.asked.progress is not None:
            done_s = (now - self.start) / NANOSECONDS
            self.asked.progress(Progress(done_s, self.length_s, sum(self.passed.values()), self._raised))


class _Known:
    """The truth as far as it has happened: incidents that have begun, and their ends once they have come."""

    def __init__(self, truth: Truth) -> None:
        self._truth = msgspec.convert(msgspec.to_builtins(truth), TruthFile)

    def __call__(self, now: int) -> TruthFile:
        begun = [incident for incident in self._truth.incidents if from_iso(incident.onset) <= now]
        shown = (
            msgspec.structs.replace(incident, end=None) if incident.end and from_iso(incident.end) > now else incident
            for incident in begun
        )
        return msgspec.structs.replace(self._truth, incidents=tuple(shown))


def _until(messages: list[Message], until: int) -> list[Message]:
    """Take out of a gateway's messages those delivered before an instant, in order of delivery."""
    due = sorted((message for message in messages if message.delivered_at < until), key=lambda one: one.delivered_at)
    messages[:] = [message for message in messages if message.delivered_at >= until]
    return due


def _spans(world: World, kinds: Sequence[str], target: str, end: int) -> list[tuple[int, int]]:
    """When one of these happens to a target, from and until (UTC ns)."""
    return [(event.at, event.until or end) for what in kinds for event in world.of(what, target)]


def _sizes(rate: float) -> tuple[int, int]:
    """Seconds of a slice and of a chunk, the second a multiple of the first, at ``rate`` samples a second."""
    slice_s = max(60, min(SLICE_MOST_S, int(BLOCK / rate / 60) * 60))
    return slice_s, slice_s * max(1, min(DAY_S // slice_s, int(CHUNK / rate / slice_s)))


def _scratch(samples: float) -> str | None:
    """Choose where the stores of a run go, which nobody needs after it: memory, if they are small and it is there."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    return str(shared) if samples < IN_MEMORY and os.access(shared, os.W_OK) else None


def _rules(folder: Path | None) -> tuple[Rule, ...]:
    packs = declared_in(folder or resources.files("rules") / "catalog")
    return tuple(rule for pack in packs for rule in load_rules(read(pack), str(pack)))


def _rounded(told: Any) -> Any:
    """Round every float to six figures: the last bit of one may differ between machines."""
    match told:
        case dict():
            return {key: _rounded(value) for key, value in sorted(told.items())}
        case list() | tuple():
            return [_rounded(value) for value in told]
        case float():
            return float(f"{told:.6g}")
        case _:
            return told
