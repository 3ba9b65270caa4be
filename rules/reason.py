"""Why: the comparison that decided, with its numbers, and the evidence it was decided on."""

from collections.abc import Collection
from dataclasses import dataclass

from rules.alert import Phase, Reason
from rules.life import Alert, Delays
from rules.plan import FALSE, TRUE, UNKNOWN, Plan
from rules.rule import Condition


@dataclass(frozen=True, slots=True)
class Sight:
    """What was known of one device at one instant: ``columns`` by number (NaN: not known).

    ``held`` are the limits, by number, that hysteresis holds in a condition.
    """

    plan: Plan
    columns: list[float]

    def met(self, limit: int, held: Collection[int]) -> bool:
        of = self.plan.limits[limit]
        return of.met(self.columns[of.column], limit in held)

    def truth(self, condition: Condition, held: Collection[int]) -> int:
        if condition.column:
            index = self.plan.limit_of[condition]
            value = self.columns[self.plan.limits[index].column]
            return UNKNOWN if value != value else TRUE if self.met(index, held) else FALSE  # noqa: PLR0124 - NaN
        if condition.not_ is not None:
            return TRUE - self.truth(condition.not_, held)
        parts = [self.truth(part, held) for part in condition.all or condition.any]
        return min(parts) if condition.all else max(parts)

    def deciding(self, condition: Condition, wanted: int, held: Collection[int]) -> int:
        """The limit that made ``condition`` what it is.

        All of several are true by each of them, so the first written speaks; they are false by the first false one.
        """
        while not condition.column:
            if condition.not_ is not None:
                condition, wanted = condition.not_, TRUE - wanted
                continue
            parts = condition.all or condition.any
            condition = next((part for part in parts if self.truth(part, held) == wanted), parts[0])
        return self.plan.limit_of[condition]

    def evidence(self, rule: int) -> dict[str, float]:
        """The columns that a rule compares, those that are known."""
        return {
            str(self.plan.columns[column]): self.columns[column]
            for column in self.plan.columns_of_rule[rule]
            if self.columns[column] == self.columns[column]
        }


def watch(alert: Alert, sight: Sight) -> None:
    """Keep the farthest value beyond the limit that opened a pending alert."""
    limit = sight.plan.limits[alert.watched]
    value = sight.columns[limit.column]
    if value == value:  # noqa: PLR0124 - NaN
        alert.extreme = min(alert.extreme, value) if limit.code == "below" else max(alert.extreme, value)


def reason(
    phase: Phase, alert: Alert, level: int, condition: Condition, at: int, delays: Delays, sight: Sight
) -> Reason:
    """Why ``alert`` took this step at ``at`` (UTC ns), on ``level`` (from 1) with its ``condition``."""
    lapsed, cleared = phase is Phase.LAPSED, phase is Phase.CLEARED
    wanted = FALSE if cleared else TRUE
    index = alert.watched if lapsed else sight.deciding(condition, wanted, alert.held[level - 1])
    limit = sight.plan.limits[index]
    value = sight.columns[limit.column]
    numbers = {"limit": limit.leave if cleared else limit.enter}
    if value == value:  # noqa: PLR0124 - NaN
        numbers["value"] = value
    if lapsed:
        lasted_s = (at - alert.since) / 1e9
        numbers |= {"lasted_s": lasted_s, "on_delay_s": delays.on[level - 1] / 1e9, "extreme": alert.extreme}
    numbers["for_s"] = numbers["lasted_s"] if lapsed else (at - alert.turned[level - 1]) / 1e9
    return Reason(limit.code, str(sight.plan.columns[limit.column]), numbers)
