"""Hundreds of Modbus TCP devices polled at 1 Hz each: what the simulator's process spends, and what it could answer.

``python -m benchmarks.simulator [--devices 500] [--seconds 20] [--ports]``

The simulator runs as its own process, as in a demo; this one is the master, a bare asyncio client over one connection a
bus (with ``--ports``: one a device). First each device is polled once a second, evenly spread; then as fast as answers
come. The share of a core is the simulator's user and system time over wall time; the ratio says how far the polls are
from the rate at which the same process is the bottleneck. Absolute numbers belong to the machine.
"""

import argparse
import asyncio
import math
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import uvloop

from firmware_sim.fleet import Fleet, district_of
from rules.district import Device, District, Modbus

ASK = struct.Struct(">HHHBBHH")
WORDS = 8  # all that a monitor has
ANSWER_BYTES = 9 + 2 * WORDS
PATIENCE_S = 1.0
FLAT_OUT_SHARE = 4  # of --seconds
BUSY_LINKS = 20  # so many questions at once keep it busy
SCENARIO = """
name = "calm"
title = { zh = "平静", en = "Calm" }
length = "1h"
"""


class Link(asyncio.Protocol):
    """One connection; a request waits for the answer before it."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._rest = b""
        self._transaction = 0
        self._waiting: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= ANSWER_BYTES:
            answer, self._rest = self._rest[:ANSWER_BYTES], self._rest[ANSWER_BYTES:]
            if answer[:2] == struct.pack(">H", self._transaction) and answer[7] == 3 and self._waiting is not None:
                self._waiting.set_result(None)
                self._waiting = None

    async def read(self, unit: int) -> float | None:
        """Seconds from the question to the answer; none when there was no whole answer in time."""
        async with self._turn:
            self._transaction = self._transaction % 0xFFFF + 1
            self._waiting = asyncio.get_running_loop().create_future()
            asked = time.perf_counter()
            self._transport.write(ASK.pack(self._transaction, 0, 6, unit, 3, 0, WORDS))
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._waiting
            except TimeoutError:
                self._waiting = None
                return None
            return time.perf_counter() - asked

    def close(self) -> None:
        self._transport.abort()


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on, all held at once so that none comes twice."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def simulator(district: District, ports: dict[str, dict[str, int]]) -> Iterator[int]:
    """Run the simulator's process; its process id."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "district.toml").write_bytes(msgspec.toml.encode(district))
        (folder / "calm.toml").write_text(SCENARIO, encoding="utf-8")
        files = {
            "district": str(folder / "district.toml"),
            "scenario": str(folder / "calm.toml"),
            "truth": str(folder / "truth.json"),
        }
        clock = {"wall": time.time_ns(), "city": time.time_ns(), "speed": 1.0}
        config = folder / "simulator.toml"
        config.write_bytes(msgspec.toml.encode({"seed": 1, "clock": clock, **files, **ports}))
        command = [sys.executable, "-m", "firmware_sim.process", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if "simulator ready" in line:
                        break
                else:
                    sys.exit("the simulator did not start")
                yield process.pid
            finally:
                process.terminate()


def cpu_s(pid: int) -> float:
    """User and system time that a process has spent, s."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def poll(link: Link, unit: int, phase: float, until: float, took: list[float | None]) -> None:
    """Read a device once a second."""
    due = time.perf_counter() + phase
    while due < until:
        await asyncio.sleep(due - time.perf_counter())
        took.append(await link.read(unit))
        due += 1.0


async def flat_out(link: Link, units: list[int], until: float) -> float:
    answered = 0.0
    while time.perf_counter() < until:
        for unit in units:
            answered += await link.read(unit) is not None
    return answered


async def dial(port: int) -> Link:
    _, link = await asyncio.get_running_loop().create_connection(Link, "127.0.0.1", port)
    return link


async def measure(pid: int, devices: list[Device], port_of: dict[str, int], seconds: float) -> None:
    ports = sorted(set(port_of.values()))
    links = {port: await dial(port) for port in ports}
    units = [(port_of[device.id], cast("Modbus", device.wire).unit) for device in devices]

    took: list[float | None] = []
    began, spent = time.perf_counter(), cpu_s(pid)
    async with asyncio.TaskGroup() as tasks:
        for nth, (port, unit) in enumerate(units):
            polling = poll(links[port], unit, nth / len(units), began + seconds, took)
            tasks.create_task(polling, name=f"polls of {devices[nth].id}")
    share = (cpu_s(pid) - spent) / (time.perf_counter() - began)
    answered = np.array([one for one in took if one is not None]) * 1000
    median, worst = np.percentile(answered, [50, 99])
    asked_rate = len(took) / seconds
    print(f"polled at 1 Hz   {len(answered)} of {len(took)} answered, p50 {median:.2f} ms, p99 {worst:.2f} ms")
    print(f"                 the simulator spends {share:.0%} of a core, {share / asked_rate * 1e6:.0f} us an answer")

    own = {port: [unit for other, unit in units if other == port] for port in ports}
    busy = [(await dial(port), own[port]) for port in ports for _ in range(math.ceil(BUSY_LINKS / len(ports)))]
    began, spent = time.perf_counter(), cpu_s(pid)
    until = began + max(seconds / FLAT_OUT_SHARE, 1.0)
    rate = sum(await asyncio.gather(*(flat_out(link, asked, until) for link, asked in busy)))
    rate /= time.perf_counter() - began
    share = (cpu_s(pid) - spent) / (time.perf_counter() - began)
    print(
        f"flat out         {rate:,.0f} answers a second at {share:.0%} of a core, {share / rate * 1e6:.0f} us an answer"
    )
    print(f"ratio            polling takes {asked_rate / rate:.2f} of what the same process can answer")
    for link in (*links.values(), *(link for link, _ in busy)):
        link.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--ports", action="store_true", help="one port a device, instead of one for each 100")
    options = parser.parse_args()
    district = district_of(Fleet(manhole_monitors=options.devices, every="1s"))
    devices = list(district.device)
    single = [device.id for device in devices] if options.ports else []
    ports = free_ports(len(district.bus) + len(single))
    buses = dict(zip([bus.id for bus in district.bus], ports, strict=False))
    own = dict(zip(single, ports[len(buses) :], strict=True))
    port_of = {device.id: own.get(device.id) or buses[cast("Modbus", device.wire).bus] for device in devices}
    print(f"{len(devices)} devices on {len(set(port_of.values()))} ports")
    with simulator(district, {"bus": buses, "device": own}) as pid:
        uvloop.run(measure(pid, devices, port_of, options.seconds))


if __name__ == "__main__":
    main()
