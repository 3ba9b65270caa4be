"""Life turns truth into alerts: on-delay and off-delay, levels that escalate one alert, and what is worth telling.

Hysteresis (``clear``) holds only a level that is up: an on-delay asks that the limit itself is exceeded all through.

One scalar state per alert that stands or is on its way. A quiet city has few, so this is plain Python; the engine
calls it only for those.
"""

from collections.abc import Sequence

import msgspec

from rules.alert import Phase
from rules.declared import seconds
from rules.plan import TRUE, UNKNOWN
from rules.rule import Rule


class Delays(msgspec.Struct, frozen=True):
    """How long each level of a rule must be true to rise, and false to fall: nanoseconds, mildest level first."""

    on: tuple[int, ...]
    off: tuple[int, ...]

    @classmethod
    def of(cls, rule: Rule) -> "Delays":
        return cls(
            tuple(round(seconds(level.on_delay) * 1e9) for level in rule.level),
            tuple(round(seconds(level.off_delay) * 1e9) for level in rule.level),
        )


class Alert(msgspec.Struct):
    """One rule on one device, from its first true instant until nothing of it is left.

    Per level: ``true`` is its newest known truth, ``turned`` when that began (UTC ns), ``up`` whether the level counts:
    true for its on-delay, and since then not false for its off-delay. ``held`` are its limits with a ``clear`` that are
    met, by number: while it is up until back at ``clear``, else by the limit itself, so that rising arms them. ``told``
    is the level last told, 0 while pending. ``watched`` is the limit that opened it and ``extreme`` the farthest value
    seen beyond that limit.
    """

    since: int
    true: list[bool]
    turned: list[int]
    up: list[bool]
    held: list[tuple[int, ...]]
    told: int = 0
    revision: int = 0
    watched: int = -1
    extreme: float = 0.0

    @classmethod
    def opened(cls, levels: int, at: int) -> "Alert":
        return cls(at, [False] * levels, [at] * levels, [False] * levels, [()] * levels)

    @property
    def stands(self) -> bool:
        """Whether anything of it is up or on its way."""
        return any(self.up) or any(self.true)

    @property
    def highest_true(self) -> int:
        """The highest level that is true, counted from 1; 0 when none is."""
        return max((level for level, true in enumerate(self.true, 1) if true), default=0)

    def sample(self, at: int, truths: Sequence[int], delays: Delays) -> Phase | None:
        """Take each level's truth at an instant; ``UNKNOWN`` (or nothing new of that level) holds what was."""
        for level, truth in enumerate(truths):
            if truth == UNKNOWN:
                continue
            true = truth == TRUE
            if true != self.true[level]:
                self.true[level] = true
                self.turned[level] = at
            if at - self.turned[level] >= (delays.on if true else delays.off)[level]:
                self.up[level] = true
        return self._tell()

    def due(self, delays: Delays, counts_on: Sequence[bool]) -> int | None:
        """When the next delay runs out, for levels whose last value ``counts_on`` without new samples; UTC ns."""
        return min(
            (
                self.turned[level] + (delays.on if true else delays.off)[level]
                for level, true in enumerate(self.true)
                if counts_on[level] and true != self.up[level]
            ),
            default=None,
        )

    def expire(self, at: int, delays: Delays, counts_on: Sequence[bool]) -> Phase | None:
        """Let every delay that ran out at ``at`` (which ``due`` named) take effect."""
        for level, true in enumerate(self.true):
            if counts_on[level] and at - self.turned[level] >= (delays.on if true else delays.off)[level]:
                self.up[level] = true
        return self._tell()

    def _tell(self) -> Phase | None:
        """Say what the present state adds to what was told; once raised, it lasts while a level is up or on its way."""
        before = self.told
        highest = max((level for level, up in enumerate(self.up, 1) if up), default=0)
        if highest:
            self.told = highest
        if not self.stands:
            return Phase.CLEARED if before else Phase.LAPSED if self.revision else None
        if self.told != before:
            return Phase.UPDATED if before else Phase.RAISED
        return None if self.revision else Phase.PENDING
