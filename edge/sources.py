"""The MQTT source: every message to its device and decoder, every bad one counted, told and out of the way."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import structlog

from edge.agent import MESSAGES_KNOWN, Reading
from edge.decoders import chirpstack, onvif
from edge.decoders.payload import Decoded
from edge.installed import Installed, filter_of, installed, table_of
from edge.profile import Field
from edge.watermark import Watermark
from rules.district import Chirpstack, Device, Onvif
from rules.samples import POINT, QUALITY, VALUE, Quality
from wire.batch import Malformed
from wire.clock import NANOSECONDS, Clock, iso
from wire.counted import Counted
from wire.session import Delivery

__all__ = ["Installed", "MqttSource", "Put", "filter_of", "installed", "table_of"]

AHEAD_S = 60.0  # city: a stamp further in the future than this is a clock fault
MOST_TOLD = 1000  # topics whose fault is remembered as told

log = structlog.get_logger(__name__)
Put = Callable[[Reading], Awaitable[None]]


class Messages(Protocol):
    """What the source needs of ``wire.session.Session``."""

    async def receive(self) -> Delivery: ...

    def acknowledge(self, delivery: Delivery) -> None: ...


class MqttSource:
    """Turns messages of LoRaWAN sensors and cameras into readings.

    A reading acknowledges its message when it settles; a message that gives none is acknowledged at once. A repeat
    gives a reading without samples: it waits its turn behind its first copy, which may not be safe yet. What was taken
    is known over a restart by what the outbox remembers (``remember``).

    The source hears whole ChirpStack applications, so that a sensor nobody has declared is noticed; ``elsewhere`` are
    the devices of other gateways, which are none of its business. A camera has a topic prefix of its own: a strange
    one is not heard.
    """

    def __init__(
        self,
        places: Iterable[Installed],
        clock: Clock,
        counted: Counted | None = None,
        elsewhere: Iterable[Device] = (),
    ) -> None:
        self._clock = clock
        self._counted = counted or Counted()
        self._uplinks: dict[str, Installed] = {}
        self._cameras: dict[str, Installed] = {}
        for place in places:
            match place.device.wire:
                case Chirpstack() as wire:
                    self._uplinks[_uplink_topic(wire)] = place
                case Onvif(prefix=prefix):
                    self._cameras[prefix] = place
        self._elsewhere = {_uplink_topic(device.wire) for device in elsewhere if isinstance(device.wire, Chirpstack)}
        self._known: dict[str, deque[int]] = {}  # by origin, the stamps of the messages taken last
        self._told: dict[str, str] = {}  # by topic, the fault that stands told

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """The topic filters of its devices."""
        applications = dict.fromkeys(topic.split("/")[1] for topic in self._uplinks)
        return (
            *(_uplink_topic(Chirpstack(application, "+")) for application in applications),
            *(f"{prefix}{onvif.MARK}#" for prefix in self._cameras),
        )

    def remember(self, messages: Iterable[tuple[str, int]]) -> None:
        """Know messages (origin and stamp) that were taken before: what comes again is not taken again."""
        for origin, stamp in messages:
            self._known.setdefault(origin, deque(maxlen=MESSAGES_KNOWN)).append(stamp)

    async def run(self, session: Messages, put: Put, watermark: Watermark | None = None) -> None:
        """Serve a session until cancelled; ``watermark`` hears of each message as it comes and as it settles."""
        while True:
            delivery = await session.receive()
            reading = self.take(delivery.topic, delivery.payload, partial(session.acknowledge, delivery))
            if reading is None:
                session.acknowledge(delivery)
                continue
            if watermark is not None:
                reading = watermark.follow(reading)
            await put(reading)

    def take(self, topic: str, payload: bytes, settle: Callable[[], None] | None = None) -> Reading | None:
        """Read one message; None when it says nothing, which is counted under its own name."""
        if topic in self._elsewhere:
            return None
        place = self._uplinks.get(topic) or self._cameras.get(topic.partition(onvif.MARK)[0])
        if place is None:
            self._note("unknown_device_messages", topic, "no device of the district has this topic")
            return None
        is_camera = isinstance(place.device.wire, Onvif)
        try:
            if is_camera:
                decoded = onvif.decode(place.profile, topic, payload)
            else:
                decoded = chirpstack.decode(place.profile, payload)
        except Malformed as error:
            what = "malformed_events" if is_camera else "malformed_uplinks"
            self._note(what, topic, str(error), device=place.device.id)
            return None
        if decoded is None:
            self._counted.add("edge_undeclared_messages_total")
            return None
        if self._is_repeat(place, decoded):
            self._counted.add("edge_repeated_messages_total")
            return Reading(np.empty(0, POINT), decoded.taken_at, np.empty(0, VALUE), np.empty(0, QUALITY), settle)
        return self._reading(place, decoded, topic, settle)

    def _is_repeat(self, place: Installed, decoded: Decoded) -> bool:
        """Tell a message that came before: a camera's retained state, or one that the broker delivers again."""
        known = self._known.get(_origin(place, decoded), ())
        if decoded.taken_at in known:
            return True
        # A late uplink is history that counts; a camera's older state is only ever a replay.
        ahead = self._ahead()
        return isinstance(place.device.wire, Onvif) and any(decoded.taken_at < stamp <= ahead for stamp in known)

    def _reading(self, place: Installed, decoded: Decoded, topic: str, settle: Callable[[], None] | None) -> Reading:
        now = self._clock.now()
        message = _origin(place, decoded), decoded.taken_at
        self.remember([message])
        samples = [_judge(decoded.values, quantity) for quantity in place.profile.field]
        value = np.array([value for value, _ in samples], VALUE)
        quality = np.array([quality for _, quality in samples], QUALITY)
        if decoded.taken_at > self._ahead():
            # Its own stamp would make everything after it late: it gets the time of its arrival, and is not judged.
            why = f"it says {iso(decoded.taken_at)}, and it is {iso(now)}"
            self._note("clock_fault_messages", topic, why, device=place.device.id)
            quality[:] = Quality.BAD_CLOCK
            return replace(place.reading(now, value, quality, settle), message=message)
        self._told.pop(topic, None)
        return replace(place.reading(decoded.taken_at, value, quality, settle), message=message)

    def _ahead(self) -> int:
        """The newest stamp that is not a clock fault."""
        return self._clock.now() + int(AHEAD_S * NANOSECONDS)

    def _note(self, what: str, topic: str, why: str, **place: str) -> None:
        """Count a bad message; tell of it unless its topic's last one had the same fault."""
        counter = f"edge_{what}_total"
        self._counted.add(counter)
        if self._told.get(topic) != counter and len(self._told) < MOST_TOLD:
            self._told[topic] = counter
            log.warning("bad message", counter=counter, topic=topic, why=why, **place)


def _uplink_topic(wire: Chirpstack) -> str:
    return f"application/{wire.application}/device/{wire.dev_eui}/event/up"


def _origin(place: Installed, decoded: Decoded) -> str:
    """Name what stamps are compared within: each state of a camera has its own."""
    return " ".join((place.device.id, *decoded.values))


def _judge(values: Mapping[str, float], field: Field) -> tuple[float, Quality]:
    """Value and quality of one field; NaN when the message does not have it."""
    value = values.get(field.metric)
    if value is None:
        return np.nan, Quality.GOOD
    if not np.isfinite(value):
        return 0.0, Quality.BAD_SENTINEL
    if field.range is not None and not field.range[0] <= value <= field.range[1]:
        return 0.0, Quality.BAD_RANGE
    return value, Quality.GOOD
