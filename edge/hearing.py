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

log = structlog.get_logger(__name__)


class Strange(Malformed):
    """A message of a device that nobody has declared; ``who`` is what it calls itself, where its topic does not say."""

    def __init__(self, why: str, who: str = "") -> None:
        super().__init__(why)
        self.who = who


class Said(NamedTuple):
    """What one message says of a device at one instant.

    ``taken_at`` is UTC ns by the device's clock; None: as it was received. ``values`` stand in the order of
    ``profile.field`` (NaN: not told); None says nothing but the ``quality``. ``origin`` is what stamps are compared
    within, to know a repeat; ``id`` is what knows one instead of the stamp. In an origin that ``supersedes``, what is
    older than known is a replay.
    """

    place: Installed
    taken_at: int | None
    values: tuple[float, ...] | None
    quality: Quality = Quality.GOOD
    origin: str = ""
    supersedes: bool = False
    id: str = ""


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
        self._known: dict[str, deque[int]] = {}  # by origin, the stamps of the messages taken last
        self._told: dict[str, str] = {}  # by place, the fault that stands told

    def remember(self, messages: Iterable[tuple[str, int]]) -> None:
        """Know messages (origin and stamp) that were taken before: what comes again is not taken again."""
        for origin, stamp in messages:
            self._known.setdefault(origin, deque(maxlen=known_most(origin))).append(stamp)

    def readings(self, heard: Sequence[Heard], where: str, settle: Callable[[], None] | None = None) -> list[Reading]:
        """Turn what one message said into readings, the last of which settles it; without any, nothing has to wait.

        A repeat gives a reading without samples: it waits its turn behind its first copy, which may not be safe yet.
        """
        said = [each for each in heard if isinstance(each, Said)]
        if len(said) < len(heard):
            for each in heard:
                if isinstance(each, Unsaid):
                    self.refuse(each.why, where, each.device)
        last = len(said) - 1
        return [self._reading(each, where, settle if number == last else None) for number, each in enumerate(said)]

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
        if self._told.get(key) != counter and len(self._told) < MOST_TOLD:
            self._told[key] = counter
            log.warning("bad message", counter=counter, topic=where, why=why, device=device)

    def _reading(self, said: Said, where: str, settle: Callable[[], None] | None) -> Reading:
        now, stamp = self._clock.now(), said.taken_at
        origin = said.origin or said.place.device.id
        is_believed = stamp is not None and UNSET <= stamp <= now + AHEAD
        if said.id:
            origin, mark = f"{origin} id", _digest(said.id)
        elif stamp is None:
            return Reading(said.place, now, said.values, said.quality, settle=settle)
        elif is_believed:
            mark = stamp
        else:  # a clock that stands still says one time of everything
            origin, mark = f"{origin} id", _digest(f"{stamp} {said.values}")
        known = self._known.get(origin, ())
        is_older = said.supersedes and mark == stamp and any(mark < other <= now + AHEAD for other in known)
        if mark in known or is_older:
            self._counted.add("edge_repeated_messages_total")
            return Reading(said.place, now if stamp is None else stamp, None, settle=settle)
        message = origin, mark
        self.remember((message,))
        if stamp is None:
            return Reading(said.place, now, said.values, said.quality, 0, settle, message)
        if not is_believed:
            # Its own stamp would make everything after it late: it gets the time of its receipt, and is not judged.
            device = said.place.device.id
            self.note("clock_fault_messages", where, f"it says {iso(stamp)}, and it is {iso(now)}", device)
            return Reading(said.place, now, said.values, Quality.BAD_CLOCK, now - stamp, settle, message)
        if self._told:
            self._told.pop(f"{where} {said.place.device.id}", None)
        return Reading(said.place, stamp, said.values, said.quality, now - stamp, settle, message)


def _digest(text: str) -> int:
    """Name a text by 63 bits, which an SQLite integer holds."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1
