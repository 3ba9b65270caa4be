"""One scenario run once, on either clock: in fast time in this process, or in real time over real sockets."""

import asyncio
import contextlib
import logging
import shutil
import signal
import tempfile
import time
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

from firmware_sim.scenario import Event, Scenario, check, events, load_scenario, load_scenario_district
from rules.declared import Refused, nearest, seconds
from rules.district import District
from streetwarden.assembly import City, assemble
from streetwarden.centre import Centre
from streetwarden.demo import start
from streetwarden.fast.run import FastRun, Progress, run_fast
from streetwarden.headless import run_headless
from streetwarden.score import read_truth
from streetwarden.scoring import score_folder, show
from streetwarden.supervisor import Supervisor
from streetwarden.told import Told, read_told
from wire.clock import NANOSECONDS, Clock, from_iso, iso

TROUBLES = ("gateway_off", "broker_down")  # what happens to parts, which only their supervisor can do
LEADS_S = (8.0, 30.0)  # wall: how long all parts may take to come up before the scenario begins; tried in turn
LEFT = ("truth.json", "told.json", "score.json", "score.html")

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


def trial_of(
    scenario: str,
    seed: int | None,
    folder: Path,
    speed: float,
    length: str,
    rules: Path | None,
    profiles: Path | None,
    device: str,
) -> Trial:
    """Read what the command line asks for; ``Refused`` names the option that is not in order."""
    declared, place = load_scenario(scenario)
    devices = {each.id for each in load_scenario_district(declared, place).device}
    if device and device not in devices:
        raise Refused(
            f"--device {device}", f"the scenario's district declares no such device{nearest(device, devices)}"
        )
    if speed and profiles is not None:
        raise Refused(f"--profiles {profiles}", "in real time all parts take the shipped ones; leave --speed away")
    try:
        length_s = seconds(length) if length else None
    except ValueError as error:
        raise Refused(f"--for {length}", str(error)) from error
    return Trial(scenario, declared.seed if seed is None else seed, folder, speed, length_s, rules, profiles)


def run_trial(trial: Trial) -> Told | None:
    """Run it with its progress shown; ``None`` when a person stopped it.

    The folder holds a run only when it has come to its end: what an earlier one left is gone from the start.
    """
    try:
        trial.folder.mkdir(parents=True, exist_ok=True)
        for name in LEFT:
            (trial.folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise Refused(f"--keep {trial.folder}", f"cannot be written: {error.strerror}") from error
    with asyncio.Runner() as runner, _progress() as shown:
        return runner.run(_until_stopped(trial, shown))


def tell(folder: Path, device: str = "") -> int:
    """Show the score of a run, and all that happened to one device; the exit code."""
    scored = score_folder(folder, folder / "score.html", folder / "score.json")
    show(scored, console)
    if device:
        console.print(timeline_of(read_told(folder), folder, device), highlight=False, markup=False, soft_wrap=True)
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
    lines += [
        (order["opened_at"], f"order {order['number']}: {order['hazard']} {order['announcements'][0]['level']}")
        for order in orders
    ]
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
    """Run every part as a process of its own; on a machine that is too busy to start them in time, once more."""
    scenario, place = load_scenario(trial.scenario)
    district = load_scenario_district(scenario, place)
    check(scenario, district, place)
    row = shown.add_task(trial.scenario, total=None, said="")
    for lead_s in LEADS_S:
        clock = Clock(time.time_ns() + int(lead_s * NANOSECONDS), from_iso(scenario.starts), trial.speed)
        with tempfile.TemporaryDirectory(prefix="streetwarden-") as name:
            folder = Path(name)
            try:
                told = await _processes(trial, scenario, district, clock, folder, (shown, row))
            finally:
                _keep(folder, trial.folder, "*.log")
            if told is not None:
                _keep(folder, trial.folder, "truth.json")
                _keep(folder, trial.folder, "told.json")
                return told
    why = f"not every part came up within {LEADS_S[-1]:g} s; their logs are in {trial.folder}"
    raise Refused(f"--speed {trial.speed:g}", why)


def _keep(folder: Path, kept: Path, names: str) -> None:
    for file in folder.glob(names):
        shutil.copyfile(file, kept / file.name)


async def _processes(
    trial: Trial, scenario: Scenario, district: District, clock: Clock, folder: Path, bar: tuple[Bar, TaskID]
) -> Told | None:
    """Run the parts in a folder of their own; ``None`` when they came up too late.

    Power and broker are taken away when the scenario says so.
    """
    length_s = min(seconds(scenario.length), trial.length_s or seconds(scenario.length))
    declared = folder / "declared.toml"
    await asyncio.to_thread(declared.write_text, district_text(district), "utf-8")
    rules = trial.rules and trial.rules.resolve()
    city = City(folder, declared, clock, seed=trial.seed, scenario=_named(trial.scenario), rules=rules)
    troubles = [event for event in events(scenario, district, trial.seed, clock.city) if event.what in TROUBLES]
    shown, row = bar
    async with Supervisor() as supervisor:
        assembly = assemble(city)
        try:
            async for part in start(supervisor, assembly):
                shown.update(row, said=f"started {part}")
        except TimeoutError:
            return None
        async with Centre(assembly.url) as centre:
            if not await _begins(centre, clock):
                return None
            shown.update(row, total=length_s, said="in real time")
            async with asyncio.TaskGroup() as beside:
                end = clock.city + int(length_s * NANOSECONDS)
                alongside = [
                    beside.create_task(_trouble(each, end, supervisor, clock), name=each.id) for each in troubles
                ]
                alongside.append(beside.create_task(_watch(clock, shown, row), name="progress"))
                wall_s = (clock.wall_at(end) - time.time_ns()) / NANOSECONDS
                _, told = await run_headless(assembly, centre, city, wall_s, asyncio.Event())
                for task in alongside:
                    task.cancel()
    return told


async def _begins(centre: Centre, clock: Clock) -> bool:
    """Wait for the scenario to begin; whether every gateway was there by then."""
    late = clock.now() >= clock.city
    await clock.sleep_until(clock.city)
    gateways = (await centre.get("/api/v1/balance"))["gateways"]
    return not late and all(gateway["last_seen_at"] for gateway in gateways)


def _named(scenario: str) -> str:
    """Name a scenario as every process finds it, wherever it runs: a path from the root on, or a shipped one's name."""
    path = Path(scenario)
    return str(path.resolve()) if path.is_dir() or path.suffix == ".toml" else scenario


async def _trouble(event: Event, end: int, supervisor: Supervisor, clock: Clock) -> None:
    """Take a part's power away when it happens, and give it back when it is over."""
    await clock.sleep_until(event.at)
    down_s = clock.wall_seconds(((event.until or end) - event.at) / NANOSECONDS)
    supervisor.kill(event.target, down_s)


async def _watch(clock: Clock, shown: Bar, row: TaskID) -> None:
    while True:
        shown.update(row, completed=(clock.now() - clock.city) / NANOSECONDS)
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
