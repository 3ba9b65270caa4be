"""ONVIF event broker messages in JSON ("onvif-ej"), one event a message (ONVIF Core Specification, Event Broker).

The topic is ``PREFIX/onvif-ej/LOCAL/TOPIC/&SOURCE/VALUES``; the payload says ``UtcTime``, ``Source`` and ``Data``. The
stamp is ``UtcTime``: when the camera saw it, by its own clock. A property's state is retained, and comes again on every
connection: what is not newer opens nothing.
"""

import math
from collections.abc import Iterable, Sequence

from edge.decoders.dialect import Dialect, Strange, alone
from edge.decoders.payload import NOT_TOLD, Numbers, find, instant, parse
from edge.hearing import Said
from edge.installed import Installed
from rules.district import Onvif
from wire.batch import Malformed

MARK = "/onvif-ej/"


class OnvifDialect(Dialect):
    """The cameras of a gateway that are ONVIF event brokers, each by the topic prefix that it was given."""

    def __init__(self, places: Iterable[Installed]) -> None:
        own = ((place, place.device.wire) for place in places)
        self._places = alone((wire.prefix, place) for place, wire in own if isinstance(wire, Onvif))
        self.subscriptions = tuple(f"{prefix}{MARK}#" for prefix in self._places)
        self._numbers = {place.profile.id: Numbers(place.profile) for place in self._places.values()}

    def owns(self, topic: str) -> bool:
        return MARK in topic

    def device_of(self, topic: str) -> str:
        place = self._places.get(topic.partition(MARK)[0])
        return place.device.id if place else ""

    def hear(self, topic: str, payload: bytes, now: int) -> Sequence[Said]:
        del now
        prefix, _, rest = topic.partition(MARK)
        place = self._places.get(prefix)
        if place is None:
            raise Strange("no device of the district has this topic")
        local, numbers = rest.partition("/&")[0], self._numbers[place.profile.id]
        fields = [(n, field) for n, field in enumerate(place.profile.field) if field.topic == local]
        if not fields or not payload:  # a property that was deleted has no payload
            return ()
        message = parse(payload)
        rule = find(message, "Source.Rule")
        values = [NOT_TOLD] * len(place.profile.field)
        told = [(n, field) for n, field in fields if field.rule in ("", rule)]
        for n, field in told:
            values[n] = numbers.one(message, n)
            if math.isnan(values[n]):
                raise Malformed(f"`{field.path}` is missing")
        if not told:
            return ()
        # Each state of a camera has an origin of its own: an older one is a replay of what was retained.
        origin = " ".join((place.device.id, *(field.metric for _, field in told)))
        return (
            Said(place, instant(find(message, "UtcTime"), "UtcTime"), tuple(values), origin=origin, supersedes=True),
        )
