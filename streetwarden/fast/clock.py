"""City time that is set, not measured: an hour of it lasts as long as its work."""

import msgspec

from wire.clock import Clock


class VirtualClock(Clock, frozen=True):
    """A clock that stands until it is set; ``instant`` holds the city's time, UTC nanoseconds. It never runs back."""

    instant: list[int] = msgspec.field(default_factory=lambda: [0])

    @classmethod
    def at(cls, now: int) -> "VirtualClock":
        return cls(instant=[now])

    def now(self) -> int:
        return self.instant[0]

    def set(self, now: int) -> None:
        """Let it be ``now``; an instant that has passed changes nothing."""
        self.instant[0] = max(self.instant[0], now)
