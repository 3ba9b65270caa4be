"""From points to reads: a pure function, so that what goes over the bus can be told and tested without a bus."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge.profile import Limits, Register


@dataclass(frozen=True, slots=True)
class Request:
    """One read: ``count`` addresses from ``start`` with one function code; ``points`` are positions in the profile."""

    function: int
    start: int
    count: int
    points: tuple[int, ...]

    @property
    def reply_bytes(self) -> int:
        """How many data bytes the answer to it has."""
        return (self.count + 7) // 8 if self.function in (1, 2) else 2 * self.count


def plan(points: Sequence[Register], limits: Limits) -> tuple[Request, ...]:
    """Cover every point by exactly one read, with as few reads as the limits allow.

    Neighbours are merged across holes up to ``max_hole``, never across function codes; no value is ever cut.
    """
    requests: list[Request] = []
    by_address = sorted(range(len(points)), key=lambda n: (points[n].function, points[n].register, -points[n].words))
    for position in by_address:
        point = points[position]
        grown = _grow(requests[-1], point, position, limits) if requests else None
        if grown is not None:
            requests[-1] = grown
        else:
            requests.append(Request(point.function, point.register, point.words, (position,)))
    return tuple(requests)


def _grow(request: Request, point: Register, position: int, limits: Limits) -> Request | None:
    """Add one more point to a request; None when the limits do not allow it."""
    each = 16 if point.function in (1, 2) else 1
    end = request.start + request.count
    count = max(end, point.register + point.words) - request.start
    too_far = point.register - end > limits.max_hole * each
    if point.function != request.function or too_far or count > limits.max_registers * each:
        return None
    return Request(request.function, request.start, count, (*request.points, position))
