"""Reads of 125 registers over 1, 10 and 100 connections: ours down to samples, a bare pymodbus loop, and the limit.

``python -m benchmarks.edge_polling [--seconds 4]``

Three clients in one process, turn about, all under uvloop, against a server process that answers every request with the
same bytes. Ours is the driver and, every 100 ms, the decoding of all replies that came into samples with scale, range
and quality. pymodbus hands out raw integers. The raw client sends requests encoded beforehand and looks at nothing but
the transaction id: what a client costs that does no work. Limit: ours makes at least 0.8 of pymodbus's requests a
second. Where the server is the bottleneck, the CPU time a request tells more than the rate.
"""

import argparse
import asyncio
import multiprocessing
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection as Pipe
from typing import NamedTuple, cast

import numpy as np
import uvloop
from pymodbus.client import AsyncModbusTcpClient

from edge.decoding import Decoding
from edge.drivers.address import Address
from edge.drivers.modbus import Connection
from edge.installed import Installed
from edge.profile import Head, Profile, Register
from edge.reading import Reading, Replies
from edge.reads import Reads
from rules.district import Device, Modbus

LIMIT = 0.8
COUNT = 125
TICK_S = 0.1
TURNS = 3
PROFILE = Profile(
    Head("bench", "power_meter", "bench", "bench", "bench", "modbus", 1.0),
    point=tuple(
        Register(f"m{n}", "V", 3, n, "u16", scale=0.1, invalid=(0xFFFF,), range=(0.0, 6600.0)) for n in range(COUNT)
    ),
)
PLACE = Installed(
    Device("bench", "power_meter", "bench", "gw", "site", "asset", "0137", 0.0, 0.0, Modbus("bus", 1)),
    PROFILE,
    np.arange(COUNT, dtype=np.int32),
)
REPLY_BYTES = 9 + 2 * COUNT


class Server(asyncio.Protocol):
    """Answers each request of 12 bytes with 125 registers."""

    answer = struct.pack(">HBBB", 3 + 2 * COUNT, 1, 3, 2 * COUNT) + bytes(range(2 * COUNT))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data) - 11, 12):
            self._transport.write(data[at : at + 4] + self.answer)


def serve(pipe: Pipe) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


async def ours(port: int, connections: int, until: float) -> int:
    reads, decoding = Reads(PROFILE), Decoding()
    (request,) = reads.requests
    gathered: list[Reading] = []

    async def poll() -> None:
        async with Connection(Address("127.0.0.1", port)) as connection:
            while time.perf_counter() < until:
                data = await connection.read(1, request)
                gathered.append(Reading(PLACE, time.time_ns(), Replies(reads, (data,))))

    def decoded() -> int:
        readings = gathered.copy()
        gathered.clear()
        assert len(decoding.block(readings)) == COUNT * len(readings)
        return len(readings)

    polling = asyncio.gather(*(poll() for _ in range(connections)))
    count = 0
    while not polling.done():
        await asyncio.wait([polling], timeout=TICK_S)
        count += decoded()
    await polling
    return count


async def bare_pymodbus(port: int, connections: int, until: float) -> int:
    async def poll() -> int:
        count = 0
        async with AsyncModbusTcpClient("127.0.0.1", port=port, retries=0, reconnect_delay=0) as client:
            while time.perf_counter() < until:
                reply = await client.read_holding_registers(0, count=COUNT, device_id=1)
                assert len(reply.registers) == COUNT
                count += 1
        return count

    return sum(await asyncio.gather(*(poll() for _ in range(connections))))


class Raw(asyncio.Protocol):
    """Asks again as soon as an answer is whole; ``count`` of them came."""

    requests = tuple(struct.pack(">HHHBBHH", transaction, 0, 6, 1, 3, 0, COUNT) for transaction in range(256))

    def __init__(self, until: float) -> None:
        self.count = 0
        self.ended = asyncio.get_running_loop().create_future()
        self._until = until
        self._missing = REPLY_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self.requests[0])

    def data_received(self, data: bytes) -> None:
        if self._missing == REPLY_BYTES:
            assert data[:2] == self.requests[self.count & 255][:2]
        self._missing -= len(data)
        if self._missing == 0:
            self._missing = REPLY_BYTES
            self.count += 1
            if time.perf_counter() < self._until:
                self._transport.write(self.requests[self.count & 255])
            else:
                self._transport.close()
                self.ended.set_result(None)


async def raw(port: int, connections: int, until: float) -> int:
    loop = asyncio.get_running_loop()
    links = [(await loop.create_connection(lambda: Raw(until), "127.0.0.1", port))[1] for _ in range(connections)]
    await asyncio.gather(*(link.ended for link in links))
    return sum(link.count for link in links)


class Figures(NamedTuple):
    """Requests a second, and CPU microseconds a request."""

    rate: float
    cost_us: float


Client = Callable[[int, int, float], Awaitable[int]]


async def measure_one(client: Client, port: int, connections: int, seconds: float) -> Figures:
    started, cpu = time.perf_counter(), time.process_time()
    count = await client(port, connections, started + seconds)
    return Figures(count / (time.perf_counter() - started), (time.process_time() - cpu) / count * 1e6)


async def measure(port: int, seconds: float) -> float:
    """Print all figures; the ratio that the limit is for."""
    clients = (("ours, to samples", ours), ("bare pymodbus", bare_pymodbus), ("raw", raw))
    print("connections" + "".join(f"{name:>24}" for name, _ in clients) + "   ours/pymodbus  ours/raw  pymodbus/raw")
    ratio = 0.0
    for connections in (1, 10, 100):
        # Turn about, so that a busy moment of the machine hits all of them; the best of each counts.
        turns = [
            [await measure_one(client, port, connections, seconds / TURNS) for _, client in clients]
            for _ in range(TURNS)
        ]
        best = [
            Figures(max(one.rate for one in column), min(one.cost_us for one in column))
            for column in zip(*turns, strict=True)
        ]
        told = "".join(f"{one.rate:>12,.0f}/s {one.cost_us:>6.1f} us" for one in best)
        own, peer, limit = (one.rate for one in best)
        print(f"{connections:>11}{told}   {own / peer:>13.2f}  {own / limit:>8.2f}  {peer / limit:>12.2f}")
        ratio = own / peer
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="wall seconds per figure")
    options = parser.parse_args()
    ours_end, its_end = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(its_end,), daemon=True)
    server.start()
    port = ours_end.recv()
    try:
        ratio = uvloop.run(measure(port, options.seconds))
    finally:
        server.terminate()
        server.join()
    print(f"100 connections: {ratio:.2f} of pymodbus's requests a second, limit {LIMIT}")
    if ratio < LIMIT:
        sys.exit(1)


if __name__ == "__main__":
    main()
