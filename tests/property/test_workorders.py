"""Whatever is told or done, in whatever order: one order per incident, whole chains, no state skipped."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud import trail
from cloud.workorders.life import STEPS, Action, Incomplete, NotAllowed, Request, act
from cloud.workorders.order import State
from rules.alert import Phase, Transition
from tests.desk_city import City, in_city, told
from tests.unit.test_workorder_life import order as dispatched

FLOODS = ("level-n1", "level-n2")
STORY: list[Transition] = [
    told("rain.heavy", "rain-n1", Phase.RAISED, "heavy", 20, 1),
    *(
        step
        for device in FLOODS
        for step in (
            told("flood.depth", device, Phase.PENDING, "slow", 30, 1, since=30),
            told("flood.depth", device, Phase.RAISED, "slow", 60, 2, since=30),
            told("flood.depth", device, Phase.UPDATED, "close", 70, 3, since=30),
            told("flood.depth", device, Phase.UPDATED, "severe", 80, 4, since=30),
        )
    ),
    told("camera.water", "camera-n1", Phase.RAISED, "seen", 50, 1),
    told("cover.open", "cover-n1", Phase.RAISED, "open", 40, 1),
    told("device.stuck.level", "level-n1", Phase.RAISED, "stuck", 75, 1),
]


@settings(max_examples=25)
@given(st.permutations(STORY), st.lists(st.sampled_from(STORY), max_size=8), st.integers(1, 6))
def test_any_order_and_duplication_of_the_news_ends_in_the_same_orders(
    steps: list[Transition], again: list[Transition], size: int
) -> None:
    async def story(city: City) -> None:
        news = steps + again
        for n in range(0, len(news), size):
            await city.tell(81 + n / 100, *news[n : n + size])
        orders = await city.orders()
        found = sorted((order.hazard, order.severity.value) for order in orders)
        assert found == [("cover", "II"), ("device_stuck", "IV"), ("flood", "I")]
        assert len({order.incident for order in orders}) == len(orders)
        for order in orders:
            entries = await city.trail(order.id)
            assert trail.valid(entries)
            assert [entry.action for entry in entries].count("register") == 1
            ranks = [announcement.severity.rank for announcement in order.announcements]
            assert ranks == sorted(set(ranks)), "only a rise is announced"
        alerts = await city.alerts()
        assert alerts["camera-n1"].incident == alerts["level-n2"].incident

    with tempfile.TemporaryDirectory() as folder:
        in_city(Path(folder), story)


ACTIONS: list[Action] = ["accept", "arrive", "handle", "verify", "close", "return", "cancel", "redispatch"]
requests = st.builds(
    Request,
    action=st.sampled_from(ACTIONS),
    by=st.sampled_from(["a", "b"]),
    role=st.sampled_from(["crew", "verifier"]),
    why=st.sampled_from(["", "because"]),
    finding=st.sampled_from([None, "handled", "nothing_there"]),
    outcome=st.sampled_from([None, "confirmed", "misfire"]),
    cause=st.sampled_from([None, "sensor"]),
)


@given(st.lists(requests, max_size=30))
def test_no_sequence_of_actions_skips_a_state(asked: list[Request]) -> None:
    now = dispatched()
    for n, request in enumerate(asked):
        try:
            steps = act(now, request, n)
        except (NotAllowed, Incomplete):
            continue
        for step, moved in steps:
            assert STEPS[now.state][step] is moved.state
            assert moved.version == now.version + 1
            now = moved
    if now.state in {State.VERIFIED, State.CLOSED}:
        assert now.finding is not None
        assert now.outcome is not None
    assert (now.finished_at is not None) == (now.state in {State.CLOSED, State.CANCELLED})


@settings(max_examples=25)
@given(st.lists(requests, max_size=12))
def test_no_sequence_of_actions_breaks_the_chain(asked: list[Request]) -> None:
    async def story(city: City) -> None:
        await city.tell(1, told("cover.open", "cover-n1", Phase.RAISED, "open", 0, 1))
        found = (await city.order()).id
        done = 2
        for n, request in enumerate(asked):
            try:
                await city.ask(n + 2, found, request)
            except (NotAllowed, Incomplete):
                continue
            done += 2 if request.action == "handle" else 1
        entries = await city.trail(found)
        assert trail.valid(entries)
        assert len(entries) == done, "what was refused leaves no trace, what was done leaves one"

    with tempfile.TemporaryDirectory() as folder:
        in_city(Path(folder), story)
