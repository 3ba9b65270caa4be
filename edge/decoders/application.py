"""LoRaWAN network servers: each device has a topic of its own within its application's, one JSON uplink a message.

Whole applications are heard, so that a sensor nobody has declared is noticed; those of other gateways are passed over.
"""

from collections.abc import Iterable, Mapping, Sequence

from edge.decoders.dialect import Dialect, Strange
from edge.decoders.payload import Numbers
from edge.hearing import Heard
from edge.installed import Installed


class ApplicationDialect(Dialect):
    """The devices of a gateway behind one kind of server.

    ``places`` are by topic, ``elsewhere`` are the topics of other gateways' devices; ``filters`` are of applications.
    ``within`` is where the fields stand in an uplink.
    """

    def __init__(
        self, places: Mapping[str, Installed], elsewhere: Iterable[str], filters: Iterable[str], within: str
    ) -> None:
        self._places = places
        self._elsewhere = frozenset(elsewhere)
        self.subscriptions = tuple(dict.fromkeys(filters))
        self.topics = self._elsewhere.union(places)
        self._filters = [each.split("/") for each in self.subscriptions]
        self._numbers = {place.profile.id: Numbers(place.profile, within) for place in places.values()}

    def owns(self, topic: str) -> bool:
        levels = topic.split("/")
        return topic in self.topics or any(_matches(each, levels) for each in self._filters)

    def device_of(self, topic: str) -> str:
        place = self._places.get(topic)
        return place.device.id if place else ""

    def hear(self, topic: str, payload: bytes, now: int) -> Sequence[Heard] | None:
        place = self._places.get(topic)
        if place is None:
            if topic in self._elsewhere:
                return None
            raise Strange("no device of the district has this topic")
        fields, taken_at = self.uplink(place, payload)
        return self._numbers[place.profile.id].said(place, fields, taken_at, now)

    def uplink(self, place: Installed, payload: bytes) -> tuple[dict[str, object], int]:
        """Open the envelope of a device's uplink: the decoded fields and the time (UTC ns); ``Malformed`` otherwise."""
        raise NotImplementedError


def _matches(filter_: Sequence[str], topic: Sequence[str]) -> bool:
    return len(filter_) == len(topic) and all(a in ("+", b) for a, b in zip(filter_, topic, strict=True))
