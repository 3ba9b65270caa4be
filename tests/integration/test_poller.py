"""The poller against a real server: dead devices, dead buses, absolute schedule, honest bad samples."""

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise

import numpy as np
import pytest
from structlog.testing import capture_logs

from edge.agent import Reading
from edge.installed import Installed, installed
from edge.poller import ModbusBus
from edge.profile import load_profiles
from rules.district import Device, District, Modbus, Text
from rules.samples import Quality
from tests.modbus_server import Asked, Bus, bus, exception, reply
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted

SPEED = 100.0  # a level sensor's 10 s are 0.1 s here
TIMEOUT_S = 0.15
DEAD = 2


def _places(count: int) -> tuple[Installed, ...]:
    devices = tuple(
        Device(
            id=f"level-{unit}",
            kind="level_sensor",
            profile="dfrobot_sen0492",
            gateway="gw",
            site="s",
            asset="a",
            component="0120",
            lon=0.0,
            lat=0.0,
            wire=Modbus("bus", unit),
            install={"mounting_height_m": 3.5},
        )
        for unit in range(1, count + 1)
    )
    return installed(District("d", Text("区", "d"), (), (), (), (), devices), "gw", load_profiles())


def _clock() -> Clock:
    now = time.time_ns()
    return Clock(wall=now, city=now, speed=SPEED)


async def _answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(reply(asked, struct.pack(">H", 3000 + asked.unit)))


async def _dead_one(asked: Asked, writer: asyncio.StreamWriter) -> None:
    if asked.unit != DEAD:
        await _answer(asked, writer)


class Told:
    """Readings by device, with the moment each arrived."""

    def __init__(self, places: tuple[Installed, ...]) -> None:
        self._device = {int(row): place.device.id for place in places for row in place.rows}
        self.readings: dict[str, list[Reading]] = {place.device.id: [] for place in places}
        self._changed = asyncio.Condition()

    async def put(self, reading: Reading) -> None:
        self.readings[self._device[int(reading.point[0])]].append(reading)
        async with self._changed:
            self._changed.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(holds)

    def good(self, device: str) -> list[Reading]:
        return [reading for reading in self.readings[device] if not reading.quality.any()]

    def bad(self, device: str) -> list[Reading]:
        return [reading for reading in self.readings[device] if reading.quality.any()]


def _play(
    count: int,
    behave: Callable[[Asked, asyncio.StreamWriter], Awaitable[None]],
    scenario: Callable[[Told, Bus, ModbusBus], Awaitable[None]],
    counted: Counted | None = None,
    timeout_s: float = TIMEOUT_S,
) -> None:
    async def play() -> None:
        places = _places(count)
        told = Told(places)
        async with bus(behave) as server:
            clock = _clock()
            poller = ModbusBus("bus", "127.0.0.1", server.port, places, clock, counted, timeout_s=timeout_s)
            running = asyncio.create_task(poller.run(told.put), name="bus")
            try:
                await scenario(told, server, poller)
            finally:
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running

    asyncio.run(play())


def test_polls_every_device_on_its_interval() -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-4")) == 10)
        assert server.connections == 1
        assert poller.down == ()
        for unit in range(1, 5):
            readings = told.good(f"level-{unit}")
            assert all(r.value == pytest.approx([3.0 + unit / 1000, 0.5 - unit / 1000]) for r in readings)
            steps = np.diff([reading.taken_at for reading in readings]) / NANOSECONDS
            assert steps.mean() == pytest.approx(10.0, rel=0.25)

    _play(4, _answer, scenario)


def test_a_dead_device_costs_its_neighbours_one_time_out_at_most() -> None:
    counted, timeout_s = Counted(), 0.3

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-1")) == 25)
        assert poller.down == ("level-2",)
        for unit in (1, 3, 4):
            readings = told.good(f"level-{unit}")
            assert not told.bad(f"level-{unit}")
            gaps = np.diff([reading.taken_at for reading in readings]) / NANOSECONDS
            # the interval and one time-out, in seconds of the city; two time-outs would be above it on any machine
            assert gaps.max() < 10.0 + 1.7 * timeout_s * SPEED
        # and after it is known to be dead it is left alone more and more
        probes = sum(asked.unit == DEAD for asked in server.asked)
        assert probes <= 8
        assert counted["edge_poll_no_answer_total"] in (probes, probes - 1)

    _play(4, _dead_one, scenario, counted, timeout_s)


def test_two_dead_devices_are_never_probed_one_after_the_other_while_a_living_one_is_due() -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.unit in (1, 2):
            await _answer(asked, writer)

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(poller.down) == 4)
        known = len(server.asked)
        await told.until(lambda: len(told.good("level-1")) >= 15)
        units = [asked.unit for asked in server.asked[known:]]
        assert {3, 4, 5, 6} <= set(units)
        assert not [pair for pair in pairwise(units) if min(pair) > 2]

    _play(6, behave, scenario)


def test_down_and_back_are_told_once_and_nothing_is_repeated() -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-2")) == 3)
        server.behave = _dead_one
        await told.until(lambda: len(told.bad("level-2")) == 1)
        assert poller.down == ("level-2",)
        (reading,) = told.bad("level-2")
        assert reading.value.tolist() == [0.0, 0.0]
        assert reading.quality.tolist() == [Quality.BAD_COMMS] * 2
        assert len(told.good("level-2")) == 3
        await told.until(lambda: len(told.bad("level-2")) >= 2)
        first, second = (reading.taken_at for reading in told.bad("level-2")[:2])
        assert second - first >= 60 * NANOSECONDS
        server.behave = _answer
        await told.until(lambda: len(told.good("level-2")) == 6)
        assert not poller.down

    with capture_logs() as logs:
        _play(3, _answer, scenario)
    assert [(line["event"], line["device"]) for line in logs] == [
        ("device is down", "level-2"),
        ("device is back", "level-2"),
    ]


def test_a_server_that_comes_back_is_polled_again() -> None:
    counted = Counted()

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-3")) == 3)
        await server.stop()
        await told.until(lambda: len(poller.down) == 3)
        await server.start(server.port)
        before = {device: len(told.good(device)) for device in told.readings}
        await told.until(lambda: all(len(told.good(device)) >= count + 5 for device, count in before.items()))
        assert poller.down == ()
        assert counted["edge_poll_unreachable_total"] > 0

    _play(3, _answer, scenario, counted)


def test_a_server_that_is_not_there_yet() -> None:
    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: len(poller.down) == 2)
        await server.start(server.port)
        await told.until(lambda: all(told.good(device) for device in told.readings))

    async def play() -> None:
        async with bus() as server:
            await server.stop()
            server.behave = _answer
            places = _places(2)
            told = Told(places)
            poller = ModbusBus("bus", "127.0.0.1", server.port, places, _clock(), timeout_s=TIMEOUT_S)
            running = asyncio.create_task(poller.run(told.put), name="bus")
            await scenario(told, server, poller)
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(play())


@pytest.mark.parametrize("code", [2, 3, 6])
def test_exceptions_are_counted_and_leave_the_neighbours_alone(code: int) -> None:
    counted = Counted()

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.unit == DEAD:
            writer.write(exception(asked, code))
        else:
            await _answer(asked, writer)

    async def scenario(told: Told, server: Bus, poller: ModbusBus) -> None:
        await told.until(lambda: poller.down == ("level-2",))
        await told.until(lambda: len(told.good("level-1")) == 8)
        assert server.connections == 1
        assert counted[f"edge_poll_exception_{code:02d}_total"] >= 2
        assert not told.bad("level-1")

    _play(2, behave, scenario, counted)


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
                await _answer(asked, writer)

    async def scenario(told: Told, _server: Bus, _poller: ModbusBus) -> None:
        await told.until(lambda: len(told.good("level-1")) >= 8)
        assert counted["edge_poll_garbled_total"] > 0
        assert counted["edge_poll_no_answer_total"] > 0

    _play(1, behave, scenario, counted)


def test_a_full_intake_makes_the_schedule_skip_and_say_so() -> None:
    counted = Counted()

    async def play() -> None:
        places = _places(1)
        async with bus(_answer) as server:
            intake: asyncio.Queue[Reading] = asyncio.Queue(1)
            clock = _clock()
            poller = ModbusBus("bus", "127.0.0.1", server.port, places, clock, counted, timeout_s=TIMEOUT_S)
            running = asyncio.create_task(poller.run(intake.put), name="bus")
            await asyncio.sleep(0.6)
            for _ in range(3):
                await intake.get()
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(play())
    assert counted["edge_polls_skipped_total"] >= 2
