"""Every fault of the wires, as the bytes that a master gets over a real socket; and what fast time makes of it."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
from pymodbus.framer.rtu import FramerRTU

from firmware_sim.cable import Cable
from firmware_sim.instruments import Instruments
from firmware_sim.modbus import Bus, Port, Transport, buses_of
from firmware_sim.scenario import Event
from firmware_sim.wirefaults import answers, cut_cable, fault_of
from tests.city import START, at, device, district, storm
from wire.clock import NANOSECONDS, Clock

ONE, OTHER = 4, 5  # unit ids of two monitors on one bus
NAME, BUS = "manhole-n1", "north-1"
SILENCE_S = 0.15


def running() -> Clock:
    """City time that goes on from the 60th second of the scenario, at the speed of the wall."""
    return Clock(wall=time.time_ns(), city=START + 60 * NANOSECONDS)


def fault(what: str, target: str = NAME, until: float | None = None, size: float = 0.0) -> Event:
    end = None if until is None else START + round(until * NANOSECONDS)
    return Event(f"a-{what}", what, target, START + 30 * NANOSECONDS, end, size)


def bus_with(*events: Event) -> Bus:
    world = storm()
    for event in events:
        world.add(event)
    (bus,) = (bus for bus in buses_of(district(), Instruments(world), running()) if bus.name == BUS)
    return bus


class Master:
    """Bytes to and from a bus."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def hears(self, size: int) -> bytes:
        return await asyncio.wait_for(self._reader.readexactly(size), 3)

    async def hears_nothing(self) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self._reader.read(1), SILENCE_S)

    async def is_hung_up_on(self) -> None:
        assert await asyncio.wait_for(self._reader.read(), 3) == b""


Dial = Callable[[], Awaitable[Master]]


@asynccontextmanager
async def masters(bus: Bus, transport: Transport = "modbus_tcp") -> AsyncIterator[Dial]:
    port = Port(bus, transport)
    dialled: list[Master] = []

    async def dial() -> Master:
        dialled.append(Master(*await asyncio.open_connection("127.0.0.1", port.door.port)))
        return dialled[-1]

    async with port.door.open():
        try:
            yield dial
        finally:
            for master in dialled:
                master.writer.close()


def ask(transaction: int, unit: int = ONE) -> bytes:
    """Ask for the poll counter."""
    return struct.pack(">HHHBBHH", transaction, 0, 6, unit, 3, 5, 2)


def told(transaction: int, count: int, unit: int = ONE) -> bytes:
    """Answer with the counter at ``count``."""
    return struct.pack(">HHHBBBI", transaction, 0, 7, unit, 3, 4, count)


def rtu(body: bytes) -> bytes:
    return body + FramerRTU.compute_CRC(body).to_bytes(2, "big")


def run(story: Callable[[Dial], Awaitable[None]], bus: Bus, transport: Transport = "modbus_tcp") -> None:
    async def scenario() -> None:
        async with masters(bus, transport) as dial:
            await story(dial)

    asyncio.run(scenario())


@pytest.mark.parametrize("what", ["no_answer", "device_dies"])
def test_a_silent_device_says_nothing_and_its_neighbour_answers_at_once(what: str) -> None:
    bus = bus_with(fault(what))

    async def story(dial: Dial) -> None:
        master = await dial()
        master.send(ask(1))
        await master.hears_nothing()
        master.send(ask(2, OTHER))
        assert await master.hears(13) == told(2, 1, OTHER)

    run(story, bus)
    assert bus.counters()[NAME] == {"reads": 0, "polls": 0}
    assert bus.ignored["modbus_unanswered_requests_total"] == 1


@pytest.mark.parametrize("what", ["no_answer", "feeder_trips", "concentrator_lost"])
def test_a_silent_bus_says_nothing_at_all(what: str) -> None:
    async def story(dial: Dial) -> None:
        master = await dial()
        master.send(ask(1) + ask(2, OTHER))
        await master.hears_nothing()

    run(story, bus_with(fault(what, BUS)))


def test_a_late_answer_comes_after_the_next_request_and_in_front_of_its_own_answer() -> None:
    async def story(dial: Dial) -> None:
        master = await dial()
        master.send(ask(1))
        await master.hears_nothing()
        master.send(ask(2, OTHER))
        assert await master.hears(26) == told(1, 0) + told(2, 1, OTHER)
        master.send(ask(3))
        await master.hears_nothing()
        master.send(ask(4))  # late as well, so only the one before comes
        assert await master.hears(13) == told(3, 0)
        await master.hears_nothing()

    bus = bus_with(fault("late_answer"))
    run(story, bus)
    assert bus.counters()[NAME] == {"reads": 0, "polls": 0}  # a spoilt poll is none: nobody may count on it


def test_over_rtu_a_late_answer_looks_like_an_answer_to_the_next_request() -> None:
    async def story(dial: Dial) -> None:
        master = await dial()
        question = rtu(bytes.fromhex("04 03 0005 0002"))
        answer = rtu(bytes.fromhex("04 03 04 00000000"))
        master.send(question)
        await master.hears_nothing()
        master.send(question)
        assert await master.hears(9) == answer

    run(story, bus_with(fault("late_answer")), "rtu_over_tcp")


def test_a_wrong_transaction_is_another_id_and_over_rtu_another_unit() -> None:
    async def over_tcp(dial: Dial) -> None:
        master = await dial()
        master.send(ask(0xFFFF))
        assert await master.hears(13) == told(0, 0)

    async def over_rtu(dial: Dial) -> None:
        master = await dial()
        master.send(rtu(bytes.fromhex("04 03 0005 0002")))
        assert await master.hears(9) == rtu(bytes.fromhex("05 03 04 00000000"))

    run(over_tcp, bus_with(fault("wrong_transaction")))
    run(over_rtu, bus_with(fault("wrong_transaction")), "rtu_over_tcp")


@pytest.mark.parametrize("code", [2, 3, 6])
@pytest.mark.parametrize("target", [NAME, BUS])
def test_an_exception_answers_a_right_question(code: int, target: str) -> None:
    async def story(dial: Dial) -> None:
        master = await dial()
        master.send(ask(7))
        assert await master.hears(9) == struct.pack(">HHHBBB", 7, 0, 3, ONE, 0x83, code)

    run(story, bus_with(fault(f"exception_0{code}", target)))


def test_a_partial_frame_stops_half_way() -> None:
    async def story(dial: Dial) -> None:
        master = await dial()
        master.send(ask(7))
        assert await master.hears(6) == told(7, 0)[:6]
        await master.hears_nothing()

    run(story, bus_with(fault("partial_frame")))


def test_a_half_open_connection_stands_without_a_byte_moving_until_it_breaks() -> None:
    async def story(dial: Dial) -> None:
        master = await dial()
        began = time.monotonic()
        master.send(ask(1))
        master.writer.write_eof()  # not even this is noticed
        await master.hears_nothing()
        await master.is_hung_up_on()
        assert time.monotonic() - began > 0.5
        again = await dial()
        again.send(ask(2))
        assert await again.hears(13) == told(2, 1)

    run(story, bus_with(fault("half_open", BUS, until=61)))


def test_a_single_session_device_turns_the_second_away_while_the_first_stands() -> None:
    async def story(dial: Dial) -> None:
        first = await dial()
        first.send(ask(1))
        assert await first.hears(13) == told(1, 1)
        await (await dial()).is_hung_up_on()
        first.send(ask(2))
        assert await first.hears(13) == told(2, 2)
        first.writer.write_eof()
        await first.is_hung_up_on()
        third = await dial()
        third.send(ask(3))
        assert await third.hears(13) == told(3, 3)

    run(story, bus_with(fault("single_session", BUS)))


def test_a_half_open_session_keeps_the_only_place_taken() -> None:
    async def story(dial: Dial) -> None:
        first = await dial()
        first.send(ask(1))
        await first.hears_nothing()
        first.writer.close()  # its master gives up and dials again, in vain
        await (await dial()).is_hung_up_on()

    run(story, bus_with(fault("single_session", BUS), fault("half_open", BUS)))


def test_a_slow_answer_is_whole_and_counts() -> None:
    async def story(dial: Dial) -> None:
        master = await dial()
        began = time.monotonic()
        master.send(ask(1))
        assert await master.hears(13) == told(1, 1)
        assert 0.3 <= time.monotonic() - began < 2

    run(story, bus_with(fault("slow_answer", size=0.3)))


def test_a_fault_ends_when_its_event_ends() -> None:
    async def story(dial: Dial) -> None:
        master = await dial()
        master.send(ask(1))
        await master.hears_nothing()
        await asyncio.sleep(0.5)
        master.send(ask(2))
        assert await master.hears(13) == told(2, 1)

    run(story, bus_with(fault("no_answer", until=60.5)))


SPOILING = (
    "device_dies",
    "no_answer",
    "late_answer",
    "wrong_transaction",
    "exception_02",
    "exception_03",
    "exception_06",
    "partial_frame",
)


@pytest.mark.parametrize(
    ("what", "target"),
    [(what, NAME) for what in SPOILING]
    + [(what, BUS) for what in (*SPOILING[1:], "half_open", "feeder_trips", "concentrator_lost")],
)
def test_fast_time_asks_whether_a_poll_is_answered_and_gets_what_a_socket_would(what: str, target: str) -> None:
    world = storm()
    world.add(fault(what, target, until=90))
    times = at(0, 29.999, 30, 89.999, 90, 1000)
    assert answers(world, device(NAME), times).tolist() == [True, True, False, False, True, True]
    told_live = [fault_of(world, device(NAME), int(now)) is None for now in times]
    assert told_live == answers(world, device(NAME), times).tolist()
    neighbour = answers(world, device("manhole-n2"), times)
    assert neighbour.all() == (target == NAME)


def test_a_slow_or_single_session_device_still_answers_and_a_dead_one_never_again() -> None:
    world = storm()
    world.add(fault("slow_answer", size=0.3))
    world.add(fault("single_session", BUS))
    assert answers(world, device(NAME), at(0, 60, 600)).all()
    world.add(fault("device_dies"))
    assert np.array_equal(answers(world, device(NAME), at(0, 60, 600)), [True, False, False])


def test_a_cable_is_cut_and_put_back_when_the_scenario_says_so() -> None:
    world = storm()
    for name, begin, end in (("later", 60.6, None), ("first", 60.2, 60.4), ("elsewhere", 60.0, None)):
        gateway = "gw-south" if name == "elsewhere" else "gw-north"
        begins, ends = (None if second is None else int(at(second)[0]) for second in (begin, end))
        assert begins is not None
        world.add(Event(name, "link_cut", gateway, begins, ends))

    async def scenario() -> list[bool]:
        cable = Cable("gw-north", "127.0.0.1", 1)
        seen = []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(cut_cable(cable, world, running()), name="cuts")
            await asyncio.sleep(0.1)
            for _ in range(4):
                seen.append(cable.cut_off)
                await asyncio.sleep(0.2)
        return seen

    assert asyncio.run(scenario()) == [False, True, False, True]
