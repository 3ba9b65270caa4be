"""Polls the devices of one bus on an absolute schedule; a dead one costs its neighbours one time-out at most."""

import random
from collections.abc import Awaitable, Callable, Iterable

import numpy as np
import structlog

from edge.agent import Reading
from edge.drivers.modbus import Connection, Declined, Failed, Garbled, Unreachable
from edge.installed import Installed
from edge.reads import Reads
from rules.district import Modbus
from rules.samples import Quality
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted

DOWN_AFTER = 2  # failures in a row
BACKOFF_MOST_S = 10.0  # wall
TELL_EVERY_S = 60.0  # city: how often a device that stays down says so
PROBE_SHARE = 10.0  # on a bus that has no time to spare, dead devices get at most one part in so many

log = structlog.get_logger(__name__)


class ModbusBus:
    """One bus: one connection, one request in flight, one schedule.

    Parameters
    ----------
    name
        The bus's id, for the log.
    host, port
        Where it listens.
    places
        Its devices.
    clock
        The city's clock: intervals count on it, and ``taken_at`` is its time when the reply came.
    counted
        Where polls that failed or were skipped are counted: every poll that failed adds one under its kind's name, so
        a register map that is not the device's own shows as a steady ``edge_poll_exception_02_total``.
    timeout_s
        Wall seconds that one answer may take.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        places: Iterable[Installed],
        clock: Clock,
        counted: Counted | None = None,
        *,
        timeout_s: float = 1.0,
    ) -> None:
        self._connection = Connection(host, port, timeout_s)
        self._clock = clock
        self._counted = counted or Counted()
        self._timeout_s = timeout_s
        self._log = log.bind(bus=name)
        reads: dict[str, Reads] = {}
        self._polled = [
            _Polled(place, reads.setdefault(place.profile.id, Reads(place.profile)))
            for place in places
            if isinstance(place.device.wire, Modbus)
        ]
        self._probed_at = 0

    @property
    def down(self) -> tuple[str, ...]:
        """The devices that do not answer."""
        return tuple(polled.place.device.id for polled in self._polled if polled.is_down)

    async def run(self, put: Callable[[Reading], Awaitable[None]]) -> None:
        """Poll until cancelled. A failed poll becomes samples of bad quality, never a repeated value."""
        if not self._polled:
            return
        start = self._clock.now()
        for place, polled in enumerate(self._polled):
            polled.due = start + polled.interval * place // len(self._polled)
        async with self._connection:
            while True:
                polled = self._next()
                await self._clock.sleep_until(polled.due)
                await self._poll(polled, put)

    def _next(self) -> "_Polled":
        """Choose the earliest due; but a device that is down waits while a living one is due, within reason."""
        now = self._clock.now()
        earliest = min(self._polled, key=lambda polled: polled.due)
        living = min((polled for polled in self._polled if not polled.is_down), key=lambda p: p.due, default=earliest)
        waited = now - max(earliest.due, self._probed_at)
        patience = PROBE_SHARE * self._timeout_s * self._clock.speed * NANOSECONDS
        return living if living.due <= now and waited < patience else earliest

    async def _poll(self, polled: "_Polled", put: Callable[[Reading], Awaitable[None]]) -> None:
        was_down = polled.is_down
        try:
            replies = [await self._connection.read(polled.unit, request) for request in polled.reads.requests]
        except Unreachable as failure:
            # No device of this bus can answer: one attempt counts for all, and all wait together.
            pause = self._pause(polled.failures)
            for each in self._polled:
                await self._failed(each, failure, pause, put)
        except Failed as failure:
            await self._failed(polled, failure, self._pause(polled.failures), put)
        else:
            taken_at = self._clock.now()
            if was_down:
                self._log.info("device is back", device=polled.place.device.id, failed_polls=polled.failures)
            polled.failures = 0
            self._schedule(polled, taken_at)
            value, quality = polled.reads.decode([np.frombuffer(reply, np.uint8)[None] for reply in replies])
            await put(polled.place.reading(taken_at, value[0], quality[0]))
        if was_down:
            self._probed_at = self._clock.now()

    def _pause(self, failures: int) -> float:
        """Wall seconds to leave a device alone after so many failures before this one."""
        most = min(self._timeout_s * 2.0 ** min(failures, 10), BACKOFF_MOST_S)
        return most * random.uniform(0.5, 1.0)

    async def _failed(
        self, polled: "_Polled", failure: Failed, pause: float, put: Callable[[Reading], Awaitable[None]]
    ) -> None:
        now = self._clock.now()
        name = f"edge_poll_{failure.name}_total"
        self._counted.add(name)
        polled.failures += 1
        self._schedule(polled, now)
        told = self._log.bind(device=polled.place.device.id, profile=polled.place.profile.id, why=str(failure))
        if polled.failures == 1 and isinstance(failure, Declined | Garbled):
            told.warning("bad answer", counter=name)  # silence is daily life on a bus; a wrong answer is not
        if polled.failures >= DOWN_AFTER:
            polled.due = max(polled.due, now + int(pause * self._clock.speed * NANOSECONDS))
            if polled.failures == DOWN_AFTER:
                told.warning("device is down", counter=name)
            if polled.failures == DOWN_AFTER or now - polled.told_at >= TELL_EVERY_S * NANOSECONDS:
                polled.told_at = now
                await put(polled.place.bad(now, Quality.BAD_COMMS))

    def _schedule(self, polled: "_Polled", now: int) -> None:
        """Go on to the next slot that is still to come; the slots that passed meanwhile are counted, not made up."""
        if polled.due <= now:
            passed = (now - polled.due) // polled.interval
            polled.due += (passed + 1) * polled.interval
            if passed and not polled.is_down:
                self._counted.add("edge_polls_skipped_total", passed)


class _Polled:
    """One device's place in the schedule; times are UTC nanoseconds of the city."""

    def __init__(self, place: Installed, reads: Reads) -> None:
        assert isinstance(place.device.wire, Modbus)  # noqa: S101 - chosen so
        self.place = place
        self.reads = reads
        self.unit = place.device.wire.unit
        self.interval = int(place.interval_s * NANOSECONDS)
        self.due = 0
        self.failures = 0
        self.told_at = 0

    @property
    def is_down(self) -> bool:
        return self.failures >= DOWN_AFTER
