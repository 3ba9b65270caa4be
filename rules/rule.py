"""The rule language: what a rule says, as records. ``load_rules`` reads a pack of the catalog."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from rules.alert import Severity
from rules.columns import SILENCE, parse
from rules.declared import Refused, Source, convert, decode, located, seconds
from rules.district import Text


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"not_": "not"}):
    """One comparison of a column, or a combination of conditions.

    A comparison names a ``column`` (``level``, ``rate(level, 5min)``, ``unchanged(level)``, ``silence``) and exactly
    one of ``above``, ``below``, ``equals``; numbers are in the column's own unit. ``clear`` (hysteresis) holds only
    what is raised: until a level is, its limits themselves count, all through its on-delay; from then on a limit that
    is met stays so until back at ``clear``. In a doubt, which is never raised, ``clear`` always holds.
    """

    column: str = ""
    above: float | None = None
    below: float | None = None
    equals: float | None = None
    clear: float | None = None
    all: tuple["Condition", ...] = ()
    any: tuple["Condition", ...] = ()
    not_: "Condition | None" = None

    def __post_init__(self) -> None:
        shapes = [bool(self.column), bool(self.all), bool(self.any), self.not_ is not None]
        if sum(shapes) != 1:
            raise ValueError("a condition has exactly one of `column`, `all`, `any`, `not`")
        if self.column:
            parse(self.column)
        limits = [limit for limit in (self.above, self.below, self.equals) if limit is not None]
        if len(limits) != int(bool(self.column)):
            raise ValueError(f"the condition on `{self.column}` needs exactly one of `above`, `below`, `equals`")
        if self.clear is not None:
            if self.above is not None and self.clear > self.above:
                raise ValueError(f"`clear` of `{self.column}` lies above its limit; hysteresis needs it below")
            if self.below is not None and self.clear < self.below:
                raise ValueError(f"`clear` of `{self.column}` lies below its limit; hysteresis needs it above")
            if self.equals is not None or not self.column:
                raise ValueError("`clear` goes with `above` or `below` only")

    def comparisons(self) -> Iterator["Condition"]:
        """Every comparison in it, in the order written."""
        if self.column:
            yield self
        for part in (*self.all, *self.any, *((self.not_,) if self.not_ else ())):
            yield from part.comparisons()


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a rule, mildest first. ``unconfirmed`` says what happens when confirmation does not come in time."""

    name: str
    severity: Severity
    when: Condition
    on_delay: str = "0s"
    off_delay: str = "0s"
    title: Text | None = None
    unconfirmed: Literal["hold", "dispatch"] = "hold"
    closes_road: bool = False

    def __post_init__(self) -> None:
        seconds(self.on_delay)
        seconds(self.off_delay)


class Confirm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an alert is confirmed before a crew is sent.

    ``auto``: the edge's own on-delay is enough. ``corroborate``: at least ``needed`` other devices within ``within_m``
    metres say so too, by an alert of one of the ``hazards`` raised not longer than ``window`` before, or standing.
    """

    policy: Literal["auto", "corroborate"]
    hazards: tuple[str, ...] = ()
    needed: int = 1
    within_m: float = 300.0
    window: str = "10min"
    wait: str = "5min"

    def __post_init__(self) -> None:
        seconds(self.window)
        seconds(self.wait)
        if (self.policy == "corroborate") != bool(self.hazards):
            raise ValueError("`hazards` goes with the policy `corroborate`, and that policy needs it")


class Runbook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the duty officer and the crew need to know; ``limit`` is the handling limit on a continuous clock."""

    cause: Text
    consequence: Text
    response: Text
    function: str
    limit: str
    source: str

    def __post_init__(self) -> None:
        seconds(self.limit)


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A told history that a rule must fire on, or stay quiet on.

    ``points`` gives each metric as steps of (value, how long), read every ``every``, or once at each step where
    ``every`` is ``"change"`` (a device that reports on change). A value of ``nan`` is a stretch without a reading.
    ``level`` is the highest level that is expected to be raised, and with ``stands`` nothing has cleared it by the end
    (both for ``fires_when``).
    """

    say: str
    every: str
    points: dict[str, tuple[tuple[float, str], ...]]
    level: str = ""
    stands: bool = False

    def __post_init__(self) -> None:
        if self.every != "change":
            seconds(self.every)
        for steps in self.points.values():
            for _, lasts in steps:
                seconds(lasts)


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule on one kind of device. ``case`` tells the city being sick from the sensor being sick.

    While ``doubt`` is true its sensor is not believed: no level's truth is known, so nothing is raised, and nothing
    that stands is cleared. What can be doubted is not confirmed by time alone: a rule with a doubt steps by samples.
    """

    id: str
    kind: str
    hazard: str
    case: Literal["city", "device"]
    title: Text
    level: tuple[Level, ...]
    confirm: Confirm
    runbook: Runbook
    source: str
    fires_when: tuple[Example, ...]
    quiet_when: tuple[Example, ...]
    doubt: Condition | None = None

    def __post_init__(self) -> None:
        if not self.level:
            raise ValueError(f"rule `{self.id}` has no level")
        ranks = [level.severity.rank for level in self.level]
        if ranks != sorted(set(ranks)):
            raise ValueError(f"the levels of rule `{self.id}` must rise in severity")
        names = [level.name for level in self.level]
        if len(set(names)) < len(names):
            raise ValueError(f"rule `{self.id}` has two levels of one name")
        for example in self.fires_when:
            if example.level and example.level not in names:
                raise ValueError(
                    f"an example of rule `{self.id}` expects the level `{example.level}`, which it has not"
                )
        if any(comparison.column.strip() == SILENCE for comparison in self.comparisons()):
            self._check_silence()
        if not self.fires_when or not self.quiet_when:
            raise ValueError(f"rule `{self.id}` needs examples that fire and that stay quiet")

    def comparisons(self) -> Iterator[Condition]:
        """Every comparison it makes, those of its doubt last."""
        for level in self.level:
            yield from level.when.comparisons()
        if self.doubt is not None:
            yield from self.doubt.comparisons()

    @property
    def watches_silence(self) -> bool:
        """Whether it judges that nothing came, rather than what came."""
        return self.level[0].when.column.strip() == SILENCE

    def _check_silence(self) -> None:
        # Silence is a deadline that every sample moves, not a number that samples bring: it stands alone.
        level = self.level[0]
        delayed = seconds(level.on_delay) or seconds(level.off_delay)
        plain = level.when.column and level.when.above is not None and level.when.clear is None
        if len(self.level) > 1 or not plain or delayed or self.doubt is not None:
            raise ValueError(
                f"rule `{self.id}`: `silence` goes in one level as `above`, without `clear`, delays, doubt or company"
            )


class Pack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the catalog, its rules not yet read."""

    rule: tuple[dict[str, Any], ...]


def load_rules(text: str, place: str) -> tuple[Rule, ...]:
    """Read one pack; ``Refused`` names file, rule and key."""
    raw = decode(text, Pack, place).rule
    with located(Source(place, text)):
        rules = tuple(
            convert(rule, Rule, f"{place}: rule {rule['id']}" if "id" in rule else f"{place}: rule[{number}]")
            for number, rule in enumerate(raw)
        )
        ids = [rule.id for rule in rules]
        for rule in rules:
            if ids.count(rule.id) > 1:
                raise Refused(f"{place}: rule {rule.id}", "this id is declared twice")
    return rules
