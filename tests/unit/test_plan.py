from edge.plan import Request, plan, split
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


def test_one_field_per_request_keeps_the_bits_of_a_register_together() -> None:
    points = [*_points((0, "u16"), (1, "f32")), *(Register(f"b{bit}", "1", 3, 3, "bit", bit=bit) for bit in range(2))]
    asked = plan(points, Limits(one_field_per_request=True))
    assert asked == (Request(3, 0, 1, (0,)), Request(3, 1, 2, (1,)), Request(3, 3, 1, (2, 3)))


def test_a_refused_read_is_cut_at_its_holes_then_into_values_and_then_left() -> None:
    points = _points((0, "u16"), (1, "f32"), (9, "u16"))
    (whole,) = plan(points, Limits())
    run, single = split(whole, points)
    assert (run, single) == (Request(3, 0, 3, (0, 1)), Request(3, 9, 1, (2,)))
    assert split(run, points) == (Request(3, 0, 1, (0,)), Request(3, 1, 2, (1,)))
    assert split(single, points) == ()


def test_the_bits_of_a_refused_register_are_left_together() -> None:
    points = [Register(f"b{bit}", "1", 3, 7, "bit", bit=bit) for bit in range(3)]
    (request,) = plan(points, Limits())
    assert split(request, points) == ()
