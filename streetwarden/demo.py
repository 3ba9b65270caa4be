"""``make demo``: a city in a storm on one machine, watched in a browser, or without a person and with a report."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import msgspec
import segno
from rich.console import Console

from streetwarden.assembly import Assembly, City, assemble
from streetwarden.centre import Centre
from streetwarden.crew import Crew
from streetwarden.report import Report
from streetwarden.score import TruthFile, compile_report, read_truth
from streetwarden.supervisor import Supervisor
from wire.clock import NANOSECONDS, Clock, from_iso

EVENING = "2026-06-18T11:30:00+00:00"  # 19:30 in Shanghai: the lamps are lit
READY_S = 30.0
DRAIN_S = 20.0  # how long the last samples of a headless run may take to the store
COUNTER = "poll_counter"

console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Options:
    """What ``streetwarden demo`` was asked for; ``length_s`` is wall seconds, 0 without end."""

    seed: int
    speed: float
    timeseries: str
    port: int
    lan: bool
    headless: bool
    length_s: float
    report: Path | None
    keep: Path | None


async def run(options: Options) -> int:
    """Run the demonstration; the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _folder(options.keep) as folder:
        city = City(
            folder,
            Path(str(resources.files("streetwarden") / "district" / "district.toml")),
            Clock(time.time_ns(), from_iso(EVENING), options.speed),
            seed=options.seed,
            timeseries=options.timeseries,
            http_port=options.port,
            lan_host=_own_address() if options.lan else None,
        )
        async with Supervisor() as supervisor:
            assembly = assemble(city)
            if not await _start(supervisor, assembly, stop):
                return 1
            async with Centre(assembly.url) as centre:
                if options.headless:
                    report = await run_headless(assembly, centre, city, options.length_s, stop)
                    _tell(report, options.report)
                else:
                    await _show(assembly, centre, options, stop)
            console.print("stopping …", style="dim")
    return 0


async def start(supervisor: Supervisor, assembly: Assembly) -> AsyncIterator[str]:
    """Start every part in order, each when the one before is ready; yields the names as they come up."""
    for part in assembly.parts:
        await supervisor.start(part)
        port = assembly.ready.get(part.name)
        if port is not None:
            await _listening(port)
        yield part.name
    async with Centre(assembly.url) as centre:
        await centre.until_ready(READY_S)


async def run_headless(assembly: Assembly, centre: Centre, city: City, length_s: float, stop: asyncio.Event) -> Report:
    """Let the scenario run, close its orders by the truth, then count every reading and compile the report."""

    def truth() -> TruthFile:
        return read_truth(assembly.truth)

    crew = Crew(centre, city.clock, truth)
    working = asyncio.create_task(crew.run(), name="crew")
    try:
        await _until(stop, length_s)
        orders = await centre.items("/api/v1/work-orders")
        alerts = await centre.items("/api/v1/alerts")
        devices = await centre.items("/api/v1/devices")
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
    # The street falls silent first: then everything that was read can reach the store and be counted.
    await hush(assembly)
    balance = await drained(centre, city.clock.now() + int(NANOSECONDS * city.clock.speed))
    told = truth()
    counters = {
        device: [value for _, value, quality in await _samples(centre, device) if quality == 0]
        for device, emitted in told.emitted.items()
        if emitted.get("polls")
    }
    latencies = [
        (crew.first_seen[order["id"]] - city.clock.wall_at(from_iso(order["decided_at"]))) / NANOSECONDS
        for order in orders
    ]
    return compile_report(told, orders, alerts, devices, balance, counters, latencies)


async def _start(supervisor: Supervisor, assembly: Assembly, stop: asyncio.Event) -> bool:
    """Start with progress shown; False when a person stopped it or a part did not come up."""

    async def starting() -> None:
        with console.status("starting …") as status:
            async for name in start(supervisor, assembly):
                status.update(f"started {name} …")

    task = asyncio.create_task(starting(), name="start")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
        return False
    try:
        task.result()
    except TimeoutError as error:
        console.print(f"a part did not come up: {error}", style="red")
        for part in assembly.parts:
            console.print(f"--- {part.name}\n{_tail(part.log)}", markup=False, highlight=False)
        return False
    return True


async def _show(assembly: Assembly, centre: Centre, options: Options, stop: asyncio.Event) -> None:
    console.print(f"\n  the district centre's page:  [bold]{assembly.url}/[/bold]\n", highlight=False)
    console.print(f"  city clock at {options.speed:g}×, seed {options.seed}; Ctrl-C ends everything\n", style="dim")
    if options.lan:
        code = await centre.get("/demo/crew")
        console.print(f"  the crew's page, for one phone: {code['url']}", highlight=False)
        segno.make(code["url"]).terminal(sys.stderr, compact=True)
    await _until(stop, options.length_s or None)


async def _until(stop: asyncio.Event, length_s: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(length_s):
            await stop.wait()


async def hush(assembly: Assembly) -> None:
    """Let the simulated street fall silent; the gateways' cables stay."""
    async with httpx.AsyncClient(trust_env=False) as street:
        (await street.post(f"{assembly.control}/hush")).raise_for_status()


async def drained(centre: Centre, since: int) -> dict[str, Any]:
    """The balance once every gateway's own account of after ``since`` (city UTC ns) closes, or as it is at the end."""
    ends = time.monotonic() + DRAIN_S
    while True:
        balance: dict[str, Any] = await centre.get("/api/v1/balance")
        seen = [gateway["last_seen_at"] for gateway in balance["gateways"]]
        told = all(at is not None and from_iso(at) > since for at in seen)
        if (told and balance["closes"] and not balance["total"]["in_flight"]) or time.monotonic() > ends:
            return balance
        await asyncio.sleep(0.5)  # the gateways tell their account every two seconds


async def _samples(centre: Centre, device: str) -> list[list[float]]:
    return await centre.items(f"/api/v1/devices/{device}/samples", metric=COUNTER, limit=10_000)


async def _listening(port: int) -> None:
    ends = time.monotonic() + READY_S
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > ends:
                raise TimeoutError(f"nothing listens on port {port}") from None
            await asyncio.sleep(0.05)  # a port that nobody listens on yet offers nothing else to wait for
        else:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return


def _tell(report: Report, path: Path | None) -> None:
    text = json.dumps(msgspec.to_builtins(report), ensure_ascii=False, indent=2)
    if path is None:
        sys.stdout.write(text + "\n")
    else:
        path.write_text(text + "\n", encoding="utf-8")
        console.print(f"report: {path}", highlight=False)
    for line in report.details:
        console.print(line, style="yellow", markup=False)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="streetwarden-") as folder:
            yield Path(folder)


def _own_address() -> str:
    """Find the address of this machine on its network; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): routed like any other, belongs to nobody
        return str(probe.getsockname()[0])
