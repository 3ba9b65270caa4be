"""Every fault of a Modbus wire, on one device out of fifty: what its neighbours make of it, and how it comes back.

The simulator's own ports play the instruments, over real sockets, and its events cause and cure the faults; all of them
run side by side. Every sample is held against what its instrument showed at that instant. In CI thirty seconds are
played in virtual time, so that a busy machine proves the same as an idle one. ``STREETWARDEN_FAULT_SLOTS=600`` plays as
many seconds in real time, with the default time-out. What goes wrong behind a broker (repeats, order, clocks, the link)
is no matter of Modbus.
"""

import asyncio
import os
import sys
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import uvloop

from edge.decoding import Decoding
from edge.drivers.address import Address
from edge.installed import Installed, installed
from edge.poller import ModbusBus
from edge.profile import load_profiles
from edge.reading import Reading
from edge.schedule import BACKOFF_MOST_S, PROBE_DRAWN, PROBE_SHARE
from firmware_sim.instruments import Instruments, Shown
from firmware_sim.modbus import Port, Transport, buses_of
from firmware_sim.noise import Times
from firmware_sim.scenario import Event, Scenario
from firmware_sim.world import World
from rules.district import Bus as Declared
from rules.district import Device, District, Gateway, Modbus, Site, Text
from rules.samples import Quality
from tests.virtual_loop import LoopClock, play
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted

LONG = int(os.environ.get("STREETWARDEN_FAULT_SLOTS", "0"))
SLOTS = LONG or 30  # of one second
# In virtual time an answer would take none, and fifty devices would leave their bus idle.
ANSWER_S = 0.0 if LONG else 0.01
TIMEOUT_S = 1.0 if LONG else 0.6
SLOW_S = 0.6 if LONG else 0.4
DELAY_S = 0.5 if LONG else ANSWER_S + 0.001  # from what an instrument showed to its sample: a busy machine may dawdle
BEGIN_S, CURED_S = 3.0, SLOTS - (45.0 if LONG else 15.0)
PAID_S = (PROBE_SHARE * PROBE_DRAWN - 1.0) * TIMEOUT_S  # the pause after a probe that held up living ones for so long
# A probe may have begun just before the cure, and its pause begins with its end; then an answer that may dawdle.
MARGIN_S = TIMEOUT_S + DELAY_S
FIFTY = 50
FAULTY = 25  # unit id
START = 1_781_782_200 * NANOSECONDS
METRICS = {"tilt": 0.01, "ch4": 0.1, "h2s": 0.1, "level": 0.0, "o2": 0.1}  # and the step of its register
WIDTH = 7  # with the counter of polls, and the change of tilt

ROAD = Site("road", Text("路", "road"), "road", "t", ((121.3, 31.1), (121.4, 31.1), (121.4, 31.2)))


@dataclass(frozen=True)
class Case:
    """One fault: of a unit on a bus of fifty, or of an endpoint of its own beside forty-nine others."""

    fault: str
    transport: Transport = "modbus_tcp"
    alone: bool = False

    @property
    def name(self) -> str:
        return f"{self.fault}-{self.transport}"

    @property
    def device(self) -> str:
        return f"{self.name}-0" if self.alone else f"{self.name}-{FAULTY}"

    @property
    def step_s(self) -> float:
        """The longest pause before a probe: of its back-off, or paid for where others wait for its silence."""
        waited_for = not self.alone and not self.fault.startswith("exception")
        return max(BACKOFF_MOST_S, PAID_S) if waited_for else BACKOFF_MOST_S

    def devices(self) -> list[str]:
        if self.alone:
            return [self.device, *(f"alone-{number}" for number in range(1, FIFTY))]
        return [f"{self.name}-{unit}" for unit in range(1, FIFTY + 1)]

    def events(self) -> Iterator[Event]:
        begin, cured = (START + round(at * NANOSECONDS) for at in (BEGIN_S, CURED_S))
        if ANSWER_S and not self.alone:
            yield Event(f"{self.name}-line", "slow_answer", self.name, START, None, ANSWER_S)
        if self.fault == "single_session":  # its only place is taken by a connection whose far end is gone
            yield Event(self.name, self.fault, self.device, START, None)
            yield Event("gone", "half_open", self.device, begin, cured)
        else:
            yield Event(self.name, self.fault, self.device, begin, cured, SLOW_S)


CASES = (
    *map(Case, ("no_answer", "late_answer", "wrong_transaction", "partial_frame", "slow_answer")),
    *map(Case, ("exception_02", "exception_03", "exception_06")),
    Case("late_answer", "rtu_over_tcp"),  # where no transaction id tells it apart
    Case("wrong_transaction", "rtu_over_tcp"),  # there it is another unit that answers
    Case("half_open", alone=True),
    Case("single_session", alone=True),
)


class Watched(Instruments):
    """Remembers what was shown: by device, instants (UTC ns) and values."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.at: defaultdict[str, list[int]] = defaultdict(list)
        self.values: defaultdict[str, list[tuple[float, ...]]] = defaultdict(list)

    def show(self, device: Device, at: Times) -> Shown:
        shown = super().show(device, at)
        self.at[device.id].append(int(at[0]))
        self.values[device.id].append(tuple(float(shown[metric][0]) for metric in METRICS))
        return shown

    def shown(self, device: str, at: int) -> tuple[int, tuple[float, ...]]:
        """What was shown last before an instant, and when."""
        row = bisect_right(self.at[device], at) - 1
        return self.at[device][row], self.values[device][row]


def district() -> tuple[District, dict[str, Transport]]:
    """Every bus, and what it speaks."""
    buses: dict[str, Transport] = {}
    devices: list[Device] = []

    def add(bus: str, unit: int, name: str) -> None:
        install = {"background_tilt_deg": 1.0, "shaft_depth_m": 3.0}
        model = "reference_manhole_monitor"
        wire = Modbus(bus, unit)
        devices.append(
            Device(name, "manhole_monitor", model, "gw", "road", "a", "0120", 121.3, 31.1, wire, install, 1.0)
        )

    for case in CASES:
        if case.alone:
            buses[case.device] = case.transport
            add(case.device, 1, case.device)
        else:
            buses[case.name] = case.transport
            for unit, name in enumerate(case.devices(), 1):
                add(case.name, unit, name)
    for number in range(1, FIFTY):
        buses[f"alone-{number}"] = "modbus_tcp"
        add(f"alone-{number}", 1, f"alone-{number}")
    declared = tuple(Declared(bus, "gw") for bus in buses)
    gateway = Gateway("gw", Text("关", "gateway"))
    return District("d", Text("区", "district"), (), (ROAD,), (gateway,), declared, tuple(devices)), buses


class Record:
    """What came of it: by device, when good samples were taken and bad ones told, seconds from the start."""

    def __init__(self, watched: Watched) -> None:
        self.good: defaultdict[str, list[float]] = defaultdict(list)
        self.bad: defaultdict[str, list[float]] = defaultdict(list)
        self.wrong: list[str] = []  # in name, time or value
        self.latest_s = 0.0
        self._watched = watched
        self._readings: list[Reading] = []
        self._decoding = Decoding()
        self._counter: defaultdict[str, float] = defaultdict(float)

    async def put(self, reading: Reading) -> None:
        self._readings.append(reading)

    def check(self) -> None:
        """Hold what came since the last time against what was shown; not while readings are on their way."""
        readings, self._readings = self._readings, []
        for reading in readings:
            times = self.good if reading.quality is Quality.GOOD else self.bad
            times[reading.place.device.id].append((reading.taken_at - START) / NANOSECONDS)
        good = [reading for reading in readings if reading.quality is Quality.GOOD]
        if not good:
            return
        block = self._decoding.block(good)
        devices = [reading.place.device.id for reading in good]
        taken = np.array([reading.taken_at for reading in good])
        shown = [self._watched.shown(device, at) for device, at in zip(devices, taken.tolist(), strict=True)]
        delay_s = (taken - [at for at, _ in shown]) / NANOSECONDS
        delay_s -= [SLOW_S if device.startswith("slow") else 0.0 for device in devices]
        self.latest_s = max(self.latest_s, delay_s.max())
        value = block.value.reshape(-1, WIDTH)
        values = np.array([values for _, values in shown])
        values[:, 3] = values[:, 3].astype(np.float32)
        apart = np.abs(value[:, [0, 1, 2, 3, 5]] - values)
        counter = value[:, 4].tolist()
        right = {
            "name": block.point.reshape(-1, WIDTH) == np.array([reading.place.rows for reading in good]),
            "quality": block.quality.reshape(-1, WIDTH) == 0,
            "time": (block.taken_at.reshape(-1, WIDTH) == taken[:, None]) & (delay_s <= DELAY_S)[:, None],
            "value": apart <= np.array(list(METRICS.values())) / 2 + 1e-9,
            "change": np.abs(value[:, 6] - np.abs(value[:, 0] - 1.0))[:, None] < 1e-9,
            "answer": np.array([self._is_new(*each) for each in zip(devices, counter, strict=True)])[:, None],
        }
        for what, held in right.items():
            for row in np.flatnonzero(~held.all(axis=1)).tolist():
                self.wrong.append(f"{devices[row]}: wrong {what}: {value[row]} {delay_s[row]} s after {shown[row]}")

    def _is_new(self, device: str, counter: float) -> bool:
        """Whether an answer has not been taken before: the device counts them."""
        before, self._counter[device] = self._counter[device], counter
        return counter > before

    def slots(self, device: str, phase: float) -> int:
        """How many one-second slots have a good sample."""
        return len({int(at - phase + 1e-6) for at in self.good[device] if 0 <= at - phase + 1e-6 < SLOTS})


@dataclass(frozen=True)
class Outcome:
    """Of one fault: slots of the worst neighbour and of the faulty device, seconds from its cure to a good sample."""

    case: Case
    worst: int
    own: int
    back_s: float
    told_bad: int
    wrongly_good: int

    def __str__(self) -> str:
        return (
            f"{self.case.name:32} worst neighbour {self.worst:3}/{SLOTS}, faulty one {self.own:3}/{SLOTS}, "
            f"back after {self.back_s:6.3f} s, told bad {self.told_bad} times"
        )


def outcome(case: Case, record: Record) -> Outcome:
    devices = case.devices()
    phases = {device: 0.0 if case.alone else number / FIFTY for number, device in enumerate(devices)}
    slots = {device: record.slots(device, phase) for device, phase in phases.items()}
    own = slots.pop(case.device)
    times = record.good[case.device]
    back_s = min((at - CURED_S for at in times if at >= CURED_S), default=float("inf"))
    meanwhile = [at for at in times if BEGIN_S + SLOW_S < at < CURED_S]
    return Outcome(case, min(slots.values()), own, back_s, len(record.bad.get(case.device, ())), len(meanwhile))


async def _watch(clock: Clock) -> tuple[list[Outcome], Record, Counted]:
    """Poll all of it for as many seconds as there are slots."""
    declared, transports = district()
    world = World(declared, Scenario("faults", Text("故障", "faults"), "1h"), 1, START)
    for case in CASES:
        for event in case.events():
            world.add(event)
    watched, counted = Watched(world), Counted()
    record = Record(watched)
    places = installed(declared, "gw", load_profiles())
    ports = {bus.name: Port(bus, transports[bus.name]) for bus in buses_of(declared, watched, clock)}
    async with AsyncExitStack() as stack:
        for port in ports.values():
            await stack.enter_async_context(port.door.open())
        pollers = [_poller(port, transports[name], places, clock, counted) for name, port in ports.items()]
        async with asyncio.TaskGroup() as tasks:
            await clock.sleep_until(START)
            running = [tasks.create_task(poller.run(record.put), name="bus") for poller in pollers]
            for second in range(0, SLOTS + 1, 5):
                await clock.sleep_until(START + (second + 5) * NANOSECONDS)
                record.check()
            for task in running:
                assert not task.done()
                task.cancel()
        record.check()
    return [outcome(case, record) for case in CASES], record, counted


def _poller(port: Port, transport: Transport, places: Sequence[Installed], clock: Clock, counted: Counted) -> ModbusBus:
    framing: Literal["tcp", "rtu"] = "rtu" if transport == "rtu_over_tcp" else "tcp"
    address = Address("127.0.0.1", port.door.port, baud=115200, framing=framing, timeout_s=TIMEOUT_S)
    on_bus = [place for place in places if getattr(place.device.wire, "bus", None) == port.bus.name]
    return ModbusBus(port.bus.name, address, on_bus, clock, counted)


def test_every_fault_of_one_device_out_of_fifty(capsys: pytest.CaptureFixture[str]) -> None:
    if LONG:
        ahead = time.time_ns() + 3 * NANOSECONDS
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcomes, record, counted = runner.run(_watch(Clock(wall=ahead, city=START)))
    else:
        outcomes, record, counted = play(_watch(LoopClock(city=START)))
    if LONG:
        lines = [*map(str, outcomes), f"latest sample {record.latest_s:.3f} s", str(counted.snapshot())]
        with capsys.disabled():
            sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert not record.wrong
    for found in outcomes:
        assert found.worst >= 0.95 * SLOTS, found
        assert found.back_s <= found.case.step_s + MARGIN_S, found
        if found.case.fault == "slow_answer":  # each of its answers is right
            assert found.own >= 0.95 * SLOTS, found
            assert found.told_bad == 0, found
        else:
            assert found.wrongly_good == 0, found
            assert found.told_bad >= 1, found
    assert record.bad.keys() == {case.device for case in CASES if case.fault != "slow_answer"}
