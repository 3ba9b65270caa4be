"""A gateway's uplink cable: a TCP relay to the broker that can be pulled out and put back."""

import asyncio
from typing import Literal

import structlog

from firmware_sim.door import Door

_CHUNK = 65536
_DIAL_S = 3.0

log = structlog.get_logger(__name__)


class Cable:
    """``127.0.0.1:port`` stands for the broker. Only gateways dial it; the sensors have their own way."""

    def __init__(self, gateway: str, broker_host: str, broker_port: int) -> None:
        self.gateway = gateway
        self.door = Door(self._carry)
        self._broker = (broker_host, broker_port)
        self._whole = asyncio.Event()
        self._whole.set()
        self._how: Literal["refuse", "hang"] = "refuse"

    @property
    def cut_off(self) -> bool:
        return not self._whole.is_set()

    def cut(self, how: Literal["refuse", "hang"] = "refuse") -> None:
        """Pull it out: existing connections break and new ones are refused, or both go on without a byte moving."""
        log.info("cable cut", gateway=self.gateway, how=how)
        self._how = how
        self._whole.clear()
        if how == "refuse":
            self.door.hang_up()

    def restore(self) -> None:
        """Put it back. What hung meanwhile breaks now: the far end has long given it up."""
        if self.cut_off:
            log.info("cable restored", gateway=self.gateway)
            self.door.hang_up()
            self._whole.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.cut_off and self._how == "refuse":
                return
            await self._whole.wait()
            async with asyncio.timeout(_DIAL_S):
                far_reader, far_writer = await asyncio.open_connection(*self._broker)
            try:
                async with asyncio.TaskGroup() as relay:
                    relay.create_task(self._relay(reader, far_writer), name=f"cable {self.gateway} up")
                    relay.create_task(self._relay(far_reader, writer), name=f"cable {self.gateway} down")
            finally:
                far_writer.transport.abort()
        except* (OSError, TimeoutError):
            pass  # either end is gone, so the other learns of it
        finally:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes one way until the end of the stream; then end the whole connection."""
        while data := await reader.read(_CHUNK):
            await self._whole.wait()
            if writer.transport.is_closing():  # uvloop calls writing there a fault of the program, not of the line
                break
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("the other end hung up")
