"""What messages tell of a profile's fields: where each stands, and the number that it is."""

from collections.abc import Sequence
from math import inf, isnan

from edge.installed import Installed
from edge.profile import Field, Profile
from wire.batch import Malformed

NO_VALUE = inf  # told, but no number: decoded as bad
_WORDS = {"true": 1.0, "false": 0.0}


def columns_of(profile: Profile, base: str = "") -> dict[str, list[int]]:
    """Name the places among ``profile.field`` of what a device tells under ``base`` and a field's path."""
    columns: dict[str, list[int]] = {}
    for column, field in enumerate(profile.field):
        columns.setdefault(base + field.path, []).append(column)
    return columns


def number(value: object, field: Field, within: str = "") -> float:
    """Read what a field was told as a number; ``Malformed`` when it is none. NaN is told, and has no value.

    ``within`` is where the field's path begins, for the message.
    """
    word = field.words.get(value, _WORDS.get(value.lower())) if isinstance(value, str) else None
    try:
        found = float(value if word is None else word)  # type: ignore[arg-type]  # what it cannot take, it refuses
    except (TypeError, ValueError, OverflowError):
        known = f"; `words` has {', '.join(sorted(field.words))}" if field.words else ""
        raise Malformed(f"`{within}{field.path}` is {value!r:.60}, not a number{known}") from None
    return NO_VALUE if isnan(found) else found


def origin_of(place: Installed, values: Sequence[float]) -> str:
    """Name what stamps are compared within: messages of one instant that tell different quantities are no repeats."""
    told = (field.metric for field, value in zip(place.profile.field, values, strict=True) if not isnan(value))
    return " ".join((place.device.id, *told))
