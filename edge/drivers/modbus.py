"""Modbus TCP: one connection to a bus, one request in flight, every answer matched to its question.

MBAP is spoken here directly, over an asyncio protocol. pymodbus 3.16's client matches neither function nor length,
keeps the connection (and with it late answers) after a time-out, unpacks every register into a Python integer, and
costs several times as much a request.
"""

import asyncio
import struct
from typing import Self, cast

from edge.plan import Request

_HEADER = struct.Struct(">HHHB")  # transaction, protocol (0), bytes that follow including the unit, unit
_QUESTION = struct.Struct(">HHHBBHH")  # the header, then function, first address, count
_LONGEST = 254
_EXCEPTIONS = {1: " (no such function)", 2: " (no such address)", 3: " (no such count)", 4: " (fault)", 6: " (busy)"}


class Failed(Exception):  # noqa: N818 - the kinds below are named by what happened
    """A read that brought no values. ``name`` counts it."""

    name = "failed"


class Unreachable(Failed):
    """No connection to the bus: wait, then try again; no device of it can answer meanwhile."""

    name = "unreachable"


class NoAnswer(Failed):
    """The device stayed silent, or the connection ended while it was asked: leave it alone for a while."""

    name = "no_answer"


class Garbled(Failed):
    """What came is not an answer to this request: count it and ask again later."""

    name = "garbled"


class Misfit(Garbled):
    """An answer in good form, of another unit, function or length than was asked for."""

    name = "misfit"


class Declined(Failed):
    """The device answered with an exception ``code``: 2 and 3 say that the register map is not its own."""

    def __init__(self, code: int, asked: str) -> None:
        super().__init__(f"exception {code:02d}{_EXCEPTIONS.get(code, '')}: {asked}")
        self.code = code
        self.name = f"exception_{code:02d}"


class Connection:
    """A bus behind one TCP endpoint. Opened when it is needed, dropped after anything but a whole, fitting answer.

    Dropping is what keeps a late answer from being taken for the next one, even behind serial gateways that do not
    echo transaction ids.

    Parameters
    ----------
    host, port
        Where the bus listens.
    timeout_s
        Wall seconds that connecting, and then each answer, may take.
    """

    def __init__(self, host: str, port: int, timeout_s: float = 1.0) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._link: _Link | None = None
        self._transaction = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def read(self, unit: int, request: Request) -> bytes:
        """Ask one device; the data bytes of its answer. ``Failed`` tells what to do otherwise."""
        async with self._turn:
            link = await self._open()
            self._transaction = self._transaction % 0xFFFF + 1
            try:
                return await link.ask(self._transaction, unit, request, self._timeout_s)
            except (NoAnswer, Garbled, asyncio.CancelledError):
                link.close()
                raise

    def close(self) -> None:
        if self._link is not None:
            self._link.close()

    async def _open(self) -> "_Link":
        if self._link is not None and self._link.open:
            return self._link
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                _, self._link = await loop.create_connection(_Link, self._host, self._port)
        except TimeoutError:
            raise Unreachable(f"{self._host}:{self._port}: no connection within {self._timeout_s:g} s") from None
        except OSError as error:
            raise Unreachable(f"{self._host}:{self._port}: {error.strerror or error}") from error
        return self._link


class _Link(asyncio.Protocol):
    """One TCP connection, never used again once it has closed; at most one request waits on it."""

    def __init__(self) -> None:
        self.open = False
        self._rest = b""
        self._expected = (0, 0, 0, 0)  # transaction, unit, function, data bytes
        self._request = Request(0, 0, 0, ())
        self._answer: asyncio.Future[bytes] | None = None

    async def ask(self, transaction: int, unit: int, request: Request, timeout_s: float) -> bytes:
        loop = asyncio.get_running_loop()
        self._expected = (transaction, unit, request.function, request.reply_bytes)
        self._request = request
        self._answer = loop.create_future()
        question = (transaction, 0, 6, unit, request.function, request.start, request.count)
        self._transport.write(_QUESTION.pack(*question))
        silent = NoAnswer(f"unit {unit}: no answer within {timeout_s:g} s")
        timer = loop.call_later(timeout_s, self._fail, silent)
        try:
            return await self._answer
        finally:
            timer.cancel()

    @property
    def _asked(self) -> str:
        first, count = self._request.start, self._request.count
        return f"unit {self._expected[1]} function {self._request.function} addresses {first} to {first + count - 1}"

    def close(self) -> None:
        self.open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by duck typing only
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._fail(NoAnswer(f"connection ended: {exc or 'closed by the bus'}"))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        while len(data) >= _HEADER.size:
            transaction, protocol, follows, unit = _HEADER.unpack_from(data)
            if protocol != 0 or not 3 <= follows <= _LONGEST:
                self._fail(Garbled(f"{self._asked}: not a Modbus header: {data[:8].hex(' ')}"))
                return
            end = 6 + follows
            if len(data) < end:
                break
            if transaction == self._expected[0]:  # any other is an answer to somebody's earlier question
                self._take(unit, data[_HEADER.size : end])
            data = data[end:]
        self._rest = data

    def _take(self, unit: int, pdu: bytes) -> None:
        _, asked, function, size = self._expected
        if unit == asked and pdu[0] == function and len(pdu) == 2 + size and pdu[1] == size:
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(pdu[2:])
        elif unit == asked and pdu[0] == function | 0x80 and len(pdu) == 2:
            self._fail(Declined(pdu[1], self._asked))
        else:
            self._fail(Misfit(f"{self._asked}: {size} bytes wanted, got unit {unit}, {len(pdu)} of {pdu[:8].hex(' ')}"))

    def _fail(self, failure: Failed) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(failure)
        if isinstance(failure, Garbled):
            self.close()
