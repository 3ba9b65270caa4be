"""500 Modbus TCP devices of 10 registers at 1 Hz through the whole gateway process, and the rate that fills a core.

``python -m benchmarks.gateway [--devices 500] [--seconds 30] [--thingsboard VENV] [--node-red FOLDER] [--no-ours]``

One process is the devices, each on a port of its own; register 0 counts a device's polls, so that a poll whose samples
do not arrive is found. A real Mosquitto stands between; this process receives, and sends the receipts. Ours is
``python -m gateway.process`` with the shipped catalog: it polls, decodes, judges, keeps on the disk, and sends. Told
are user and system time of the gateway's process over wall time, its resident memory, the time from its start to its
first sample here, and the polls whose samples are missing. Then the interval is cut until a core is full.
Ends with 1 when ours is beyond a limit, or a poll at 1 Hz is missing.

Peers on the same load, where they are installed: thingsboard-gateway (``--thingsboard``: its virtual environment) and
Node-RED with node-red-contrib-modbus (``--node-red``: the folder with both in ``node_modules``). They judge nothing and
keep nothing on a disk.
"""

import argparse
import asyncio
import multiprocessing
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import c_uint32
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import cast

import uvloop

from benchmarks._gateways import METRICS, Heard, NodeRed, Streetwarden, Subject, ThingsBoard
from tests.servers import mosquitto
from wire.session import Broker, Session

CPU_LIMIT = 0.15  # of one core, at 1 Hz
RESIDENT_LIMIT_MIB = 90.0
FIRST_LIMIT_S = 3.0
INTERVALS_S = (0.2, 0.1, 0.05, 0.025, 0.0125)  # after 1 Hz, until a core is full
FULL = 0.95  # of a core
NO_FASTER = 1.1  # times the rate before: asking for more brings nothing
START_S = 120.0
STOP_S = 10.0
SETTLE_S = 3.0
DRAIN_S = 15.0
STEP_SHARE = 3  # of --seconds goes to each shorter interval
# What follows the counter: another number with every poll, so that the deadband keeps it; nothing to alert about.
TAILS = [struct.pack(">9H", *(100 + 7 * nth + column for column in range(9))) for nth in range(16)]


class Answering(asyncio.Protocol):
    """One device: answers reads of its registers; ``polled[place]`` counts them and is register 0."""

    def __init__(self, polled: "Sequence[int]", place: int) -> None:
        self._polled = cast("list[int]", polled)
        self._place = place

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data) - 11, 12):
            count = self._polled[self._place] = self._polled[self._place] + 1
            words = struct.pack(">H", count & 0xFFFF) + TAILS[count & 15]
            head = struct.pack(">HBBB", 3 + len(words), data[at + 6], data[at + 7], len(words))
            self._transport.write(data[at : at + 4] + head + words)


def serve(pipe: Pipe, polled: "Sequence[int]") -> None:
    """Be the devices; tells their ports."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_server(partial(Answering, polled, place), "127.0.0.1", 0) for place in range(len(polled))
        ]
        pipe.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.gather(*(server.serve_forever() for server in servers))

    uvloop.run(run())


@dataclass(frozen=True, slots=True)
class Figures:
    """One subject at one interval; ``rate`` in samples a second that arrived."""

    rate: float
    share: float
    resident_mib: float
    first_s: float
    polled: int
    missing: int


async def measure(subject: Subject, devices: int, interval_s: float, seconds: float) -> Figures:
    """Start it, let it settle, watch it for so long, and wait for what is still on its way."""
    with tempfile.TemporaryDirectory() as name, fleet(devices) as (ports, polled):
        folder = Path(name)
        (folder / "broker").mkdir()
        broker = await asyncio.to_thread(mosquitto(folder / "broker").__enter__)
        heard = Heard(devices)
        try:
            async with Session(Broker("127.0.0.1", broker.port), "receiver", [subject.topic]) as link:
                await link.wait_connected()
                receiving = asyncio.create_task(_receive(subject, link, heard), name="receiver")
                try:
                    return await _watch(
                        subject.command(folder, ports, broker.port, interval_s), folder, heard, polled, seconds
                    )
                finally:
                    receiving.cancel()
        finally:
            await asyncio.to_thread(broker.stop)


async def _receive(subject: Subject, link: Session, heard: Heard) -> None:
    while True:
        delivery = await link.receive()
        await subject.take(delivery, link, heard)
        link.acknowledge(delivery)


async def _watch(command: list[str], folder: Path, heard: Heard, polled: Sequence[int], seconds: float) -> Figures:
    with (folder / "log").open("wb") as log:
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=log, stderr=log)
    try:
        ended = asyncio.create_task(process.wait(), name="the gateway's end")
        first = asyncio.create_task(heard.more.wait(), name="first sample")
        await asyncio.wait([first, ended], timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        if not heard.more.is_set():
            raise RuntimeError(f"no sample within {START_S:g} s:\n{(folder / 'log').read_text()[-4096:]}")
        first_s = time.perf_counter() - began
        await asyncio.sleep(SETTLE_S)
        began, cpu, samples = time.perf_counter(), cpu_s(process.pid), heard.samples
        await asyncio.sleep(seconds)
        took = time.perf_counter() - began
        share, rate = (cpu_s(process.pid) - cpu) / took, (heard.samples - samples) / took
        resident, asked = resident_mib(process.pid), list(polled)
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while heard.missing(asked):
                    heard.more.clear()
                    await heard.more.wait()
        return Figures(rate, share, resident, first_s, sum(asked), heard.missing(asked))
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@contextmanager
def fleet(devices: int) -> Iterator[tuple[list[int], Sequence[int]]]:
    """Run the devices: their ports, and how often each has been polled."""
    spawn = multiprocessing.get_context("spawn")
    polled = spawn.RawArray(c_uint32, devices)
    ours, its = spawn.Pipe()
    process = spawn.Process(target=serve, args=(its, polled), daemon=True)
    process.start()
    try:
        yield ours.recv(), cast("Sequence[int]", polled)
    finally:
        process.terminate()
        process.join()


def cpu_s(pid: int) -> float:
    """User and system time that a process has spent, s."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


async def compare(subjects: Sequence[Subject], devices: int, seconds: float) -> bool:
    """Measure one after the other; whether ours is within its limits."""
    within = True
    for subject in subjects:
        one = await measure(subject, devices, 1.0, seconds)
        print(
            f"{subject.name}, {devices} devices at 1 Hz: {one.rate:,.0f} samples/s, {one.share:.3f} of a core, "
            f"{one.resident_mib:.0f} MiB, first sample after {one.first_s:.1f} s, "
            f"{one.missing} of {one.polled:,} polls missing"
        )
        if isinstance(subject, Streetwarden):
            print(
                f"  ratios to the limits: core {one.share / CPU_LIMIT:.2f} of {CPU_LIMIT}, "
                f"memory {one.resident_mib / RESIDENT_LIMIT_MIB:.2f} of {RESIDENT_LIMIT_MIB:.0f} MiB, "
                f"start {one.first_s / FIRST_LIMIT_S:.2f} of {FIRST_LIMIT_S:.0f} s"
            )
            within = (
                one.share <= CPU_LIMIT
                and one.resident_mib <= RESIDENT_LIMIT_MIB
                and one.first_s <= FIRST_LIMIT_S
                and not one.missing
            )
        most, most_of_core = one.rate, one.rate / one.share
        for interval_s in INTERVALS_S:
            asked = devices * len(METRICS) / interval_s
            more = await measure(subject, devices, interval_s, seconds / STEP_SHARE)
            print(
                f"  asked for {asked:,.0f} samples/s: {more.rate:,.0f}, {more.share:.2f} of a core, "
                f"{more.resident_mib:.0f} MiB, {more.missing} of {more.polled:,} polls missing"
            )
            faster, most = more.rate > NO_FASTER * most, max(most, more.rate)
            most_of_core = max(most_of_core, more.rate / more.share)
            if more.share > FULL or not faster:
                break
        print(f"  most seen: {most:,.0f} samples/s; {most_of_core:,.0f} a CPU second, what a whole core would do")
    return within


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--thingsboard", type=Path, metavar="VENV", help="where thingsboard-gateway is installed")
    parser.add_argument("--node-red", type=Path, metavar="FOLDER", help="where node_modules has node-red")
    parser.add_argument("--no-ours", action="store_true", help="the peers alone")
    options = parser.parse_args()
    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    subjects: list[Subject] = [] if options.no_ours else [Streetwarden()]
    if options.thingsboard:
        subjects.append(ThingsBoard(options.thingsboard.resolve()))
    if options.node_red:
        subjects.append(NodeRed(options.node_red.resolve()))
    if not uvloop.run(compare(subjects, options.devices, options.seconds)):
        sys.exit(1)


if __name__ == "__main__":
    main()
