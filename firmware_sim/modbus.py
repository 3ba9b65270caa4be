"""Modbus TCP: one port a bus, many units behind it, values computed at the instant of the read.

pymodbus' framer and PDUs are used under asyncio streams of our own: its server would answer from stored registers, and
a bus here can be told to keep silent.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import cast

import numpy as np
from pymodbus.constants import ExcCodes
from pymodbus.framer.socket import FramerSocket
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsResponse, ReadDiscreteInputsResponse
from pymodbus.pdu.register_message import ReadHoldingRegistersResponse, ReadInputRegistersResponse

from edge.profile import Profile
from firmware_sim.door import Door
from firmware_sim.instruments import Instruments
from firmware_sim.registers import image
from rules.district import Device, Modbus
from wire.clock import Clock

_FRAME_MOST = 260  # bytes of a Modbus TCP frame
_BITS: dict[int, type[ModbusPDU]] = {1: ReadCoilsResponse, 2: ReadDiscreteInputsResponse}
_WORDS: dict[int, type[ModbusPDU]] = {3: ReadHoldingRegistersResponse, 4: ReadInputRegistersResponse}
_READS = _BITS | _WORDS
COUNTER = "poll_counter"


class Illegal(Exception):  # noqa: N818 - what the request is
    """A request the unit answers with an exception; ``code`` says which."""

    def __init__(self, code: ExcCodes) -> None:
        super().__init__(code.name)
        self.code = code


class Unit:
    """One device on a bus: what a master reads from it."""

    def __init__(self, device: Device, profile: Profile, instruments: Instruments) -> None:
        self.device = device
        self.answered = 0
        self.polls = 0
        self.dead = False
        self._profile = profile
        self._instruments = instruments
        counter = next((point for point in profile.point if point.metric == COUNTER), None)
        span = range(counter.register, counter.register + counter.words) if counter else range(0)
        self._counter = (counter.function if counter else 0, span)
        self._addresses = {
            function: {
                address
                for point in profile.point
                if point.function == function
                for address in range(point.register, point.register + point.words)
            }
            for function in (1, 2, 3, 4)
        }

    def read(self, function: int, address: int, count: int, at: int) -> list[int]:
        """Words or bits at the city instant ``at`` (UTC ns); ``Illegal`` for an address that is not there.

        A read that covers the poll counter adds one to it first, so the first such read shows 1.
        """
        wanted = range(address, address + count)
        if not self._addresses[function].issuperset(wanted):
            raise Illegal(ExcCodes.ILLEGAL_ADDRESS)
        counter_function, counter = self._counter
        if function == counter_function and counter and not set(wanted).isdisjoint(counter):
            self.polls = (self.polls + 1) & 0xFFFFFFFF
        self.answered += 1
        shown = self._instruments.show(self.device, np.array([at], np.int64))
        values = {metric: float(column[0]) for metric, column in shown.items()}
        words = image(self._profile, function, values | {COUNTER: float(self.polls)})
        return [words[one] for one in wanted]


class Bus:
    """The units behind one port. A unit that is dead or not there gives no answer, as on a real line."""

    def __init__(self, name: str, units: Iterable[Unit], clock: Clock) -> None:
        self.name = name
        self.door = Door(self._talk)
        self.ignored: Counter[str] = Counter()
        self._clock = clock
        self._hushed = False
        self.units = {unit.device.id: unit for unit in units}
        self._by_id = {cast("Modbus", unit.device.wire).unit: unit for unit in self.units.values()}
        self._framer = FramerSocket(DecodePDU(is_server=True))

    def counters(self) -> dict[str, dict[str, int]]:
        """Count what was answered, by device: ``reads`` in all, and ``polls`` that covered the poll counter."""
        return {unit.device.id: {"reads": unit.answered, "polls": unit.polls} for unit in self.units.values()}

    def hush(self) -> None:
        """Hang up on everybody, for good: nothing is read here any more."""
        self._hushed = True
        self.door.hang_up()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = b""
        while not self._hushed and (data := await reader.read(4096)):
            held += data
            while (frame := self._framer.decode(held))[0]:
                used, unit, transaction, body = frame
                held = held[used:]
                if answer := self.answer(unit, transaction, body):
                    writer.write(answer)
            if len(held) > _FRAME_MOST:  # not Modbus TCP: no frame is that long
                self.ignored["modbus_garbage_connections_total"] += 1
                return
            await writer.drain()

    def answer(self, unit: int, transaction: int, body: bytes) -> bytes:
        """Make the whole answering frame to one request body; empty when nobody answers."""
        asked = self._by_id.get(unit)
        if asked is None or asked.dead or not body:
            self.ignored["modbus_unanswered_requests_total"] += 1
            return b""
        response = self._respond(asked, body)
        response.dev_id, response.transaction_id = unit, transaction
        return self._framer.buildFrame(response)

    def _respond(self, unit: Unit, body: bytes) -> ModbusPDU:
        function = body[0]
        if function not in _READS:
            return ExceptionResponse(function, ExcCodes.ILLEGAL_FUNCTION)
        request = self._framer.decoder.decode(body)
        if request is None:  # too short, or a count beyond what one read may ask for
            return ExceptionResponse(function, ExcCodes.ILLEGAL_VALUE)
        try:
            values = unit.read(function, request.address, request.count, self._clock.now())
        except Illegal as error:
            return ExceptionResponse(function, error.code)
        if function in _BITS:
            return _BITS[function](bits=[bool(value) for value in values])
        return _WORDS[function](registers=values)
