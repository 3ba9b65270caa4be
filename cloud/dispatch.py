"""Who is sent: by function, then territory, from the district's own table; exactly one lead unit."""

from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from rules.district import Unit

Code = Literal["function_territory", "function_everywhere", "function_elsewhere"]
_BY_NEARNESS: tuple[Code, ...] = ("function_territory", "function_everywhere", "function_elsewhere")


class Choice(msgspec.Struct, frozen=True):
    """The lead unit's id, and why it leads.

    ``code`` is ``function_territory`` (answers for both), ``function_everywhere`` (its function has no territories) or
    ``function_elsewhere`` (nobody answers for that territory: the first unit of the function leads).
    """

    unit: str
    code: Code
    function: str
    territory: str


def choose(units: Sequence[Unit], function: str, territory: str, declined: Collection[str] = ()) -> Choice:
    """Exactly one lead unit; one that ``declined`` only when nobody else is left. ``LookupError``: nobody at all."""
    able = [unit for unit in units if function in unit.functions]
    if not able:
        raise LookupError(f"no unit answers for `{function}`")

    def order(unit: Unit) -> tuple[bool, int]:
        return unit.id in declined, _nearness(unit, territory)

    lead = min(able, key=order)  # the first declared wins a tie
    return Choice(lead.id, _BY_NEARNESS[_nearness(lead, territory)], function, territory)


def _nearness(unit: Unit, territory: str) -> int:
    if territory in unit.territories:
        return 0
    return 2 if unit.territories else 1
