"""What the rules of one kind compare, planned once; and their three-valued truth on arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rules.columns import Column, parse
from rules.rule import Condition, Level, Rule
from rules.tile import hold

FALSE, UNKNOWN, TRUE = 0, 1, 2  # so that and = min, or = max, not = 2 - x (Kleene's strong logic)

Truth = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Limit:
    """One comparison: met beyond ``enter``, and where hysteresis holds it on until back at ``leave``; column's unit."""

    column: int
    code: Literal["above", "below", "equals"]
    enter: float
    leave: float

    @classmethod
    def of(cls, comparison: Condition, column: int) -> "Limit":
        for code in ("above", "below", "equals"):
            enter: float | None = getattr(comparison, code)
            if enter is not None:
                return cls(column, code, enter, enter if comparison.clear is None else comparison.clear)
        raise ValueError("a comparison has a limit")  # Condition has checked it

    @property
    def has_clear(self) -> bool:
        return self.leave != self.enter

    def met(self, value: float, held: bool) -> bool:
        """Whether a value meets it, or has not yet left it where it is ``held``; one not known (NaN) does neither."""
        if self.code == "above":
            return value > self.enter or (held and not value <= self.leave)
        if self.code == "below":
            return value < self.enter or (held and not value >= self.leave)
        return value == self.enter


class Plan:
    """Columns, limits and levels of the rules of one kind, numbered; a comparison that stands twice is made once.

    ``columns`` are compared; ``metric_of`` says which metric each rests on. ``levels`` run over all rules, those of one
    rule together and mildest first, from ``first[rule]``. Here a level is judged by its limits themselves; hysteresis
    holds only a level that is raised, of which there are few: that is the alert's (``rules.life``). Of doubts it holds
    the limits ``latched``.
    """

    def __init__(self, rules: Sequence[Rule], metrics: Mapping[str, int]) -> None:
        self.rules = tuple(rules)
        comparisons = dict.fromkeys(comparison for rule in rules for comparison in rule.comparisons())
        self.columns: tuple[Column, ...] = tuple(dict.fromkeys(parse(comparison.column) for comparison in comparisons))
        self.metric_of = np.array([metrics[column.metric] for column in self.columns], np.intp)
        self.limits = tuple(Limit.of(comparison, self._column(comparison)) for comparison in comparisons)
        self.limit_of: Mapping[Condition, int] = {comparison: index for index, comparison in enumerate(comparisons)}

        self.levels: tuple[Level, ...] = tuple(level for rule in rules for level in rule.level)
        sizes = [len(rule.level) for rule in rules]
        self.first = np.cumsum([0, *sizes])[:-1]
        self.slices = tuple(slice(int(start), int(start) + size) for start, size in zip(self.first, sizes, strict=True))
        self.columns_of_rule = tuple(
            tuple(dict.fromkeys(self._column(comparison) for comparison in rule.comparisons())) for rule in rules
        )
        self.metrics_of_level = tuple(
            np.unique(self.metric_of[[self._column(c) for c in level.when.comparisons()]]) for level in self.levels
        )

        self.metrics_of_rule = tuple(np.unique(self.metric_of[list(columns)]) for columns in self.columns_of_rule)

        self.clearing = tuple(
            tuple(dict.fromkeys(self.limit_of[c] for c in level.when.comparisons() if c.clear is not None))
            for level in self.levels
        )
        doubts = {self.limit_of[c] for rule in rules if rule.doubt is not None for c in rule.doubt.comparisons()}
        self.latched = np.array(sorted(index for index in doubts if self.limits[index].has_clear), np.intp)

        self._limit_column = np.array([limit.column for limit in self.limits], np.intp)
        sign = np.array([-1.0 if limit.code == "below" else 1.0 for limit in self.limits])[:, None, None]
        self._sign = sign
        self._enter = sign * np.array([limit.enter for limit in self.limits])[:, None, None]
        self._leave = (sign * np.array([limit.leave for limit in self.limits])[:, None, None])[self.latched]
        self._equals = np.flatnonzero([limit.code == "equals" for limit in self.limits])

    def _column(self, comparison: Condition) -> int:
        return self.columns.index(parse(comparison.column))

    def truth(
        self, columns: NDArray[np.float64], before: NDArray[np.bool_]
    ) -> tuple[Truth, NDArray[np.bool_], NDArray[np.bool_]]:
        """Each level's truth by its limits themselves and whether it is believed, ``[levels, n, T]``, and the latches.

        ``columns`` are ``[C, n, T]``, latches ``[latched, n, T]``, those ``before`` ``[latched, n]``. A column that is
        not known (NaN) makes a limit unknown and leaves its latch as it was; a doubt that is not known is none.
        """
        value = columns[self._limit_column]
        unknown = np.isnan(value)
        signed = value * self._sign
        exceeded = signed > self._enter
        if self._equals.size:
            exceeded[self._equals] = value[self._equals] == self._enter[self._equals]
        limits = _known(exceeded, unknown)
        truth = np.stack([self._evaluate(level.when, limits) for level in self.levels])

        latches = exceeded[self.latched]
        if latches.size:
            latches = hold(latches, latches | (signed[self.latched] <= self._leave), before)
            limits[self.latched] = _known(latches, unknown[self.latched])
        believed = np.ones(truth.shape, np.bool_)
        for rule, levels in zip(self.rules, self.slices, strict=True):
            if rule.doubt is not None:
                believed[levels] = self._evaluate(rule.doubt, limits) != TRUE
        return truth, believed, latches

    def _evaluate(self, condition: Condition, limits: Truth) -> Truth:
        if condition.column:
            one: Truth = limits[self.limit_of[condition]]
            return one
        if condition.not_ is not None:
            opposite: Truth = np.int8(TRUE) - self._evaluate(condition.not_, limits)
            return opposite
        parts = [self._evaluate(part, limits) for part in condition.all or condition.any]
        combined: Truth = (np.minimum if condition.all else np.maximum).reduce(parts)
        return combined


def _known(met: NDArray[np.bool_], unknown: NDArray[np.bool_]) -> Truth:
    return np.where(unknown, np.int8(UNKNOWN), met.astype(np.int8) * np.int8(TRUE))
