"""What the centre asks of a gateway's lamps: carried out, refused or given up, and always answered."""

import asyncio

import structlog

from edge.commands import Commands, NotAllowed, NotDone
from gateway.uplink import Link
from wire.batch import CONTENT_TYPE, Answer, Malformed, Order, decode, encode
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted
from wire.session import Delivery, NotConnected, PublishRefused
from wire.topics import Lane, up

AT_ONCE = 1024  # orders under way; more wait at the broker
KNOWN = 256  # orders remembered once they are answered

log = structlog.get_logger(__name__)


class Orders:
    """The orders of one gateway, as they come on a session of their own.

    An order is acknowledged once it is answered: a gateway that dies meanwhile gets it again. What it asks for is a
    state, so that carrying it out twice does no harm.
    """

    def __init__(self, gateway: str, commands: Commands, link: Link, clock: Clock, counted: Counted) -> None:
        self._gateway = gateway
        self._commands = commands
        self._link = link
        self._clock = clock
        self._counted = counted
        self._doing: dict[str, asyncio.Task[Answer]] = {}  # by id, so that one delivered again is not begun again

    async def run(self) -> None:
        """Carry out what is asked for, until cancelled; the session's window bounds how much at once."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                delivery = await self._link.receive()
                try:
                    order = decode(delivery.payload, Order)
                except Malformed as error:
                    self._counted.add("gateway_malformed_orders_total")
                    log.warning("order not understood", topic=delivery.topic, why=str(error))
                    self._link.acknowledge(delivery)
                    continue
                if order.id not in self._doing:
                    doing = tasks.create_task(self._carried_out(order), name=f"order {order.id}")
                    self._doing[order.id] = doing
                tasks.create_task(self._serve(delivery, self._doing[order.id]), name=f"answer to {order.id}")

    async def _serve(self, delivery: Delivery, doing: asyncio.Task[Answer]) -> None:
        await self._answer(await doing)
        self._link.acknowledge(delivery)
        ended = [known for known, task in self._doing.items() if task.done()]
        for known in ended[:-KNOWN]:
            del self._doing[known]

    async def _answer(self, answer: Answer) -> None:
        """Tell it until the broker has it."""
        topic = up(self._gateway, Lane.ANSWER)
        while True:
            generation = self._link.generation
            try:
                return await self._link.publish(topic, encode(answer), content_type=CONTENT_TYPE)
            except NotConnected:
                await self._link.wait_connected(after=generation)
            except PublishRefused as error:
                self._counted.add("gateway_refused_answers_total")
                log.warning("answer refused by the broker", order=answer.id, why=str(error))
                return None

    async def _carried_out(self, order: Order) -> Answer:
        left_s = (order.until - self._clock.now()) / NANOSECONDS
        if left_s <= 0:
            self._counted.add("gateway_late_orders_total")
            return Answer(order.id, None, "it came too late")
        try:
            shows = await self._commands.order(order.device, order.command, order.value, left_s)
        except (NotAllowed, NotDone) as error:
            return Answer(order.id, None, str(error))
        return Answer(order.id, shows)
