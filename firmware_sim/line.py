"""A bus at the end of a serial line: Modbus RTU on a pseudo-terminal, one frame from silence to silence."""

import asyncio
import os
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Self

import structlog
from pymodbus.framer.rtu import FramerRTU
from pymodbus.pdu import DecodePDU

from firmware_sim.modbus import Bus, Exchange

# 3.5 characters of 11 bits at 9600 bit/s end a frame (Modbus over serial line 1.02, 2.5.1.1).
SILENCE_S = 3.5 * 11 / 9600
_FRAME_LEAST, _FRAME_MOST = 4, 256  # bytes, with the CRC
_WAITING = 4  # frames: a master sends one, and a few again when it hears nothing

log = structlog.get_logger(__name__)


class Line:
    """The bus as a master with a serial port meets it; ``path`` is the end to open, while ``open`` lasts."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.path = ""
        self._exchange = Exchange(bus, FramerRTU(DecodePDU(is_server=True)))
        self._heard = b""
        self._silence: asyncio.TimerHandle | None = None
        self._frames: asyncio.Queue[bytes] = asyncio.Queue(_WAITING)

    @asynccontextmanager
    async def open(self, link: Path | None = None) -> AsyncIterator[Self]:
        """Answer until the context ends; ``link`` becomes a symbolic link to ``path``, in place of an earlier one."""
        loop = asyncio.get_running_loop()
        near, far = os.openpty()  # the far end is held open: a line does not break when a master leaves it
        try:
            tty.setraw(far)
            os.set_blocking(near, False)
            self.path = os.ttyname(far)
            async with asyncio.TaskGroup() as tasks:
                answering = tasks.create_task(self._answer(near), name=f"serial line {self.bus.name}")
                loop.add_reader(near, self._hear, near)
                with _linked(link, self.path):
                    try:
                        yield self
                    finally:
                        loop.remove_reader(near)
                        self._end_silence()
                        answering.cancel()
        finally:
            os.close(near)
            os.close(far)

    def _hear(self, near: int) -> None:
        with suppress(BlockingIOError):
            self._heard = (self._heard + os.read(near, 4096))[: _FRAME_MOST + 1]
        self._end_silence()
        self._silence = asyncio.get_running_loop().call_later(SILENCE_S, self._frame_ended)

    def _end_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()

    def _frame_ended(self) -> None:
        frame, self._heard = self._heard, b""
        body, crc = frame[:-2], int.from_bytes(frame[-2:], "big")
        if not _FRAME_LEAST <= len(frame) <= _FRAME_MOST or not FramerRTU.check_CRC(body, crc):
            self.bus.ignored["modbus_garbled_frames_total"] += 1
        elif self._frames.full():
            self.bus.ignored["modbus_unanswered_requests_total"] += 1
        else:
            self._frames.put_nowait(body)

    async def _answer(self, near: int) -> None:
        while True:
            body = await self._frames.get()
            if not self.bus.hushed and (sent := await self._exchange.hear(body[0], 0, body[1:])):
                with suppress(BlockingIOError):  # what nobody reads is lost, as on a wire
                    os.write(near, sent)


@contextmanager
def _linked(link: Path | None, path: str) -> Iterator[None]:
    if link is None:
        yield
        return
    if link.is_symlink():
        link.unlink()
    link.symlink_to(path)
    try:
        yield
    finally:
        link.unlink(missing_ok=True)
