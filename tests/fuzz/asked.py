"""What is asked: Modbus framings and registers; and what crosses between gateway and cloud."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
import zstandard

from edge.counters import Counters
from edge.decoding import Decoding
from edge.drivers.pdu import Declined, Failed, Question, Write, reading, writing
from edge.drivers.rtu import Rtu, checksum
from edge.drivers.tcp import Mbap, transactions
from edge.installed import Installed
from edge.plan import Request
from edge.reading import Reading, Replies
from edge.reads import Reads
from rules.district import Modbus
from tests.fuzz import messages, mutator
from tests.fuzz.messages import START
from tests.fuzz.mutator import Mutator
from tests.fuzz.running import DECODED, Input, Run, Samples, Wrong
from wire.batch import Batch, Malformed, decode

_UNITS = (1, 17, 247)
_QUESTIONS: tuple[Question, ...] = (
    *(
        reading(Request(*each, ()))
        for each in ((3, 0, 10), (3, 30, 6), (4, 100, 20), (4, 7, 1), (1, 0, 12), (3, 0, 125))
    ),
    *(writing(each) for each in (Write(5, 3, 1), Write(6, 40, 0x1234), Write(16, 40, 0xFFFF))),
)
_DATA = bytes(range(1, 251))


class Framed(Run):
    """One bus: a question, then its mutated answer in as many pieces as it comes, after whatever came before.

    What delimits a frame (its length, its checksum) is mended in most cases, so that what it holds is looked at.
    """

    rest_most = 1024
    unsure = 0  # bytes of a frame that may be any where answers are not told apart

    def __init__(self) -> None:
        super().__init__()
        self._link: Mbap | Rtu | None = None

    def open(self, choice: int) -> Mbap | Rtu:
        raise NotImplementedError

    def frame(self, asked: bytes, unit: int, pdu: bytes) -> bytes:
        raise NotImplementedError

    def mend(self, frame: bytes) -> bytes:
        raise NotImplementedError

    mutate: Mutator

    def take(self, choice: int, mutations: Sequence[int]) -> str:
        link = self._link = self._link or self.open(choice)
        question, unit = _QUESTIONS[choice % len(_QUESTIONS)], _UNITS[(choice >> 4) % len(_UNITS)]
        asked = link.ask(unit, question)
        pdu = question.head + _DATA[: question.length - len(question.head)]
        if choice >> 6 & 0xF == 0xF:
            pdu = bytes((question.pdu[0] | 0x80, 1 + (choice >> 10 & 0x7)))
        right = self.frame(asked, unit, pdu)
        head, kind = question.head, choice >> 9 & 0x3
        if kind <= 1 and len(pdu) > len(head):
            answer = self.frame(asked, unit, head + self.mutate(pdu[len(head) :], mutations))
        elif kind <= 2:
            answer = self.frame(asked, unit, self.mutate(pdu, mutations))
        else:
            answer = self.mutate(right, mutations)
            if choice >> 11 & 0x3 != 0x3:
                answer = self.mend(answer)
        match choice >> 13 & 0x7:
            case 7:
                answer += right
            case 6:
                answer = self.frame(asked, unit % 247 + 1, pdu) + answer
            case 5:
                answer = _DATA[: choice >> 16 & 0xF] + answer
            case _:
                pass
        self.given = Input(asked.hex(" "), answer)
        stream = link._rest + answer if isinstance(link, Mbap) else answer
        try:
            told = self._hear(link, answer, choice >> 16)
        except Failed as failure:
            if not isinstance(failure, Declined):
                self._link = None
            return failure.__class__.__name__
        if type(told) is not bytes or len(question.head) + len(told) != question.length:
            raise Wrong(f"{told!r} is told, and {question.length - len(question.head)} bytes were asked for")
        if self.frame(asked, unit, question.head + told)[0 if link.tells_apart else self.unsure :] not in stream:
            raise Wrong(f"{told!r} was not answered")
        return DECODED

    @staticmethod
    def _hear(link: Mbap | Rtu, answer: bytes, choice: int) -> bytes:
        first = choice % (len(answer) + 1) if choice & 1 else len(answer)
        for part in (answer[:first], answer[first:]):
            told = link.hear(part) if part else None
            if told is not None:
                return told
        raise link.silent(1.0)

    def settle(self) -> int:
        kept = vars(self._link or self)
        longest = max((len(each) for each in kept.values() if isinstance(each, bytes)), default=0)
        if longest > self.rest_most:
            raise Wrong(f"{longest} bytes are kept")
        return 0


_FRAMES = tuple(
    bytes((unit, *question.head)) + _DATA[: question.length - len(question.head)]
    for unit in _UNITS
    for question in _QUESTIONS
)


class Tcp(Framed):
    unsure = 2
    mutate = Mutator(mutator.FRAME, [b"\0\1\0\0" + len(frame).to_bytes(2, "big") + frame for frame in _FRAMES])

    def __init__(self) -> None:
        super().__init__()
        self._numbers = transactions()

    def open(self, choice: int) -> Mbap:
        return Mbap(self._numbers, echoes=choice & 0x30 != 0x30)

    def frame(self, asked: bytes, unit: int, pdu: bytes) -> bytes:
        return asked[:4] + (1 + len(pdu)).to_bytes(2, "big") + bytes((unit,)) + pdu

    def mend(self, frame: bytes) -> bytes:
        return frame[:4] + (max(0, len(frame) - 6) & 0xFFFF).to_bytes(2, "big") + frame[6:]


class Serial(Framed):
    mutate = Mutator(mutator.FRAME, [frame + checksum(frame) for frame in _FRAMES])

    def open(self, _: int) -> Rtu:
        return Rtu(9600)

    def frame(self, _: bytes, unit: int, pdu: bytes) -> bytes:
        return self.mend(bytes((unit,)) + pdu + b"..")

    def mend(self, frame: bytes) -> bytes:
        return frame[:-2] + checksum(frame[:-2])


@cache
def _registers() -> tuple[Sequence[Installed], Sequence[tuple[Installed, Reads, bytes]], Mutator]:
    """Every device that is read, and what it answered when its golden vectors were taken, or nothing but zeros."""
    names = messages.speaking("modbus")
    places = messages.install([(name, Modbus("bus", 1 + n)) for n, name in enumerate(names)])
    found = [
        (place, reads, each)
        for place in places
        for reads in (Reads(place.profile),)
        for each in messages.golden_replies(place.profile.id, reads.requests)
    ]
    return places, found, Mutator(mutator.WORDS, [data for _, _, data in found])


class Metered(Run):
    """Replies of every shipped model; their lengths are right, since no other passes the framing."""

    def __init__(self) -> None:
        super().__init__()
        places, self._found, self._mutate = _registers()
        self._samples = Samples(places, Decoding(Counters(places)))
        self._count = 0

    def take(self, choice: int, mutations: Sequence[int]) -> str:
        place, reads, right = self._found[choice % len(self._found)]
        told = self._mutate(right, mutations)
        told = told[: len(right)].ljust(len(right), b"\xff")
        self.given = Input(place.profile.id, told)
        data, at = [], 0
        for request in reads.requests:
            data.append(told[at : at + request.reply_bytes])
            at += request.reply_bytes
        self._samples.add(Reading(place, START, Replies(reads, tuple(data))), self.given)
        self._count += 1
        return DECODED

    def settle(self) -> int:
        empty, self._count = self._count - len(self._samples.settle()), 0
        return empty


# What crosses between gateway and cloud.


@cache
def _crossing() -> tuple[Sequence[tuple[type[Any], bytes]], Mutator, Mutator]:
    members: dict[bytes, Sequence[mutator.Member]] = {}
    found: list[tuple[type[Any], bytes]] = []
    for message in messages.crossing():
        plain = msgspec.to_builtins(message, builtin_types=(bytes,))
        data, inner = mutator.packed(plain, mutator.MSGPACK_PACKING)
        assert msgspec.msgpack.decode(data, type=type(message)) == message
        members[data] = inner
        found.append((type(message), data))
    inside = Mutator(mutator.msgpack(members), members)
    outside = Mutator(mutator.BYTES, [zstandard.compress(data, 1) for data in members])
    return found, inside, outside


class Crossed(Run):
    """Batches, receipts and the like; mutated before they are compressed in most cases."""

    def __init__(self) -> None:
        super().__init__()
        self._found, self._inside, self._outside = _crossing()

    def take(self, choice: int, mutations: Sequence[int]) -> str:
        into, data = self._found[(choice >> 8 & 0xFFF) % len(self._found)]
        if choice & 0xF != 0xF:
            data = messages.uncompressed(self._inside(data, mutations))
        else:
            data = self._outside(zstandard.compress(data, 1), mutations)
        if choice >> 4 & 0xF == 0xF:
            into, _ = self._found[(choice >> 20) % len(self._found)]
        self.given = Input(into.__name__, data)
        try:
            told = decode(data, into)
            if type(told) is Batch:
                told.block()
        except Malformed as error:
            return type(error).__name__
        return DECODED

    def settle(self) -> int:
        return 0
