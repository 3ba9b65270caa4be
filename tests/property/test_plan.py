"""Whatever the map: each point is read exactly once, whole, within the limits, and no hole is wider than allowed."""

from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edge.plan import Request, plan, split
from edge.profile import Head, Limits, Profile, Register
from edge.reads import Reads


@st.composite
def maps(draw: st.DrawFn) -> list[Register]:
    points = []
    for n in range(draw(st.integers(1, 30))):
        function: Any = draw(st.sampled_from([1, 2, 3, 4]))
        kind: Any = draw(st.sampled_from(["u16", "f32", "u64", "bit"])) if function > 2 else "bit"
        points.append(Register(f"m{n}", "1", function, draw(st.integers(0, 300)), kind))
    return points


def addresses(points: list[Register]) -> set[tuple[int, int]]:
    return {(p.function, at) for p in points for at in range(p.register, p.register + p.words)}


@given(maps(), st.integers(4, 125), st.integers(0, 30))
def test_plan(points: list[Register], most: int, hole: int) -> None:
    limits = Limits(most, hole)
    requests = plan(points, limits)
    assert sorted(n for request in requests for n in request.points) == list(range(len(points)))
    for request in requests:
        each = 1 if request.function > 2 else 16
        assert request.count <= most * each
        wanted = addresses([points[n] for n in request.points])
        assert {function for function, _ in wanted} == {request.function}
        ordered = sorted(at for _, at in wanted)
        assert ordered[0] == request.start
        assert ordered[-1] == request.start + request.count - 1
        assert all(b - a - 1 <= hole * each for a, b in pairwise(ordered))


@given(maps(), st.integers(4, 125), st.integers(0, 30))
def test_order_of_the_profile_does_not_change_what_is_asked(points: list[Register], most: int, hole: int) -> None:
    asked = {(r.function, r.start, r.count) for r in plan(points, Limits(most, hole))}
    assert {(r.function, r.start, r.count) for r in plan(points[::-1], Limits(most, hole))} == asked


@given(maps())
def test_one_field_per_request_reads_no_more_than_one_value_at_once(points: list[Register]) -> None:
    requests = plan(points, Limits(one_field_per_request=True))
    assert sorted(n for request in requests for n in request.points) == list(range(len(points)))
    for request in requests:
        assert request.count == max(points[n].words for n in request.points)


@given(maps(), st.integers(4, 125), st.integers(0, 30))
def test_a_split_reads_the_same_points_in_smaller_pieces_or_nothing(
    points: list[Register], most: int, hole: int
) -> None:
    for request in plan(points, Limits(most, hole)):
        pieces = split(request, points)
        wanted = addresses([points[n] for n in request.points])
        if not pieces:
            assert request.count == max(points[n].words for n in request.points)
            continue
        assert sorted(n for piece in pieces for n in piece.points) == sorted(request.points)
        assert all(piece.count < request.count for piece in pieces)
        if len(wanted) < request.count:  # cut at the holes, and nowhere else
            asked = [(piece.function, piece.start + n) for piece in pieces for n in range(piece.count)]
            assert sorted(asked) == sorted(wanted)
            assert all(a.start + a.count < b.start for a, b in pairwise(pieces))


@st.composite
def devices(draw: st.DrawFn) -> tuple[Profile, set[tuple[int, int]]]:
    """A model, and the addresses that one device of it has."""
    points, address = [], 0
    for n in range(draw(st.integers(1, 15))):
        kind: Any = draw(st.sampled_from(["u16", "f32", "u64"]))
        points.append(Register(f"m{n}", "1", 3, address, kind))
        address += points[-1].words + draw(st.integers(0, 4))
    head = Head("any", "level_sensor", "any", "any", "any", "modbus", 1.0)
    limits = Limits(draw(st.integers(4, 125)), draw(st.integers(0, 20)))
    return Profile(head, limits, tuple(points)), {(3, at) for at in draw(st.sets(st.integers(0, address)))}


@given(devices(), st.booleans())
def test_splitting_what_is_refused_ends_at_exactly_what_the_device_has(
    device: tuple[Profile, set[tuple[int, int]]], holes_are_there: bool
) -> None:
    profile, there = device
    if holes_are_there:
        there |= {(3, at) for at in range(200)} - addresses(list(profile.point))

    def bears(request: Request) -> bool:
        return {(request.function, request.start + n) for n in range(request.count)} <= there

    reads, refusals = Reads(profile), 0
    while refused := [request for request in reads.requests if not bears(request)]:
        reads = reads.split(refused[0])
        refusals += 1
    missing = {point.metric for point in profile.point if not addresses([point]) <= there}
    assert set(reads.left_out) == missing
    # Once as it is planned, once a run, once a value: no point is asked for in vain more than three times.
    assert refusals <= 3 * len(profile.point)


@given(devices(), st.integers(0, 5000))
def test_the_base_moves_every_request_and_nothing_else(device: tuple[Profile, set[tuple[int, int]]], base: int) -> None:
    profile, _ = device
    moved = msgspec.structs.replace(
        profile, point=tuple(msgspec.structs.replace(p, register=p.register + base) for p in profile.point)
    )
    plain, based = Reads(profile), Reads(profile, base)
    assert based.requests == Reads(moved).requests
    assert based.layout is plain.layout
    for here, there in zip(plain.requests, based.requests, strict=True):
        assert based.split(there).layout is plain.split(here).layout
