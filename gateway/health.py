"""The gateway's own account, told every two seconds and on each new connection; and its last word, by the broker."""

import asyncio
import contextlib
from collections.abc import Callable

from gateway.outbox import Outbox
from gateway.uplink import Link
from wire.batch import CONTENT_TYPE, Status, encode
from wire.clock import Clock
from wire.counted import Counted
from wire.session import NotConnected, PublishRefused
from wire.topics import Lane, up

STATUS_S = 2.0  # wall


def will(gateway: str, boot: str, clock: Clock) -> tuple[str, bytes]:
    """Topic and payload that the broker publishes for a gateway it has lost."""
    status = Status(gateway, boot, clock.now(), online=False, outbox_batches=0, outbox_samples=0, tallies=())
    return up(gateway, Lane.STATUS), encode(status)


class Health:
    """Tells the status of one gateway.

    ``devices_down`` names the devices that do not answer, ``bus_cycles`` how long each bus really takes (seconds).
    """

    def __init__(
        self,
        gateway: str,
        outbox: Outbox,
        link: Link,
        clock: Clock,
        counted: Counted,
        devices_down: Callable[[], tuple[str, ...]] = tuple,
        bus_cycles: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self._gateway = gateway
        self._outbox = outbox
        self._link = link
        self._clock = clock
        self._counted = counted
        self._devices_down = devices_down
        self._bus_cycles = bus_cycles

    async def run(self) -> None:
        """Tell the status while there is a connection, until cancelled."""
        while True:
            generation = await self._link.wait_connected()
            with contextlib.suppress(NotConnected):
                await self.tell(online=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_S):
                    await self._link.wait_connected(after=generation)

    async def tell(self, *, online: bool) -> None:
        """Publish the status as it is now, retained; ``NotConnected`` when it did not get through."""
        report = await self._outbox.report()
        status = Status(
            self._gateway,
            self._outbox.boot,
            self._clock.now(),
            online,
            report.batches,
            report.samples,
            report.tallies,
            self._devices_down(),
            self._counted.snapshot(),
            self._bus_cycles(),
        )
        try:
            topic = up(self._gateway, Lane.STATUS)
            await self._link.publish(topic, encode(status), retain=True, content_type=CONTENT_TYPE)
        except PublishRefused:
            self._counted.add("gateway_refused_statuses_total")
