"""JSON objects read by the paths that a profile declares: who, when and what. One object a message, or a list of them.

The stamp is what ``message.time`` points at, by the device's own clock or whoever wrote the object; without it, the
time of receipt, and then only ``message.id`` can tell that a message comes twice.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from edge.agent import HISTORY, known_most
from edge.decoders.dialect import Dialect, alone
from edge.decoders.payload import Numbers, find, instant, parse
from edge.hearing import Heard, Said, Strange, Unsaid
from edge.installed import Installed
from rules.declared import Refused
from rules.district import Device, PlainJson
from wire.batch import Malformed

OBJECTS_MOST = 1000  # in one list


class Named:
    """Devices that share a topic or a platform, each with the name it has there.

    The name stands where the device's profile says; an empty one is of a device that has all to itself. ``elsewhere``
    names devices of other gateways. ``Refused`` when a device cannot be told from others.
    """

    def __init__(self, places: Iterable[tuple[str, Installed]], elsewhere: Iterable[str] = ()) -> None:
        known = alone(places)
        self._elsewhere = frozenset(elsewhere)
        self._only = known.pop("", None)
        self._by_path: dict[str, dict[str, Installed]] = {}
        for name, place in known.items():
            path = place.profile.message.device
            if not path:
                why = f"is told apart by its name `{name}`, but `{place.profile.id}` has no message.device"
                raise Refused(f"device {place.device.id}: wire", why)
            self._by_path.setdefault(path, {})[name] = place
        every = [*known.values(), *([self._only] if self._only else ())]
        self.only = every[0] if len(every) == 1 else None
        self._numbers = {place.profile.id: Numbers(place.profile) for place in every}

    def heard(self, payload: bytes | str, now: int) -> Sequence[Heard]:
        """Read a message that came at ``now`` (UTC ns): what each of its objects says, or why it cannot be read."""
        message = parse(payload)
        if not isinstance(message, list):
            return tuple(self._object(message, now))
        if len(message) > OBJECTS_MOST:
            raise Malformed(f"a list of {len(message)} objects, and at most {OBJECTS_MOST} are taken")
        heard = [each for one in message for each in self._object(one, now)]
        # Were more readings to come again than are known, the first of them would be taken for new.
        told = Counter(_known_by(each) for each in heard)
        for origin, many in told.items():
            if origin and many > known_most(origin):
                device, most = origin.removesuffix(HISTORY), known_most(origin)
                heard = [each for each in heard if _known_by(each) != origin]
                why = f"a list of {many} readings of {device}, and at most {most} are taken: send them in several"
                heard.append(Unsaid(Malformed(why), device))
        return tuple(heard)

    def _object(self, message: object, now: int) -> Iterator[Heard]:
        place: Installed | None = None
        try:
            place = self._place_of(message)
            if place is not None:
                yield from self._said(place, message, now)
        except Malformed as error:
            place = place or self.only
            yield Unsaid(error, place.device.id if place else "")

    def _place_of(self, message: object) -> Installed | None:
        """Find whose an object is; None when it is another gateway's."""
        if not isinstance(message, dict):
            raise Malformed(f"{message!r:.60} is not an object")
        names = [_name(find(message, path)) for path in self._by_path]
        for name, places in zip(names, self._by_path.values(), strict=True):
            if name in places:
                return places[name]
        if self._only is not None:
            return self._only
        if not self._elsewhere.isdisjoint(names):
            return None
        who = next(filter(None, names), "")
        paths = " or ".join(f"`{path}`" for path in self._by_path)
        raise Strange(f"no device of the district is named {who!r:.60} ({paths})", who)

    def _said(self, place: Installed, message: object, now: int) -> Iterator[Heard]:
        how = place.profile.message
        taken_at = instant(find(message, how.time), how.time, how.time_as) if how.time else None
        id_ = _name(find(message, how.id)) if how.id else ""
        for each in self._numbers[place.profile.id].said(place, message, taken_at, now):
            # What has a history is known by its times: each comes again in it.
            yield each._replace(id=id_) if isinstance(each, Said) and not each.origin else each


class PlainDialect(Dialect):
    """The devices of a gateway that publish JSON objects of no standard, each to its topic, or several to one."""

    def __init__(self, places: Iterable[Installed], elsewhere: Iterable[Device] = ()) -> None:
        own: dict[str, list[tuple[str, Installed]]] = {}
        for place in places:
            if isinstance(place.device.wire, PlainJson):
                own.setdefault(place.device.wire.topic, []).append((place.device.wire.device, place))
        others: dict[str, list[str]] = {}
        for device in elsewhere:
            if isinstance(device.wire, PlainJson) and device.wire.device:
                others.setdefault(device.wire.topic, []).append(device.wire.device)
        self._named = {topic: Named(named, others.get(topic, ())) for topic, named in own.items()}
        self.topics = self.subscriptions = tuple(own)

    def owns(self, topic: str) -> bool:
        return topic in self._named

    def device_of(self, topic: str) -> str:
        only = self._named[topic].only if topic in self._named else None
        return only.device.id if only else ""

    def hear(self, topic: str, payload: bytes, now: int) -> Sequence[Heard] | None:
        named = self._named.get(topic)
        if named is None:
            raise Strange("no device of the district has this topic")
        return named.heard(payload, now) or None


def _known_by(heard: Heard) -> str:
    """Name the origin that a repeat is known within; empty when none can be."""
    if isinstance(heard, Unsaid) or (heard.taken_at is None and not heard.id):
        return ""
    return heard.origin or heard.place.device.id


def _name(found: object) -> str:
    """Read a name, which may be written as a number; empty when it is none."""
    if isinstance(found, bool) or not isinstance(found, str | int):
        return ""
    return str(found)
