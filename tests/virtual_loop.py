"""An event loop whose time jumps to the next timer when nothing else can happen: a day lasts as long as its work.

Its sockets are real, so what it plays against must live in the same process: what was sent over loopback is there at
once, and a loop that finds nothing to read may go on to its next timer.
"""

import asyncio
import select
import selectors
import socket
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import pytest

from edge.drivers import link, modbus
from wire.clock import NANOSECONDS, Clock

SETTLE_S = 0.0002  # real, before each jump: for what a busy kernel has not delivered yet

T = TypeVar("T")


class LoopClock(Clock, frozen=True):
    """The city's clock on the running loop's time, which begins at ``city`` (UTC ns)."""

    def now(self) -> int:
        return self.city + int(asyncio.get_running_loop().time() * NANOSECONDS)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at 0 seconds. Time passes by jumps only: work takes none."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds

    async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> list[Any]:
        return socket.getaddrinfo(host, port, **how)  # not in a thread, which would take real time


class _Selector(selectors.BaseSelector):
    """Waits by letting the loop jump."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        if timeout is None:
            return events or self._real.select()
        if timeout > 0 and not events:
            select.select((), (), (), SETTLE_S)
            events = self._real.select(0)
            if not events:
                self._loop.jump(timeout)
        return events

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


def play(scenario: Coroutine[Any, Any, T]) -> T:
    """Run a scenario to its end in virtual time."""
    with pytest.MonkeyPatch.context() as patched, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        # Those who read the clock by themselves, since uvloop's is too coarse for them.
        for module in (link, modbus):
            patched.setattr(module, "monotonic", runner.get_loop().time)
        return runner.run(scenario)
