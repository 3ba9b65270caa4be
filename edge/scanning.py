"""What is wired to a line or behind an endpoint: which units answer, at which speed, and what they probably are.

It asks beside a gateway that polls. On a serial line each question is an exchange with a turn of its own
(``edge.drivers.serial_line``), and after each it leaves the line alone for as long as that took: half of the time is
the gateway's. Nothing is ever written, and nothing is read that reading clears on any known model.
"""

from asyncio import sleep
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from time import monotonic

from edge.doubts import Words, is_odd
from edge.drivers.address import Address, Parity
from edge.drivers.modbus import Connection, Declined, Failed, Garbled, Misfit, NoAnswer, Unreachable
from edge.plan import Request
from edge.probing import clearing_places, request_places, sparing, text_of, text_request, touches
from edge.profile import Profile, Register
from edge.reading import Replies
from edge.reads import Reads
from rules.samples import Quality

BAUDS = (9600, 19200, 4800, 2400, 38400, 57600, 115200)  # as makers deliver them, the commonest first
PARITIES: tuple[Parity, ...] = ("N", "E", "O")
UNITS = range(1, 248)
LIKELY_MOST = 3
GARBLED = "garbled: two devices with one id, another master, or noise"
NOT_LOOKED_AT_FROM = 8  # units that all answer at an endpoint: it does not look at the id
SCORE = """\
score: 0.1 to 1 for each point in range, the more of what its register can hold is out of range (0.1 where it shows 0);
-1 for each out of range or refused; 5 for a text that begins as the model's does, -5 for another"""
_NOBODY = (10, 11)  # exceptions by which a gateway says that nobody is behind it
_AT_LEAST, _TEXT = 0.1, 5.0

Question = tuple[int, int, int]  # function, first address, count


@dataclass(frozen=True, slots=True)
class Likely:
    """A model that a unit may be: ``fitting`` of the points that were ``asked`` are in range, ``missing`` refused."""

    profile: str
    score: float
    fitting: int
    asked: int
    missing: int
    says: str = ""  # the text by which it is known


@dataclass(frozen=True, slots=True)
class Found:
    """A unit that answers: how it did, and what it may be, best first (None: not looked into yet)."""

    address: Address
    unit: int
    answer: str
    likely: tuple[Likely, ...] | None = None


class Scan:
    """One search, and what it has come to.

    Parameters
    ----------
    addresses
        The endpoint, or the line in each of its settings (``settings``).
    units
        The unit ids to try at each.
    profiles
        The models to compare with; those that tell messages are left out.
    tell
        Called after each question.

    Attributes
    ----------
    found
        In the order in which they were.
    unable
        By address, why it could not be searched, or not to its end.
    notes
        What else there is to know.
    asked, questions
        How many were asked, and how many there are as far as is known.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        units: Sequence[int],
        profiles: Iterable[Profile],
        tell: Callable[["Scan"], None],
    ) -> None:
        self.found: list[Found] = []
        self.unable: dict[Address, str] = {}
        self.notes: list[str] = []
        self.at = addresses[0]
        self.asked, self.questions = 0, len(addresses) * len(units)
        self._addresses, self._units, self._tell = addresses, units, tell
        profiles = [profile for profile in profiles if profile.point]
        spared = clearing_places(profiles)
        self._hello = Request(3, next(n for n in count() if (3, n) not in spared), 1, ())
        self._models = [_Model(profile, spared) for profile in profiles]
        self._free_at = 0.0

    async def run(self) -> None:
        """Search everywhere; cancelled at any time, it leaves what was found."""
        for address in self._addresses:
            self.at, before = address, self.asked
            async with Connection(address) as connection:
                try:
                    await self._search(connection)
                except Unreachable as failure:
                    self.unable[address] = str(failure)
                    self.questions -= len(self._units) - (self.asked - before)
                    self._tell(self)

    async def _search(self, connection: Connection) -> None:
        here: list[int] = []
        for unit in self._units:
            answer = await self._say_hello(connection, unit)
            if answer:
                if answer != GARBLED:
                    here.append(len(self.found))
                self.found.append(Found(self.at, unit, answer, () if answer == GARBLED else None))
                self._tell(self)
        if self.at.host and len(here) == len(self._units) >= NOT_LOOKED_AT_FROM:
            self.notes.append("every unit id is answered: this is one device that does not look at it, shown once")
            del self.found[here[0] + 1 :]
            here = here[:1]
        for number in here:
            found = self.found[number]
            self.found[number] = replace(found, likely=await self._look_into(connection, found.unit))
            self._tell(self)

    async def _say_hello(self, connection: Connection, unit: int) -> str:
        """Ask a unit for anything; how it answered, empty if it did not."""
        try:
            await self._read(connection, unit, self._hello)
        except Declined as failure:
            return "" if failure.code in _NOBODY else f"exception {failure.code:02d}"
        except Misfit:
            return "to another question"
        except Garbled:
            return GARBLED
        except NoAnswer:
            return ""
        return "a value"

    async def _look_into(self, connection: Connection, unit: int) -> tuple[Likely, ...]:
        """Try what every model would be asked; a question that several share is asked once."""
        answers: dict[Question, bytes | None] = {}
        questions = {_key(request): (request, model) for model in self._models for request in model.every}
        self.questions += len(questions)
        for key, (request, model) in questions.items():
            try:
                answers[key] = await self._read(connection, unit, request, model.profile.limits.guard_s)
            except Unreachable:
                raise
            except Failed:
                answers[key] = None
        likely = [model.judge(answers) for model in self._models]
        best = sorted((each for each in likely if each.score > 0), key=lambda each: -each.score)
        return tuple(best[:LIKELY_MOST])

    async def _read(self, connection: Connection, unit: int, request: Request, guard_s: float = 0.0) -> bytes:
        await sleep(self._free_at - monotonic())
        began = monotonic()
        try:
            return await connection.read(unit, request, guard_s)
        finally:
            now = monotonic()
            self._free_at = now + (now - began)
            self.asked += 1
            self._tell(self)


def settings(
    path: str, bauds: Sequence[int] = BAUDS, parities: Sequence[Parity] = PARITIES, timeout_s: float = 1.0
) -> tuple[Address, ...]:
    """Give a line in each of its settings: all speeds without parity first, which is how nearly all are delivered.

    One stop bit does for all: a receiver looks at the first.
    """
    return tuple(
        Address(serial=path, baud=baud, parity=parity, timeout_s=timeout_s) for parity in parities for baud in bauds
    )


def _key(request: Request) -> Question:
    return request.function, request.start, request.count


class _Model:
    """A profile, and what of it may be asked of a device that may be any other."""

    def __init__(self, profile: Profile, spared: frozenset[tuple[int, int]]) -> None:
        self.profile = profile
        self._requests = sparing(profile.point, profile.limits, spared)
        texts = ((text, text_request(text)) for text in profile.text if text.starts)
        self._texts = [(text, request) for text, request in texts if not touches(request_places(request), spared)]
        self.every = (*(request for _, request in self._texts), *self._requests)

    def judge(self, answers: Mapping[Question, bytes | None]) -> Likely:
        """Score it by the answers; see ``SCORE``."""
        answered = tuple(request for request in self._requests if answers[_key(request)] is not None)
        replies = Replies(Reads(self.profile, 0, answered), tuple(answers[_key(each)] or b"" for each in answered))
        words = Words(self.profile, replies)
        there = [number for request in answered for number in request.points]
        asked = sum(len(request.points) for request in self._requests)
        marks = [_mark(words, number) for number in there]
        score, says = sum(marks) - (asked - len(there)), ""
        for text, request in self._texts:
            data = answers[_key(request)]
            said = text_of(text, data) if data else ""
            says = says or (said if said.startswith(text.starts) else "")
            score += _TEXT if said.startswith(text.starts) else -_TEXT
        return Likely(self.profile.id, score, sum(mark > 0 for mark in marks), asked, asked - len(there), says)


def _mark(words: Words, number: int) -> float:
    """Tell how much a point that was read speaks for its model, -1 to 1."""
    point = words.profile.point[number]
    match words.quality(number):
        case Quality.BAD_SENTINEL:
            return 0.0
        case Quality.BAD_RANGE:
            return -1.0
    if not any(words.raw(number)) or is_odd(point, words.raw(number)):
        return _AT_LEAST
    return max(_AT_LEAST, _share_out_of_range(point))


def _share_out_of_range(point: Register) -> float:
    """Tell what share of all that its register could hold is out of a point's range."""
    if point.range is None or point.type == "bit":
        return 0.0
    if point.type[0] == "f":
        return 1.0  # of all floats, hardly any
    if point.scale_from or point.unit_from or point.type.startswith("bcd"):
        return 0.5
    low, high = point.range
    return max(0.0, 1.0 - (high - low) / abs(point.scale) / 2.0 ** (16 * point.words))
