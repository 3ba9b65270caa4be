"""What a payload says, before it is known whose it is: an instant, and numbers found by their declared paths."""

from dataclasses import dataclass

import msgspec

from wire.batch import Malformed
from wire.clock import from_iso

_WORDS = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True, slots=True)
class Decoded:
    """``taken_at`` is UTC nanoseconds; ``values`` are by metric, in the profile's units, and may be out of range."""

    taken_at: int
    values: dict[str, float]


def parse(payload: bytes) -> object:
    """Parse JSON; ``Malformed`` when it is not."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from error


def find(message: object, path: str) -> object:
    """Follow a dotted path; None when it leads nowhere."""
    for step in path.split("."):
        message = message.get(step) if isinstance(message, dict) else None
    return message


def number(message: object, path: str) -> float | None:
    """Read a number at a path, also from a string or a boolean; None when nothing is there."""
    found = find(message, path)
    try:
        match found:
            case None:
                return None
            case bool() | int() | float():
                return float(found)
            case str():
                return _WORDS[found.lower()] if found.lower() in _WORDS else float(found)
    except (ValueError, OverflowError):
        pass
    raise Malformed(f"`{path}` is {found!r:.60}, not a number")


def instant(message: object, path: str) -> int:
    """Read an RFC 3339 time at a path, as UTC nanoseconds."""
    found = find(message, path)
    if not isinstance(found, str):
        raise Malformed(f"`{path}` is {found!r:.60}, not a time")
    try:
        at = from_iso(found)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"`{path}`: {error}") from error
    if not -(2**63) <= at < 2**63:
        raise Malformed(f"`{path}` is {found}, which no clock says")  # nor do 64 bits of nanoseconds hold it
    return at
