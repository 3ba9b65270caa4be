"""One live Modbus device, read once and a moment later, for whoever installs it.

It is read as the gateway would read it, and never written to. What the gateway only counts is looked into here: a read
that is refused is cut until every point has its own verdict, and an endpoint that stays silent is spoken to in the
other ways there are.
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import msgspec

from edge.asking import REFUSING
from edge.doubts import Words, doubts_of, shown, shown_raw
from edge.drivers.address import Address
from edge.drivers.modbus import Connection, Declined, Failed, Garbled, NoAnswer, Unreachable
from edge.installed import Installed
from edge.plan import Request, plan
from edge.probed import NOT_READ, REFUSED, Probed, Row, derived_rows, judged, needs, placed, word
from edge.profile import Limits, Profile, Register, Text
from edge.reading import Reading, Replies
from edge.reads import Reads
from rules.declared import Refused
from rules.district import Modbus

AGAIN_S = 1.0  # between the two readings that tell what moves
_BUSY, _BUSY_TRIES, _BUSY_S = 6, 4, 0.2
_SILENT_MOST = 2  # reads that a device is silent to: who has said nothing until then is not there
_KINDS = {1: "0", 2: "1", 3: "4", 4: "3"}  # the digit that manuals put before addresses counted from 1

Place = tuple[int, int]  # a function code and an address
Tell = Callable[[int, int], None]  # how many questions were asked, and how many there are as far as is known


async def probe(
    address: Address,
    unit: int,
    profile: Profile,
    base: int,
    install: Mapping[str, float],
    *,
    clearing: bool,
    tell: Tell,
) -> Probed:
    """Read a device of a model; ``Failed`` when it says nothing.

    ``Refused`` names a ``base`` or a number in ``install`` that cannot be. Registers that are cleared by reading them
    are read once, and only if ``clearing``.
    """
    most = 0x10000 - max(point.register + point.words for point in profile.point)
    if base > most:
        raise Refused(f"--base {base}", f"lies beyond the last register; this model's ends at {most}")
    place = placed(profile, Modbus("probed", unit, base), install)
    reads = Reads(profile, base, sparing(profile.point, profile.limits, () if clearing else clearing_places([profile])))
    try:
        return await _probe(address, place, reads, tell)
    except (NoAnswer, Garbled):
        for other, cure in _other_ways(address):
            if reads.requests and await _is_alive(other, unit, reads.requests[0]):
                probed = await _probe(other, place, reads, tell)
                return replace(probed, doubts=(f"it answers only with {cure}: write that into its bus", *probed.doubts))
        raise


def clearing_places(profiles: Iterable[Profile]) -> frozenset[Place]:
    """Name all registers that a read takes something away from."""
    points = (point for profile in profiles for point in profile.point if point.counter == "clears")
    return frozenset(place for point in points for place in _places(point))


def sparing(points: Sequence[Register], limits: Limits, spared: Collection[Place]) -> tuple[Request, ...]:
    """Plan reads of all points that are not ``spared``, and that touch nothing that is."""
    kept = [number for number, point in enumerate(points) if not touches(_places(point), spared)]
    chosen = [points[number] for number in kept]
    requests = plan(chosen, limits)
    if any(touches(request_places(request), spared) for request in requests):
        requests = plan(chosen, msgspec.structs.replace(limits, max_hole=0))
    return tuple(replace(request, points=tuple(kept[n] for n in request.points)) for request in requests)


def touches(places: Iterable[Place], spared: Collection[Place]) -> bool:
    return any(place in spared for place in places)


def request_places(request: Request) -> Iterator[Place]:
    """Name all that a read covers, its holes included."""
    return ((request.function, request.start + n) for n in range(request.count))


def text_of(text: Text, data: bytes) -> str:
    """Read a text from the data bytes of its registers."""
    of = {"both": data, "high": data[0::2], "low": data[1::2]}[text.chars]
    read = of.split(b"\0")[0].decode("ascii", "replace").strip()
    return "".join(each if each.isprintable() else "�" for each in read)  # it goes to somebody's terminal


def text_request(text: Text) -> Request:
    return Request(text.function, text.register, text.words, ())


def _places(point: Register) -> Iterator[Place]:
    return ((point.function, point.register + n) for n in range(point.words))


def _other_ways(address: Address) -> Iterator[tuple[Address, str]]:
    """Tell how else a TCP endpoint may speak, and what its bus then needs."""
    if not address.host:
        return
    framing: list[Address] = [msgspec.structs.replace(address, framing=other) for other in ("rtu", "tcp")]
    yield from ((other, f'framing = "{other.framing}"') for other in framing if other.framing != address.framing)
    yield msgspec.structs.replace(framing[1], echoes_transaction=False), "echoes_transaction = false"


async def _is_alive(address: Address, unit: int, request: Request) -> bool:
    try:
        async with Connection(address) as connection:
            await connection.read(unit, request)
    except Declined:
        return True
    except Failed:
        return False
    return True


async def _probe(address: Address, place: Installed, reads: Reads, tell: Tell) -> Probed:
    profile = place.profile
    async with Connection(address) as connection:
        connection.pause_after_connect_s = profile.limits.pause_after_connect_s
        asking = _Asking(connection, place, 2 * len(reads.requests) + len(profile.text), tell)
        first = await asking.everything(reads)
        taken_at = time.time_ns()
        texts = [await asking.text(text) for text in profile.text]
        second = await asking.again(first)
    rows = [*_point_rows(place, first, second, asking.why), *texts]
    values = [judged(Reading(place, taken_at, told)) if told.data else {} for told in (first, second)]
    unread = [row.name for row in rows if row.quality == NOT_READ]
    return Probed(
        (*rows, *derived_rows(place, values[0], values[1])),
        (*asking.doubts, *_doubts(first)),
        (*asking.notes, *_notes(unread), *needs(place)),
    )


class _Asking:
    """The questions of one probe to one unit, and what is to be told of how they were answered."""

    def __init__(self, connection: Connection, place: Installed, questions: int, tell: Tell) -> None:
        self.why: dict[str, Failed] = {}  # by metric, why it could not be read
        self.doubts: list[str] = []
        self.notes: list[str] = []
        self._connection = connection
        self._profile = place.profile
        self._wire = cast("Modbus", place.device.wire)
        self._asked, self._questions, self._tell = 0, questions, tell
        self._is_there = False

    async def everything(self, reads: Reads) -> Replies:
        """Read all that is there to be read; ``Failed`` when nothing but silence or nonsense came."""
        data: list[bytes] = []
        silent = 0
        while len(data) < len(reads.requests):
            request = reads.requests[len(data)]
            try:
                data.append(await self._read(request))
            except Unreachable:
                raise
            except Failed as failure:
                finer = reads.split(request)
                silent += not self._is_there
                if not self._is_there and (silent == _SILENT_MOST or not finer.requests):
                    raise
                lost = set(finer.left_out) - set(reads.left_out)
                self.why |= dict.fromkeys(lost, failure)
                if not lost:
                    self.notes.append(f"asked in smaller pieces, since it does not take the whole read: {failure}")
                self._questions += 2 * (len(finer.requests) - len(reads.requests))
                reads = finer
        return Replies(reads, tuple(data))

    async def again(self, first: Replies) -> Replies:
        """Read the same once more after a moment, without what is cleared by it."""
        clearing = clearing_places([self._profile])
        requests = tuple(each for each in first.reads.layout.requests if not touches(request_places(each), clearing))
        reads = Reads(self._profile, self._wire.base, requests)
        if not requests:
            return Replies(reads, ())
        if self._profile.limits.close_after_cycle:
            self._connection.close()
        await asyncio.sleep(AGAIN_S)
        try:
            return Replies(reads, tuple([await self._read(request) for request in reads.requests]))
        except Failed as failure:
            self.doubts.append(f"it answered once and not again: {failure}")
            return Replies(Reads(self._profile, self._wire.base, ()), ())

    async def text(self, text: Text) -> Row:
        """Read a text and hold it against what the model shows."""
        function, address = str(text.function), _address(text.function, text.register)
        try:
            found = text_of(text, await self._read(text_request(text)))
        except Unreachable:
            raise
        except Failed as failure:
            return Row(text.name, "", function, address, quality=REFUSED, doubts=(str(failure),))
        starts = found.startswith(text.starts)
        doubts = () if starts else (f"this model says `{text.starts}` here: is it another one?",)
        return Row(text.name, "", function, address, f"“{found}”", quality="good" if starts else "other", doubts=doubts)

    async def _read(self, request: Request) -> bytes:
        """Ask once, and again while it is busy, or if the answer was lost; ``Failed`` when that does not help."""
        busy = lost = 0
        while True:
            pause_s = self._profile.limits.pause_between_requests_s if self._asked else 0.0
            await asyncio.sleep(max(pause_s, _BUSY_S if busy else 0.0))
            self._asked += 1
            try:
                data = await self._connection.read(self._wire.unit, request, self._profile.limits.guard_s)
            except (NoAnswer, Garbled) as failure:
                lost += 1
                if lost == 2:
                    raise
                why = failure
            except Declined as failure:
                self._is_there = self._is_there or failure.code in REFUSING
                if failure.code != _BUSY or busy == _BUSY_TRIES:
                    raise
                busy += 1
            else:
                self._is_there = True
                if lost:
                    self.doubts.append(f"one question was answered only when it was asked again ({why})")
                return data
            finally:
                self._questions += bool(lost or busy)
                self._tell(self._asked, max(self._asked, self._questions))


def _point_rows(place: Installed, first: Replies, second: Replies, why: Mapping[str, Failed]) -> Iterator[Row]:
    profile, base = place.profile, cast("Modbus", place.device.wire).base
    words = Words(profile, first)
    later = Words(profile, second)
    for number, point in enumerate(profile.point):
        function, address = str(point.function), _address(point.function, base + point.register, point)
        raw = words.raw(number)
        if not raw:
            failure = why.get(point.metric)
            said = (str(failure),) if failure else ()
            yield Row(point.metric, point.unit, function, address, quality=REFUSED if said else NOT_READ, doubts=said)
            continue
        value, again = words.value(number), later.value(number) if later.raw(number) else math.nan
        doubts = list(doubts_of(words, number))
        if point.counter == "wraps" and again < value:
            doubts.append(f"it fell from {shown(value)} to {shown(again)}: this is no growing total")
        quality = word(words.quality(number))
        yield Row(point.metric, point.unit, function, address, shown_raw(raw), value, quality, again, tuple(doubts))


def _address(function: int, register: int, point: Register | None = None) -> str:
    """Write an address as it goes over the bus, and as manuals write it that count from 1."""
    bit = f".{point.bit}" if point is not None and point.type == "bit" and function in (3, 4) else ""
    number = register + 1
    return f"{register}{bit} = {_KINDS[function]}{number:0{4 if number <= 9999 else 5}}"


def _doubts(first: Replies) -> Iterator[str]:
    if first.data and not any(map(any, first.data)):
        yield "all of it is 0: is this the right unit, and is the sensor connected to it?"


def _notes(unread: Sequence[str]) -> Iterator[str]:
    if unread:
        names = ", ".join(f"`{name}`" for name in unread)
        yield f"not read, since reading takes what is counted away from the gateway: {names}; --clearing reads it"
