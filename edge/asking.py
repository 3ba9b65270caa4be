"""What one device on a bus is asked in a poll, and what is learned of it when it refuses."""

import asyncio
import math

import structlog

from edge.drivers.modbus import Connection, Declined
from edge.installed import Installed
from edge.reading import Replies
from edge.reads import Reads
from edge.schedule import Turn
from rules.district import Modbus
from wire.counted import Counted

REFUSING = (1, 2, 3)  # exceptions that say that the register map is not the device's own

log = structlog.get_logger(__name__)


class Asked(Turn):
    """One device: its place in the schedule of its bus, and what it is asked. Instants and spans are wall seconds.

    A read that it refuses is asked for in ever smaller pieces, and so from then on. A point that it refuses by itself
    is left out until another try; ``refused`` then has 0.0 for each such point and NaN for the others.

    Parameters
    ----------
    place
        The device, on a bus.
    speed
        City seconds in one of the wall.
    refused_for_s
        After how long a refused point is tried again: a device that starts up may refuse anything.
    counted
        Where refusals are counted.
    """

    def __init__(self, place: Installed, speed: float, refused_for_s: float, counted: Counted) -> None:
        assert isinstance(place.device.wire, Modbus)  # noqa: S101 - chosen so
        super().__init__(place.interval_s / speed)
        self.place = place
        self.id = place.device.id
        self.unit = place.device.wire.unit
        self.limits = place.profile.limits
        self.refused: tuple[float, ...] = ()
        self.failing_since = self.told_at = self.refused_told_at = -math.inf
        self._refused_for_s = refused_for_s
        self._refused_until = math.inf
        self._counted = counted
        self._all = self._reads = Reads(place.profile, place.device.wire.base)

    async def ask(self, connection: Connection, now: float) -> Replies:
        """Read all there is to read; ``Failed`` as ``Connection.read``.

        ``Declined`` is one that refuses everything: it is no better than silent, and nothing is learned from it.
        """
        try:
            return await self._ask(connection, now)
        finally:
            if self.limits.close_after_cycle:
                connection.close()

    async def _ask(self, connection: Connection, now: float) -> Replies:
        reads, pause_s = self._reads, self.limits.pause_between_requests_s
        if now >= self._refused_until:
            self._refused_until = now + self._refused_for_s
            reads = self._all
        data: list[bytes] = []
        refusal: Declined | None = None
        while len(data) < len(reads.requests):
            if pause_s and (data or refusal):
                await asyncio.sleep(pause_s)
            request = reads.requests[len(data)]
            try:
                data.append(await connection.read(self.unit, request, self.limits.guard_s))
            except Declined as declined:
                if declined.code not in REFUSING:
                    raise
                self._counted.add(f"edge_poll_{declined.name}_total")
                refusal = refusal or declined
                reads = reads.split(request)
        if refusal is not None and not data:
            raise refusal
        if reads is not self._reads:
            self._learn(reads, refusal, now)
        return Replies(reads, tuple(data))

    def _learn(self, reads: Reads, refusal: Declined | None, now: float) -> None:
        """Ask so from now on; told when points come or go, or when a read went to pieces."""
        before, after = self._reads.left_out, reads.left_out
        self._reads = reads
        self._refused_until = now + self._refused_for_s if after else math.inf
        self._counted.add("edge_points_refused_total", len(after))
        told = log.bind(device=self.id, profile=self.place.profile.id)
        if after == before:
            if not after:
                told.info("read in smaller pieces", requests=len(reads.requests), why=str(refusal))
            return
        self.refused_told_at = -math.inf
        measured = self.place.profile.measured
        self.refused = tuple(0.0 if each.metric in after else math.nan for each in measured) if after else ()
        if after:
            cure = "correct the profile, or name another one for this device; it is asked again every ten minutes"
            told.warning("points refused", metrics=after, why=str(refusal), cure=cure)
        else:
            told.info("points no longer refused", metrics=before)
