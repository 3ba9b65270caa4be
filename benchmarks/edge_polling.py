"""Reads of 125 registers over 1 to 100 connections: our driver and codec against a bare pymodbus loop, in one run.

``python benchmarks/edge_polling.py [--seconds 2] [--uvloop]``. The server is a process of its own that answers every
request with the same bytes. Ours decodes all 125 values with scale, range and quality; pymodbus hands out raw integers.
Ratios are of CPU time of the client process per read, which a busy machine disturbs least: above 1, ours is cheaper.
"""

import argparse
import asyncio
import multiprocessing
import struct
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection as Pipe
from typing import cast

import numpy as np
import uvloop
from pymodbus.client import AsyncModbusTcpClient

from edge.codec import Codec
from edge.drivers.modbus import Connection
from edge.plan import plan
from edge.profile import Limits, Register

COUNT = 125
POINTS = [Register(f"m{n}", "1", 3, n, "u16", scale=0.1, invalid=(0xFFFF,), range=(0.0, 6600.0)) for n in range(COUNT)]
REQUEST = plan(POINTS, Limits())[0]


class Server(asyncio.Protocol):
    """Answers each request of 12 bytes with 125 registers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data) - 11, 12):
            head = data[at : at + 4] + struct.pack(">HBBB", 3 + 2 * COUNT, data[at + 6], data[at + 7], 2 * COUNT)
            self._transport.write(head + bytes(range(2 * COUNT)))


def serve(pipe: Pipe) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


Read = Callable[[int, float], Awaitable[int]]


async def driver(port: int, until: float) -> int:
    reads = 0
    async with Connection("127.0.0.1", port) as connection:
        while time.perf_counter() < until:
            assert len(await connection.read(1, REQUEST)) == 2 * COUNT
            reads += 1
    return reads


async def driver_and_codec(port: int, until: float) -> int:
    codec, reads = Codec(POINTS, REQUEST), 0
    async with Connection("127.0.0.1", port) as connection:
        while time.perf_counter() < until:
            reply = await connection.read(1, REQUEST)
            _, quality = codec.decode(np.frombuffer(reply, np.uint8)[None])
            assert quality.shape == (1, COUNT)
            reads += 1
    return reads


async def bare_pymodbus(port: int, until: float) -> int:
    reads = 0
    async with AsyncModbusTcpClient("127.0.0.1", port=port, retries=0, reconnect_delay=0) as client:
        while time.perf_counter() < until:
            reply = await client.read_holding_registers(0, count=COUNT, device_id=1)
            assert len(reply.registers) == COUNT
            reads += 1
    return reads


async def measure_one(read: Read, port: int, connections: int, seconds: float) -> tuple[float, float]:
    """Reads a second, and CPU microseconds a read."""
    started, cpu = time.perf_counter(), time.process_time()
    reads = sum(await asyncio.gather(*(read(port, started + seconds) for _ in range(connections))))
    return reads / (time.perf_counter() - started), (time.process_time() - cpu) / reads * 1e6


async def measure(port: int, seconds: float) -> None:
    print("connections  driver              driver and codec    bare pymodbus       CPU ratio, driver / and codec")
    for connections in (1, 10, 100):
        # Turn about, so that a busy moment of the machine hits all of them; the better of two counts.
        runs = [
            [
                await measure_one(read, port, connections, seconds / 2)
                for read in (driver, driver_and_codec, bare_pymodbus)
            ]
            for _ in range(2)
        ]
        best = [(max(r for r, _ in column), min(c for _, c in column)) for column in zip(*runs, strict=True)]
        told = "  ".join(f"{rate:>7,.0f}/s {cost:>5.1f} us" for rate, cost in best)
        (_, bare), (_, both), (_, other) = best
        print(f"{connections:>11}  {told}  {other / bare:.2f} / {other / both:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="wall seconds per figure")
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    ours_end, its_end = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(its_end,), daemon=True)
    server.start()
    port = ours_end.recv()
    try:
        (uvloop.run if options.uvloop else asyncio.run)(measure(port, options.seconds))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
