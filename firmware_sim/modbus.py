"""The units of a bus, and what goes on between them and a master, whatever wire leads there.

pymodbus' framers are used under streams of our own: its server would answer from stored registers, and a bus here can
be told to keep silent, or to answer wrongly.
"""

import asyncio
import struct
from collections import Counter
from collections.abc import Iterable
from typing import Literal, cast

import numpy as np
from pymodbus.constants import ExcCodes
from pymodbus.framer.base import FramerBase
from pymodbus.framer.rtu import FramerRTU
from pymodbus.framer.socket import FramerSocket
from pymodbus.pdu import DecodePDU

from edge.profile import load_profiles
from firmware_sim.door import Door
from firmware_sim.instruments import CLEARED, Instruments, ReadClearing
from firmware_sim.registers import Illegal, Registers
from firmware_sim.wirefaults import EXCEPTIONS, SILENT, bus_fault, fault_of
from firmware_sim.world import World
from rules.declared import Refused, nearest
from rules.district import Device, District, Modbus
from wire.clock import Clock

Transport = Literal["modbus_tcp", "rtu_over_tcp", "rtu"]
COUNTER = "poll_counter"
_FRAME_MOST = 260  # bytes of a Modbus TCP frame, the longer one
_READ = struct.Struct(">BHH")  # function, first address, count
_MOST = {1: 2000, 2: 2000, 3: 125, 4: 125}  # what one read may ask for (Modbus application protocol 1.1b3, 6.1 to 6.4)


class Unit:
    """One device on a bus: what a master reads from it."""

    def __init__(self, device: Device, registers: Registers, instruments: Instruments) -> None:
        self.device = device
        self.answered = 0
        self.polls = 0
        self._registers = registers
        self._instruments = instruments
        self._clearing = ReadClearing(instruments)

    def read(self, function: int, start: int, count: int, at: int, *, heard: bool = True) -> bytes:
        """Data bytes at the city instant ``at`` (UTC ns); ``Illegal`` for an address that is not there.

        A read that covers the poll counter adds one to it first, so the first such read shows 1; not so one whose
        answer the wire spoils, which is not ``heard``. A register that clears on reading does so whoever hears it.
        """
        wanted = self._registers.metrics(function, start, count)
        if heard:
            self.answered += 1
            if COUNTER in wanted:
                self.polls = (self.polls + 1) & 0xFFFFFFFF
        instruments = self._clearing if CLEARED in wanted else self._instruments
        shown = instruments.show(self.device, np.array([at], np.int64))
        values = shown | {COUNTER: np.array([float(self.polls)])}
        return self._registers.reply(function, start, count, values).tobytes()


class Bus:
    """The units that share a wire. One that is dead or not there gives no answer, as on a real line."""

    def __init__(self, name: str, units: Iterable[Unit], world: World, clock: Clock) -> None:
        self.name = name
        self.world = world
        self.clock = clock
        self.ignored: Counter[str] = Counter()
        self.hushed = False
        self.units = {unit.device.id: unit for unit in units}
        self._by_id = {cast("Modbus", unit.device.wire).unit: unit for unit in self.units.values()}

    def counters(self) -> dict[str, dict[str, int]]:
        """Count what was answered, by device: ``reads`` in all, and ``polls`` that covered the poll counter."""
        return {unit.device.id: {"reads": unit.answered, "polls": unit.polls} for unit in self.units.values()}

    def unit(self, number: int) -> Unit | None:
        """Find who has a unit id."""
        return self._by_id.get(number)

    def answer(self, unit: Unit, request: bytes, *, heard: bool = True) -> bytes:
        """Answer one request, both from the function code on and without a frame."""
        function = request[0]
        if function not in _MOST:
            return _refusal(function, ExcCodes.ILLEGAL_FUNCTION)
        if len(request) != _READ.size or not 1 <= _READ.unpack(request)[2] <= _MOST[function]:
            return _refusal(function, ExcCodes.ILLEGAL_VALUE)
        _, start, count = _READ.unpack(request)
        try:
            data = unit.read(function, start, count, self.clock.now(), heard=heard)
        except Illegal as error:
            return _refusal(function, error.code)
        return bytes((function, len(data))) + data


def buses_of(district: District, instruments: Instruments, clock: Clock, place: str = "district") -> list[Bus]:
    """Every bus of a district with its units; ``Refused`` names a device whose profile is not a Modbus one."""
    profiles = load_profiles()
    registers = {name: Registers(profile) for name, profile in profiles.items()}
    units: dict[str, list[Unit]] = {bus.id: [] for bus in district.bus}
    for device in district.device:
        if isinstance(device.wire, Modbus):
            profile = profiles.get(device.profile)
            if profile is None or not profile.point:
                known = [name for name, each in profiles.items() if each.point]
                why = f"`{device.profile}` is no Modbus profile of this version{nearest(device.profile, known)}"
                raise Refused(f"{place}: device {device.id}: profile", why)
            if device.wire.base:
                raise Refused(f"{place}: device {device.id}: wire.base", "no unit here serves many devices")
            units[device.wire.bus].append(Unit(device, registers[profile.id], instruments))
    return [Bus(name, there, instruments.world, clock) for name, there in units.items()]


class Exchange:
    """What goes on between one master and a bus: a request comes in, frames go out, right ones or spoilt ones."""

    def __init__(self, bus: Bus, framer: FramerBase) -> None:
        self._bus = bus
        self._framer = framer
        self._late = b""  # an answer that waits for the next request

    async def hear(self, number: int, transaction: int, request: bytes) -> bytes:
        """Tell what is sent when a request to a unit arrives; empty when nobody answers."""
        if not request:  # what a framer makes of garbage
            return b""
        late, self._late = self._late, b""
        bus = self._bus
        unit = bus.unit(number)
        fault = fault_of(bus.world, unit.device, bus.clock.now()) if unit else None
        what = fault.what if fault else ""
        if unit is None or what in SILENT:
            bus.ignored["modbus_unanswered_requests_total"] += 1
            return late
        if what in EXCEPTIONS:
            return late + self._framer.encode(_refusal(request[0], EXCEPTIONS[what]), number, transaction)
        answer = bus.answer(unit, request, heard=what in ("", "slow_answer"))
        if what == "wrong_transaction":
            transaction = (transaction + 1) & 0xFFFF
            if isinstance(self._framer, FramerRTU):  # there only the unit tells whose answer it is
                number = number % 247 + 1
        frame = self._framer.encode(answer, number, transaction)
        if what == "late_answer":
            self._late = frame
            return late
        if what == "partial_frame":
            return late + frame[: len(frame) // 2]
        if fault is not None and what == "slow_answer":
            await asyncio.sleep(fault.size)
        return late + frame


class Port:
    """A TCP port that leads to a bus, speaking Modbus TCP or, as a plain serial server does, RTU frames."""

    def __init__(self, bus: Bus, transport: Transport) -> None:
        self.bus = bus
        self.door = Door(self._talk)
        self._masters = 0
        kind = FramerRTU if transport == "rtu_over_tcp" else FramerSocket
        self._framer = kind(DecodePDU(is_server=True))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bus = self.bus
        if bus.hushed or (self._masters and bus_fault(bus.world, "single_session", bus.name, bus.clock.now())):
            return
        self._masters += 1
        try:
            await self._serve(reader, writer)
        finally:
            self._masters -= 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bus, held, exchange = self.bus, b"", Exchange(self.bus, self._framer)
        while True:
            data = await reader.read(4096)
            if stuck := bus_fault(bus.world, "half_open", bus.name, bus.clock.now()):
                await self._stay(stuck.until)
                return
            if not data:
                return
            held += data
            while (frame := self._framer.decode(held))[0]:
                used, unit, transaction, request = frame
                held = held[used:]
                if sent := await exchange.hear(unit, transaction, request):
                    writer.write(sent)
            if len(held) > _FRAME_MOST:  # not Modbus: no frame is that long
                bus.ignored["modbus_garbage_connections_total"] += 1
                return
            await writer.drain()

    async def _stay(self, until: int | None) -> None:
        """Hold a connection whose far end is gone: its place stays taken, and it breaks when the far end is back."""
        self.bus.ignored["modbus_unanswered_requests_total"] += 1
        if until is None:
            await asyncio.get_running_loop().create_future()  # until the port closes
        else:
            await self.bus.clock.sleep_until(until)


def _refusal(function: int, code: int) -> bytes:
    return bytes((function | 0x80, code))
