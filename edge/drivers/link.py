"""An open way to a bus: a descriptor with at most one question on it, be it of a socket or of a terminal.

It is read when the loop finds it readable, without the loop's transports: those do not know terminals, and on a plain
asyncio loop they cost twice as much a read (under uvloop the same).
"""

import asyncio
import os
from abc import ABC, abstractmethod
from math import inf
from time import monotonic
from typing import Protocol

from edge.drivers.pdu import Failed, Garbled, NoAnswer, Question

_CHUNK = 1024  # bytes; no frame has more than 260


class Framing(Protocol):
    """How questions and answers stand in the stream of bytes of one link.

    ``tells_apart``: a late answer can be told from the one that is waited for. ``silence_s`` must pass before a
    question, ``character_s`` on the line for each of its bytes and of the answer's (wall; both 0 where that is somebody
    else's business).
    """

    tells_apart: bool
    silence_s: float
    character_s: float

    def ask(self, unit: int, question: Question) -> bytes:
        """Begin a question: the frame to send."""

    def hear(self, data: bytes) -> bytes | None:
        """Take in what came: the data bytes of the answer once it is whole, or ``Failed``."""

    def silent(self, waited_s: float) -> Failed:
        """Tell what it is when no more came."""


class Link(ABC):
    """One open way, never used again once it has closed. Who listens on it adds ``_readable`` to the loop."""

    def __init__(self, descriptor: int, framing: Framing) -> None:
        self.open = True
        self.tells_apart = framing.tells_apart
        self._descriptor = descriptor
        self._framing = framing
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[bytes | Failed] | None = None
        self._heard_at = monotonic()
        self._waited_s = 0.0
        self._deadline = 0.0
        self._looks_at = inf
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, unit: int, question: Question, timeout_s: float, guard_s: float) -> bytes:
        """Ask once the way has been silent for ``guard_s``; the data bytes of the answer, or ``Failed``."""
        framing = self._framing
        if guard_s or not self.tells_apart:
            await self._clear(max(guard_s, framing.silence_s), timeout_s)
        frame = framing.ask(unit, question)
        self._send(frame)
        self._waited_s = timeout_s + framing.character_s * (len(frame) + question.length)
        self._deadline = monotonic() + self._waited_s
        if self._deadline < self._looks_at:
            self._look_in(self._waited_s)
        self._answer = self._loop.create_future()
        try:
            answer = await self._answer
        finally:
            self._answer = None
        if isinstance(answer, Failed):
            raise answer
        return answer

    def close(self, *, abort: bool = False) -> None:
        """Give the way back; not orderly while a question is on it."""
        if self.open:
            self.open = False
            if self._timer is not None:
                self._timer.cancel()
            self._loop.remove_reader(self._descriptor)
            self._release(abort=self._settle(NoAnswer("connection closed while it was asked")) or abort)

    @abstractmethod
    def _release(self, *, abort: bool) -> None:
        """Close the descriptor."""

    def _lost(self, why: str | None) -> Failed:
        return NoAnswer(f"connection ended: {why}")

    def _check_open(self) -> None:
        """To be called after any wait: of a way that has closed meanwhile the descriptor may be another's by now."""
        if not self.open:
            raise self._lost("closed before it was asked")

    def _send(self, frame: bytes) -> None:
        self._check_open()
        try:
            sent = os.write(self._descriptor, frame)
        except OSError as error:
            self.close(abort=True)
            raise self._lost(error.strerror) from error
        if sent < len(frame):
            self.close(abort=True)
            raise self._lost("it takes no more bytes")

    async def _clear(self, quiet_s: float, timeout_s: float) -> None:
        """Wait for silence; where a late answer is like any other, throw away what comes meanwhile."""
        latest = monotonic() + timeout_s
        while self.open:
            if self._heard_at > latest:
                raise Garbled(f"not silent for {quiet_s:g} s within {timeout_s:g} s")
            left = self._heard_at + quiet_s - monotonic()
            if left > 0:
                await asyncio.sleep(left)
            elif self.tells_apart or not self._discard():
                return

    def _discard(self) -> bool:
        """Throw away what waits to be read; whether there was any."""
        try:
            waiting = os.read(self._descriptor, _CHUNK)
        except OSError:  # nothing; or the way has ended, which the question will find
            return False
        self._heard_at = monotonic()
        return bool(waiting)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror)
            return
        if not data:
            self._end("closed by the bus")
            return
        self._heard_at = monotonic()
        try:
            answer = self._framing.hear(data)
        except Failed as failure:
            if not self._settle(failure):
                self.close(abort=True)
        else:
            if answer is not None:
                self._settle(answer)

    def _end(self, why: str | None) -> None:
        self._settle(self._lost(why))
        self.close()

    def _settle(self, answer: bytes | Failed) -> bool:
        """Tell whoever waits; whether somebody did."""
        if self._answer is None or self._answer.done():
            return False
        self._answer.set_result(answer)
        return True

    def _look_in(self, left_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = monotonic() + left_s
        self._timer = self._loop.call_later(left_s, self._look)

    def _look(self) -> None:
        """See whether an answer is overdue: one timer looks after all questions, since most are answered before."""
        self._looks_at = inf
        if self._answer is None:
            return
        left = self._deadline - monotonic()
        if left > 0:
            self._look_in(left)
        else:
            self._settle(self._framing.silent(self._waited_s))
