from edge.plan import Request, plan
from edge.profile import Limits, Register


def _points(*registers: tuple[int, str], function: int = 3) -> list[Register]:
    return [Register(f"m{n}", "1", function, at, kind) for n, (at, kind) in enumerate(registers)]  # type: ignore[arg-type]


def test_neighbours_and_small_holes_are_one_read() -> None:
    points = _points((0, "u16"), (1, "f32"), (13, "u16"))
    assert plan(points, Limits(125, 10)) == (Request(3, 0, 14, (0, 1, 2)),)


def test_a_hole_wider_than_allowed_is_not_read() -> None:
    points = _points((0, "u16"), (12, "u16"))
    assert plan(points, Limits(125, 10)) == (Request(3, 0, 1, (0,)), Request(3, 12, 1, (1,)))


def test_the_limit_never_cuts_a_value() -> None:
    points = _points((0, "u16"), (1, "u16"), (2, "u32"))
    assert plan(points, Limits(3, 10)) == (Request(3, 0, 2, (0, 1)), Request(3, 2, 2, (2,)))


def test_function_codes_do_not_mix() -> None:
    points = [*_points((0, "u16")), *_points((1, "u16"), function=4)]
    assert [request.function for request in plan(points, Limits())] == [3, 4]


def test_a_full_block_is_one_read_of_125() -> None:
    points = _points(*((n, "u16") for n in range(125)))
    assert [request.count for request in plan(points, Limits())] == [125]


def test_coils_are_counted_in_bits() -> None:
    points = _points((0, "bit"), (150, "bit"), (311, "bit"), function=1)
    assert plan(points, Limits(125, 10)) == (Request(1, 0, 312, (0, 1, 2)),)
    assert plan(points, Limits(125, 10))[0].reply_bytes == 39


def test_no_points_no_reads() -> None:
    assert plan([], Limits()) == ()
