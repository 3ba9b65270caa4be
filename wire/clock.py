"""The city's clock. In the street it is UTC; in a simulated city it may run faster, at one stated speed for all."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import msgspec

NANOSECONDS = 1_000_000_000
HOUR = 3600 * NANOSECONDS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """City time in UTC nanoseconds: ``city`` at the wall instant ``wall``, and ``speed`` city seconds a second since.

    Every process of a simulated city is started with the same three numbers, so they agree without talking.
    """

    wall: int = 0
    city: int = 0
    speed: float = 1.0

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise ValueError("`speed` of the clock must be above 0; 1 is real time")

    def now(self) -> int:
        """City time, UTC nanoseconds."""
        return self.city_at(time.time_ns())

    def city_at(self, wall: int) -> int:
        """City time at a wall instant (UTC nanoseconds)."""
        return self.city + int((wall - self.wall) * self.speed) if self.speed != 1.0 else self.city + wall - self.wall

    def wall_at(self, city: int) -> int:
        """The wall instant (UTC nanoseconds) of an instant of city time."""
        return self.wall + int((city - self.city) / self.speed) if self.speed != 1.0 else self.wall + city - self.city

    def wall_seconds(self, city_seconds: float) -> float:
        """How long a span of city time lasts on the wall."""
        return city_seconds / self.speed

    async def sleep(self, city_seconds: float) -> None:
        """Wait for a span of city time, seconds."""
        await asyncio.sleep(max(0.0, self.wall_seconds(city_seconds)))

    async def sleep_until(self, city: int) -> None:
        """Wait until an instant of city time (UTC nanoseconds); at once if it has passed."""
        await self.sleep((city - self.now()) / NANOSECONDS)


def iso(at: int) -> str:
    """UTC nanoseconds as ISO 8601 with zone and milliseconds, as the API shows times."""
    return (_EPOCH + timedelta(microseconds=at // 1000)).isoformat(timespec="milliseconds")


def from_iso(text: str) -> int:
    """ISO 8601 to UTC nanoseconds; ``ValueError`` on a naive time."""
    return from_datetime(datetime.fromisoformat(text))


def from_datetime(at: datetime) -> int:
    """A zoned datetime to UTC nanoseconds; ``ValueError`` on a naive one."""
    if at.tzinfo is None:
        raise ValueError(f"{at.isoformat()} has no zone; write one, as in {at.isoformat()}Z")
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
