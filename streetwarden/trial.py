"""One scenario run once, on either clock: in fast time in this process, or in real time over real sockets."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog
import tomli_w
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from firmware_sim.scenario import Event, check, events, load_scenario, load_scenario_district
from rules.declared import seconds
from rules.district import District
from streetwarden.assembly import City, assemble, evening
from streetwarden.centre import Centre
from streetwarden.demo import start
from streetwarden.fast.run import FastRun, Progress, run_fast
from streetwarden.headless import run_headless
from streetwarden.score import read_truth
from streetwarden.scoring import score_folder, show
from streetwarden.supervisor import Supervisor
from streetwarden.told import Told, read_told
from wire.clock import NANOSECONDS, Clock, iso

TROUBLES = ("gateway_off", "broker_down")  # what happens to parts, which only their supervisor can do

console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Trial:
    """What is to be run. ``speed`` is 0 in fast time, else city seconds a second; ``length_s`` cuts it short (city)."""

    scenario: str
    seed: int
    folder: Path
    speed: float = 0.0
    length_s: float | None = None
    rules: Path | None = None
    profiles: Path | None = None


def run_trial(trial: Trial) -> Told | None:
    """Run it with its progress shown; ``None`` when a person stopped it."""
    with asyncio.Runner() as runner, _progress() as shown:
        return runner.run(_until_stopped(trial, shown))


def tell(folder: Path, device: str = "") -> int:
    """Show the score of a run, and all that happened to one device; the exit code."""
    scored = score_folder(folder, folder / "score.html", folder / "score.json")
    show(scored, console)
    if device:
        console.print(timeline_of(read_told(folder), folder, device), highlight=False, markup=False)
    console.print(f"\n{folder / 'score.html'} shows its timelines", highlight=False, style="dim")
    return 0 if scored.in_order() else 1


def timeline_of(told: Told, folder: Path, device: str) -> str:
    """Say line by line what was true of a device, and what was told of it, in order of time."""
    truth = read_truth(folder / "truth.json")
    lines = [(each.onset, f"true: {each.hazard} ({each.id})") for each in truth.incidents if device in each.devices]
    lines += [(each.end, f"over: {each.id}") for each in truth.incidents if device in each.devices and each.end]
    lines += [(each.at, f"looks like {each.hazard}: {each.id}") for each in truth.nuisances if each.device == device]
    for step in (step.transition for step in told.steps if step.transition.device == device):
        numbers = ", ".join(f"{name} {value:g}" for name, value in step.evidence.items())
        lines.append((iso(step.decided_at), f"gateway: {step.rule} {step.phase.value} {step.level} ({numbers})"))
    for alert in told.alerts:
        if alert["device"] == device and alert["decision"]:
            decision = alert["decision"]
            lines.append((decision["decided_at"], f"centre: {alert['rule']} {decision['verdict']}, {decision['code']}"))
    orders = [order for order in told.orders if order["device"] == device]
    lines += [(order["opened_at"], f"order {order['number']}: {order['hazard']} {order['level']}") for order in orders]
    lines += [
        (flaw.first_at, f"{flaw.count} samples {flaw.kind} at {flaw.stage}: {flaw.metric}")
        for flaw in told.audit.flaws
        if flaw.device == device
    ]
    return "\n".join(f"{at}  {said}" for at, said in sorted(lines)) or f"nothing happened to {device}"


async def _until_stopped(trial: Trial, shown: Bar) -> Told | None:
    work = asyncio.create_task(_fast(trial, shown) if trial.speed == 0.0 else _real(trial, shown), name="trial")
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        return await work
    return None


async def _fast(trial: Trial, shown: Bar) -> Told:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    row = shown.add_task(trial.scenario, total=None, said="")

    def tell(progress: Progress) -> None:
        said = f"{progress.samples:,} samples, {progress.alerts:,} alerts"
        shown.update(row, total=progress.length_s, completed=progress.done_s, said=said)

    return await run_fast(
        FastRun(
            trial.scenario,
            trial.seed,
            trial.folder,
            trial.rules,
            trial.profiles,
            trial.length_s,
            progress=tell,
        )
    )


async def _real(trial: Trial, shown: Bar) -> Told:
    """Run every part as a process of its own, and take power and broker away when the scenario says so."""
    scenario, place = load_scenario(trial.scenario)
    district = load_scenario_district(scenario, place)
    check(scenario, district, place)
    clock = evening(trial.speed, scenario.starts)
    length_s = min(seconds(scenario.length), trial.length_s or seconds(scenario.length))
    await asyncio.to_thread(trial.folder.mkdir, parents=True, exist_ok=True)
    declared = trial.folder / "declared.toml"
    await asyncio.to_thread(declared.write_text, district_text(district), "utf-8")
    city = City(trial.folder, declared, clock, seed=trial.seed, scenario=trial.scenario, rules=trial.rules)
    troubles = [event for event in events(scenario, district, trial.seed, clock.city) if event.what in TROUBLES]
    row = shown.add_task(trial.scenario, total=length_s, said="")
    async with Supervisor() as supervisor:
        assembly = assemble(city)
        async for part in start(supervisor, assembly):
            shown.update(row, said=f"started {part}")
        async with asyncio.TaskGroup() as beside:
            helpers = [beside.create_task(_trouble(each, supervisor, clock), name=each.id) for each in troubles]
            helpers.append(beside.create_task(_watch(clock, shown, row), name="progress"))
            async with Centre(assembly.url) as centre:
                wall_s = (clock.wall_at(clock.city) - clock.wall_at(clock.now())) / 1e9 + clock.wall_seconds(length_s)
                _, told = await run_headless(assembly, centre, city, wall_s, asyncio.Event())
            for helper in helpers:
                helper.cancel()
    return told


async def _trouble(event: Event, supervisor: Supervisor, clock: Clock) -> None:
    """Take a part's power away when it happens, and give it back when it is over."""
    await clock.sleep_until(event.at)
    down_s = clock.wall_seconds(((event.until or event.at) - event.at) / NANOSECONDS)
    supervisor.kill(event.target, down_s)


async def _watch(clock: Clock, shown: Bar, row: TaskID) -> None:
    while True:
        shown.update(row, completed=max(0.0, (clock.now() - clock.city) / NANOSECONDS), said="in real time")
        await asyncio.sleep(0.5)  # what moves here is the clock itself


def district_text(district: District) -> str:
    """Write a district as the TOML that every process reads."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(district)))


def _without_none(content: Any) -> Any:
    """TOML has no word for nothing: what is not given is left out."""
    if isinstance(content, dict):
        return {key: _without_none(value) for key, value in content.items() if value is not None}
    if isinstance(content, list | tuple):
        return [_without_none(value) for value in content]
    return content


@contextlib.contextmanager
def _progress() -> Iterator[Bar]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[said]}"))
    with Bar(*columns, *times, console=console, transient=True) as shown:
        yield shown
