"""The MQTT source: every message to its device and dialect, every bad one counted, told and out of the way."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Protocol

import structlog

from edge.decoders.chirpstack import TOPIC, ChirpstackDialect
from edge.decoders.dialect import Dialect
from edge.decoders.frigate import FrigateDialect
from edge.decoders.onvif import OnvifDialect
from edge.decoders.plain import PlainDialect
from edge.decoders.senml import SenmlDialect
from edge.decoders.sparkplug import SparkplugHost
from edge.decoders.things_stack import ThingsStackDialect
from edge.hearing import Hearing
from edge.installed import Installed
from edge.reading import Reading
from edge.watermark import Watermark
from rules.district import Device
from wire.batch import Malformed
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted
from wire.session import Delivery, NotConnected, PublishRefused

GOODBYE_S = 0.3

log = structlog.get_logger(__name__)
Put = Callable[[Reading], Awaitable[None]]


class Messages(Protocol):
    """What the source needs of ``wire.session.Session``."""

    async def receive(self) -> Delivery: ...

    def acknowledge(self, delivery: Delivery) -> None: ...

    async def wait_connected(self, after: int = 0) -> int: ...

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None: ...


class MqttSource:
    """Turns messages of LoRaWAN sensors, covers and cameras into readings.

    A reading acknowledges its message when it settles; a message that gives none is acknowledged at once. What was
    taken is known over a restart by what the outbox remembers (``remember``).

    ``elsewhere`` are the devices of other gateways, which are none of its business; ``chirpstack_topic`` is the
    template of ChirpStack's topics, ``host_id`` the name under which Sparkplug nodes know the gateway. ``Refused`` when
    devices cannot be told apart.
    """

    def __init__(
        self,
        places: Iterable[Installed],
        clock: Clock,
        counted: Counted | None = None,
        elsewhere: Iterable[Device] = (),
        chirpstack_topic: str = TOPIC,
        host_id: str = "streetwarden",
    ) -> None:
        places, elsewhere = tuple(places), tuple(elsewhere)
        self._clock = clock
        self._counted = counted or Counted()
        self.hearing = Hearing(clock, self._counted)
        self._sparkplug = SparkplugHost(places, host_id, clock.now(), self._counted)
        dialects: tuple[Dialect, ...] = (
            ChirpstackDialect(places, elsewhere, chirpstack_topic),
            ThingsStackDialect(places, elsewhere),
            PlainDialect(places, elsewhere),
            SenmlDialect(places),
            self._sparkplug,
            OnvifDialect(places),
            FrigateDialect(places, elsewhere),
        )
        self._dialects = tuple(dialect for dialect in dialects if dialect.subscriptions)
        self._by_topic = {topic: dialect for dialect in self._dialects for topic in dialect.topics}
        self._senders = tuple(each for each in self._dialects if type(each).outgoing is not Dialect.outgoing)
        self._generation = 0  # of the newest connection that the dialects know of

    def remember(self, messages: Iterable[tuple[str, int]]) -> None:
        """Know messages (origin and stamp) that were taken before: what comes again is not taken again."""
        self.hearing.remember(messages)

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """The topic filters of its devices."""
        return tuple(topic for dialect in self._dialects for topic in dialect.subscriptions)

    @property
    def will(self) -> tuple[str, bytes] | None:
        """What its session's will must be: Sparkplug nodes wait for a host that is there."""
        return self._sparkplug.will if self._sparkplug in self._dialects else None

    async def run(self, session: Messages, put: Put, watermark: Watermark | None = None) -> None:
        """Serve a session until cancelled; ``watermark`` hears of each message as it comes and as it settles."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._greet(session), name="connections of the sensors")
                await self._serve(session, put, watermark)
        finally:
            if self.will is not None:  # which is not told of one that leaves in order
                with contextlib.suppress(NotConnected, PublishRefused, TimeoutError):
                    async with asyncio.timeout(GOODBYE_S):
                        await session.publish(*self.will, retain=True)

    async def _serve(self, session: Messages, put: Put, watermark: Watermark | None) -> None:
        while True:
            delivery = await self._next(session)
            if delivery is None:
                readings = self.expire()
            else:
                if delivery.generation > self._generation:
                    await self._connected(session, delivery.generation)
                readings = self.take(delivery.topic, delivery.payload, partial(session.acknowledge, delivery))
                if not readings:
                    session.acknowledge(delivery)
            if self._senders:
                await self._send(session)
            for reading in readings:
                await put(reading if watermark is None else watermark.follow(reading))

    async def _greet(self, session: Messages) -> None:
        """Tell the dialects of each new connection, though nothing should come over it."""
        while True:
            await self._connected(session, await session.wait_connected(self._generation))

    async def _connected(self, session: Messages, generation: int) -> None:
        if generation > self._generation:
            self._generation = generation
            now = self._clock.now()
            for dialect in self._dialects:
                dialect.connected(now)
            await self._send(session)

    async def _send(self, session: Messages) -> None:
        """Send what the dialects want sent; what a lost connection swallows they want again on the next one."""
        for dialect in self._senders:
            for topic, payload, retain in dialect.outgoing():
                try:
                    await session.publish(topic, payload, retain=retain, qos=int(retain))
                except NotConnected:
                    self._counted.add("edge_unsent_messages_total")
                except PublishRefused as error:
                    self._counted.add("edge_unsent_messages_total")
                    log.warning("the sensors' broker refused a message", topic=topic, why=str(error))

    async def _next(self, session: Messages) -> Delivery | None:
        """Wait for a message; None when a dialect has waited long enough for one."""
        dues = [due for dialect in self._dialects if (due := dialect.due) is not None]
        if not dues:
            return await session.receive()
        wall = self._clock.wall_seconds((min(dues) - self._clock.now()) / NANOSECONDS)
        try:
            async with asyncio.timeout(max(0.0, wall)):
                return await session.receive()
        except TimeoutError:
            return None

    def take(self, topic: str, payload: bytes, settle: Callable[[], None] | None = None) -> list[Reading]:
        """Read one message; empty when it says nothing, which is counted under its own name."""
        dialect = self._by_topic.get(topic) or next((each for each in self._dialects if each.owns(topic)), None)
        if dialect is None:
            self.hearing.note("unknown_device_messages", topic, "no device of the district has this topic")
            return []
        try:
            heard = dialect.hear(topic, payload, self._clock.now())
        except Malformed as error:
            self.hearing.refuse(error, topic, dialect.device_of(topic))
            return []
        if not heard:
            if heard is not None:
                self._counted.add("edge_undeclared_messages_total")
            return []
        return self.hearing.readings(heard, topic, settle)

    def expire(self) -> list[Reading]:
        """Read what follows from having heard nothing for long enough."""
        now = self._clock.now()
        return [
            reading
            for dialect in self._dialects
            if dialect.due is not None and dialect.due <= now
            for reading in self.hearing.readings(dialect.expire(now), "")
        ]
