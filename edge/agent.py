"""The edge's heart: gathers what arrived within a tick, judges it, and makes it durable before letting go."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import structlog

from edge.decoding import Decoding
from edge.filter import Filter
from edge.reading import Reading
from rules.alert import Transition
from rules.samples import Block, PointTable
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted

SLACK_S = 0.5  # wall: how far the watermark stays behind, for what was read but not yet put
SAVE_EVERY_S = 10.0  # wall
RETRY_S = 0.1
RETRY_MOST_S = 5.0
LAST_TICK_S = 2.0
MOST_READINGS = 8192  # a tick that finds more leaves the rest to the next
MESSAGES_KNOWN = 64  # of each origin: as many as a broker may have to deliver again
HISTORY = " history"  # so ends an origin that tells again what it told before
HISTORY_KNOWN = 512  # of such an origin

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Tick:
    """What one tick must make durable, in one transaction.

    Of ``acquired`` samples, ``filtered`` need not be sent; ``block`` holds the rest. ``messages`` (origin and stamp)
    are those they came from, not to be taken again. ``counters`` is how far counting meters
    have come, when they went on.
    """

    acquired: int
    filtered: int
    block: Block
    transitions: list[Transition]
    engine_state: bytes | None
    messages: tuple[tuple[str, int], ...] = ()
    counters: bytes | None = None


class Judge(Protocol):
    """What the agent needs of ``rules.engine.Engine``."""

    def evaluate(self, block: Block) -> list[Transition]: ...

    def advance(self, until_ns: int, on_change_until_ns: int | None = None) -> list[Transition]: ...

    def save(self) -> bytes: ...


class Agent:
    """Runs the ticks of one gateway.

    Parameters
    ----------
    table, engine
        The gateway's points, and the engine that judges them (restored by the caller).
    intake
        Where the sources put their readings; bounded, so that a full one holds the sources back.
    append
        Makes a tick durable. When it raises, the same tick is tried again until it is taken: nothing is lost, and
        nothing is judged twice.
    clock
        The city's clock.
    tick_s
        Wall seconds between ticks.
    decoding
        How readings become columns.
    keep
        The filter of the points (``edge.sources.filter_of``); without one everything is kept.
    counted
        Where failures are counted.
    heard_until
        Given the tick's own watermark, the one of devices that report on change (``edge.watermark``); without one
        they are the same.
    act
        Told of the transitions that were made durable (``edge.commands``); it must not wait.
    """

    def __init__(
        self,
        table: PointTable,
        engine: Judge,
        intake: asyncio.Queue[Reading],
        append: Callable[[Tick], Awaitable[None]],
        clock: Clock,
        tick_s: float = 0.1,
        *,
        decoding: Decoding | None = None,
        keep: Filter | None = None,
        counted: Counted | None = None,
        heard_until: Callable[[int], int] | None = None,
        act: Callable[[Sequence[Transition]], None] | None = None,
    ) -> None:
        nothing = np.zeros(len(table.points))
        self._engine = engine
        self._intake = intake
        self._append = append
        self._clock = clock
        self._tick_s = tick_s
        self._decoding = decoding or Decoding()
        self._filter = keep or Filter(nothing - 1.0, nothing.astype(np.int64))
        self._counted = counted or Counted()
        self._heard_until = heard_until or (lambda watermark: watermark)
        self._act = act
        self._saved_at = -SAVE_EVERY_S

    async def run(self) -> None:
        """Tick until cancelled; what has arrived by then is made durable in one last tick, within two wall seconds."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            tick = asyncio.create_task(self._tick(), name="tick")
            try:
                # A tick begun is ended: what it has drained is nowhere else.
                await asyncio.shield(tick)
                due = max(due + self._tick_s, loop.time())
                await asyncio.sleep(due - loop.time())
            except asyncio.CancelledError:
                await self._end(tick)
                raise

    async def _end(self, tick: "asyncio.Task[None]") -> None:
        try:
            async with asyncio.timeout(LAST_TICK_S):
                await tick
                await self._tick(promises=False)  # nobody listens any more, so something older may wait unheard
        except TimeoutError:
            self._counted.add("edge_unstored_ticks_total")
            log.warning("stopped with a tick that could not be stored", waited_s=LAST_TICK_S)

    async def _tick(self, *, promises: bool = True) -> None:
        watermark = self._clock.now() - int(SLACK_S * self._clock.speed * NANOSECONDS)
        on_change = self._heard_until(watermark)  # asked before draining: what has been heard by then is here after it
        readings = await self._drain()
        promised = promises and self._intake.empty()  # else something older than the watermark still waits
        block = self._decoding.block(readings)
        tick = judge(self._engine, self._filter, block, (watermark, on_change) if promised else None)
        state = self._state_if_due(bool(tick.transitions))
        if not readings and not tick.transitions and state is None:
            return
        messages = tuple(reading.message for reading in readings if reading.message is not None)
        counters = self._counters_if_due(state is not None)
        await self._until_appended(replace(tick, engine_state=state, messages=messages, counters=counters))
        if tick.transitions and self._act is not None:
            self._act(tick.transitions)
        for reading in readings:
            if reading.settle is not None:
                reading.settle()

    async def _drain(self) -> list[Reading]:
        """Take what is there, and what sources held back by a full intake put as soon as there is room."""
        readings: list[Reading] = []
        while not self._intake.empty() and len(readings) < MOST_READINGS:
            while not self._intake.empty() and len(readings) < MOST_READINGS:
                readings.append(self._intake.get_nowait())
            await asyncio.sleep(0)
        return readings

    def _state_if_due(self, changed: bool) -> bytes | None:
        now = asyncio.get_running_loop().time()
        if not changed and now - self._saved_at < SAVE_EVERY_S:
            return None
        self._saved_at = now
        return self._engine.save()

    def _counters_if_due(self, due: bool) -> bytes | None:
        counters = self._decoding.counters
        return counters.save() if counters is not None and (due or counters.changed) else None

    async def _until_appended(self, tick: Tick) -> None:
        pause = RETRY_S
        while True:
            try:
                await self._append(tick)
            except Exception as error:  # noqa: BLE001 - the supervisor of the one step that must not lose anything
                self._counted.add("edge_append_failures_total")
                if pause == RETRY_S:
                    log.warning("tick not stored, kept and tried again", error=repr(error), samples=tick.acquired)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, RETRY_MOST_S)
            else:
                return


def known_most(origin: str) -> int:
    """Tell how many messages of an origin are known, those that were taken last."""
    return HISTORY_KNOWN if origin.endswith(HISTORY) else MESSAGES_KNOWN


def judge(engine: Judge, keep: Filter, block: Block, promise: tuple[int, int] | None) -> Tick:
    """Judge a block of whole readings and filter it; what became of it, to be made durable.

    ``promise`` are the watermarks (UTC ns) of polled devices and of those that report on change.
    """
    transitions = engine.evaluate(block) if len(block) else []
    if promise is not None:
        transitions += engine.advance(*promise)
    kept = block.take(keep.keep(block))
    return Tick(len(block), len(block) - len(kept), kept, transitions, None)
