"""From points to reads: pure functions, so that what goes over the bus can be told and tested without a bus."""

from collections.abc import Iterable, Sequence
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

    Neighbours are merged across holes up to ``max_hole``, never across function codes; no value is ever cut. With
    ``one_field_per_request`` only the bits of one register come together.
    """
    return _cover(points, range(len(points)), limits)


def split(request: Request, points: Sequence[Register]) -> tuple[Request, ...]:
    """Cut a read that a device does not bear, by one step: at its holes; one without holes, into its single values.

    Nothing of one that reads a single value, or the bits of one register: the device does not have it. So whoever
    asks for the pieces, and splits those again that are refused, ends at exactly what is there.
    """
    for finer in (Limits(max_hole=0), Limits(one_field_per_request=True)):
        pieces = _cover(points, request.points, finer)
        if len(pieces) > 1:
            return pieces
    return ()


def _cover(points: Sequence[Register], positions: Iterable[int], limits: Limits) -> tuple[Request, ...]:
    requests: list[Request] = []
    for position in sorted(positions, key=lambda n: (points[n].function, points[n].register, -points[n].words)):
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
    too_many = limits.one_field_per_request and count > request.count
    if point.function != request.function or too_far or too_many or count > limits.max_registers * each:
        return None
    return Request(request.function, request.start, count, (*request.points, position))
