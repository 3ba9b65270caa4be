"""The one MQTT session: QoS 1, acknowledged by hand, for every consumer that must not lose a message.

MQTT 5, or 3.1.1 for servers that know no more. Each connection is a client of its own, with its own number (the
*generation*). So message ids never mix between connections, nothing is re-published behind our back, and
the back-off between connections is ours. The broker keeps the session by the client id.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import structlog

from wire.connection import Broker, Connection, Delivery, NotConnected, PublishRefused, Wanted
from wire.counted import Counted

__all__ = ["Broker", "Delivery", "NotConnected", "PublishRefused", "Session"]

HANDSHAKE_S = 5.0  # for TCP, CONNACK and SUBACK together
BACKOFF_S = 0.2
BACKOFF_MOST_S = 5.0
STEADY_S = 10.0  # a connection that lasted this long was a good one: the next back-off starts small again
INTAKE_WINDOWS = 16  # how many receive windows may wait here: QoS 0 knows no window

log = structlog.get_logger(__name__)


class Session:
    """A persistent MQTT session that reconnects for ever; use it as an async context manager.

    Parameters
    ----------
    broker
        Where to connect to.
    client_id
        The name under which the broker keeps the session; one live connection each.
    subscriptions
        Topic filters, subscribed at QoS 1 on every connect (a restarted broker has forgotten them).
    clean
        Start without what waited, and leave nothing behind: for workers on a shared subscription. What overflows the
        intake is lost then.
    receive_maximum
        How many messages may stand unacknowledged; it bounds the intake queue.
    will
        Topic and payload that the broker publishes, retained, when this connection is lost.
    counted
        Where lost and overrun connections and messages left out are counted.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        subscriptions: Sequence[str],
        *,
        clean: bool = False,
        receive_maximum: int = 64,
        will: tuple[str, bytes] | None = None,
        counted: Counted | None = None,
    ) -> None:
        self._wanted = Wanted(broker, client_id, tuple(subscriptions), clean, receive_maximum, will)
        self._counted = counted or Counted()
        self._log = log.bind(client_id=client_id, broker=f"{broker.host}:{broker.port}")
        self._intake: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._changed = asyncio.Condition()
        self._connection: Connection | None = None
        self._generation = 0
        self._overrun = -1  # the newest generation that had to leave out what the broker will repeat

    async def __aenter__(self) -> Self:
        self._runner = asyncio.create_task(self._run(), name=f"mqtt session {self._wanted.client_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._runner

    @property
    def connected(self) -> bool:
        """Whether the broker has confirmed connection and subscriptions, and nothing is known to have broken since."""
        return self._connection is not None and self._connection.open

    @property
    def generation(self) -> int:
        """The number of the newest connection attempt; 0 before the first."""
        return self._generation

    async def wait_connected(self, after: int = 0) -> int:
        """Wait for an open connection newer than generation ``after``; its generation."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.connected and self._generation > after)
            return self._generation

    async def receive(self) -> Delivery:
        """Wait for the next message, in the order of arrival. Acknowledge it once it is safe."""
        while not self._intake:
            self._leave_if_overrun()
            self._arrived.clear()
            await self._arrived.wait()
        return self._intake.popleft()

    def receive_waiting(self, most: int) -> list[Delivery]:
        """Up to ``most`` messages that are here already, without waiting: to handle them as one group."""
        return [self._intake.popleft() for _ in range(min(most, len(self._intake)))]

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that this message is safe; one of a past connection the broker will send again."""
        if self._connection is not None and delivery.generation == self._connection.generation:
            self._connection.acknowledge(delivery)

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, content_type: str = "", qos: int = 1
    ) -> None:
        """Publish at QoS 1 and wait for the broker's acknowledgement; at QoS 0 there is none.

        Raises ``NotConnected`` when there is no connection or it breaks meanwhile (whether the broker has the message
        is then unknown), ``PublishRefused`` when the broker says no. A broker that goes on living and never answers
        counts as a broken connection (``connection.PUBACK_S``), and the next one begins by itself.
        """
        if self._connection is None:
            raise NotConnected(f"no connection to {self._wanted.broker.host}:{self._wanted.broker.port}")
        await self._connection.publish(topic, payload, retain, content_type, qos)

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        attempt = 0
        while True:
            started = clock()
            why = await self._connect_once()
            attempt = 0 if clock() - started > STEADY_S else attempt + 1
            if attempt <= 1:  # told once an outage, not once an attempt
                self._log.warning("mqtt not connected", generation=self._generation, why=why)
            self._counted.add("mqtt_connections_ended_total")
            await self._announce()
            overrun = self._overrun == self._generation  # it worked, only too well: no reason to wait longer each time
            delay = BACKOFF_S if overrun else min(BACKOFF_MOST_S, BACKOFF_S * 2 ** min(attempt, 10))
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))

    async def _connect_once(self) -> str:
        """One connection from its start to its end; why it ended."""
        self._generation += 1
        # After an overrun the broker owes what was left out: all that is retained, once more on top, would never end.
        retained = self._overrun != self._generation - 1
        connection = Connection(self._wanted, self._generation, self._take, retained)
        self._connection = connection
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await connection.start()
                await connection.settled.wait()
            if connection.open:
                self._log.info("mqtt connected", generation=connection.generation)
                if connection.session_present:
                    self._forget_what_comes_again()
                await self._announce()
                await connection.ended.wait()
        except TimeoutError:
            return f"no answer within {HANDSHAKE_S:g} s"
        finally:
            await connection.close()
            self._connection = None
        return connection.why

    def _forget_what_comes_again(self) -> None:
        """Drop older copies of what the broker, which kept the session, is about to repeat."""
        self._intake = deque(
            delivery for delivery in self._intake if delivery.generation == self._generation or delivery.qos == 0
        )

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _take(self, delivery: Delivery) -> None:
        """Keep a message, or leave it out when too many wait: brokers overrun the window (Mosquitto 2.0.11 does).

        A broker repeats what it was not acknowledged on the next connection only, and in order: so an overrun
        connection takes nothing more, and ends once its messages are worked off. Each one thus brings a full intake
        forward, however long the overload lasts. At QoS 0, and in a session that is not kept, nothing is repeated.
        """
        repeated = delivery.qos > 0 and not self._wanted.clean
        overrun = repeated and delivery.generation <= self._overrun
        if not overrun and len(self._intake) < INTAKE_WINDOWS * self._wanted.receive_maximum:
            self._intake.append(delivery)
            self._arrived.set()
            return
        self._counted.add("mqtt_overflow_messages_total")
        if repeated and not overrun:
            self._overrun = delivery.generation
            self._counted.add("mqtt_connections_overrun_total")

    def _leave_if_overrun(self) -> None:
        if self._connection is not None and self._connection.generation == self._overrun:
            self._connection.leave("the broker overran its window")
