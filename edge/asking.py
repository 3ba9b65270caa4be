"""What one device on a bus is asked in a poll, and what is learned of it when it refuses."""

import asyncio
import math

import structlog

from edge.drivers.modbus import Connection, Declined
from edge.installed import Installed
from edge.plan import Request, split
from edge.reading import Replies
from edge.reads import Reads
from edge.schedule import Turn
from rules.district import Modbus
from wire.counted import Counted

REFUSING = (1, 2, 3)  # exceptions that say that the register map is not the device's own
REFUSALS = 2  # in one poll: a device that is slow to refuse must not hold up its bus

log = structlog.get_logger(__name__)


class Asked(Turn):
    """One device: its place in the schedule of its bus, and what it is asked. Instants and spans are wall seconds.

    A read that it refuses is asked for in ever smaller pieces, and so from then on. A point that it refuses by itself
    is left out until another try; ``refused`` then has 0.0 for each such point and NaN for the others. A poll ends at
    its second refusal, and the next one goes on from there.

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
        self._base = place.device.wire.base
        self._all = self._reads = self._learned = self._of(())
        self._pieces = self._all  # as much in pieces as was ever refused, what was refused last at the end
        self._refusal: Declined | None = None  # while it is not yet known what all is refused

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
        refusals: list[Declined] = []
        while len(data) < len(reads.requests) and len(refusals) < REFUSALS:
            if pause_s and (data or refusals):
                await asyncio.sleep(pause_s)
            request = reads.requests[len(data)]
            try:
                data.append(await connection.read(self.unit, request, self.limits.guard_s))
            except Declined as declined:
                if declined.code not in REFUSING:
                    raise
                self._counted.add(f"edge_poll_{declined.name}_total")
                refusals.append(declined)
                reads = self._split(reads, len(data))
        if refusals and not data:
            raise refusals[0]
        if refusals:
            self._refusal = self._refusal or refusals[0]
        if len(data) < len(reads.requests):
            self._reads = reads
            return Replies(self._of(reads.layout.requests[: len(data)]), tuple(data))
        if reads is self._all:
            self._pieces = reads
        if reads is not self._learned:
            self._learn(reads, now)
        return Replies(reads, tuple(data))

    def _split(self, reads: Reads, answered: int) -> Reads:
        """Give what to ask once it refused the request after those that it answered."""
        asked, pieces = reads.layout.requests, self._pieces.layout.requests
        refused = asked[answered]
        if refused in pieces:
            # One that is refused by itself stays: nothing is left out for good, nor in a poll without an answer.
            smaller = split(refused, self.place.profile.point) or (refused,)
            self._pieces = self._of((*(each for each in pieces if each != refused), *smaller))
            return reads.split(reads.requests[answered])
        # It was refused before: its pieces are known, and those that may be answered come first.
        had = {point for each in asked[:answered] for point in each.points}
        return self._of((*asked[:answered], *(each for each in pieces if not had.issuperset(each.points))))

    def _of(self, requests: tuple[Request, ...]) -> Reads:
        return Reads(self.place.profile, self._base, requests or None)

    def _learn(self, reads: Reads, now: float) -> None:
        """Ask so from now on; told when points come or go, or when a read went to pieces."""
        before, after, why = self._learned.left_out, reads.left_out, str(self._refusal)
        self._reads = self._learned = reads
        self._refusal = None
        self._refused_until = now + self._refused_for_s if after else math.inf
        self._counted.add("edge_points_refused_total", len(after))
        told = log.bind(device=self.id, profile=self.place.profile.id)
        if after == before:
            if not after:
                told.info("read in smaller pieces", requests=len(reads.requests), why=why)
            return
        self.refused_told_at = -math.inf
        measured = self.place.profile.measured
        self.refused = tuple(0.0 if each.metric in after else math.nan for each in measured) if after else ()
        if after:
            cure = "correct the profile, or name another one for this device; it is asked again every ten minutes"
            told.warning("points refused", metrics=after, why=why, cure=cure)
        else:
            told.info("points no longer refused", metrics=before)
