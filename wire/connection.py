"""One MQTT 5 connection: a paho client with a thread of its own, from CONNECT to its end, never used twice."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

SESSION_EXPIRY_S = 86_400  # how long a broker keeps what waits for an absent consumer
KEEPALIVE_S = 10
CONNECT_S = 3.0
STOP_S = 0.5
PUBACK_S = 10.0  # a broker that acknowledges nothing of what waits longest for this long has lost it
PUBLISH_WINDOW = 64  # publishes on their way at once, unless the broker states a smaller Receive Maximum
_PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}

_Properties = Properties | None


class NotConnected(ConnectionError):  # noqa: N818 - named by what the caller meets
    """There is no connection, or it broke before the broker's acknowledgement: send again at the next generation."""


class PublishRefused(Exception):  # noqa: N818 - the broker's word
    """The broker said no to this message (its reason is the text): sending it again would not help by itself."""


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an MQTT broker listens, and as whom to log in (None: anonymous); ``version`` is of the protocol."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    version: Literal["5", "3.1.1"] = "5"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as it came; ``message_id`` is the broker's, good only on the connection ``generation``."""

    topic: str
    payload: bytes
    retained: bool
    content_type: str
    message_id: int
    qos: int
    generation: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What every connection of one session asks for; the parameters of ``wire.session.Session``."""

    broker: Broker
    client_id: str
    subscriptions: tuple[str, ...]
    clean: bool
    receive_maximum: int
    will: tuple[str, bytes] | None


class Connection:
    """``settled`` is set once it is open or has ended; ``ended`` once it is over, with ``why``.

    Made and used on the event loop. paho's callbacks run on its thread and do nothing but hand over to the loop.
    """

    def __init__(
        self, wanted: Wanted, generation: int, deliver: Callable[[Delivery], None], retained: bool = True
    ) -> None:
        self.generation = generation
        self.settled = asyncio.Event()
        self.ended = asyncio.Event()
        self.session_present = False
        self.why = ""
        self._wanted = wanted
        self._deliver = deliver
        self._retained = retained
        self._loop = asyncio.get_running_loop()
        self._window = asyncio.Semaphore(PUBLISH_WINDOW)
        self._packet_most: int | None = None
        self._outstanding: dict[int, asyncio.Future[None]] = {}
        self._client = _Client(wanted, lambda: self._hand_over(self._over))
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish

    async def start(self) -> None:
        """Start the thread; it connects by itself."""
        await asyncio.to_thread(self._client.loop_start)  # paho makes a pair of sockets by TCP: nothing for a loop

    @property
    def open(self) -> bool:
        return self.settled.is_set() and not self.ended.is_set()

    def acknowledge(self, delivery: Delivery) -> None:
        self._client.ack(delivery.message_id, delivery.qos)

    async def publish(self, topic: str, payload: bytes, retain: bool, content_type: str, qos: int) -> None:
        """As ``wire.session.Session.publish``."""
        if self._packet_most is not None and len(payload) + len(topic) + 64 > self._packet_most:
            raise PublishRefused(f"{len(payload)} bytes are more than the broker takes ({self._packet_most})")
        properties = None
        if self._wanted.broker.version == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own hole
            if content_type:
                properties.ContentType = content_type
        async with self._window:
            if not self.open:
                raise NotConnected(self.why)
            sent = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
            if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise NotConnected(mqtt.error_string(sent.rc))
            if qos == 0:
                return  # nobody acknowledges it
            # The acknowledgement is handed to this very loop, so it cannot overtake the next line.
            self._outstanding[sent.mid] = acknowledged = self._loop.create_future()
            try:
                await self._answered(acknowledged)
            finally:
                self._outstanding.pop(sent.mid, None)

    async def _answered(self, acknowledged: asyncio.Future[None]) -> None:
        """Wait for an acknowledgement; end the connection when the one that is due first does not come.

        Brokers acknowledge in order, so on a slow line each one may take as long as those before it. A lost one never
        comes on this connection, and holds its place in the window: only a new connection mends that.
        """
        while True:
            first = next(iter(self._outstanding.values()))
            if (await asyncio.wait({acknowledged}, timeout=PUBACK_S))[0]:
                return acknowledged.result()
            if next(iter(self._outstanding.values())) is first:
                self.why = self.why or f"no acknowledgement within {PUBACK_S:g} s"
                await self.close()  # it tells whoever waits, us too
                return acknowledged.result()

    def leave(self, why: str) -> None:
        """Say goodbye after the acknowledgements on their way, without waiting for the end."""
        self._client.note(why)
        self._client.disconnect()

    async def close(self) -> None:
        """Say goodbye and wait for the thread, half a second at most; what hangs in TCP is left to end by itself."""
        self._client.abandoned = True
        self._client.disconnect()
        try:
            async with asyncio.timeout(STOP_S):
                await self.ended.wait()
        except TimeoutError:
            tcp = self._client.socket()
            if isinstance(tcp, socket.socket):
                with contextlib.suppress(OSError):
                    tcp.shutdown(socket.SHUT_RDWR)
            self._end(f"did not close within {STOP_S:g} s")

    # On the event loop.

    def _over(self) -> None:
        self._client.release()
        self._end(self._client.why or "closed")

    def _end(self, why: str) -> None:
        self.why = self.why or why
        self.ended.set()
        self.settled.set()
        for outstanding in self._outstanding.values():
            if not outstanding.done():
                outstanding.set_exception(NotConnected(self.why))

    def _connected(self, session_present: bool, window: int, packet_most: int | None) -> None:
        self.session_present = session_present
        self._window = asyncio.Semaphore(window)
        self._packet_most = packet_most
        if not self._wanted.subscriptions:
            self.settled.set()

    def _published(self, message_id: int, reason: ReasonCode) -> None:
        outstanding = self._outstanding.get(message_id)
        if outstanding is None or outstanding.done():
            return  # its publisher was cancelled meanwhile
        if reason.is_failure:
            outstanding.set_exception(PublishRefused(str(reason)))
        else:
            outstanding.set_result(None)

    # On paho's thread.

    def _hand_over(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: the process is ending, nobody listens
            self._loop.call_soon_threadsafe(call, *arguments)

    def _on_connect(
        self,
        client: mqtt.Client,
        _: object,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._client.note(f"refused: {reason}")
            return
        window = min(PUBLISH_WINDOW, getattr(properties, "ReceiveMaximum", PUBLISH_WINDOW))
        self._hand_over(self._connected, flags.session_present, window, getattr(properties, "MaximumPacketSize", None))
        if self._wanted.subscriptions:
            retained = (
                SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if self._retained else SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
            )
            if self._wanted.broker.version == "5":
                asked = SubscribeOptions(qos=1, retainHandling=retained)
                client.subscribe([(topic, asked) for topic in self._wanted.subscriptions])
            else:
                client.subscribe([(topic, 1) for topic in self._wanted.subscriptions])

    def _on_subscribe(
        self,
        _client: mqtt.Client,
        _: object,
        _message_id: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        if refused := [str(reason) for reason in reasons if reason.is_failure]:
            self._client.note(f"subscription refused: {', '.join(refused)}")
            self._client.disconnect()
        else:
            self._hand_over(self.settled.set)

    def _on_message(self, client: mqtt.Client, _: object, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # forbidden by MQTT; acknowledged, or it would come again for ever
            client.ack(message.mid, message.qos)
            return
        content_type = getattr(message.properties, "ContentType", "")
        delivery = Delivery(
            topic, bytes(message.payload), message.retain, content_type, message.mid, message.qos, self.generation
        )
        self._hand_over(self._deliver, delivery)

    def _on_publish(
        self, _client: mqtt.Client, _: object, message_id: int, reason: ReasonCode, _properties: _Properties
    ) -> None:
        self._hand_over(self._published, message_id, reason)

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _: object,
        _flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._client.note(str(reason))


class _Client(mqtt.Client):
    """paho's client, whose thread connects, serves one connection and tells how it ended."""

    def __init__(self, wanted: Wanted, over: Callable[[], None]) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            wanted.client_id,
            clean_session=None if wanted.broker.version == "5" else wanted.clean,
            protocol=_PROTOCOLS[wanted.broker.version],
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.abandoned = False
        self.why = ""
        self._wanted = wanted
        self._over = over
        self.connect_timeout = CONNECT_S
        self.max_inflight_messages = 0  # bounded by ``Connection._window``, which knows the broker's own limit
        self.on_socket_open = _without_delay
        self.username_pw_set(wanted.broker.username, wanted.broker.password)
        if wanted.will is not None:
            self.will_set(*wanted.will, qos=1, retain=True)

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        """Serve one connection: paho's thread calls this."""
        del retry_first_connection
        try:
            broker = self._wanted.broker
            if broker.version == "5":
                asked = self._asked()
                self.connect(broker.host, broker.port, KEEPALIVE_S, clean_start=self._wanted.clean, properties=asked)
            else:
                self.connect(broker.host, broker.port, KEEPALIVE_S)
            if not self.abandoned:  # CONNECT is queued and not sent: an abandoned client must not take the session over
                return super().loop_forever(timeout)
        except OSError as error:
            self.note(str(error))
        except Exception as error:  # noqa: BLE001 - the supervisor of this thread: paho raises on what it cannot parse
            self.note(f"{type(error).__name__}: {error}")
        finally:
            self._over()
        return MQTTErrorCode.MQTT_ERR_CONN_LOST

    def note(self, why: str) -> None:
        """Keep the first reason for the end."""
        self.why = self.why or why

    def release(self) -> None:
        """Close what paho leaves open; on the event loop, where nothing is being sent at the same time."""
        self._reset_sockets()

    def _asked(self) -> Properties:
        asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own hole
        asked.SessionExpiryInterval = 0 if self._wanted.clean else SESSION_EXPIRY_S
        asked.ReceiveMaximum = self._wanted.receive_maximum
        return asked


def _without_delay(_client: mqtt.Client, _: object, tcp: object) -> None:
    """Small packets leave at once: with Nagle's algorithm a window of QoS 1 waits for delayed acknowledgements."""
    if isinstance(tcp, socket.socket):
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
