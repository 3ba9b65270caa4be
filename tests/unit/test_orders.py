"""The centre's orders at a gateway: each answered, one delivered again not begun again, a dead lamp nobody's burden."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from edge.commands import Commands, NotAllowed
from gateway.orders import Orders
from wire.batch import Answer, Order, decode, encode
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted
from wire.session import Delivery, NotConnected


class StubLink:
    """A session that delivers what the test puts, and keeps what was published and acknowledged."""

    connected, generation = True, 1

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self.answers: list[Answer] = []
        self.acknowledged: list[int] = []
        self.down = 0
        self.changed = asyncio.Event()

    def deliver(self, number: int, payload: bytes) -> None:
        self.waiting.put_nowait(Delivery("t", payload, False, "", number, 1, 1))

    async def receive(self) -> Delivery:
        return await self.waiting.get()

    def receive_waiting(self, most: int) -> list[Delivery]:
        raise NotImplementedError

    async def wait_connected(self, after: int = 0) -> int:
        return after + 1

    def acknowledge(self, delivery: Delivery) -> None:
        self.acknowledged.append(delivery.message_id)
        self.changed.set()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str = "") -> None:
        assert topic == "streetwarden/v1/gw/up/answer"
        if self.down:
            self.down -= 1
            raise NotConnected
        self.answers.append(decode(payload, Answer))

    async def until(self, acknowledged: int) -> None:
        async with asyncio.timeout(10):
            while len(self.acknowledged) < acknowledged:
                self.changed.clear()
                await self.changed.wait()


class StubCommands:
    """Carries out at once, but for the dead lamp's, which wait for ``dead``."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str, float | None]] = []
        self.within_s: list[float] = []
        self.dead = asyncio.Event()

    async def order(self, device: str, command: str, value: float | None, within_s: float) -> float:
        self.begun.append((device, command, value))
        self.within_s.append(within_s)
        if device == "dead":
            await self.dead.wait()
        if device == "pump":
            raise NotAllowed("pump: not allowed")
        return value or 0.0


def _order(name: str, device: str, value: float = 40.0, left_s: float = 60.0) -> bytes:
    return encode(Order(name, device, "dim", value, Clock().now() + round(left_s * NANOSECONDS)))


def _play(scene: Callable[[StubLink, StubCommands, Counted], Awaitable[None]]) -> None:
    async def play() -> None:
        link, commands, counted = StubLink(), StubCommands(), Counted()
        orders = Orders("gw", cast("Commands", commands), link, Clock(), counted)
        running = asyncio.create_task(orders.run(), name="orders")
        try:
            await scene(link, commands, counted)
        finally:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(play())


def test_each_order_is_answered_and_then_acknowledged() -> None:
    async def scene(link: StubLink, commands: StubCommands, counted: Counted) -> None:
        link.down = 2  # the broker is away when the first answer is ready
        link.deliver(1, _order("a", "lamp"))
        await link.until(1)
        link.deliver(2, _order("b", "pump"))
        link.deliver(3, _order("c", "lamp", left_s=-1.0))
        link.deliver(4, b"garbage")
        await link.until(4)
        assert sorted(answer.id for answer in link.answers) == ["a", "b", "c"]
        told = {answer.id: (answer.shows, answer.why) for answer in link.answers}
        assert told == {"a": (40.0, ""), "b": (None, "pump: not allowed"), "c": (None, "it came too late")}
        assert [device for device, *_ in commands.begun] == ["lamp", "pump"]
        assert all(50.0 < left <= 60.0 for left in commands.within_s)
        assert counted.snapshot() == {"gateway_late_orders_total": 1, "gateway_malformed_orders_total": 1}

    _play(scene)


def test_an_order_delivered_again_is_answered_again_and_begun_once() -> None:
    async def scene(link: StubLink, commands: StubCommands, _: Counted) -> None:
        link.deliver(1, _order("a", "dead"))
        link.deliver(2, _order("a", "dead"))  # while it is under way
        commands.dead.set()
        await link.until(2)
        link.deliver(3, _order("a", "dead"))  # and after it
        await link.until(3)
        assert [(answer.id, answer.shows) for answer in link.answers] == [("a", 40.0)] * 3
        assert len(commands.begun) == 1

    _play(scene)


def test_dead_lamps_do_not_hold_up_another_lamps_order() -> None:
    async def scene(link: StubLink, commands: StubCommands, _: Counted) -> None:
        for number in range(100):
            link.deliver(number, _order(f"dead {number}", "dead"))
        link.deliver(100, _order("living", "lamp"))
        await link.until(1)
        assert (link.acknowledged, [answer.id for answer in link.answers]) == ([100], ["living"])

    _play(scene)
