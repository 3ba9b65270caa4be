"""A small Sparkplug B edge node, as somebody else would make it: it shares no code with what reads it.

Payloads are written by hand from the field numbers of the specification's ``sparkplug_b.proto``. Births tell names,
aliases and datatypes; data call metrics by alias only. It answers requests for rebirth as long as it is connected.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiomqtt

INT16, INT64, FLOAT, BOOLEAN, STRING = 2, 4, 9, 11, 12
REBIRTH = b"Node Control/Rebirth"
Value = int | float | bool | str


class EdgeNode:
    """An edge node with ``devices``: of each, its metrics' names and values. Use it as an async context manager.

    It connects with its death as its will and is born at once. ``rebirths`` has an item for each request answered.
    """

    def __init__(self, port: int, name: str, devices: Mapping[str, Mapping[str, Value]], bd_seq: int = 0) -> None:
        self.devices = {device: dict(metrics) for device, metrics in devices.items()}
        self.rebirths: asyncio.Queue[bytes] = asyncio.Queue()
        self._name = name
        self._bd_seq = bd_seq
        self._seq = 0
        names = (f"{device}/{metric}" for device, metrics in devices.items() for metric in metrics)
        self._aliases = {name: alias for alias, name in enumerate(names, 100)}
        will = aiomqtt.Will(self._topic("NDEATH"), _metric(_now(), b"bdSeq", None, INT64, bd_seq), qos=1)
        self._client = aiomqtt.Client("127.0.0.1", port, identifier=f"{name}-{bd_seq}", will=will)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        await self._client.subscribe(self._topic("NCMD"), qos=1)
        self._listener = asyncio.create_task(self._listen(), name=f"edge node {self._name}")
        await self.be_born()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.cancel()
        with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
            await self._listener
        with contextlib.suppress(aiomqtt.MqttError):
            await self._client.__aexit__(kind, error, trace)

    async def be_born(self) -> None:
        """Publish the births of the node and of its devices."""
        self._seq = 0
        control = _metric(_now(), REBIRTH, None, BOOLEAN, value=False)
        await self._publish("NBIRTH", "", _metric(_now(), b"bdSeq", None, INT64, self._bd_seq) + control)
        for device, metrics in self.devices.items():
            at = _now()
            told = (
                _metric(at, name.encode(), self._aliases[f"{device}/{name}"], _datatype(value), value)
                for name, value in metrics.items()
            )
            await self._publish("DBIRTH", device, b"".join(told))

    async def tell(self, device: str, *, is_lost: bool = False, **values: Value) -> None:
        """Publish data of a device; one that ``is_lost`` has its number in the sequence and is not sent."""
        self.devices[device].update(values)
        at = _now()
        told = (
            _metric(at, b"", self._aliases[f"{device}/{name}"], _datatype(value), value, is_data=True)
            for name, value in values.items()
        )
        await self._publish("DDATA", device, b"".join(told), is_lost=is_lost)

    async def vanish(self) -> None:
        """Lose the connection without a word, as in a power cut: the broker publishes the will."""
        connection = self._client._client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(aiomqtt.MqttError):
            await self._listener

    async def _listen(self) -> None:
        async for message in self._client.messages:
            assert isinstance(message.payload, bytes)
            if REBIRTH in message.payload and message.payload.endswith(b"\x70\x01"):  # boolean_value: true
                await self.be_born()
                self.rebirths.put_nowait(message.payload)

    async def _publish(self, kind: str, device: str, metrics: bytes, *, is_lost: bool = False) -> None:
        payload = _number(1, _now()) + metrics + _number(3, self._seq)
        self._seq = (self._seq + 1) % 256
        if not is_lost:
            await self._client.publish(self._topic(kind) + (f"/{device}" if device else ""), payload, qos=0)

    def _topic(self, kind: str) -> str:
        return f"spBv1.0/city/{kind}/{self._name}"


def _datatype(value: Value) -> int:
    return {bool: BOOLEAN, int: INT16, float: FLOAT, str: STRING}[type(value)]


def _now() -> int:
    return time.time_ns() // 1_000_000


def _metric(at: int, name: bytes, alias: int | None, datatype: int, value: Value, *, is_data: bool = False) -> bytes:
    body = _bytes(1, name) if name else b""
    body += b"" if alias is None else _number(2, alias)
    body += _number(3, at)
    body += b"" if is_data else _number(4, datatype)
    match datatype:
        case 2:
            body += _number(10, int(value) % 2**32)
        case 4:
            body += _number(11, int(value) % 2**64)
        case 9:
            body += _varint(12 << 3 | 5) + struct.pack("<f", value)
        case 11:
            body += _number(14, int(value))
        case _:
            body += _bytes(15, str(value).encode())
    return _bytes(2, body)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    written = b""
    while value > 0x7F:
        written += bytes([value & 0x7F | 0x80])
        value >>= 7
    return written + bytes([value])
