"""The poller against a real server, mostly in virtual time: what fails, what is learned and told, and what goes on.

Virtual time passes only where everybody waits, so what is said of time here holds to the millisecond on any machine.
"""

import asyncio
import random
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle, pairwise

import msgspec
import numpy as np
import pytest
import uvloop
from structlog.testing import capture_logs

from edge.drivers.address import Address
from edge.drivers.modbus import Declined, NoAnswer, Unreachable, Write
from edge.installed import Installed
from edge.plan import Request
from edge.poller import REFUSED_FOR_S, TELL_EVERY_S, ModbusBus
from edge.profile import Derived, Head, Limits, Profile, Register
from edge.reading import Reading, Replies
from edge.schedule import BACKOFF_MOST_S, DOWN_AFTER, PROBE_ROUND
from rules.district import Device, Modbus
from rules.samples import Block, Quality
from tests.modbus_server import Asked, Bus, bus, echo, exception, reply
from tests.readings import block_of
from tests.virtual_loop import LoopClock, play
from wire.clock import HOUR, NANOSECONDS, Clock
from wire.counted import Counted

START = 1_781_782_200 * NANOSECONDS
CLOCK = LoopClock(city=START)
TIMEOUT_S = 0.5
INTERVAL_S = 10.0
LEVEL = Profile(
    Head("level", "level_sensor", "M", "X", "http://example.org", "modbus", INTERVAL_S),
    point=(Register("distance", "m", 3, 0x34, "u16", scale=0.001, invalid=(0xFFFF,), range=(0.0, 10.0)),),
    derived=(Derived("level", "m", "minus", ("install.height_m", "distance")),),
)
GAS = Profile(  # a hole between the second and the third
    Head("gas", "gas_detector", "M", "X", "http://example.org", "modbus", INTERVAL_S),
    point=tuple(Register(metric, "1", 3, at, "u16") for metric, at in (("ch4", 0), ("h2s", 1), ("o2", 5))),
)

Behave = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


def place(unit: int, profile: Profile = LEVEL, base: int = 0, interval_s: float | None = None) -> Installed:
    width = len(profile.quantities)
    device = Device(
        id=f"{profile.id}-{unit}" + (f"-{base}" if base else ""),
        kind=profile.profile.kind,
        profile=profile.id,
        gateway="gw",
        site="s",
        asset="a",
        component="0120",
        lon=0.0,
        lat=0.0,
        wire=Modbus("bus", unit, base),
        install={"height_m": 3.5},
        interval_s=interval_s,
    )
    first = 10 * (1000 * unit + base)
    return Installed(device, profile, np.arange(first, first + width, dtype=np.int32))


def limited(profile: Profile = GAS, **limits: float | bool) -> Profile:
    return msgspec.structs.replace(profile, limits=msgspec.structs.replace(Limits(), **limits))


def levels(count: int) -> list[Installed]:
    return [place(unit) for unit in range(1, count + 1)]


async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """A level sensor of unit n sees 3.n m."""
    writer.write(reply(asked, struct.pack(">H", 3000 + asked.unit)))


async def silence(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
    pass


def but(*units: int, behave: Behave = silence, other: Behave = answer) -> Behave:
    """Some units behave otherwise than the others."""

    async def both(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await (behave if asked.unit in units else other)(asked, writer)

    return both


def refusing(*addresses: int, code: int = 2) -> Behave:
    """A read that touches one of these addresses is refused."""

    async def refuse(asked: Asked, writer: asyncio.StreamWriter) -> None:
        refused = set(addresses) & set(range(asked.start, asked.start + asked.count))
        writer.write(exception(asked, code) if refused else reply(asked))

    return refuse


class Told:
    """Readings by device."""

    def __init__(self, places: Sequence[Installed]) -> None:
        self.readings: dict[str, list[Reading]] = {place.device.id: [] for place in places}
        self._changed = asyncio.Condition()

    async def put(self, reading: Reading) -> None:
        self.readings[reading.place.device.id].append(reading)
        async with self._changed:
            self._changed.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(2000), self._changed:
            await self._changed.wait_for(holds)

    def good(self, device: str) -> list[Reading]:
        return [reading for reading in self.readings[device] if reading.quality is Quality.GOOD]

    def bad(self, device: str) -> list[Reading]:
        return [reading for reading in self.readings[device] if reading.quality is not Quality.GOOD]

    def times(self, device: str) -> list[float]:
        """When its good readings were taken, seconds from the start."""
        return [(reading.taken_at - START) / NANOSECONDS for reading in self.good(device)]

    def block(self, device: str) -> Block:
        return block_of(*self.readings[device])


Scenario = Callable[[Told, Bus, ModbusBus], Awaitable[None]]


async def _scene(
    places: Sequence[Installed], behave: Behave, scenario: Scenario, counted: Counted | None, clock: Clock
) -> None:
    told = Told(places)
    async with bus(behave) as server:
        address = Address("127.0.0.1", server.port, timeout_s=TIMEOUT_S)
        poller = ModbusBus("bus", address, places, clock, counted)
        running = asyncio.create_task(poller.run(told.put), name="bus")
        try:
            await scenario(told, server, poller)
        finally:
            assert not running.done()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running


def scene(
    places: Sequence[Installed],
    behave: Behave,
    scenario: Scenario,
    counted: Counted | None = None,
    clock: Clock = CLOCK,
) -> list[dict[str, object]]:
    """Play a scenario in virtual time; what was logged."""
    with capture_logs() as logs:
        play(_scene(places, behave, scenario, counted, clock))
    return [dict(line) for line in logs]


def events(logs: Sequence[dict[str, object]]) -> list[tuple[object, object]]:
    return [(line["event"], line.get("device", line.get("bus"))) for line in logs]


# --- the schedule


async def _four_on_their_intervals(told: Told, server: Bus, poller: ModbusBus) -> None:
    await told.until(lambda: len(told.good("level-4")) == 10)
    assert server.connections == 1
    assert poller.down == ()
    for unit in range(1, 5):
        block = told.block(f"level-{unit}")
        assert block.value[::2] == pytest.approx(3.0 + unit / 1000)
        assert block.value[1::2] == pytest.approx(0.5 - unit / 1000)
        assert not block.quality.any()
        steps = np.diff(block.taken_at[::2]) / NANOSECONDS
        assert steps.mean() == pytest.approx(INTERVAL_S, rel=0.25)


def test_polls_every_device_on_its_interval() -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await _four_on_their_intervals(told, server, poller)
        for unit in range(1, 5):
            assert np.diff(told.times(f"level-{unit}")) == pytest.approx(INTERVAL_S, abs=1e-3)
        assert poller.cycle_s == INTERVAL_S

    assert scene(levels(4), answer, scenario) == []


def test_polls_every_device_on_its_interval_in_real_time_and_a_fast_city() -> None:
    now = time.time_ns()
    clock = Clock(wall=now, city=now, speed=100.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_scene(levels(4), answer, _four_on_their_intervals, None, clock))


def test_a_bus_that_cannot_keep_its_intervals_says_so_and_when_it_can_again() -> None:
    counted = Counted()

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        await answer(asked, writer)

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-1")) == 40)
        assert poller.cycle_s == pytest.approx(2.0, abs=0.2)  # 20 devices at 0.1 s, where 1 s is asked
        assert np.diff(told.times("level-20")).mean() == pytest.approx(2.0, abs=0.2)
        server.behave = answer
        seen = len(told.good("level-1"))
        await told.until(lambda: len(told.good("level-1")) == seen + 65)
        assert poller.cycle_s == 1.0
        assert poller.skipped == counted["edge_polls_skipped_total"] >= 19 * 30

    logs = scene([place(unit, interval_s=1.0) for unit in range(1, 21)], slow, scenario, counted)
    assert events(logs) == [("bus cannot keep its intervals", "bus"), ("bus keeps its intervals again", "bus")]
    assert (logs[0]["asked_s"], logs[0]["devices"]) == (1.0, 20)
    assert logs[0]["actual_s"] == pytest.approx(2.0, abs=0.2)


def test_a_full_intake_makes_the_schedule_skip_and_say_so() -> None:
    counted = Counted()

    async def scenario() -> None:
        async with bus(answer) as server:
            intake: asyncio.Queue[Reading] = asyncio.Queue(1)
            poller = ModbusBus("bus", Address("127.0.0.1", server.port), levels(1), CLOCK, counted)
            running = asyncio.create_task(poller.run(intake.put), name="bus")
            await asyncio.sleep(60)  # one is there, one waits to be put
            for _ in range(3):
                await intake.get()
            running.cancel()
            await asyncio.wait([running])

    play(scenario())
    assert counted["edge_polls_skipped_total"] == 4


def test_a_step_of_the_clock_neither_stops_nor_hurries_polling() -> None:
    class Stepping(LoopClock, frozen=True):
        def now(self) -> int:
            return super().now() + steps[-1]

    steps = [0]

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-1")) == 3)
        for step in (-30 * 365 * 24 * HOUR, 5 * HOUR):
            steps.append(step)
            seen, asked = len(told.good("level-1")), len(server.asked)
            await told.until(lambda: len(told.good("level-1")) == seen + 3)  # noqa: B023 - waited for at once
            assert len(server.asked) == asked + 3
        assert poller.skipped == 0

    scene(levels(1), answer, scenario, clock=Stepping(city=START))


# --- devices that do not answer


def test_a_dead_device_costs_its_neighbours_one_time_out_at_most() -> None:
    counted = Counted()

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-1")) == 60)
        assert poller.down == ("level-2",)
        for unit in (1, 3, 4):
            assert not told.bad(f"level-{unit}")
            assert np.diff(told.times(f"level-{unit}")).max() <= INTERVAL_S + TIMEOUT_S + 1e-3
        probes = sum(asked.unit == 2 for asked in server.asked)
        assert 600 / (INTERVAL_S + BACKOFF_MOST_S) < probes < 600 / INTERVAL_S  # one a cycle at most
        assert counted["edge_poll_no_answer_total"] == probes

    scene(levels(4), but(2), scenario, counted)


def test_dead_devices_cost_a_busy_bus_half_of_their_part_of_it() -> None:
    share = 3 / (PROBE_ROUND * 10)

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(poller.down) == 3)
        known = len(server.asked)
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(200)
        probes = [asked.unit for asked in server.asked[known:] if asked.unit <= 3]
        assert set(probes) == {1, 2, 3}
        assert 0.8 * 200 * share < len(probes) * TIMEOUT_S < 1.5 * 200 * share  # a part of which held up nobody
        for unit in range(4, 11):
            assert sum(at > began for at in told.times(f"level-{unit}")) >= 199
        assert poller.skipped <= 7

    scene([place(unit, interval_s=1.0) for unit in range(1, 11)], but(1, 2, 3), scenario)


def test_down_and_back_are_told_once_and_nothing_is_repeated() -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-2")) == 3)
        server.behave = but(2)
        await told.until(lambda: len(told.bad("level-2")) == 2)
        assert poller.down == ("level-2",)
        missed, bad = told.bad("level-2")
        block = block_of(bad)
        assert block.value.tolist() == [0.0, 0.0]
        assert block.quality.tolist() == [Quality.BAD_COMMS] * 2
        # silent at its fourth slot and its fifth, which is told: then it is down, and says so every minute
        begin = told.times("level-2")[-1]
        assert (missed.taken_at - START) / NANOSECONDS - begin == pytest.approx(INTERVAL_S + TIMEOUT_S, abs=0.1)
        assert (bad.taken_at - START) / NANOSECONDS - begin == pytest.approx(2 * INTERVAL_S + TIMEOUT_S, abs=0.1)
        await told.until(lambda: len(told.bad("level-2")) == 5)
        assert len(told.good("level-2")) == 3
        told_at = [reading.taken_at / NANOSECONDS for reading in told.bad("level-2")[1:]]
        assert all(TELL_EVERY_S <= b - a <= TELL_EVERY_S + 20 for a, b in pairwise(told_at))
        server.behave = answer
        cured_at = asyncio.get_running_loop().time()
        await told.until(lambda: len(told.good("level-2")) == 6)
        assert told.times("level-2")[3] - cured_at <= BACKOFF_MOST_S + INTERVAL_S
        assert told.times("level-2")[5] % INTERVAL_S == pytest.approx(10 / 3, abs=1e-2)  # in its old slots
        assert not poller.down

    logs = scene(levels(3), answer, scenario)
    assert events(logs) == [("device is down", "level-2"), ("device is back", "level-2")]
    assert logs[0]["profile"] == "level"
    assert logs[1]["down_s"] == pytest.approx(200, abs=25)


def test_who_is_down_again_within_a_minute_says_so_at_once() -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        for times in (2, 4):  # its last poll that fails before it is down is told as well
            server.behave = silence
            await told.until(lambda: len(poller.down) == 1)
            await told.until(lambda: len(told.bad("level-1")) == times)  # noqa: B023 - waited for at once
            server.behave = answer
            await told.until(lambda: not poller.down)
        for times in (6, 8):
            await server.stop()
            await told.until(lambda: len(told.bad("level-1")) == times)  # noqa: B023
            await server.start(server.port)
            await told.until(lambda: not poller.down)
        told_at = [reading.taken_at / NANOSECONDS for reading in told.bad("level-1")]
        assert max(b - a for a, b in pairwise(told_at)) < TELL_EVERY_S

    logs = scene([place(1, interval_s=5.0)], answer, scenario)
    assert events(logs) == 2 * [("device is down", "level-1"), ("device is back", "level-1")] + 2 * [
        ("bus is down", "bus"),
        ("bus is back", "bus"),
    ]


def test_one_lost_answer_is_counted_and_told_as_one_bad_reading() -> None:
    counted, lost = Counted(), iter([True])

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if not next(lost, False):
            await answer(asked, writer)

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-1")) == 5)
        assert told.times("level-1")[0] == pytest.approx(INTERVAL_S, abs=1e-2)
        (bad,) = told.bad("level-1")
        assert (bad.told, bad.quality) == (None, Quality.BAD_COMMS)
        assert bad.taken_at - START == pytest.approx(TIMEOUT_S * NANOSECONDS, abs=1e-2 * NANOSECONDS)

    assert scene(levels(1), behave, scenario, counted) == []
    assert counted["edge_poll_no_answer_total"] == 1


def test_where_every_other_poll_fails_every_other_reading_is_bad() -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if next(turns):
            await answer(asked, writer)

    turns = cycle((True, False))

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-1")) == 10)
        qualities = [reading.quality for reading in told.readings["level-1"]]
        assert qualities == [Quality.GOOD, Quality.BAD_COMMS] * 9 + [Quality.GOOD]
        assert poller.down == ()

    assert scene(levels(1), behave, scenario) == []


# --- a bus that cannot be reached


def test_a_bus_that_cannot_be_reached_is_tried_once_for_all_and_told_once() -> None:
    counted = Counted()

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-40")) == 3)
        await server.stop()
        gone_at = asyncio.get_running_loop().time()
        await told.until(lambda: len(poller.down) == 40)
        await told.until(lambda: all(told.bad(device) for device in told.readings))
        assert sum(len(told.bad(device)) for device in told.readings) == 40 + 1  # and the first poll that failed
        assert asyncio.get_running_loop().time() - gone_at < 2
        assert poller.cycle_s is None
        await told.until(lambda: all(len(told.bad(device)) >= 6 for device in told.readings))
        assert sum(len(told.bad(device)) for device in told.readings) == 6 * 40 + 1
        attempts = counted["edge_poll_unreachable_total"]
        assert 300 / BACKOFF_MOST_S < attempts < 300 / BACKOFF_MOST_S * 2 + 10
        await server.start(server.port)
        back_at = asyncio.get_running_loop().time()
        seen = {device: len(told.good(device)) for device in told.readings}
        await told.until(lambda: all(len(told.good(device)) > count for device, count in seen.items()))
        assert asyncio.get_running_loop().time() - back_at <= BACKOFF_MOST_S + 1e-2
        await told.until(lambda: len(told.good("level-1")) == seen["level-1"] + 5)
        assert poller.down == ()
        assert counted["edge_polls_skipped_total"] <= 1
        for number in range(40):
            times = told.times(f"level-{number + 1}")
            assert times[-1] % INTERVAL_S == pytest.approx(number / 4, abs=0.01)

    logs = scene(levels(40), answer, scenario, counted)
    assert events(logs) == [("bus is down", "bus"), ("bus is back", "bus")]
    assert logs[0]["devices"] == 40
    assert logs[1]["down_s"] == pytest.approx(330, abs=40)


@pytest.mark.parametrize("host", ["a..b", 64 * "x" + ".example"])
def test_a_host_that_cannot_be_looked_up_is_refused_at_once(host: str) -> None:
    with pytest.raises(ValueError, match="is no host name"):
        Address(host, 502)


def test_a_bus_is_back_whatever_its_devices_say() -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: bool(told.good("level-2")))
        await server.stop()
        await told.until(lambda: len(poller.down) == 2)
        server.behave = silence
        await server.start(server.port)
        await told.until(lambda: all(len(told.bad(device)) >= 3 for device in told.readings))
        assert len(poller.down) == 2

    logs = scene(levels(2), answer, scenario)
    assert events(logs)[:2] == [("bus is down", "bus"), ("bus is back", "bus")]
    assert sorted(events(logs)[2:], key=str) == [("device is down", "level-1"), ("device is down", "level-2")]


def test_a_server_that_is_not_there_yet() -> None:
    async def scenario() -> None:
        async with bus(answer) as server:
            await server.stop()
            told = Told(levels(2))
            poller = ModbusBus("bus", Address("127.0.0.1", server.port), levels(2), CLOCK)
            running = asyncio.create_task(poller.run(told.put), name="bus")
            await told.until(lambda: len(poller.down) == 2)
            await server.start(server.port)
            await told.until(lambda: all(told.good(device) for device in told.readings))
            running.cancel()
            await asyncio.wait([running])

    play(scenario())


def test_a_day_without_its_server_leaves_polling_alive() -> None:
    counted = Counted()

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        loop = asyncio.get_running_loop()
        await told.until(lambda: len(told.good("level-3")) == 3)
        await server.stop()
        await asyncio.sleep(3600)
        for readings in told.readings.values():
            readings.clear()
        blocks = sys.getallocatedblocks()
        await asyncio.sleep(23 * 3600)
        assert counted["edge_poll_unreachable_total"] < 24 * 3600 / (BACKOFF_MOST_S / 2) + 10
        told_down = sum(map(len, told.readings.values()))
        assert 3 * 23 * 50 <= told_down <= 3 * 23 * 60
        for readings in told.readings.values():
            readings.clear()
        assert sys.getallocatedblocks() - blocks < 2000
        await server.start(server.port)
        back_at = loop.time()
        await told.until(lambda: all(told.good(device) for device in told.readings))
        assert loop.time() - back_at <= BACKOFF_MOST_S + 1e-2
        await told.until(lambda: len(told.good("level-1")) == 100)
        assert np.diff(told.times("level-1")[1:]) == pytest.approx(INTERVAL_S, abs=1e-2)

    logs = scene(levels(3), answer, scenario, counted)
    assert events(logs) == [("bus is down", "bus"), ("bus is back", "bus")]
    assert logs[1]["down_s"] == pytest.approx(24 * 3600, abs=15)


def test_a_while_in_which_nobody_answers_leaves_polling_alive() -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        loop = asyncio.get_running_loop()
        await told.until(lambda: len(told.good("level-3")) == 3)
        server.behave = silence
        await asyncio.sleep(600)
        server.asked.clear()
        await asyncio.sleep(600)
        assert 3 * 600 / (INTERVAL_S + BACKOFF_MOST_S) < len(server.asked) <= 3 * 600 / INTERVAL_S
        server.behave = answer
        back_at = loop.time()
        seen = {device: len(told.good(device)) for device in told.readings}
        await told.until(lambda: all(len(told.good(device)) > count for device, count in seen.items()))
        assert loop.time() - back_at <= BACKOFF_MOST_S + INTERVAL_S
        await told.until(lambda: len(told.good("level-1")) == seen["level-1"] + 10)
        assert poller.down == ()

    scene(levels(3), answer, scenario)


# --- exceptions


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 8, 10, 11])
def test_a_device_that_refuses_everything_is_down_and_leaves_its_neighbours_alone(code: int) -> None:
    counted = Counted()

    async def refuse(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(exception(asked, code))

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: poller.down == ("level-2",))
        await told.until(lambda: len(told.good("level-1")) == 20)
        assert server.connections == 1
        assert counted[f"edge_poll_exception_{code:02d}_total"] == sum(asked.unit == 2 for asked in server.asked) > 5
        assert np.diff(told.times("level-1")) == pytest.approx(INTERVAL_S, abs=1e-2)
        server.behave = answer
        cured_at = asyncio.get_running_loop().time()
        await told.until(lambda: bool(told.good("level-2")))
        assert asyncio.get_running_loop().time() - cured_at <= BACKOFF_MOST_S + INTERVAL_S

    logs = scene(levels(2), but(2, behave=refuse), scenario, counted)
    wrong = [("bad answer", "level-2")] if code in (1, 2, 3, 8) else []
    assert events(logs) == [*wrong, ("device is down", "level-2"), ("device is back", "level-2")]


@pytest.mark.parametrize("code", [2, 3])
def test_a_read_across_a_hole_that_the_device_refuses_is_split_for_good(code: int) -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("gas-1")) == 100)
        asked = [(asked.start, asked.count) for asked in server.asked]
        assert asked == [(0, 6)] + 100 * [(0, 2), (5, 1)]
        block = told.block("gas-1")
        assert block.value.tolist() == [0.0, 1.0, 5.0] * 100
        assert not block.quality.any()
        assert np.diff(told.times("gas-1")) == pytest.approx(INTERVAL_S, abs=1e-2)

    logs = scene([place(1, GAS)], refusing(3, code=code), scenario)
    assert events(logs) == [("read in smaller pieces", "gas-1")]


def test_a_point_that_the_device_refuses_is_left_out_told_and_tried_again() -> None:
    counted = Counted()

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        minutes = 25
        await asyncio.sleep(60 * minutes + 1)
        failed = told.readings["gas-1"].pop(0)  # whole, and at its hole: nothing was answered
        assert (failed.told, failed.quality) == (None, Quality.BAD_COMMS)
        block = told.block("gas-1")
        good = block.take(np.flatnonzero(block.quality == 0))
        assert set(good.point.tolist()) == {10000, 10002}
        assert len(good) == 2 * 6 * minutes
        bad = block.take(np.flatnonzero(block.quality != 0))
        assert set(bad.point.tolist()) == {10001}
        assert set(bad.quality.tolist()) == {Quality.BAD_COMMS}
        assert np.diff(bad.taken_at) / NANOSECONDS == pytest.approx(TELL_EVERY_S, abs=1)
        assert len(bad) == minutes
        # whole and at its hole; then whole and what is left of it; and so again after ten minutes
        tries = [asked for asked in server.asked if (asked.start, asked.count) == (0, 6)]
        assert len(tries) == 2 + 60 * minutes // REFUSED_FOR_S
        assert poller.down == ()
        assert counted["edge_poll_exception_02_total"] == 2 * len(tries)
        assert counted["edge_points_refused_total"] == len(tries) - 1
        server.behave = refusing()
        await asyncio.sleep(REFUSED_FOR_S + INTERVAL_S)
        del told.readings["gas-1"][:-2]
        assert told.block("gas-1").value.tolist() == [0.0, 1.0, 5.0] * 2
        assert (server.asked[-1].start, server.asked[-1].count) == (0, 6)

    logs = scene([place(1, GAS)], refusing(1), scenario, counted)
    told_of = ("bad answer", "points refused", "points no longer refused")
    assert events(logs) == [(each, "gas-1") for each in told_of]
    assert (logs[1]["profile"], logs[1]["metrics"]) == ("gas", ("h2s",))
    assert "cure" in logs[1]


def test_a_poll_ends_at_its_second_refusal_and_tells_what_was_answered_by_then() -> None:
    counted = Counted()

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("long-1")) == 10)
        polls = [reading.told for reading in told.readings["long-1"] if reading.quality is Quality.GOOD]
        assert [len(each.data) for each in polls if isinstance(each, Replies)] == [1, 2] + 8 * [3]
        block = told.block("long-1")
        good = block.take(np.flatnonzero(block.quality == 0))
        assert set((good.point - 10000).tolist()) == {1, 3, 7}
        assert good.value.tolist() == (2.0 * (good.point - 10000)).tolist()
        assert sum(reading.told is None for reading in told.bad("long-1")) == 1  # of the poll without an answer
        assert counted["edge_points_refused_total"] == 5
        refusals = [asked.start for asked in server.asked if set(range(asked.start, asked.start + asked.count)) & gone]
        assert counted["edge_poll_exception_02_total"] == len(refusals)
        assert np.diff(told.times("other-2")) == pytest.approx(INTERVAL_S, abs=1e-2)

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4 if gone & set(range(asked.start, asked.start + asked.count)) else 0.0)
        await refusing(*gone)(asked, writer)

    gone = {0, 4, 8, 10, 12}
    head = Head("long", "gas_detector", "M", "X", "http://example.org", "modbus", INTERVAL_S)
    long = Profile(head, point=tuple(Register(f"m{n}", "1", 3, 2 * n, "u16") for n in range(8)))
    other = Profile(msgspec.structs.replace(head, id="other"), point=(Register("m", "1", 3, 1, "u16"),))
    logs = scene([place(1, long), place(2, other)], slow, scenario, counted)
    assert events(logs) == [("bad answer", "long-1"), ("points refused", "long-1")]  # once, when all is known


def test_nothing_is_learned_from_a_device_that_refuses_everything_while_it_starts() -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: poller.down == ("gas-1",))
        server.behave = refusing()
        await told.until(lambda: len(told.good("gas-1")) == 3)
        assert [(asked.start, asked.count) for asked in server.asked[-3:]] == [(0, 6)] * 3

    scene([place(1, GAS)], refusing(0, 1, 5), scenario)


def test_a_busy_device_is_asked_again_soon_and_makes_its_slot() -> None:
    counted, busy = Counted(), iter([True, True, True, False] * 5)

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.unit == 2 and next(busy, False):
            writer.write(exception(asked, 6))
        else:
            await answer(asked, writer)

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-2")) == 10)
        times = np.array(told.times("level-2"))
        assert ((times - 0.01) // INTERVAL_S).tolist() == list(range(10))  # every slot, the first five a bit late
        late = times[:5] - 5.0 - INTERVAL_S * np.arange(5)
        assert (late > 0.35 - 1e-3).all()
        assert (late < 0.7 + 1e-2).all()
        assert np.diff(told.times("level-1")) == pytest.approx(INTERVAL_S, abs=1e-2)
        assert server.connections == 1

    assert scene(levels(2), behave, scenario, counted) == []
    assert counted["edge_poll_exception_06_total"] == 15
    assert counted["edge_polls_skipped_total"] == 0


# --- wrong answers, and whatever else


def test_garbage_and_half_replies_are_survived() -> None:
    answers = 0
    counted = Counted()

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        answers += 1
        match answers % 6:
            case 1:
                writer.write(b"\xff" * 40)
            case 3:
                writer.write(reply(asked, struct.pack(">H", 9)))
                writer.close()
            case 5:
                writer.write(reply(asked)[:9])
                writer.close()
            case _:
                await answer(asked, writer)

    async def scenario(told: Told, _server: Bus, _poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-1")) >= 12)
        assert counted["edge_poll_garbled_total"] > 0
        assert counted["edge_poll_no_answer_total"] > 0

    scene(levels(1), behave, scenario, counted)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_a_bus_does_polling_goes_on(seed: int) -> None:
    """Silence, garbage, exceptions of any code, hang-ups and restarts; then all is well within a step."""
    draw = random.Random(seed)

    async def chaos(asked: Asked, writer: asyncio.StreamWriter) -> None:
        match draw.randrange(9):
            case 0:
                pass
            case 1:
                writer.write(draw.randbytes(draw.randrange(1, 300)))
            case 2:
                writer.write(exception(asked, draw.randrange(256)))
            case 3:
                writer.close()
            case 4:
                writer.write(reply(asked)[: draw.randrange(1, 11)])
            case 5:
                await asyncio.sleep(draw.uniform(0, 2 * TIMEOUT_S))
                writer.write(reply(asked))
            case 6:
                writer.write(reply(asked, unit=draw.randrange(248)) + reply(asked, transaction=draw.randrange(65536)))
            case _:
                writer.write(reply(asked))

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        for _ in range(5):
            await asyncio.sleep(200)
            await server.stop()
            await asyncio.sleep(200)
            await server.start(server.port)
        server.behave = refusing()
        await asyncio.sleep(2 * BACKOFF_MOST_S + 3 * 2 * TIMEOUT_S)
        assert poller.down == ()
        for readings in told.readings.values():
            readings.clear()
        await asyncio.sleep(REFUSED_FOR_S)
        for device in told.readings:
            assert len(told.good(device)) >= REFUSED_FOR_S / INTERVAL_S - 1

    scene([place(unit, GAS) for unit in (1, 2, 3)], chaos, scenario)


# --- what a device bears


def test_the_pauses_of_a_profile_are_kept() -> None:
    asked_at: list[float] = []

    async def noting(asked: Asked, writer: asyncio.StreamWriter) -> None:
        asked_at.append(asyncio.get_running_loop().time())
        writer.write(reply(asked))

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("gas-1")) == 3)
        first, *_ = asked_at
        assert first == pytest.approx(0.7, abs=1e-3)
        assert [(asked.start, asked.count) for asked in server.asked] == [(0, 1), (1, 1), (5, 1)] * 3
        assert np.diff(asked_at[:3]) == pytest.approx([0.2, 0.2], abs=1e-3)
        assert np.diff(asked_at[3:6]) == pytest.approx([0.2, 0.2], abs=1e-3)

    profile = limited(one_field_per_request=True, pause_between_requests_s=0.2, pause_after_connect_s=0.7)
    scene([place(1, profile)], noting, scenario)


def test_a_guard_keeps_the_bus_silent_before_each_question() -> None:
    asked_at: list[float] = []

    async def noting(asked: Asked, writer: asyncio.StreamWriter) -> None:
        asked_at.append(asyncio.get_running_loop().time())
        writer.write(reply(asked))

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("gas-1")) == 3)
        assert np.diff(asked_at[:3]) == pytest.approx([0.05, 0.05], abs=2e-3)

    scene([place(1, limited(one_field_per_request=True, guard_s=0.05))], noting, scenario)


def test_a_connection_is_given_back_after_each_cycle_where_the_device_wants_it() -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("gas-1")) == 5)
        assert server.connections == 5
        assert [await server.reset.get() for _ in range(5)] == [False] * 5  # in order

    scene([place(1, limited(close_after_cycle=True, one_field_per_request=True))], refusing(), scenario)


def test_a_bus_has_one_connection_and_ends_it_in_order() -> None:
    async def scenario() -> None:
        async with bus(refusing()) as server:
            places = [place(unit, limited(single_session=True)) for unit in (1, 2)]
            told = Told(places)
            poller = ModbusBus("bus", Address("127.0.0.1", server.port), places, CLOCK)
            running = asyncio.create_task(poller.run(told.put), name="bus")
            await told.until(lambda: len(told.good("gas-2")) == 5)
            assert server.connections == 1
            running.cancel()
            await asyncio.wait([running])
            assert await server.reset.get() is False

    play(scenario())


def test_devices_that_share_a_unit_are_read_each_at_its_base() -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: all(len(told.good(device)) == 2 for device in told.readings))
        assert {(asked.unit, asked.start) for asked in server.asked} == {(1, 0), (1, 100), (1, 200)}
        for base in (0, 100, 200):
            device = "gas-1" + (f"-{base}" if base else "")
            assert told.block(device).value[:3].tolist() == [base + 0.0, base + 1.0, base + 5.0]

    scene([place(1, GAS, base) for base in (0, 100, 200)], refusing(), scenario)


# --- what is asked and told beside the polling


def test_a_write_and_a_read_go_ahead_of_the_next_poll() -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(echo(asked) if asked.function == 6 else reply(asked))

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        first, *_ = places
        await told.until(lambda: len(told.good("gas-1")) >= 1)  # from here on the bus is busy all the time
        await asyncio.sleep(0.1)
        before = len(server.asked)
        write = asyncio.create_task(poller.write(first, Write(6, 40, 77)))
        read = asyncio.create_task(poller.read(first, Request(3, 7, 1, (0,))))
        assert await read == b"\x00\x07"
        await write
        assert [(asked.function, asked.start) for asked in server.asked[before:]] == [(6, 40), (3, 7)]
        await told.until(lambda: all(len(told.good(device)) > 3 for device in told.readings))

    places = [place(unit, GAS, interval_s=1.0) for unit in range(1, 11)]
    scene(places, behave, scenario)


def test_a_write_that_failed_says_why() -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(exception(asked, 2) if asked.function == 16 else reply(asked))

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        with pytest.raises(Declined):
            await poller.write(places[0], Write(16, 40, 77))
        await server.stop()
        await asyncio.sleep(0.1)
        with pytest.raises(Unreachable):
            await poller.write(places[0], Write(16, 40, 77))

    places = [place(1, GAS)]
    scene(places, behave, scenario)


def test_what_is_down_is_not_written_to_until_a_poll_has_found_it() -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        loop = asyncio.get_running_loop()
        dead, alive = places
        await told.until(lambda: poller.down == ("gas-1",))
        asked, began = len(server.asked), loop.time()
        for _ in range(100):
            with pytest.raises(NoAnswer, match="gas-1 is down"):
                await poller.read(dead, Request(3, 7, 1, (0,)))
        assert (len(server.asked), loop.time()) == (asked, began)
        assert await poller.read(alive, Request(3, 7, 1, (0,))) == b"\x00\x07"
        server.behave = refusing()
        await told.until(lambda: not poller.down)
        assert await poller.read(dead, Request(3, 7, 1, (0,))) == b"\x00\x07"
        await server.stop()
        await told.until(lambda: len(poller.down) == 2)
        with pytest.raises(Unreachable, match="the bus of gas-2 is down"):
            await poller.write(alive, Write(6, 40, 77))

    places = [place(1, GAS), place(2, GAS)]
    scene(places, but(1, other=refusing()), scenario)


def test_polling_ends_cleanly_wherever_it_is_cancelled() -> None:
    """While it waits for a slot, connects, waits for an answer, pauses, or puts."""

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.write(reply(asked))

    async def scenario(after_s: float) -> None:
        profile = limited(one_field_per_request=True, pause_between_requests_s=0.2, pause_after_connect_s=0.1)
        async with bus(slow) as server:
            intake: asyncio.Queue[Reading] = asyncio.Queue(1)
            address = Address("127.0.0.1", server.port)
            poller = ModbusBus("bus", address, [place(1, profile)], CLOCK)
            running = asyncio.create_task(poller.run(intake.put), name="bus")
            await asyncio.sleep(after_s)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert await server.reset.get() in (False, True)

    for after_s in (0.05, 0.25, 0.5, 0.75, 1.5, 11.0, 25.0):
        play(scenario(after_s))


def test_a_bus_without_devices_has_nothing_to_do() -> None:
    poller = ModbusBus("bus", Address("127.0.0.1", 1), [], CLOCK)
    play(poller.run(Told([]).put))
    assert (poller.down, poller.cycle_s) == ((), None)
    assert DOWN_AFTER == 2
