"""A work order's life: which action leads where, and who may take it. Pure: a refused action changes nothing."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from cloud.workorders.order import Cause, Finding, Outcome, State, WorkOrder

Action = Literal["accept", "arrive", "handle", "verify", "close", "return", "cancel", "redispatch"]
Step = Literal[Action, "dispatch", "feedback"]

_BEFORE_ARRIVAL: Mapping[Step, State] = {"return": State.RETURNED, "cancel": State.CANCELLED}
STEPS: Mapping[State, Mapping[Step, State]] = {
    State.REGISTERED: {"dispatch": State.DISPATCHED},
    State.DISPATCHED: {"accept": State.ACCEPTED, **_BEFORE_ARRIVAL},
    State.ACCEPTED: {"arrive": State.ARRIVED, **_BEFORE_ARRIVAL},
    State.ARRIVED: {"handle": State.HANDLED, "return": State.RETURNED},
    State.HANDLED: {"feedback": State.FEEDBACK},
    State.FEEDBACK: {"verify": State.VERIFIED},
    State.VERIFIED: {"close": State.CLOSED},
    State.RETURNED: {"redispatch": State.DISPATCHED, "cancel": State.CANCELLED},
    State.CLOSED: {},
    State.CANCELLED: {},
}
_BY_ITSELF = frozenset[Step]({"dispatch", "feedback"})
_NEEDS_WHY = frozenset[Step]({"return", "cancel"})


class Request(msgspec.Struct, frozen=True):
    """What a person (``by``, acting as ``role``) asks of an order. ``version``: the order as that person saw it."""

    action: Action
    by: str
    role: str
    why: str = ""
    finding: Finding | None = None
    outcome: Outcome | None = None
    cause: Cause | None = None
    version: int | None = None


class NotAllowed(Exception):  # noqa: N818 - named by what the caller learns
    """The order's life, or whose hands it is in, does not allow this; ``allowed`` are the actions it would take."""

    def __init__(self, why: str, allowed: tuple[str, ...]) -> None:
        super().__init__(why)
        self.allowed = allowed


class Stale(NotAllowed):
    """The order has changed since the caller looked at it: look again."""


class Incomplete(ValueError):  # noqa: N818 - named by what the caller should mend
    """The action needs a field that was not given."""


def allowed(state: State) -> tuple[str, ...]:
    """List the actions a person may take now."""
    return tuple(step for step in STEPS[state] if step not in _BY_ITSELF)


def step(state: State, action: Step) -> State:
    """Name the state an action leads to; ``NotAllowed`` when it leads nowhere from here."""
    try:
        return STEPS[state][action]
    except KeyError:
        raise NotAllowed(f"`{action}` is not possible while the order is {state.value}", allowed(state)) from None


def act(order: WorkOrder, request: Request, now: int) -> list[tuple[Step, WorkOrder]]:
    """List the steps that a request takes an order through, each with the order after it; ``now`` is UTC ns.

    ``NotAllowed`` or ``Stale`` when it may not, ``Incomplete`` when something is missing. The crew's finding is its
    feedback, so ``handle`` is two steps.
    """
    if request.version is not None and request.version != order.version:
        raise Stale(f"the order is at version {order.version}, not {request.version}", allowed(order.state))
    if request.action in _BY_ITSELF:
        raise NotAllowed(f"`{request.action}` happens by itself", allowed(order.state))
    state = step(order.state, request.action)
    _complete(request)
    moved = msgspec.structs.replace(order, state=state, version=order.version + 1, updated_at=now)
    match request.action:
        case "handle":
            moved = msgspec.structs.replace(moved, finding=request.finding, handled_by=request.by, handled_at=now)
            back = msgspec.structs.replace(moved, state=step(state, "feedback"), version=moved.version + 1)
            return [("handle", moved), ("feedback", back)]
        case "verify":
            if request.role != "verifier":
                raise NotAllowed(f"a verifier verifies, not a {request.role}", allowed(order.state))
            if request.by == order.handled_by:
                raise NotAllowed("whoever handled it does not verify it", allowed(order.state))
            moved = msgspec.structs.replace(moved, outcome=request.outcome, cause=request.cause)
        case "return":
            moved = msgspec.structs.replace(moved, declined=(*order.declined, order.unit))
        case "close" | "cancel":
            moved = msgspec.structs.replace(moved, finished_at=now)
        case _:
            pass
    return [(request.action, moved)]


def _complete(request: Request) -> None:
    if request.action in _NEEDS_WHY and not request.why.strip():
        raise Incomplete(f"`{request.action}` needs `why`")
    if request.action == "handle" and request.finding is None:
        raise Incomplete("`handle` needs `finding`: `handled` or `nothing_there`")
    if request.action == "verify" and request.outcome is None:
        raise Incomplete("`verify` needs `outcome`")
    if request.action == "verify" and (request.outcome == "misfire") != (request.cause is not None):
        raise Incomplete("`cause` goes with the outcome `misfire`, and that outcome needs it")
