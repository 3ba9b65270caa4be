"""Polls the devices of one bus; whatever goes wrong with one, polling goes on, and its neighbours hardly feel it.

Nothing that a bus or a device does can end the task: every ``Failed`` is an outcome of a poll, and every wait has an
end.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable

import structlog

from edge.asking import REFUSING, Asked
from edge.drivers.address import Address
from edge.drivers.modbus import Connection, Declined, Failed, Garbled, NoAnswer, Unreachable, Write
from edge.installed import Installed
from edge.plan import Request
from edge.reading import Reading
from edge.schedule import DOWN_AFTER, Schedule
from rules.district import Modbus
from rules.samples import Quality
from wire.clock import Clock
from wire.counted import Counted

TELL_EVERY_S = 60.0  # city: how often a device that stays down says so, and one that refuses some of its points
REFUSED_FOR_S = 600.0  # city
_BUSY = 6
_SILENT = (4, 5, 10, 11)  # exceptions that are as good as no answer: a fault, a long job, nobody behind the gateway

Put = Callable[[Reading], Awaitable[None]]

log = structlog.get_logger(__name__)


class ModbusBus:
    """One bus: one connection, one question in flight, one schedule.

    There is never a second connection, which a device that serves one master at a time would turn away, and at the end
    it is closed in order, so that such a device is free at once. ``gateway.config`` refuses two buses at one endpoint.

    Parameters
    ----------
    name
        The bus's id, for the log.
    address
        Where it is.
    places
        Its devices; those on other wires are left out.
    clock
        The city's clock: intervals count on it, and ``taken_at`` is its time when the reply came.
    counted
        Where polls that failed or were skipped are counted: each failure adds one under its kind's name, so a register
        map that is not the device's own shows as a steady ``edge_poll_exception_02_total``.

    Attributes
    ----------
    skipped
        How many slots of devices that answer were lost for want of time.
    """

    def __init__(
        self, name: str, address: Address, places: Iterable[Installed], clock: Clock, counted: Counted | None = None
    ) -> None:
        self.skipped = 0
        self._connection = Connection(address)
        self._clock = clock
        self._counted = counted or Counted()
        self._log = log.bind(bus=name)
        refused_for_s = clock.wall_seconds(REFUSED_FOR_S)
        self._devices = [
            Asked(place, clock.speed, refused_for_s, self._counted)
            for place in places
            if isinstance(place.device.wire, Modbus)
        ]
        self._by_id = {device.id: device for device in self._devices}
        self._schedule = Schedule(self._devices, address.timeout_s)
        self._tell_every_s = clock.wall_seconds(TELL_EVERY_S)
        self._now = time.monotonic  # until the loop runs, whose time it is
        self._lost_at = 0.0
        self._behind = False
        pauses = (device.limits.pause_after_connect_s for device in self._devices)
        self._connection.pause_after_connect_s = max(pauses, default=0.0)

    @property
    def down(self) -> tuple[str, ...]:
        """The devices that do not answer."""
        return tuple(device.id for device in self._devices if self._is_down(device))

    @property
    def cycle_s(self) -> float | None:
        """How long the devices with the shortest interval really wait for their next poll, city seconds.

        None while nothing is known of it: at first, and while no device answers.
        """
        cycle_s = self._schedule.cycle_s
        silent = all(map(self._is_down, self._devices))
        return None if cycle_s is None or silent else cycle_s * self._clock.speed

    async def run(self, put: Put) -> None:
        """Poll until cancelled. A failed poll becomes samples of bad quality, never a repeated value."""
        if not self._devices:
            return
        self._now = asyncio.get_running_loop().time
        schedule = self._schedule
        schedule.begin(self._now())
        async with self._connection:
            while True:
                at, device = schedule.next(self._now())
                await asyncio.sleep(max(0.0, at - self._now()))
                await self._poll(device, put)

    async def read(self, place: Installed, request: Request) -> bytes:
        """Read from a device of this bus ahead of the next poll; the data bytes. ``Failed`` as ``Connection.read``.

        Addresses are those that go over the bus, as in ``Reads.requests``. A device that is down fails at once: whoever
        asks again and again must not hold up its neighbours, and polling finds out when it is back.
        """
        device = self._answering(place)
        return await self._connection.read(device.unit, request, device.limits.guard_s)

    async def write(self, place: Installed, write: Write) -> None:
        """Write to a device of this bus ahead of the next poll. ``Failed`` as ``read``.

        The register is the one that goes over the bus: the profile's, with the device's ``base`` on top.
        """
        device = self._answering(place)
        await self._connection.write(device.unit, write, device.limits.guard_s)

    async def _poll(self, device: Asked, put: Put) -> None:
        began = self._now()
        try:
            replies = await device.ask(self._connection, began)
        except Unreachable as failure:
            await self._lost(device, failure, put)
        except Failed as failure:
            self._reached()
            await self._failed(device, failure, began, put)
        else:
            taken_at = self._clock.now()
            self._reached()
            self._answered(device)
            await put(Reading(device.place, taken_at, replies))
            if device.refused and self._now() - device.refused_told_at >= self._tell_every_s:
                device.refused_told_at = self._now()
                await put(Reading(device.place, taken_at, device.refused, Quality.BAD_COMMS))

    def _answered(self, device: Asked) -> None:
        now = self._now()
        if device.failures >= DOWN_AFTER:
            down_s = round((now - device.failing_since) * self._clock.speed, 3)
            self._log.info("device is back", device=device.id, down_s=down_s, failed_polls=device.failures)
        if lost := self._schedule.answered(device, now):
            self.skipped += lost
            self._counted.add("edge_polls_skipped_total", lost)
        if self._schedule.behind != self._behind:
            self._behind = self._schedule.behind
            asked_s = self._schedule.asked_s * self._clock.speed
            told = self._log.bind(asked_s=asked_s, actual_s=self.cycle_s, devices=len(self._devices))
            if self._behind:
                told.warning("bus cannot keep its intervals", skipped_polls=self.skipped)
            else:
                told.info("bus keeps its intervals again", skipped_polls=self.skipped)

    async def _failed(self, device: Asked, failure: Failed, began: float, put: Put) -> None:
        now = self._now()
        counter = f"edge_poll_{failure.name}_total"
        code = failure.code if isinstance(failure, Declined) else 0
        if code not in REFUSING:  # of which every one was counted when it came
            self._counted.add(counter)
        if code == _BUSY and self._schedule.busy(device, now):
            return
        if not device.failures:
            device.failing_since = began
        self._schedule.failed(device, began, now)
        told = self._log.bind(device=device.id, profile=device.place.profile.id, why=str(failure), counter=counter)
        if device.failures == 1 and (isinstance(failure, Garbled) or code not in (0, _BUSY, *_SILENT)):
            told.warning("bad answer")  # silence is daily life on a bus; a wrong answer is not
        if device.failures == DOWN_AFTER:
            told.warning("device is down")
            device.told_at = -math.inf
        await self._tell_failed(device, put)

    async def _lost(self, device: Asked, failure: Unreachable, put: Put) -> None:
        """Nobody on the bus can be asked: one attempt counts for all, and all wait together."""
        now, schedule = self._now(), self._schedule
        counter = f"edge_poll_{failure.name}_total"
        self._counted.add(counter)
        if not schedule.attempts:
            self._lost_at = now
        schedule.unreachable(device, now)
        if schedule.attempts == DOWN_AFTER:
            self._log.warning("bus is down", devices=len(self._devices), why=str(failure), counter=counter)
            for each in self._devices:
                each.told_at = -math.inf
        await self._tell_failed(device, put)

    def _reached(self) -> None:
        """Take note that the bus was reached, whatever its device said."""
        attempts = self._schedule.attempts
        if not attempts:
            return
        now = self._now()
        if attempts >= DOWN_AFTER:
            down_s = round((now - self._lost_at) * self._clock.speed, 3)
            self._log.info("bus is back", devices=len(self._devices), down_s=down_s, attempts=attempts)
        self._schedule.reachable(now)

    def _answering(self, place: Installed) -> Asked:
        device = self._by_id[place.device.id]
        if self._schedule.attempts >= DOWN_AFTER:
            raise Unreachable(f"the bus of {device.id} is down")
        if device.failures >= DOWN_AFTER:
            raise NoAnswer(f"{device.id} is down")
        return device

    def _is_down(self, device: Asked) -> bool:
        return device.failures >= DOWN_AFTER or self._schedule.attempts >= DOWN_AFTER

    async def _tell_failed(self, failed: Asked, put: Put) -> None:
        """Say that a poll failed; of each device that does not answer, at once and then every minute."""
        for device in self._devices:
            down = self._is_down(device)
            if (down and self._now() - device.told_at >= self._tell_every_s) or (device is failed and not down):
                device.told_at = self._now()
                await put(Reading(device.place, self._clock.now(), None, Quality.BAD_COMMS))
