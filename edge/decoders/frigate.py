"""Frigate over MQTT (JSON): how many of its tracked objects, or review items, are in a camera's zones now.

``PREFIX/events`` follows each object from ``new`` over ``update``, at least once a minute while it is tracked, to
``end``; ``PREFIX/reviews`` each review item, with no update while nothing about it changes. The stamp is the frame in
which it was seen so (``frame_time``, the beginning of a review item, ``end_time``), by the clock of Frigate's host; an
update of a review item has none, and gets the time of its receipt, as does what comes after something newer.

Nothing is retained and all is QoS 0, so an ``end`` may be lost. An object of which nothing is heard for ``expires_s``
has left: that is told as uncertain. A false positive is not there.

A camera says nothing where nothing is. So a field is told when one of its objects comes, stays or goes, and what was
open before the gateway started is known again with its next message.

When Frigate is gone (``PREFIX/available``, its will), nobody watches: all fields of its cameras are bad until it is
back, and then as they were, uncertain. What was open may still be there, or be there under a new id: the first object
that a field hears of anew takes the place of all of before, and what never comes again expires.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from edge.decoders.dialect import Dialect, Strange, alone
from edge.decoders.payload import NOT_TOLD
from edge.hearing import AHEAD, Heard, Said
from edge.installed import Installed
from edge.profile import Field
from rules.district import Device, Frigate
from rules.samples import Quality
from wire.batch import Malformed
from wire.clock import NANOSECONDS

OBJECTS_MOST = 256  # in a field at once; and so many of a camera are remembered
TOPICS = ("events", "reviews")
_MOST_S = 9e9  # seconds: 64 bits of nanoseconds hold no more
_OVER = 2**63  # after any stamp: what has ended is not heard of again


class _Data(msgspec.Struct, frozen=True, gc=False):
    objects: list[str] = []
    zones: list[str] = []


class _Thing(msgspec.Struct, frozen=True, gc=False):
    """A tracked object (``label``, ``current_zones``) or a review item (``data``) as it is now; epoch seconds."""

    id: str
    camera: str
    frame_time: float | None = None
    start_time: float | None = None
    end_time: float | None = None
    label: str = ""
    false_positive: bool = False
    current_zones: list[str] = []
    entered_zones: list[str] = []
    data: _Data = _Data()

    @property
    def labels(self) -> set[str]:
        """What it is; a review item calls what it knows by name ``person-verified``."""
        return {self.label} if self.label else {label.removesuffix("-verified") for label in self.data.objects}


class _Message(msgspec.Struct, frozen=True, gc=False):
    type: Literal["new", "update", "end"]
    after: _Thing


class _Count:
    """The objects of one field that are there; ``known`` once any was ever heard of."""

    def __init__(self, field: Field) -> None:
        self.known = False
        self._field = field
        self._expires = round(field.expires_s * NANOSECONDS)
        self._there: dict[str, int] = {}  # when each was heard of last, in that order
        self._before: dict[str, int] = {}  # likewise, those of before Frigate went

    def __len__(self) -> int:
        return len(self._there) + len(self._before)

    @property
    def due(self) -> int | None:
        return min((at + self._expires for at in (*_first(self._there), *_first(self._before))), default=None)

    def hear(self, topic: str, thing: _Thing, ended: bool, now: int) -> bool:
        """Take note of a thing; whether it concerns this field."""
        field = self._field
        zones = thing.current_zones if topic == "events" else thing.data.zones
        concerns = (
            field.topic == topic
            and (not field.labels or not thing.labels.isdisjoint(field.labels))
            and (not field.zone or field.zone in zones or field.zone in thing.entered_zones)
        )
        there = concerns and not ended and not thing.false_positive and (not field.zone or field.zone in zones)
        if not there:
            was_there = self._there.pop(thing.id, None) or self._before.pop(thing.id, None)
            if not (concerns or was_there):
                return False
        elif thing.id not in self._there and len(self._there) >= OBJECTS_MOST:
            raise Malformed(f"`after.id`: {OBJECTS_MOST} others are in `{field.metric}` already")
        else:
            self._there.pop(thing.id, None)
            self._there[thing.id] = now
        self._before.clear()
        self.known = True
        return True

    def leave(self) -> None:
        """Keep what is there as what was there before."""
        self._before |= self._there
        self._there = {}

    def expire(self, now: int) -> bool:
        """Let those go of which nothing was heard for too long; whether there were any."""
        count = len(self)
        for things in (self._there, self._before):
            for name in [name for name, at in things.items() if at + self._expires <= now]:
                del things[name]
        return len(self) < count


class _Camera:
    """One camera and the counts of its fields."""

    def __init__(self, place: Installed) -> None:
        self.counts = [_Count(field) for field in place.profile.field]
        self._place = place
        self._seen: dict[str, int] = {}  # the newest stamp of what was heard of last, UTC ns
        self._newest = dict.fromkeys(TOPICS, 0)  # UTC ns by Frigate's clock

    @property
    def due(self) -> int | None:
        return min((due for count in self.counts if (due := count.due) is not None), default=None)

    def hear(self, topic: str, message: _Message, payload: bytes, now: int) -> Sequence[Said] | None:
        thing = message.after
        ended = message.type == "end" or thing.end_time is not None
        stamp = _stamp(topic, message, ended)
        seen = now if stamp is None else stamp
        if self._seen.get(thing.id, seen) > seen:  # something newer of it has overtaken this
            return (Said(self._place, None, None),)
        concerned = [count.hear(topic, thing, ended, now) for count in self.counts]
        self._seen.pop(thing.id, None)
        self._seen[thing.id] = _OVER if ended else seen
        if len(self._seen) > OBJECTS_MOST:
            del self._seen[next(iter(self._seen))]
        if not any(concerned):
            return None
        newest = self._newest[topic]
        if stamp is None or stamp <= newest:  # it is the state of now all the same, whenever that began
            stamp = max(now, newest + 1000)
        if stamp <= now + AHEAD:
            self._newest[topic] = stamp
        id_ = payload.decode(errors="replace")  # two objects may be seen in one frame, and each is told
        return (self._said(concerned, stamp, Quality.GOOD, id_, topic),)

    def expire(self, now: int) -> Iterator[Said]:
        gone = [count.expire(now) for count in self.counts]
        if any(gone):
            yield self._said(gone, None, Quality.UNCERTAIN)

    def lost(self) -> Said:
        """Say that nobody watches."""
        for count in self.counts:
            count.leave()
        return Said(self._place, None, None, Quality.BAD_COMMS)

    def back(self) -> Iterator[Said]:
        """Say what is known when somebody watches again."""
        known = [count.known for count in self.counts]
        if any(known):
            yield self._said(known, None, Quality.UNCERTAIN)

    def _said(self, told: Sequence[bool], at: int | None, quality: Quality, id_: str = "", topic: str = "") -> Said:
        values = tuple(float(len(count)) if one else NOT_TOLD for count, one in zip(self.counts, told, strict=True))
        return Said(self._place, at, values, quality, f"{self._place.device.id} {topic}", id=id_)


class FrigateDialect(Dialect):
    """The cameras of a gateway that Frigate watches. ``elsewhere`` are the devices of other gateways."""

    def __init__(self, places: Iterable[Installed], elsewhere: Iterable[Device] = ()) -> None:
        own = [(place, place.device.wire) for place in places]
        known = alone(((wire.prefix, wire.camera), place) for place, wire in own if isinstance(wire, Frigate))
        self._cameras = {name: _Camera(place) for name, place in known.items()}
        others = (device.wire for device in elsewhere)
        self._elsewhere = {(wire.prefix, wire.camera) for wire in others if isinstance(wire, Frigate)}
        self._online: dict[str, bool] = {}  # by prefix, once it is known
        self._due: int | None = None  # no later than when any camera is
        prefixes = dict.fromkeys(prefix for prefix, _ in self._cameras)
        self.topics = self.subscriptions = tuple(
            f"{prefix}/{topic}" for prefix in prefixes for topic in (*TOPICS, "available")
        )
        self._decoder = msgspec.json.Decoder(_Message)

    def owns(self, topic: str) -> bool:
        return topic in self.topics

    def device_of(self, topic: str) -> str:
        del topic  # all cameras share them
        return ""

    def hear(self, topic: str, payload: bytes, now: int) -> Sequence[Heard] | None:
        prefix, _, kind = topic.rpartition("/")
        if kind == "available":
            return tuple(self._available(prefix, payload == b"online")) or None
        try:
            message = self._decoder.decode(payload)
        except (ValueError, RecursionError) as error:  # of msgspec, or of a text that is not UTF-8
            raise Malformed(f"not JSON of Frigate's {kind}: {error}") from error
        name = (prefix, message.after.camera)
        camera = self._cameras.get(name)
        if camera is None:
            if name in self._elsewhere:
                return None
            raise Strange(f"no device of the district is Frigate's camera `{name[1]}`", name[1])
        said = camera.hear(kind, message, payload, now)
        if (due := camera.due) is not None:
            self._due = due if self._due is None else min(due, self._due)
        return said

    def _available(self, prefix: str, online: bool) -> Iterator[Said]:
        before, self._online[prefix] = self._online.get(prefix), online
        cameras = [camera for (of, _), camera in self._cameras.items() if of == prefix]
        if not online and before is not False:
            yield from [camera.lost() for camera in cameras]
        elif online and before is False:
            for camera in cameras:
                yield from camera.back()

    @property
    def due(self) -> int | None:
        return self._due

    def expire(self, now: int) -> Sequence[Said]:
        gone = [said for camera in self._cameras.values() for said in camera.expire(now)]
        self._due = min((due for camera in self._cameras.values() if (due := camera.due) is not None), default=None)
        return gone


def _first(things: dict[str, int]) -> Iterator[int]:
    yield from [next(iter(things.values()))] if things else ()


def _stamp(topic: str, message: _Message, ended: bool) -> int | None:
    """When it was as it is told, UTC ns; None where nothing says."""
    thing = message.after
    seconds = thing.frame_time if topic == "events" else thing.start_time if message.type == "new" else None
    if ended and thing.end_time is not None:
        seconds = thing.end_time
    if seconds is None:
        if topic == "events":
            raise Malformed("`after.frame_time` is missing")
        return None
    if not (math.isfinite(seconds) and abs(seconds) < _MOST_S):
        raise Malformed(f"`after` is of {seconds} s, which no clock says")
    return round(seconds * 1e6) * 1000
