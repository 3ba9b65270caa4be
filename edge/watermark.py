"""How far the sensors' broker has told everything: a tick promises no more than that for what reports on change."""

import asyncio
from dataclasses import replace
from typing import Protocol

from edge.reading import Reading
from rules.tile import NEVER
from wire.clock import NANOSECONDS, Clock
from wire.connection import SESSION_EXPIRY_S

SETTLE_S = 5.0  # wall: as long as a publisher that lost the same broker may take to come back to it


class Connected(Protocol):
    """What the watermark needs of ``wire.session.Session``."""

    @property
    def connected(self) -> bool: ...

    @property
    def generation(self) -> int: ...


class Watermark:
    """The MQTT source's own watermark: it stands still while older messages may wait at the broker.

    That is while there is no connection, and after each new one until nothing from the time before it has come or been
    settled for ``settle_s`` wall seconds: a broker sends on only what its window allows. A device whose clock is behind
    holds it up no longer than the connection was away, since only stamps from that time count.
    """

    def __init__(self, session: Connected, clock: Clock, settle_s: float = SETTLE_S) -> None:
        self._session = session
        self._settle_s = settle_s
        self._generation = 0  # of the connection it follows; 0 while there is none
        self._until = NEVER
        self._opened = clock.now()
        self._oldest = self._opened - int(SESSION_EXPIRY_S * clock.speed * NANOSECONDS)  # brokers keep nothing older
        self._moved_at = 0.0  # on the loop's clock

    def __call__(self, drained: int) -> int:
        """The watermark, UTC ns, where the tick's own is ``drained``: that, or as far as it had come before."""
        now = asyncio.get_running_loop().time()
        generation = self._session.generation if self._session.connected else 0
        if generation == 0 or generation != self._generation:
            self._generation, self._opened, self._moved_at = generation, drained, now
        elif now - self._moved_at >= self._settle_s:
            self._until = max(self._until, drained)
        return self._until

    def follow(self, reading: Reading) -> Reading:
        """Take note of a reading as it comes, and again when it settles: then the broker's window has moved on."""
        self._note(reading.taken_at)

        def settle() -> None:
            self._note(reading.taken_at)
            if reading.settle is not None:
                reading.settle()

        return replace(reading, settle=settle)

    def _note(self, taken_at: int) -> None:
        if max(self._until, self._oldest) <= taken_at < self._opened:
            self._moved_at = asyncio.get_running_loop().time()
