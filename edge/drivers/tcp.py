"""Modbus TCP: the header that names transactions, and the sockets.

MBAP is spoken here directly. pymodbus 3.16's client matches neither function nor length, keeps the connection (and with
it late answers) after a time-out, unpacks every register into a Python integer, and costs several times as much a
request.
"""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

from edge.drivers.address import Address
from edge.drivers.link import Framing, Link
from edge.drivers.pdu import Failed, Garbled, NoAnswer, Question, Unreachable

_HEADER = struct.Struct(">HHHB")  # transaction, protocol (0), bytes that follow including the unit, unit
_LONGEST = 254
_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # A box that lost its power between two reads is found within 25 s, and not by the device that is asked next.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
_RESET = struct.pack("ii", 1, 0)  # linger on, for no time


def transactions() -> Iterator[int]:
    """Count transactions; a bus keeps one count over all its connections, so that no late answer has a live number."""
    while True:
        yield from range(1, 0x10000)


class Mbap:
    """The Modbus TCP frames of one connection. Answers to other transactions belong to somebody's earlier question.

    Parameters
    ----------
    numbers
        The transactions of the bus.
    echoes
        False takes the next answer whatever its transaction, for gateways that do not echo it.
    """

    silence_s = 0.0
    character_s = 0.0

    def __init__(self, numbers: Iterator[int], *, echoes: bool = True) -> None:
        self.tells_apart = echoes
        self._numbers = numbers
        self._transaction = 0
        self._unit = 0
        self._question: Question | None = None
        self._rest = b""

    def ask(self, unit: int, question: Question) -> bytes:
        self._transaction = next(self._numbers)
        self._unit = unit
        self._question = question
        if not self.tells_apart:
            self._rest = b""
        return _HEADER.pack(self._transaction, 0, 1 + len(question.pdu), unit) + question.pdu

    def hear(self, data: bytes) -> bytes | None:
        data = self._rest + data if self._rest else data
        while len(data) >= _HEADER.size:
            transaction, protocol, follows, sender = _HEADER.unpack_from(data)
            if protocol != 0 or not 3 <= follows <= _LONGEST:
                raise Garbled(f"{self._asked}: not a Modbus header: {data[:8].hex(' ')}")
            end = 6 + follows
            if len(data) < end:
                break
            answer, data = data[_HEADER.size : end], data[end:]
            question = self._question
            if question is not None and (transaction == self._transaction or not self.tells_apart):
                self._question = None
                self._rest = data
                return question.take(self._unit, sender, answer)
        self._rest = data
        return None

    def silent(self, waited_s: float) -> Failed:
        return NoAnswer(f"{self._asked}: no answer within {waited_s:g} s")

    @property
    def _asked(self) -> str:
        return self._question.to(self._unit) if self._question else "nothing was asked"


class Socket(Link):
    """One TCP connection."""

    def __init__(self, connected: socket.socket, framing: Framing) -> None:
        super().__init__(connected.fileno(), framing)
        self._socket = connected
        self._loop.add_reader(self._descriptor, self._readable)

    def _release(self, *, abort: bool) -> None:
        if abort:  # a box with one session to give has it free at once, and sends no late answer
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()


async def connect(address: Address, framing: Framing) -> Socket:
    """Open a connection to a TCP endpoint; ``Unreachable`` after its time-out at the latest."""
    try:
        async with asyncio.timeout(address.timeout_s):
            return Socket(await _connected(address.host, address.port), framing)
    except TimeoutError:
        raise Unreachable(f"{address.name}: no connection within {address.timeout_s:g} s") from None
    except OSError as error:
        raise Unreachable(f"{address.name}: {error.strerror or error}") from error


async def _connected(host: str, port: int) -> socket.socket:
    """Try every address of a host in turn."""
    loop = asyncio.get_running_loop()
    failure = OSError("the name has no address")
    for family, kind, protocol, _, place in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with ExitStack() as undo:
            opened = undo.enter_context(socket.socket(family, kind, protocol))
            opened.setblocking(False)
            for option in _OPTIONS:
                opened.setsockopt(*option)
            try:
                await loop.sock_connect(opened, place)
            except OSError as error:
                failure = error
            else:
                undo.pop_all()
                return opened
    raise failure
