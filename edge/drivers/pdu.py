"""Questions and answers of Modbus, whatever carries them: what is asked, what fits it, and what else can happen.

Modbus application protocol 1.1b3: sections 6.1 to 6.6 and 6.12 for the functions, 7 for the exceptions.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from edge.plan import Request

_FIELDS = struct.Struct(">BHH")  # function, first address, and a count or a value
_WRITE_MANY = struct.Struct(">BHHBH")  # the same for one register, then the bytes that follow and the value
_COIL_ON = 0xFF00
_EXCEPTIONS = {
    1: " (no such function)",
    2: " (no such address)",
    3: " (no such value or count)",
    4: " (fault)",
    5: " (accepted, takes long)",
    6: " (busy)",
    8: " (memory fault)",
    10: " (gateway has no path)",
    11: " (gateway got no answer)",
}


class Failed(Exception):  # noqa: N818 - the kinds below are named by what happened
    """A question that brought nothing. ``name`` counts it."""

    name = "failed"


class Unreachable(Failed):
    """No connection to the bus: wait, then try again; no device of it can answer meanwhile."""

    name = "unreachable"


class NoAnswer(Failed):
    """The device stayed silent, or the connection ended while it was asked: leave it alone for a while."""

    name = "no_answer"


class Garbled(Failed):
    """What came is not an answer to this question: count it and ask again later."""

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


@dataclass(frozen=True, slots=True)
class Write:
    """Write ``raw`` to one coil (function 5: 0 or 1) or one register (6 or 16: 0 to 65535)."""

    function: Literal[5, 6, 16]
    register: int
    raw: int

    def __post_init__(self) -> None:
        if not 0 <= self.raw <= (1 if self.function == 5 else 0xFFFF):
            raise ValueError(f"function {self.function} does not write {self.raw}")


class Question(NamedTuple):
    """What a unit is asked, and what an answer must look like; both from the function code on, without a frame."""

    pdu: bytes
    head: bytes  # how the answer begins: function and byte count, or all of it where it echoes
    length: int  # bytes of the whole answer

    def take(self, unit: int, sender: int, answer: bytes) -> bytes:
        """Give the data bytes of an answer that fits, none for an echo; else ``Declined`` or ``Misfit``."""
        if sender == unit and len(answer) == self.length and answer.startswith(self.head):
            return answer[len(self.head) :]
        if sender == unit and len(answer) == 2 and answer[0] == self.pdu[0] | 0x80:
            raise Declined(answer[1], self.to(unit))
        got = f"unit {sender}, {len(answer)} of {answer[:8].hex(' ')}"
        raise Misfit(f"{self.to(unit)}: {self.length} bytes wanted, got {got}")

    def to(self, unit: int) -> str:
        """Tell in words what the unit is asked."""
        function, first, count = _FIELDS.unpack_from(self.pdu)
        where = f"addresses {first} to {first + count - 1}" if function <= 4 else f"address {first}"
        return f"unit {unit} function {function} {where}"


def reading(request: Request) -> Question:
    return _reading(request.function, request.start, request.count, request.reply_bytes)


@lru_cache(1024)  # a bus asks the same few questions for years
def _reading(function: int, start: int, count: int, size: int) -> Question:
    return Question(_FIELDS.pack(function, start, count), bytes((function, size)), 2 + size)


def writing(write: Write) -> Question:
    function, register, raw = write.function, write.register, write.raw
    if function == 16:
        echo = _FIELDS.pack(function, register, 1)
        return Question(_WRITE_MANY.pack(function, register, 1, 2, raw), echo, len(echo))
    pdu = _FIELDS.pack(function, register, raw * _COIL_ON if function == 5 else raw)
    return Question(pdu, pdu, len(pdu))
