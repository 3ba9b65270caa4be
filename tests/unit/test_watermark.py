"""How far the sensors' broker has told everything: while it is away, just back, and while it hands over what waited."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edge.reading import Reading
from edge.watermark import Watermark
from rules.tile import NEVER
from tests.readings import place
from wire.clock import NANOSECONDS, Clock

SETTLE_S = 0.1
DAY = 86_400 * NANOSECONDS
PLACE = place("x")


@dataclass
class StubSession:
    connected: bool = False
    generation: int = 0


def _reading(taken_at: int, settle: Callable[[], None] | None = None) -> Reading:
    return Reading(PLACE, taken_at, None, settle=settle)


def _play(scene: Callable[[StubSession, Watermark, int], Awaitable[None]]) -> None:
    async def scenario() -> None:
        session, clock = StubSession(), Clock()
        await scene(session, Watermark(session, clock, SETTLE_S), clock.now())

    asyncio.run(scenario())


async def _settled() -> None:
    await asyncio.sleep(SETTLE_S * 1.2)


def test_it_promises_nothing_before_the_first_connection_has_settled() -> None:
    async def scene(session: StubSession, watermark: Watermark, now: int) -> None:
        assert watermark(now) == NEVER
        await _settled()
        assert watermark(now) == NEVER
        session.connected, session.generation = True, 1
        assert watermark(now + 1) == NEVER
        await _settled()
        assert watermark(now + 2) == now + 2
        assert watermark(now + 3) == now + 3

    _play(scene)


def test_it_stands_still_while_the_broker_is_away_and_until_it_has_settled_again() -> None:
    async def scene(session: StubSession, watermark: Watermark, now: int) -> None:
        session.connected, session.generation = True, 1
        watermark(now)
        await _settled()
        assert watermark(now) == now
        session.connected = False
        assert watermark(now + 10) == now
        session.connected, session.generation = True, 3
        assert watermark(now + 20) == now
        session.generation = 4  # lost and back between two ticks
        await _settled()
        assert watermark(now + 30) == now
        await _settled()
        assert watermark(now + 40) == now + 40

    _play(scene)


def test_what_waited_holds_it_as_it_comes_and_as_it_settles() -> None:
    async def scene(session: StubSession, watermark: Watermark, now: int) -> None:
        settled = list[int]()
        session.connected, session.generation = True, 1
        watermark(now)
        await asyncio.sleep(SETTLE_S * 0.7)
        old = watermark.follow(_reading(now - 60 * NANOSECONDS, lambda: settled.append(1)))
        await asyncio.sleep(SETTLE_S * 0.7)
        assert watermark(now) == NEVER
        assert old.settle is not None
        old.settle()
        assert settled == [1]
        await asyncio.sleep(SETTLE_S * 0.7)
        assert watermark(now) == NEVER
        await asyncio.sleep(SETTLE_S * 0.7)
        assert watermark(now) == now

    _play(scene)


def test_neither_live_messages_nor_a_wrong_clock_hold_it() -> None:
    async def scene(session: StubSession, watermark: Watermark, now: int) -> None:
        session.connected, session.generation = True, 1
        watermark(now)
        for _ in range(3):
            await asyncio.sleep(SETTLE_S * 0.5)
            watermark.follow(_reading(now + 1))
            watermark.follow(_reading(now - 2 * DAY))
        assert watermark(now) == now
        session.generation = 2
        watermark(now + 10)
        for _ in range(3):  # its clock is behind by more than the connection was away
            await asyncio.sleep(SETTLE_S * 0.5)
            watermark.follow(_reading(now - 1))
        assert watermark(now + 20) == now + 20

    _play(scene)
