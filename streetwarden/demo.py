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
from urllib.parse import urlsplit

import msgspec
import segno
from rich.console import Console

from rules.declared import Refused
from streetwarden.assembly import Assembly, City, assemble, evening
from streetwarden.centre import Centre
from streetwarden.headless import run_headless, until
from streetwarden.report import report_of
from streetwarden.score import Score
from streetwarden.scoring import show
from streetwarden.supervisor import Part, Supervisor
from streetwarden.told import Told

READY_S = 30.0
ANSWER_S = 3.0
GIVE_UP_STARTS = 3  # a part that has died this often at the start will not come up

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
    await _check_answers(options.timeseries)
    with _folder(options.keep) as folder:
        city = City(
            folder,
            Path(str(resources.files("firmware_sim") / "districts" / "bluestone.toml")),
            evening(options.speed),
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
                    scored, told = await run_headless(assembly, centre, city, options.length_s, stop)
                    _tell(scored, told, options.report)
                    code = 0 if scored.in_order() else 1
                else:
                    await _show(assembly, centre, options, stop)
                    code = 0
            console.print("stopping …", style="dim")
    return code


async def start(supervisor: Supervisor, assembly: Assembly) -> AsyncIterator[str]:
    """Start every part in order, each when the one before is ready; yields the names as they come up."""
    for part in assembly.parts:
        await supervisor.start(part)
        port = assembly.ready.get(part.name)
        if port is not None:
            await _listening(part, port)
        yield part.name
    async with Centre(assembly.url) as centre:
        await centre.until_ready(READY_S)


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
    await until(stop, options.length_s or None)


async def _check_answers(timeseries: str) -> None:
    """Refuse an address of a time-series store that means nothing, or where nobody answers."""
    if not timeseries:
        return
    place = f"--timeseries {timeseries}"
    split = urlsplit(timeseries)
    if split.scheme != "influx" or not split.hostname or not split.path.strip("/"):
        raise Refused(place, "write influx://HOST:PORT/DATABASE, or leave it out for the embedded store")
    try:
        async with asyncio.timeout(ANSWER_S):
            _, writer = await asyncio.open_connection(split.hostname, split.port or 8086)
    except OSError as error:  # a TimeoutError is one too
        raise Refused(place, "nobody answers there; start InfluxDB first") from error
    writer.close()


async def _listening(part: Part, port: int) -> None:
    ends = time.monotonic() + READY_S
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if part.starts > GIVE_UP_STARTS or time.monotonic() > ends:
                raise TimeoutError(f"{part.name} does not stay up") from None
            await asyncio.sleep(0.05)  # a port that nobody listens on yet offers nothing else to wait for
        else:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return


def _tell(scored: Score, told: Told, path: Path | None) -> None:
    report = report_of(scored, told)
    text = json.dumps(msgspec.to_builtins(report), ensure_ascii=False, indent=2)
    if path is None:
        sys.stdout.write(text + "\n")
    else:
        path.write_text(text + "\n", encoding="utf-8")
        console.print(f"report: {path}", highlight=False)
    console.print(scored.summary(), highlight=False)
    show(scored, console)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise Refused(f"--keep {keep}", "this folder is not empty; two runs would mix, so name another")
        yield keep.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="streetwarden-") as folder:
            yield Path(folder)


def _own_address() -> str:
    """Find the address of this machine on its network; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): routed like any other, belongs to nobody
        return str(probe.getsockname()[0])
