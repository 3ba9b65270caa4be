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
    """One comparison, ready for arrays: met from beyond ``enter`` until back at ``leave``, in the column's unit."""

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


class Plan:
    """Columns, limits and levels of the rules of one kind, numbered; a comparison that stands twice is made once.

    ``columns`` are compared; ``metric_of`` says which metric each rests on. ``levels`` run over all rules, those of one
    rule together and mildest first, from ``first[rule]``.
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

        self._limit_column = np.array([limit.column for limit in self.limits], np.intp)
        sign = np.array([-1.0 if limit.code == "below" else 1.0 for limit in self.limits])[:, None, None]
        self._sign = sign
        self._enter = sign * np.array([limit.enter for limit in self.limits])[:, None, None]
        self._leave = sign * np.array([limit.leave for limit in self.limits])[:, None, None]
        self._equals = np.flatnonzero([limit.code == "equals" for limit in self.limits])

    def _column(self, comparison: Condition) -> int:
        return self.columns.index(parse(comparison.column))

    def limits_met(self, columns: NDArray[np.float64], before: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether each limit is met, with hysteresis: ``columns`` ``[C, n, T]``, ``before`` ``[L, n]`` → ``[L, n, T]``.

        A column not known (NaN) neither meets nor leaves a limit: what held before holds on.
        """
        value = columns[self._limit_column]
        signed = value * self._sign
        enters = signed > self._enter
        leaves = signed <= self._leave
        if self._equals.size:
            same = value[self._equals] == self._enter[self._equals]
            enters[self._equals] = same
            leaves[self._equals] = ~same & ~np.isnan(value[self._equals])
        return hold(enters, enters | leaves, before)

    def truth(self, columns: NDArray[np.float64], met: NDArray[np.bool_]) -> Truth:
        """Each level's truth ``[levels, n, T]`` from columns ``[C, n, T]`` and limits met ``[L, n, T]``.

        Nothing is known of a rule in doubt; a doubt that is not known itself is none.
        """
        limits = np.where(np.isnan(columns)[self._limit_column], np.int8(UNKNOWN), met.astype(np.int8) * np.int8(TRUE))
        truth = np.stack([self._evaluate(level.when, limits) for level in self.levels])
        for rule, levels in zip(self.rules, self.slices, strict=True):
            if rule.doubt is not None:
                truth[levels, self._evaluate(rule.doubt, limits) == TRUE] = UNKNOWN
        return truth

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
