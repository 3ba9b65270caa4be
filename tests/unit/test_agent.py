"""The agent's promises: whole readings in, one durable tick out, then settled; nothing lost when storing fails."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from edge import agent as agent_module
from edge.agent import Agent, Judge, Tick
from edge.filter import Filter
from edge.installed import filter_of, installed, table_of
from edge.profile import load_profiles
from edge.reading import Reading, Replies
from edge.reads import Reads
from rules.alert import Phase, Reason, Severity, Transition
from rules.district import load_district
from rules.engine import Engine
from rules.rule import load_rules
from rules.samples import Block, Point, PointTable
from tests.readings import place
from tests.rule_text import rule
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted

TABLE = PointTable("gw", (Point("d", "k", "x", "m", 10.0), Point("d", "k", "y", "m", 10.0)))
PLACE = place("x", "y")
CLOCK = Clock()
TICK_S = 0.01


class StubEngine:
    """Says what it was told; raises an alert for a value above 10."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.watermarks: list[int] = []

    def evaluate(self, block: Block) -> list[Transition]:
        self.blocks.append(block)
        return [_transition(int(at)) for at in block.taken_at[block.value > 10]]

    def advance(self, until_ns: int, on_change_until_ns: int | None = None) -> list[Transition]:
        self.watermarks.append(until_ns)
        return []

    def save(self) -> bytes:
        return b"state"


def _transition(at: int) -> Transition:
    reason = Reason("above", "x", {"value": 11.0})
    return Transition("a", 1, Phase.RAISED, "r", "I", Severity.I, "d", at, at, reason, {"x": 11.0})


def _reading(value: float, taken_at: int = 0, settle: Callable[[], None] | None = None) -> Reading:
    return Reading(PLACE, taken_at, (value, 0.0), settle=settle)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - waits for whatever the test names
            await asyncio.sleep(TICK_S)


async def _run(
    append: Callable[[Tick], Awaitable[None]],
    scenario: Callable[[asyncio.Queue[Reading]], Awaitable[None]],
    engine: Judge,
    keep: Filter | None = None,
    counted: Counted | None = None,
) -> None:
    intake: asyncio.Queue[Reading] = asyncio.Queue(4)
    agent = Agent(TABLE, engine, intake, append, CLOCK, TICK_S, keep=keep, counted=counted)
    running = asyncio.create_task(agent.run(), name="agent")
    try:
        await scenario(intake)
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


def test_a_tick_gathers_whole_readings_in_order_and_settles_after_they_are_stored() -> None:
    engine, ticks, order = StubEngine(), list[Tick](), list[str]()

    async def append(tick: Tick) -> None:
        ticks.append(tick)
        order.append("stored")

    async def scenario(intake: asyncio.Queue[Reading]) -> None:
        for n in range(3):
            intake.put_nowait(_reading(float(n), n, lambda n=n: order.append(f"settled {n}")))  # type: ignore[misc]
        await _until(lambda: len(order) >= 4)

    asyncio.run(_run(append, scenario, engine))
    assert order == ["stored", "settled 0", "settled 1", "settled 2"]
    assert ticks[0].block.taken_at.tolist() == [0, 0, 1, 1, 2, 2]
    assert ticks[0].block.point.tolist() == [0, 1, 0, 1, 0, 1]
    assert (ticks[0].acquired, ticks[0].filtered) == (6, 0)
    assert ticks[0].engine_state == b"state"


def test_the_engine_sees_everything_and_the_filter_only_spares_the_link() -> None:
    engine, ticks = StubEngine(), list[Tick]()

    async def append(tick: Tick) -> None:
        ticks.append(tick)

    async def scenario(intake: asyncio.Queue[Reading]) -> None:
        for n in range(20):
            await intake.put(_reading(1.0, n))
        await _until(lambda: sum(tick.acquired for tick in ticks) == 40)

    keep = Filter(np.zeros(2), np.full(2, 1000, np.int64))
    asyncio.run(_run(append, scenario, engine, keep))
    assert sum(len(block) for block in engine.blocks) == 40
    assert sum(len(tick.block) for tick in ticks) == 2
    assert all(tick.acquired == tick.filtered + len(tick.block) for tick in ticks)


def test_transitions_come_with_the_state_that_knows_of_them() -> None:
    ticks = list[Tick]()

    async def append(tick: Tick) -> None:
        ticks.append(tick)

    async def scenario(intake: asyncio.Queue[Reading]) -> None:
        await intake.put(_reading(1.0, 1))
        await _until(lambda: len(ticks) == 1)
        await intake.put(_reading(2.0, 2))
        await _until(lambda: len(ticks) == 2)
        await intake.put(_reading(11.0, 3))
        await _until(lambda: len(ticks) == 3)

    asyncio.run(_run(append, scenario, StubEngine()))
    # the first tick saves, the next has no need to, a transition has
    assert [tick.engine_state for tick in ticks] == [b"state", None, b"state"]
    assert [transition.since for transition in ticks[2].transitions] == [3]


def test_what_cannot_be_stored_is_kept_and_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "RETRY_S", 0.005)
    engine, counted, stored, attempts, settled = StubEngine(), Counted(), list[Tick](), list[Tick](), list[int]()

    async def append(tick: Tick) -> None:
        attempts.append(tick)
        if len(attempts) == 2:
            second.set()
            await held.wait()
        if len(attempts) <= 3:
            raise OSError("disk full")
        stored.append(tick)

    second, held = asyncio.Event(), asyncio.Event()

    async def scenario(intake: asyncio.Queue[Reading]) -> None:
        await intake.put(_reading(1.0, 1, lambda: settled.append(1)))
        await second.wait()  # and held there: the retries are faster than any look at them
        assert not settled
        # meanwhile the bounded intake holds the sources back
        for n in range(2, 6):
            intake.put_nowait(_reading(1.0, n))
        with pytest.raises(asyncio.QueueFull):
            intake.put_nowait(_reading(1.0, 6))
        held.set()
        await _until(lambda: sum(tick.acquired for tick in stored) == 10)

    asyncio.run(_run(append, scenario, engine, counted=counted))
    assert attempts[0] is attempts[1] is attempts[2] is attempts[3]
    assert settled == [1]
    assert counted["edge_append_failures_total"] == 3
    assert np.concatenate([block.taken_at for block in engine.blocks]).tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("most", [4, 8192])
def test_the_watermark_stays_behind_the_clock_and_never_passes_what_still_waits(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "MOST_READINGS", most)
    engine, count = StubEngine(), 30
    before = CLOCK.now()

    async def append(_: Tick) -> None:
        pass

    async def scenario(intake: asyncio.Queue[Reading]) -> None:
        # More than the intake holds: the rest waits in its sources, and is older than any watermark of now.
        async with asyncio.TaskGroup() as sources:
            for n in range(count):
                sources.create_task(intake.put(_reading(1.0, n)), name=f"source {n}")
        await _until(lambda: sum(len(block) for block in engine.blocks) == 2 * count)

    judged_at_first_watermark: list[int] = []
    advance = engine.advance

    def noting(until_ns: int, on_change_until_ns: int | None = None) -> list[Transition]:
        if engine.blocks and not judged_at_first_watermark:
            judged_at_first_watermark.append(sum(len(block) for block in engine.blocks))
        return advance(until_ns, on_change_until_ns)

    engine.advance = noting  # type: ignore[method-assign]
    asyncio.run(_run(append, scenario, engine))
    assert judged_at_first_watermark == [2 * count]
    slack = int(agent_module.SLACK_S * NANOSECONDS)
    assert all(before - slack <= watermark <= CLOCK.now() - slack for watermark in engine.watermarks)
    assert engine.watermarks == sorted(engine.watermarks)


def test_what_reports_on_change_waits_for_its_broker_and_polled_devices_do_not() -> None:
    lid = Point("lid", "lid", "tilt", "deg", 600.0, reports_on_change=True)
    table = PointTable("gw", (lid, Point("gauge", "gauge", "level", "m", 10.0)))
    opened = rule("""
        kind = "lid"
        level = [{ name = "open", severity = "II", on_delay = "60s", when = { column = "tilt", above = 10.0 } }]""")
    silent = rule("""
        id = "test.silent"
        level = [{ name = "silent", severity = "IV", when = { column = "silence", above = 3.0 } }]""")
    told, start = list[Transition](), CLOCK.now() - 120 * NANOSECONDS

    places = place("tilt", device="lid", kind="lid"), place("level", device="gauge", kind="gauge", first_row=1)

    def sample(point: int, after_s: int, value: float) -> Reading:
        return Reading(places[point], start + after_s * NANOSECONDS, (value,))

    async def append(tick: Tick) -> None:
        told.extend(tick.transitions)

    async def scenario() -> None:
        intake: asyncio.Queue[Reading] = asyncio.Queue(4)
        away = True
        agent = Agent(
            table,
            Engine(table, (opened, silent)),
            intake,
            append,
            CLOCK,
            TICK_S,
            heard_until=lambda drained: start if away else drained,
        )
        running = asyncio.create_task(agent.run(), name="agent")
        intake.put_nowait(sample(1, 0, 0.0))
        intake.put_nowait(sample(0, 10, 72.0))
        await _until(lambda: len(told) == 2)
        await asyncio.sleep(5 * TICK_S)
        intake.put_nowait(sample(0, 35, 0.4))  # it waited at the broker
        away = False
        await _until(lambda: len(told) == 3)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(scenario())
    steps = [(step.device, step.phase, (step.decided_at - start) // NANOSECONDS) for step in told]
    assert sorted(steps[:2]) == [("gauge", Phase.RAISED, 30), ("lid", Phase.PENDING, 10)]
    assert steps[2:] == [("lid", Phase.LAPSED, 35)]


def test_a_tick_names_the_messages_it_holds() -> None:
    ticks = list[Tick]()

    async def append(tick: Tick) -> None:
        ticks.append(tick)

    async def scenario(intake: asyncio.Queue[Reading]) -> None:
        intake.put_nowait(replace(_reading(1.0, 7), message=("d x", 7)))
        intake.put_nowait(_reading(2.0, 8))
        await _until(lambda: bool(ticks))

    asyncio.run(_run(append, scenario, StubEngine()))
    assert ticks[0].messages == (("d x", 7),)


def test_stopping_ends_the_tick_begun_and_stores_what_has_arrived() -> None:
    stored = list[Tick]()
    begun = asyncio.Event()

    async def append(tick: Tick) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        stored.append(tick)

    async def scenario(intake: asyncio.Queue[Reading]) -> None:
        await intake.put(_reading(1.0, 1))
        await begun.wait()
        await intake.put(_reading(1.0, 2))

    engine = StubEngine()
    asyncio.run(_run(append, scenario, engine))
    assert [tick.block.taken_at[0] for tick in stored] == [1, 2]
    assert len(engine.watermarks) == 1, "the last tick promises nothing: nobody has listened meanwhile"


def test_stopping_is_bounded_when_nothing_can_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "LAST_TICK_S", 0.05)
    counted = Counted()

    async def append(_: Tick) -> None:
        raise OSError("disk full")

    async def scenario(intake: asyncio.Queue[Reading]) -> None:
        await intake.put(_reading(1.0, 1))
        await _until(lambda: counted["edge_append_failures_total"] > 0)

    asyncio.run(_run(append, scenario, StubEngine(), counted=counted))
    assert counted["edge_unstored_ticks_total"] == 1


def test_a_fault_of_the_engine_is_not_hidden() -> None:
    class Broken(StubEngine):
        def evaluate(self, block: Block) -> list[Transition]:
            raise ZeroDivisionError

    async def append(_: Tick) -> None:
        pass

    async def scenario() -> None:
        intake: asyncio.Queue[Reading] = asyncio.Queue(4)
        intake.put_nowait(_reading(1.0))
        await Agent(TABLE, Broken(), intake, append, CLOCK, TICK_S).run()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(scenario())


def test_with_the_real_engine_deep_water_raises_an_alert() -> None:
    place = Path(__file__).parents[2] / "firmware_sim/districts/bluestone.toml"
    district = load_district(place.read_text("utf-8"), place.name)
    profiles = load_profiles()
    places = installed(district, "gw-north", profiles)
    table = table_of(district, "gw-north", profiles)
    level = next(each for each in places if each.device.id == "level-n1")
    pack = resources.files("rules").joinpath("catalog", "flood.toml")
    rules = load_rules(pack.read_text("utf-8"), pack.name)
    ticks, reads = list[Tick](), Reads(level.profile)

    async def append(tick: Tick) -> None:
        ticks.append(tick)

    async def scenario() -> None:
        intake: asyncio.Queue[Reading] = asyncio.Queue(64)
        start = CLOCK.now() - 120 * NANOSECONDS
        for n in range(12):
            distance_mm = Replies(reads, ((3500 - 200).to_bytes(2, "big"),))
            intake.put_nowait(Reading(level, start + n * 10 * NANOSECONDS, distance_mm))
        agent = Agent(table, Engine(table, rules), intake, append, CLOCK, TICK_S, keep=filter_of(places))
        running = asyncio.create_task(agent.run(), name="agent")
        await _until(lambda: any(tick.transitions for tick in ticks))
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(scenario())
    raised = [t for tick in ticks for t in tick.transitions if t.phase is Phase.RAISED]
    assert [(transition.device, transition.rule) for transition in raised] == [("level-n1", "flood.depth")]
    assert sum(tick.filtered for tick in ticks) > 0
