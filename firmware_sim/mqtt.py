"""MQTT devices on the air: what ``telling`` says, published at QoS 1 until the broker has it."""

from collections import Counter

import structlog

from firmware_sim.telling.telling import Message, Telling
from wire.clock import NANOSECONDS, Clock
from wire.session import NotConnected, PublishRefused, Session

STEP_WALL_S = 0.05  # at high speed several city seconds are told in one go

log = structlog.get_logger(__name__)


class Radio:
    """Publishes for all MQTT devices of a district.

    Nothing is queued: while the broker is away the walk stands still, and what was due is told, with its own time,
    when the broker is back.
    """

    def __init__(self, telling: Telling, session: Session, clock: Clock) -> None:
        self.published: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._telling = telling
        self._session = session
        self._clock = clock

    async def run(self) -> None:
        """Tell, for ever."""
        step_s = max(1.0, STEP_WALL_S * self._clock.speed)
        while True:
            now = self._clock.now()
            for message in self._telling.until(now):
                await self._publish(message)
            await self._clock.sleep_until(now + round(step_s * NANOSECONDS))

    async def _publish(self, message: Message) -> None:
        broken = 0
        while True:
            generation = await self._session.wait_connected(after=broken)
            try:
                await self._session.publish(
                    message.topic, message.payload, retain=message.retain, content_type="application/json"
                )
            except NotConnected:  # whether the broker has it is unknown: tell it again at the next connection
                broken = generation
                continue
            except PublishRefused as error:
                self.refused[message.device] += 1
                log.warning("broker refused a message", device=message.device, topic=message.topic, why=str(error))
                return
            self.published[message.device] += 1
            return
