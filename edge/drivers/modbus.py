"""A Modbus bus: one connection to it, one question in flight, every answer matched to its question."""

import asyncio
from time import monotonic
from typing import Self

from edge.drivers.address import Address
from edge.drivers.link import Framing, Link
from edge.drivers.pdu import Declined, Failed, Garbled, Misfit, NoAnswer, Question, Unreachable, Write, reading, writing
from edge.drivers.rtu import Rtu
from edge.drivers.serial_line import SerialLine
from edge.drivers.tcp import Mbap, connect, transactions
from edge.plan import Request

__all__ = ["Connection", "Declined", "Failed", "Garbled", "Misfit", "NoAnswer", "Unreachable", "Write"]


class Connection:
    """One bus. Opened when it is needed, dropped after anything but a whole, fitting answer; an exception is one.

    Where transaction ids tell answers apart, a late one is never taken for the next. Elsewhere (on a serial line,
    behind a server that passes its frames on, with ``echoes_transaction`` = false) a late answer of the same unit and
    length is like the right one: so after a failure the unit is asked nothing for one more time-out. A device that is
    still later needs a longer time-out. Its neighbours need not wait, since an answer says whose it is.

    Parameters
    ----------
    address
        Where it is, how it speaks, and how long an answer may take.

    Attributes
    ----------
    pause_after_connect_s
        Wall seconds between opening and the first question.
    """

    def __init__(self, address: Address) -> None:
        self.pause_after_connect_s = 0.0
        self._address = address
        self._timeout_s = address.timeout_s
        self._turn = asyncio.Lock()
        self._link: Link | None = None
        self._transactions = transactions()
        self._owes_until: dict[int, float] = {}  # by unit: until when an answer that was given up may come

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def read(self, unit: int, request: Request, guard_s: float = 0.0) -> bytes:
        """Read from one device once the bus has been silent for ``guard_s`` (wall); the data bytes of its answer.

        ``Failed`` tells what to do otherwise.
        """
        return await self._ask(unit, reading(request), guard_s)

    async def write(self, unit: int, write: Write, guard_s: float = 0.0) -> None:
        """Write to one device and wait for its echo. ``Failed`` as ``read``: unless ``Declined``, it may be done."""
        await self._ask(unit, writing(write), guard_s)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()

    async def _ask(self, unit: int, question: Question, guard_s: float) -> bytes:
        await self._turn.acquire()  # `async with` costs two coroutines more, with every read
        try:
            link, pause_s = self._link, 0.0
            if link is None or not link.open:
                link, pause_s = await self._open(), self.pause_after_connect_s
            try:
                if pause_s:
                    await asyncio.sleep(pause_s)
                if self._owes_until:
                    await self._let_pass(unit)
                return await link.ask(unit, question, self._timeout_s, guard_s)
            except (NoAnswer, Garbled, asyncio.CancelledError):
                link.close(abort=True)
                if not link.tells_apart:
                    self._owes_until[unit] = monotonic() + self._timeout_s
                raise
        finally:
            self._turn.release()

    async def _let_pass(self, unit: int) -> None:
        """Wait until a unit owes no answer; with the link open, where a server may deliver what it still had."""
        await asyncio.sleep(self._owes_until.get(unit, 0.0) - monotonic())
        self._owes_until.pop(unit, None)

    async def _open(self) -> Link:
        address = self._address
        framing: Framing
        if address.speaks_rtu:
            framing = Rtu(address.baud)
        else:
            framing = Mbap(self._transactions, echoes=address.echoes_transaction)
        self._link = SerialLine(address, framing) if address.serial else await connect(address, framing)
        return self._link
