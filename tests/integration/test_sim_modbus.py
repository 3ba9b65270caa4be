"""The simulated buses as a master sees them: a real pymodbus client over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Literal

import pytest
from pymodbus import ModbusException
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.framer import FramerType
from pymodbus.framer.rtu import FramerRTU
from pymodbus.pdu import ModbusPDU

from edge.profile import Profile, load_profiles
from firmware_sim.instruments import Instruments
from firmware_sim.modbus import Bus, Port, Transport, Unit, buses_of
from firmware_sim.registers import Registers
from firmware_sim.scenario import Burst, Rain, Scenario
from firmware_sim.swarm import scenario_text, swarm
from firmware_sim.world import World
from rules.declared import decode
from rules.district import Modbus, Text
from tests.city import START, at, device, district, storm
from wire.clock import NANOSECONDS, Clock

DATATYPE = ModbusClientMixin.DATATYPE
_DECODED_AS = {
    "u16": DATATYPE.UINT16,
    "s16": DATATYPE.INT16,
    "u32": DATATYPE.UINT32,
    "s32": DATATYPE.INT32,
    "f32": DATATYPE.FLOAT32,
}


class StandingClock(Clock, frozen=True):
    """City time that stands at one instant."""

    def now(self) -> int:
        return self.city


def standing(second: float) -> Clock:
    return StandingClock(city=int(at(second)[0]))


@contextlib.asynccontextmanager
async def master(
    port: Port, patience_s: float = 3.0, framer: FramerType = FramerType.SOCKET
) -> AsyncIterator[AsyncModbusTcpClient]:
    client = AsyncModbusTcpClient(
        "127.0.0.1", port=port.door.port, framer=framer, timeout=patience_s, retries=0, reconnect_delay=0
    )
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


async def read(client: AsyncModbusTcpClient, unit: int, function: int, address: int, count: int) -> ModbusPDU:
    how: Mapping[int, Callable[..., Awaitable[ModbusPDU]]] = {
        1: client.read_coils,
        2: client.read_discrete_inputs,
        3: client.read_holding_registers,
        4: client.read_input_registers,
    }
    return await how[function](address, count=count, device_id=unit)


def test_every_device_of_the_district_shows_what_its_instrument_shows() -> None:
    clock = standing(600)
    instruments = Instruments(storm())
    profiles = load_profiles()

    async def scenario() -> int:
        seen = 0
        async with AsyncExitStack() as doors:
            for bus in buses_of(district(), instruments, clock):
                port = Port(bus, "modbus_tcp")
                await doors.enter_async_context(port.door.open())
                client = await doors.enter_async_context(master(port))
                for unit in bus.units.values():
                    await _check(client, unit.device.id, profiles[unit.device.profile], instruments, clock)
                    seen += 1
        return seen

    async def _check(
        client: AsyncModbusTcpClient, name: str, profile: Profile, instruments: Instruments, clock: Clock
    ) -> None:
        one = device(name)
        assert isinstance(one.wire, Modbus)
        shown = instruments.show(one, at(600))
        for point in profile.point:
            answer = await read(client, one.wire.unit, point.function, point.register, point.words)
            assert not answer.isError(), f"{name} {point.metric}: {answer}"
            registers = list(answer.registers)
            if point.type == "bit":
                value = float(registers[0] >> point.bit & (1 << point.width) - 1)
            else:
                assert point.order == "ABCD"
                raw = ModbusClientMixin.convert_from_registers(registers, _DECODED_AS[point.type])
                assert isinstance(raw, int | float)
                value = raw * point.scale + point.offset
            expected = 1.0 if point.metric == "poll_counter" else float(shown[point.metric][0])
            assert value == pytest.approx(expected, abs=point.scale / 2 + 1e-9, rel=1e-6), f"{name} {point.metric}"

    assert asyncio.run(scenario()) == 19


def manholes(clock: Clock) -> Bus:
    (bus,) = (bus for bus in buses_of(district(), Instruments(storm()), clock) if bus.name == "north-1")
    return bus


@contextlib.asynccontextmanager
async def opened(bus: Bus, transport: Transport = "modbus_tcp") -> AsyncIterator[Port]:
    port = Port(bus, transport)
    async with port.door.open():
        yield port


def test_the_counter_counts_each_answered_read_that_covers_it_and_no_other() -> None:
    bus = manholes(standing(60))

    async def scenario() -> None:
        async with opened(bus) as port, master(port) as client:
            shown = []
            for _ in range(5):
                shown.append((await read(client, 4, 3, 0, 7)).registers[5:7])
                await read(client, 4, 3, 0, 3)  # does not reach the counter
            assert shown == [[0, count] for count in range(1, 6)]
            assert (await read(client, 4, 3, 6, 1)).registers == [6]  # half of it is a read of it
            await read(client, 4, 3, 0, 9)  # refused, so not answered
        assert bus.counters()["manhole-n1"] == {"reads": 11, "polls": 6}
        assert bus.counters()["manhole-n2"] == {"reads": 0, "polls": 0}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("function", "address", "count", "code"),
    [(3, 8, 1, 2), (3, 0, 9, 2), (4, 0, 1, 2), (1, 0, 1, 2), (3, 65535, 1, 2)],
)
def test_an_address_that_is_not_there_answers_exception_2(
    function: Literal[1, 3, 4], address: int, count: int, code: int
) -> None:
    bus = manholes(standing(60))

    async def scenario() -> ModbusPDU:
        async with opened(bus) as port, master(port) as client:
            return await read(client, 4, function, address, count)

    answer = asyncio.run(scenario())
    assert answer.isError()
    assert answer.exception_code == code


def test_what_is_no_read_answers_exception_1_and_an_impossible_count_3() -> None:
    bus = manholes(standing(60))
    unit = bus.units["manhole-n1"]
    assert bus.answer(unit, bytes.fromhex("06 0000 0001")) == bytes([0x86, 1])
    assert bus.answer(unit, bytes.fromhex("03 0000 00C8")) == bytes([0x83, 3])
    assert bus.answer(unit, bytes.fromhex("03 0000 0000")) == bytes([0x83, 3])
    assert bus.answer(unit, bytes.fromhex("03 00")) == bytes([0x83, 3])


def test_a_unit_that_is_not_there_keeps_silent_and_the_others_answer() -> None:
    bus = manholes(standing(60))

    async def scenario() -> None:
        async with opened(bus) as port, master(port, patience_s=0.2) as client:
            with pytest.raises(ModbusException):
                await read(client, 99, 3, 0, 1)
            async with master(port) as other:
                assert not (await read(other, 5, 3, 0, 7)).isError()
        assert bus.ignored["modbus_unanswered_requests_total"] == 1

    asyncio.run(scenario())


def test_garbage_costs_its_sender_the_connection_and_nobody_else() -> None:
    bus = manholes(standing(60))

    async def scenario() -> None:
        async with opened(bus) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port.door.port)
            writer.write(b"GET / HTTP/1.1\r\n" + b"x" * 300)
            assert await asyncio.wait_for(reader.read(), 2) == b""
            writer.close()
            async with master(port) as client:
                assert not (await read(client, 4, 3, 0, 7)).isError()
        assert bus.ignored["modbus_garbage_connections_total"] == 1

    asyncio.run(scenario())


def test_requests_sent_at_once_are_answered_in_order() -> None:
    bus = manholes(standing(60))

    async def scenario() -> None:
        async with opened(bus) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port.door.port)
            frames = b"".join(bytes([0, n, 0, 0, 0, 6, 4, 3, 0, 5, 0, 2]) for n in range(1, 20))
            writer.write(frames[:50])
            await writer.drain()
            writer.write(frames[50:])
            answers = await asyncio.wait_for(reader.readexactly(19 * 13), 2)
            writer.close()
            assert [answers[13 * n + 1] for n in range(19)] == list(range(1, 20))
            assert [answers[13 * n + 12] for n in range(19)] == list(range(1, 20))

    asyncio.run(scenario())


def test_a_hundred_devices_can_be_read_once_a_second_with_ease() -> None:
    city = swarm(devices=100, buses=4)
    world = World(city, decode(scenario_text(per_minute=30, length_s=600), Scenario, "lids"), 1, START)
    buses = buses_of(city, Instruments(world), standing(60))

    ports = [Port(bus, "modbus_tcp") for bus in buses]

    async def poll(port: Port, rounds: int) -> None:
        async with master(port) as client:
            for _ in range(rounds):
                for unit in range(1, 26):
                    assert len((await read(client, unit, 3, 0, 7)).registers) == 7

    async def scenario() -> float:
        clock = asyncio.get_running_loop().time
        async with AsyncExitStack() as doors, asyncio.TaskGroup() as tasks:
            for port in ports:
                await doors.enter_async_context(port.door.open())
            began = clock()
            polls = [tasks.create_task(poll(port, 5), name=port.bus.name) for port in ports]
            await asyncio.gather(*polls)
            return clock() - began

    took = asyncio.run(scenario())
    assert all(counts == {"reads": 5, "polls": 5} for bus in buses for counts in bus.counters().values())
    assert took < 5, f"5 rounds of 100 devices took {took:.1f} s, client and simulator on one loop"


def test_a_unit_reads_as_of_the_instant_of_the_read() -> None:
    world = storm()
    unit = Unit(device("level-n1"), Registers(load_profiles()["dfrobot_sen0492"]), Instruments(world))
    dry, wet = (int.from_bytes(unit.read(3, 0x34, 1, int(at(minute * 60)[0])), "big") for minute in (1, 18))
    assert dry - wet == pytest.approx(world.water.depth_m("underpass-bluestone", at(18 * 60))[0] * 1000, abs=5)


def test_rtu_over_tcp_answers_as_modbus_tcp_does() -> None:
    bus = manholes(standing(60))

    async def scenario() -> None:
        async with opened(bus, "rtu_over_tcp") as port, master(port, framer=FramerType.RTU) as client:
            assert (await read(client, 4, 3, 0, 7)).registers[5:] == [0, 1]
            assert (await read(client, 5, 3, 0, 7)).registers[5:] == [0, 1]
            assert (await read(client, 4, 3, 8, 1)).exception_code == 2
            assert (await read(client, 4, 3, 0, 7)).registers[5:] == [0, 2]
        async with opened(bus) as plain, master(plain) as client:
            assert (await read(client, 4, 3, 0, 7)).registers[5:] == [0, 3]

    asyncio.run(scenario())


def test_a_frame_with_a_wrong_checksum_is_not_answered() -> None:
    bus = manholes(standing(60))

    async def scenario() -> None:
        async with opened(bus, "rtu_over_tcp") as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port.door.port)
            question = bytes.fromhex("04 03 0005 0002")
            crc = FramerRTU.compute_CRC(question)
            writer.write(question + (crc ^ 1).to_bytes(2, "big"))
            await writer.drain()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.2)
            writer.write(question + crc.to_bytes(2, "big"))
            answer = await asyncio.wait_for(reader.readexactly(9), 2)
            writer.close()
            assert answer[:7] == bytes.fromhex("04 03 04 00000001")
            assert FramerRTU.check_CRC(answer[:-2], int.from_bytes(answer[-2:], "big"))

    asyncio.run(scenario())


CLEARING = """
[profile]
id = "clearing"
kind = "rain_gauge"
maker = "test"
model = "weighing gauge"
manual = "as the partial register of DeltaOhm's HD2016"
protocol = "modbus"
interval_s = 60

[[point]]
metric = "rain_total"
unit = "mm"
function = 3
register = 0
type = "u16"
scale = 0.1

[[point]]
metric = "rain_partial"
unit = "mm"
function = 3
register = 1
type = "u16"
scale = 0.1
"""


def test_a_register_that_clears_on_reading_shows_what_fell_since_the_last_read() -> None:
    profile = decode(CLEARING, Profile, "clearing")
    rain = Rain(burst=(Burst("30min", "30min", 60.0),))
    world = World(district(), Scenario("rain", Text("雨", "rain"), "1h", rain=rain), 1, START)
    (gauge,) = [device for device in world.district.device if device.kind == "rain_gauge"]
    unit = Unit(gauge, Registers(profile), Instruments(world))

    def read(start: int, minute: int) -> int:
        return int.from_bytes(unit.read(3, start, 1, START + minute * 60 * NANOSECONDS), "big")

    before = read(0, 0)
    assert read(1, 0) == 0
    first, second = read(1, 20), read(1, 40)
    assert first > 0
    assert second > 0
    assert read(1, 40) == 0  # a second master loses rain
    assert read(0, 40) - before == first + second  # which the total, read in between, does not clear
