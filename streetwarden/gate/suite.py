"""Runs many scenarios, each in a process of its own, and shows how far they are."""

import asyncio
import contextlib
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from firmware_sim.scenario import load_scenario, scenarios
from rules.declared import Refused, nearest, seconds
from streetwarden.gate.result import Job, Result, Runner, decode_result, encode

AT_ONCE = 2
WORKER = ("streetwarden.gate.worker",)
STOP_S = 2.0  # how long a run may take to end when asked, before it is killed

console = Console(stderr=True)


def suite(folders: Sequence[Path | None], out: Path, seed: int | None = None, only: str = "") -> list[Job]:
    """List the runs of every scenario in the folders, at ``seed`` or each at the one it is kept with.

    ``None`` stands for the shipped scenarios. A folder's are its ``.toml`` files, but for districts that they name, and
    its folders that hold a ``scenario.toml``. All are read here: ``Refused`` names the first that is not in order.
    """
    found: dict[str, str] = {}
    for folder in folders:
        for name, place in _shipped() if folder is None else _scenarios_in(folder):
            if name in found:
                raise Refused(place, f"`{name}` is also the name of {found[name]}: rename one of them")
            found[name] = place
    if only and only not in found:
        raise Refused(f"--only {only}", f"no scenario is called so{nearest(only, found)}")
    if not found:
        raise Refused(", ".join(map(str, folders)), "no scenario is in this folder")
    jobs = []
    for name, place in sorted(found.items()):
        if only in ("", name):
            scenario, _ = load_scenario(place)
            kept = scenario.seed if seed is None else seed
            jobs.append(Job(name, place, kept, seconds(scenario.length), out / f"{name}-{kept}"))
    return jobs


def _shipped() -> Iterator[tuple[str, str]]:
    for file in scenarios().iterdir():
        if file.name.endswith(".toml"):
            name = file.name.removesuffix(".toml")
            yield name, name


def _scenarios_in(folder: Path) -> Iterator[tuple[str, str]]:
    if not folder.is_dir():
        raise Refused(str(folder), "no such folder")
    files = sorted(folder.glob("*.toml"))
    districts = {_district(file) for file in files}
    for file in files:
        if file.name not in districts:
            yield file.stem, str(file)
    for file in sorted(folder.glob("*/scenario.toml")):
        yield file.parent.name, str(file.parent)


def _district(file: Path) -> object:
    """Read the district that a file names, if it is a scenario; one that cannot be read is refused where it is run."""
    with contextlib.suppress(OSError, ValueError):
        return tomllib.loads(file.read_text(encoding="utf-8")).get("district")
    return None


async def run_suite(jobs: Sequence[Job], runner: Runner | None = None, at_once: int = AT_ONCE) -> list[Result]:
    """Make all runs, ``at_once`` at a time and the longest first; the results stand in the order of the jobs.

    Cancelled, it ends what runs within ``STOP_S``.
    """
    run = runner or in_own_process
    results: dict[Job, Result] = {}
    waiting = iter(sorted(jobs, key=lambda job: -job.length_s))
    with _progress() as shown:
        total = shown.add_task(f"{len(jobs)} runs", total=sum(job.length_s for job in jobs))

        async def work() -> None:
            for job in waiting:  # one iterator for all: each takes the next
                bar = shown.add_task(f"{job.name}, seed {job.seed}", total=job.length_s)
                done = 0.0

                def progress(to: float, bar: int = bar) -> None:
                    nonlocal done
                    shown.update(bar, completed=to)  # type: ignore[arg-type]
                    shown.advance(total, to - done)
                    done = to

                result = await run(job, progress)
                progress(job.length_s)
                shown.remove_task(bar)
                shown.console.print(told(result), highlight=False, markup=False, soft_wrap=True)
                results[job] = result

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    return [results[job] for job in jobs]


def told(result: Result) -> str:
    """Say in one line how a run went."""
    name, figures = f"{result.job.name}, seed {result.job.seed}", result.figures
    if result.crash:
        return f"{name}: failed: {result.crash}"
    flaws = figures.lost + figures.doubled + figures.garbled + figures.alien
    return (
        f"{name}: found {figures.found} of {figures.incidents}, {figures.late} late, {figures.misfires} misfires, "
        f"{figures.duplicates} duplicates, {flaws} of {result.samples} samples not as emitted; {result.seconds:.1f} s"
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


async def in_own_process(job: Job, progress: Callable[[float], None], module: Sequence[str] = WORKER) -> Result:
    """Make a run in a process of its own: one that dies is a failed result, not the end of the suite.

    ``module`` is the worker to run, with its arguments.
    """
    await asyncio.to_thread(job.folder.mkdir, parents=True, exist_ok=True)
    left, log = job.folder / "result.json", job.folder / "run.log"
    left.unlink(missing_ok=True)
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *module,
            encode(job).decode(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # the terminal's Ctrl-C is for the suite, which ends its runs itself
        )
    try:
        if process.stdout is not None:
            async for line in process.stdout:
                progress(float(line))
        code = await process.wait()
    finally:
        await _end(process)
    if code or not left.is_file():
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Result(job, crash=f"its process ended with {how}: {_last(log)}")
    return decode_result(left.read_bytes())


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _last(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
