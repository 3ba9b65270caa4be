"""What JSON messages have in common: instants, and numbers found by their declared paths."""

import math
from collections.abc import Iterator, Sequence

import msgspec

from edge.agent import HISTORY, HISTORY_KNOWN
from edge.decoders.told import NO_VALUE, number
from edge.hearing import AHEAD, UNSET, Heard, Said, Unsaid
from edge.installed import Installed
from edge.profile import Field, History, Profile, TimeAs
from wire.batch import Malformed
from wire.clock import from_iso, iso

NOT_TOLD = math.nan
HISTORY_MOST = HISTORY_KNOWN // 2  # entries in one message: so many are still known when the next one tells them again
_MICROSECONDS = {"s": 1e6, "ms": 1e3}


def parse(payload: bytes | str) -> object:
    """Parse JSON; ``Malformed`` when it is not."""
    try:
        return msgspec.json.decode(payload)
    except (ValueError, RecursionError) as error:  # of msgspec, or of a text that is not UTF-8
        raise Malformed(f"not JSON: {error}") from error


def find(message: object, path: str) -> object:
    """Follow a dotted path; None when it leads nowhere."""
    for step in path.split("."):
        message = message.get(step) if isinstance(message, dict) else None
    return message


class Numbers:
    """Reads the fields of one profile out of an object; ``within`` is where that stands in the message."""

    def __init__(self, profile: Profile, within: str = "") -> None:
        self._within = f"{within}." if within else ""
        self._fields = [(field.path.split("."), field) for field in profile.field]
        self._history = profile.history

    def of(self, message: object) -> tuple[tuple[float, ...], list[Malformed]]:
        """Read the numbers in the order of ``profile.field``, NaN where none is, and say what cannot be read.

        That is told and has no value; the other fields stand. ``Malformed`` when nothing else is told.
        """
        values: list[float] = []
        wrong: list[Malformed] = []
        told = 0
        for steps, field in self._fields:
            try:
                value = self._number(message, steps, field)
                told += not math.isnan(value)
            except Malformed as error:
                wrong.append(error)
                value = NO_VALUE
            values.append(value)
        if wrong and not told:
            raise wrong[0]
        return tuple(values), wrong

    def one(self, message: object, column: int) -> float:
        """Read the field that is the ``column``-th of the profile; ``Malformed`` when it is no number."""
        return self._number(message, *self._fields[column])

    def said(self, place: Installed, message: object, taken_at: int | None, now: int) -> list[Heard]:
        """Say what an object tells that came at ``now``: its history first, in order, then the present.

        The reasons of what cannot be read of the present stand before it. An entry of the history that is not older
        than the present, or cannot be read, has its reason instead. ``Malformed`` when nothing is told at all.
        """
        values, wrong = self.of(message)
        unread = [Unsaid(why, place.device.id) for why in wrong]
        told = not all(map(math.isnan, values))
        history = self._history
        if history is None:
            if told:
                return [*unread, Said(place, taken_at, values)]
            raise self._nothing()
        origin = place.device.id + HISTORY
        present = taken_at if taken_at is not None and UNSET <= taken_at <= now + AHEAD else now
        heard = sorted(self._entries(history, place, message, present, origin), key=_when)
        if told:
            heard += (*unread, Said(place, taken_at, values, origin=origin))
        elif not heard:
            raise self._nothing()
        return heard

    def _nothing(self) -> Malformed:
        within = self._within.removesuffix(".") or "the message"
        return Malformed(f"`{within}` has none of {', '.join(field.path for _, field in self._fields)}")

    def _entries(
        self, history: History, place: Installed, message: object, present: int, origin: str
    ) -> Iterator[Heard]:
        path, time = f"{self._within}{history.path}", f"{self._within}{history.path}.{history.time}"
        entries = find(message, history.path)
        if entries is None:
            return
        if not isinstance(entries, list):
            raise Malformed(f"`{path}` is {entries!r:.60}, not a list")
        if len(entries) > HISTORY_MOST:
            raise Malformed(f"`{path}` has {len(entries)} entries, and at most {HISTORY_MOST} are taken")
        for entry in entries:
            try:
                at = instant(find(entry, history.time), time, history.time_as)
                values, wrong = self.of(entry)
            except Malformed as error:
                yield Unsaid(error, place.device.id)
                continue
            if at == present or all(map(math.isnan, values)):
                continue  # the present is told by the message itself
            if UNSET <= at < present:
                yield from (Unsaid(why, place.device.id) for why in wrong)
                yield Said(place, at, values, origin=origin, is_history=True)
            else:  # nobody knows when that was: as history it is worth nothing
                why = Malformed(f"`{time}` is {iso(at)}: older than any such device, or not history yet")
                yield Unsaid(why, place.device.id)

    def _number(self, message: object, steps: Sequence[str], field: Field) -> float:
        found = message
        for step in steps:
            found = found.get(step) if isinstance(found, dict) else None
        if found is None:
            return NOT_TOLD if field.absent is None else field.absent
        return number(found, field, self._within)


def _when(heard: Heard) -> int:
    return heard.taken_at or 0 if isinstance(heard, Said) else 0


def instant(found: object, path: str, written: TimeAs = "iso") -> int:
    """Read a time as UTC nanoseconds: RFC 3339, or Unix seconds or milliseconds; ``path`` is for the message."""
    try:
        if written != "iso" and isinstance(found, int | float | str) and not isinstance(found, bool):
            at = round(float(found) * _MICROSECONDS[written]) * 1000
        elif written == "iso" and isinstance(found, str):
            at = from_iso(found)
        else:
            at = None
    except (ValueError, OverflowError) as error:
        raise Malformed(f"`{path}`: {error}") from error
    if at is None:
        kind = "a time" if written == "iso" else f"a Unix time in {written}"
        raise Malformed(f"`{path}` is {found!r:.60}, not {kind}")
    if not -(2**63) <= at < 2**63:
        raise Malformed(f"`{path}` is {found}, which no clock says")  # nor do 64 bits of nanoseconds hold it
    return at
