"""A serial line: a terminal that several programs of ours may share, one exchange at a time.

Each exchange takes the line's turn, an advisory lock (flock) on the terminal, sets its own speed and parity, waits for
silence, throwing away what waits there or comes, and asks. So nobody has anything to restore: a scan asks at other
speeds through a ``Connection`` of its own, next to the polling, and who ends in the middle leaves no trace. Linux only.
"""

import asyncio
import fcntl
import os
import termios
from contextlib import suppress
from threading import Thread
from time import monotonic

from edge.drivers.address import Address, Parity
from edge.drivers.link import Framing, Link
from edge.drivers.pdu import Failed, Question, Unreachable

TURN_MOST_S = 5.0  # an exchange of somebody else takes its time-out at most; who has the line longer, keeps it
# So long it is left alone after an exchange: who polls is quicker to take it again than a thread that waits for it.
_HANDOVER_S = 0.001
_FORMAT = termios.CSIZE | termios.PARENB | termios.PARODD | termios.CSTOPB
_PARITY: dict[Parity, int] = {"N": 0, "E": termios.PARENB, "O": termios.PARENB | termios.PARODD}


class SerialLine(Link):
    """A terminal in raw mode; ``Unreachable`` when it is not there or is none.

    Not for exclusive use (TIOCEXCL): a scan shares the line.
    """

    def __init__(self, address: Address, framing: Framing) -> None:
        try:
            descriptor = os.open(address.serial, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            raise Unreachable(f"{address.name}: {error.strerror}") from error
        super().__init__(descriptor, framing)
        self._address = address
        self._left_at = 0.0
        self._waiter: Thread | None = None
        self._turn: asyncio.Future[None] | None = None
        self._as_set: list[object] = []

    async def ask(self, unit: int, question: Question, timeout_s: float, guard_s: float) -> bytes:
        if monotonic() < self._left_at + _HANDOVER_S:
            await asyncio.sleep(_HANDOVER_S)
            self._check_open()
        await self._take_turn()
        try:
            self._check_open()
            self._set_up()
            self._heard_at = monotonic()  # somebody else may have spoken a moment ago
            self._loop.add_reader(self._descriptor, self._readable)
            return await super().ask(unit, question, timeout_s, guard_s)
        finally:
            self._leave_turn()

    async def _take_turn(self) -> None:
        if self._waiter is None:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._waiter = Thread(target=self._wait, args=(os.dup(self._descriptor),), daemon=True)
                self._waiter.start()
            else:
                return
        self._turn = turn = self._loop.create_future()
        try:
            async with asyncio.timeout(TURN_MOST_S):
                await turn
        except TimeoutError:
            if turn.cancelled():  # else it came in the very last moment
                why = f"another program has kept the line for {TURN_MOST_S:g} s"
                raise Unreachable(f"{self._address.name}: {why}") from None

    def _wait(self, descriptor: int) -> None:
        """Wait in a thread, since flock knows no time-out; one for all attempts, ended by whoever has the turn.

        The lock is that of the open terminal, whose number this is a second one: the lock goes with the last of both,
        so a line that has closed meanwhile does not keep it.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._gained)
        finally:
            os.close(descriptor)

    def _gained(self) -> None:
        self._waiter = None
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)
        elif self.open:  # who wanted it has given up
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _leave_turn(self) -> None:
        self._left_at = monotonic()
        if self.open:
            self._loop.remove_reader(self._descriptor)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _set_up(self) -> None:
        """Set speed and parity, unless they still are as this line set them."""
        try:
            if termios.tcgetattr(self._descriptor) != self._as_set:
                self._as_set = _set(self._descriptor, self._address)
        except termios.error as error:
            self.close(abort=True)
            raise self._lost(error.args[-1]) from error

    def _lost(self, why: str | None) -> Failed:
        return Unreachable(f"{self._address.name}: {why}")

    def _release(self, *, abort: bool) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)  # whoever waits for it finds the line closed
        if abort:
            with suppress(termios.error):  # to close would wait until all is sent
                termios.tcflush(self._descriptor, termios.TCOFLUSH)
        os.close(self._descriptor)


def _set(descriptor: int, address: Address) -> list[object]:
    """Make a terminal raw and set its speed and parity; all its attributes, as its driver took them."""
    speed, control = getattr(termios, f"B{address.baud}"), termios.CS8 | _PARITY[address.parity]
    if address.stop_bits == 2:
        control |= termios.CSTOPB
    characters: list[bytes | int] = [b"\0"] * len(termios.tcgetattr(descriptor)[6])
    characters[termios.VMIN] = 1  # else nothing to read would look like the end
    wanted = [0, 0, control | termios.CREAD | termios.CLOCAL, 0, speed, speed, characters]
    with suppress(termios.error):  # a driver that takes only some of it may or may not say so
        termios.tcsetattr(descriptor, termios.TCSANOW, wanted)
    took = termios.tcgetattr(descriptor)
    if (took[2] & _FORMAT, took[4], took[5]) != (control, speed, speed):
        asked = f"{address.baud} baud, parity {address.parity}, stop bits {address.stop_bits}"
        raise Unreachable(f"{address.name}: this terminal does not do {asked}")
    return took
