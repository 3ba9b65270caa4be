"""From what messages say to readings, whoever carried them: repeats, clocks that err, and two times for each.

A message's stamp is the device's own; it is believed unless it lies in the future or in a year before any of these
devices was made. Then the reading gets the time of its receipt and is marked.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import structlog

from edge.agent import known_most
from edge.installed import Installed
from edge.reading import Reading
from rules.samples import Quality
from wire.batch import Malformed
from wire.clock import NANOSECONDS, Clock, from_iso, iso
from wire.counted import Counted

AHEAD = 60 * NANOSECONDS  # city: a stamp further in the future than this is a clock fault
UNSET = from_iso("2020-01-01T00:00:00Z")  # clocks that were never set show 1970 or 2000
MOST_TOLD = 1000  # places whose fault is remembered as told
REDELIVERY = (
    60 * NANOSECONDS
)  # city: what an unset clock says twice within it is one message, and later a living device
_MARKED = 1_000_000  # ns: a mark is a stamp to the millisecond, and below that a digest
_UNSET = " unset"  # so ends an origin whose marks are of receipts, since nobody believes the stamps

log = structlog.get_logger(__name__)


class Strange(Malformed):
    """A message of a device that nobody has declared; ``who`` is what it calls itself, where its topic does not say."""

    def __init__(self, why: str, who: str = "") -> None:
        super().__init__(why)
        self.who = who


class Said(NamedTuple):
    """What one message says of a device at one instant.

    ``taken_at`` is UTC ns by the device's clock; None: as it was received. ``values`` stand in the order of
    ``profile.field`` (NaN: not told); None says nothing but the ``quality``. A repeat has the stamp and the values of
    another message of its ``origin``, or its ``id``, where it has one. In an origin that ``supersedes``, what is older
    than known is a replay. What ``is_history`` may tell less than the present did: its stamp alone makes it a repeat.
    """

    place: Installed
    taken_at: int | None
    values: tuple[float, ...] | None
    quality: Quality = Quality.GOOD
    origin: str = ""
    supersedes: bool = False
    id: str = ""
    is_history: bool = False


class Unsaid(NamedTuple):
    """A part of a message that cannot be read, and why; of ``device``, where that is known."""

    why: Malformed
    device: str = ""


Heard = Said | Unsaid


class Hearing:
    """Makes readings of what was said; ``counted`` counts what could not be."""

    def __init__(self, clock: Clock, counted: Counted) -> None:
        self._clock = clock
        self._counted = counted
        self._known: dict[str, deque[int]] = {}  # by origin, the marks of the messages taken last
        self._told: dict[str, str] = {}  # by place, the fault that stands told

    def remember(self, messages: Iterable[tuple[str, int]]) -> None:
        """Know messages (origin and mark) that were taken before: what comes again is not taken again."""
        for origin, mark in messages:
            self._known.setdefault(origin, deque(maxlen=known_most(origin))).append(mark)

    def readings(self, heard: Sequence[Heard], where: str, settle: Callable[[], None] | None = None) -> list[Reading]:
        """Turn what one message said into readings, the last of which settles it; without any, nothing has to wait.

        A repeat gives a reading without samples: it waits its turn behind its first copy, which may not be safe yet.
        """
        said = [each for each in heard if isinstance(each, Said)]
        failed: set[str] = set()
        if len(said) < len(heard):
            for each in heard:
                if isinstance(each, Unsaid):
                    failed.add(each.device)
                    self.refuse(each.why, where, each.device)
        last = len(said) - 1
        readings = [self._reading(each, where, settle if number == last else None) for number, each in enumerate(said)]
        if self._told:
            for reading in readings:  # what is whole again is told of anew when it fails
                device = reading.place.device.id
                if device not in failed and reading.told is not None and reading.quality is not Quality.BAD_CLOCK:
                    self._told.pop(f"{where} {device}", None)
        return readings

    def refuse(self, why: Malformed, where: str, device: str = "") -> None:
        """Count what cannot be read, and tell of it."""
        if isinstance(why, Strange):
            self.note("unknown_device_messages", where, str(why), why.who)
        else:
            self.note("malformed_messages", where, str(why), device)

    def note(self, what: str, where: str, why: str, device: str = "") -> None:
        """Count a bad message; tell of it unless the last one from there had the same fault."""
        counter = f"edge_{what}_total"
        self._counted.add(counter)
        key = f"{where} {device}"
        if self._told.get(key) != counter:
            if len(self._told) >= MOST_TOLD and key not in self._told:
                del self._told[next(iter(self._told))]
            self._told[key] = counter
            log.warning("bad message", counter=counter, topic=where, why=why, device=device)

    def _reading(self, said: Said, where: str, settle: Callable[[], None] | None) -> Reading:
        now, stamp = self._clock.now(), said.taken_at
        origin = said.origin or said.place.device.id
        if stamp is None and not said.id:
            return Reading(said.place, now, said.values, said.quality, settle=settle)
        is_believed = stamp is not None and UNSET <= stamp <= now + AHEAD
        same = 0  # messages that are known to have this stamp, and say something else
        if said.id:
            if stamp is not None and is_believed:
                same = self._same(f"{origin} at", stamp)
            known_as, mark = f"{origin} id", _digest(said.id)
            is_repeat = mark in self._known.get(known_as, ())
        elif stamp is not None and is_believed:
            known_as, mark = origin, _mark(stamp, f"{stamp} {said.values}")
            same = self._same(origin, stamp)
            is_repeat = mark in self._known.get(origin, ()) or (said.is_history and same > 0)
            is_repeat = is_repeat or (said.supersedes and self._is_older(origin, stamp, now))
        else:  # a clock that stands still says one time of everything
            known_as, mark = origin + _UNSET, _mark(now, f"{stamp} {said.values}")
            known = self._known.get(known_as, ())
            is_repeat = any(other % _MARKED == mark % _MARKED and now - other <= REDELIVERY for other in known)
        if is_repeat:
            self._counted.add("edge_repeated_messages_total")
            return Reading(said.place, now if stamp is None else stamp, None, settle=settle)
        if said.id and stamp is not None and is_believed:
            self.remember(((f"{origin} at", stamp),))
        message = known_as, mark
        self.remember((message,))
        if stamp is None:
            return Reading(said.place, now, said.values, said.quality, 0, settle, message)
        if not is_believed:
            # Its own stamp would make everything after it late: it gets the time of its receipt, and is not judged.
            device = said.place.device.id
            self.note("clock_fault_messages", where, f"it says {iso(stamp)}, and it is {iso(now)}", device)
            return Reading(said.place, now, said.values, Quality.BAD_CLOCK, now - stamp, settle, message)
        # Of two samples of one instant only the first would be judged, and stored: each next one is a microsecond on.
        return Reading(said.place, stamp + 1000 * same, said.values, said.quality, now - stamp, settle, message)

    def _same(self, origin: str, stamp: int) -> int:
        """Count what is known of the millisecond of a stamp."""
        return sum(other // _MARKED == stamp // _MARKED for other in self._known.get(origin, ()))

    def _is_older(self, origin: str, stamp: int, now: int) -> bool:
        """Tell whether something newer is known; what lies in the future by now is not believed."""
        newest = (now + AHEAD) // _MARKED
        return any(stamp // _MARKED < other // _MARKED <= newest for other in self._known.get(origin, ()))


def _mark(stamp: int, text: str) -> int:
    """Name what was said at a stamp: the stamp to the millisecond, and below it one of a million digests."""
    return stamp - stamp % _MARKED + _digest(text) % _MARKED


def _digest(text: str) -> int:
    """Name a text by 63 bits, which an SQLite integer holds."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1
