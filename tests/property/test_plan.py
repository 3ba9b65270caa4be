"""Whatever the map: each point is read exactly once, whole, within the limits, and no hole is wider than allowed."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge.plan import plan
from edge.profile import Limits, Register


@st.composite
def maps(draw: st.DrawFn) -> list[Register]:
    points = []
    for n in range(draw(st.integers(1, 30))):
        function: Any = draw(st.sampled_from([1, 2, 3, 4]))
        kind: Any = draw(st.sampled_from(["u16", "f32", "bit"])) if function > 2 else "bit"
        points.append(Register(f"m{n}", "1", function, draw(st.integers(0, 300)), kind))
    return points


@given(maps(), st.integers(2, 125), st.integers(0, 30))
def test_plan(points: list[Register], most: int, hole: int) -> None:
    limits = Limits(most, hole)
    requests = plan(points, limits)
    assert sorted(n for request in requests for n in request.points) == list(range(len(points)))
    for request in requests:
        each = 1 if request.function > 2 else 16
        assert request.count <= most * each
        wanted = set()
        for n in request.points:
            assert points[n].function == request.function
            wanted |= set(range(points[n].register, points[n].register + points[n].words))
        assert min(wanted) == request.start
        assert max(wanted) == request.start + request.count - 1
        ordered = sorted(wanted)
        assert all(b - a - 1 <= hole * each for a, b in pairwise(ordered))


@given(maps(), st.integers(2, 125), st.integers(0, 30))
def test_order_of_the_profile_does_not_change_what_is_asked(points: list[Register], most: int, hole: int) -> None:
    asked = {(r.function, r.start, r.count) for r in plan(points, Limits(most, hole))}
    assert {(r.function, r.start, r.count) for r in plan(points[::-1], Limits(most, hole))} == asked
