"""The gate's commands: ``streetwarden sim city``, ``gate``, ``city-update`` and ``city-unseen``."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from rules.declared import Refused, seconds
from streetwarden.gate.bounds import (
    Bounds,
    Check,
    Length,
    gate,
    read_bounds,
    short,
    updated,
    write_bounds,
)
from streetwarden.gate.junit import write_junit
from streetwarden.gate.page import write_index
from streetwarden.gate.result import Job, Result, Runner, encode
from streetwarden.gate.suite import run_suite, suite
from streetwarden.gate.summary import markdown
from streetwarden.gate.unseen import SEEDS, unseen_report

BOUNDS = Path("tests/gate/bounds.json")
OUT = Path("build/city")
EXIT_INTERRUPTED = 130

OnlyOption = Annotated[str, typer.Option("--only", help="one scenario of the suite, by its name")]
OutOption = Annotated[Path, typer.Option("--out", help="where every run leaves its folder")]
BoundsOption = Annotated[Path, typer.Option("--bounds", help="the kept bounds")]
LongOption = Annotated[bool, typer.Option("--long", help="whole scenarios, the long ones too")]
ScenariosOption = Annotated[Path | None, typer.Option("--scenarios", help="a folder of scenarios; the shipped ones")]
RulesOption = Annotated[Path | None, typer.Option("--rules", help="other rules, a file or a folder")]
ProfilesOption = Annotated[Path | None, typer.Option("--profiles", help="other device profiles, a folder")]


def city(
    seed: Annotated[int | None, typer.Option(help="for all; each scenario's own", min=0)] = None,
    scenarios: ScenariosOption = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
    length: Annotated[str, typer.Option("--for", help="only so much of each, as in 3d")] = "",
    only: OnlyOption = "",
    rules: RulesOption = None,
    profiles: ProfilesOption = None,
    out: OutOption = OUT,
) -> None:
    """Run a folder of scenarios in fast time and tell what was found, missed and lost, without comparing."""
    if json_file is not None and not json_file.resolve().parent.is_dir():
        raise Refused(f"--json {json_file}", "the folder it should be written to does not exist")
    jobs = [
        msgspec.structs.replace(cut(job, length), rules=rules, profiles=profiles)
        for job in suite([scenarios], out, seed, only)
    ]
    results = _run(jobs)
    if json_file is not None:
        json_file.write_bytes(as_json(results))
    write_index(out / "index.html", results, [])
    typer.echo(markdown(results, []))
    raise typer.Exit(1 if any(result.crash for result in results) else 0)


def cut(job: Job, length: str) -> Job:
    """Cut a run to ``length``, where that is shorter and given; ``Refused`` when it is no duration."""
    try:
        most = seconds(length) if length else job.length_s
    except ValueError as error:
        raise Refused(f"--for {length}", str(error)) from error
    return msgspec.structs.replace(job, length_s=most, cut=True) if most < job.length_s else job


def city_gate(
    whole: LongOption = False,
    only: OnlyOption = "",
    scenarios: ScenariosOption = None,
    rules: RulesOption = None,
    profiles: ProfilesOption = None,
    bounds: BoundsOption = BOUNDS,
    out: OutOption = OUT,
) -> None:
    """Run the kept suite and hold it against the kept bounds; exit code 1 when anything is past one."""
    jobs = [
        msgspec.structs.replace(job, rules=rules, profiles=profiles)
        for job in suite(_kept(scenarios, bounds), out, only=only)
    ]
    checks = gated(jobs, read_bounds(bounds), out, whole=whole, only=only)
    failed = [check for check in checks if check.failure]
    for check in failed:
        typer.echo(f"{check.failure}\n")
    if failed:
        typer.echo('If what failed is meant, take it as the new bounds: make city-update BECAUSE="why"')
    typer.echo(
        f"{len(checks) - len(failed)} of {len(checks)} checks passed; {out / 'index.html'}, {out / 'summary.md'}"
    )
    raise typer.Exit(1 if failed else 0)


def city_update(
    because: Annotated[str, typer.Option(help="why the bounds change; kept beside them")] = "",
    whole: LongOption = False,
    only: OnlyOption = "",
    scenarios: ScenariosOption = None,
    bounds: BoundsOption = BOUNDS,
    out: OutOption = OUT,
) -> None:
    """Run the suite and take what it gives as the new bounds; print the difference for review."""
    if not because.strip():
        raise Refused("BECAUSE", 'say why the bounds change: make city-update BECAUSE="…"')
    kept = read_bounds(bounds)
    jobs = suite(_kept(scenarios, bounds), out, only=only)
    forms = [each for job in jobs for each in _forms(job, kept, whole=whole)]
    results = _run([job for _, job in forms])
    crashed = [result for result in results if result.crash]
    for result in crashed:
        typer.echo(f"{result.job.name}: {result.crash}\n  reproduce: {result.job.command()}")
    if crashed:
        typer.echo("Nothing was written.")
        raise typer.Exit(1)
    gone = [] if only or scenarios else sorted(kept.scenarios.keys() - {job.name for job in jobs})
    pairs = [(length, result) for (length, _), result in zip(forms, results, strict=True)]
    new, lines = updated(kept, pairs, gone, because.strip())
    if lines:
        write_bounds(bounds, new)
    typer.echo("\n".join(lines) if lines else "Every run is as it was kept: nothing was written.")
    left = [job.name for job in jobs if short(job, kept.scenarios.get(job.name)) and not whole]
    if lines and left:
        typer.echo(f"\nThe long forms were not run: {', '.join(left)}. Take them too with ARGS=--long")


def city_unseen(
    base: Annotated[int | None, typer.Option(help="the first fresh seed; drawn from the clock", min=0)] = None,
    seeds: Annotated[int, typer.Option(help="how many fresh seeds", min=1)] = SEEDS,
    only: OnlyOption = "",
    scenarios: ScenariosOption = None,
    bounds: BoundsOption = BOUNDS,
    out: OutOption = OUT,
) -> None:
    """Run fresh seeds beside the kept ones: rules that were tuned to the kept seeds show."""
    first = int(time.time()) if base is None else base
    typer.echo(f"fresh seeds {first} to {first + seeds - 1}; again with --base {first}", err=True)
    limits = read_bounds(bounds)
    kept = [
        short(job, limits.scenarios.get(job.name)) or job for job in suite(_kept(scenarios, bounds), out, only=only)
    ]
    fresh = [
        msgspec.structs.replace(job, seed=seed, folder=out / f"{job.name}-{seed}")
        for seed in range(first, first + seeds)
        for job in kept
    ]
    results = _run([*kept, *fresh])
    report = unseen_report(results[len(kept) :], results[: len(kept)], first)
    (out / "unseen.md").write_text(report, encoding="utf-8")
    typer.echo(report)
    raise typer.Exit(1 if any(result.crash for result in results) else 0)


def gated(
    jobs: Sequence[Job], bounds: Bounds, out: Path, *, whole: bool, only: str = "", runner: Runner | None = None
) -> list[Check]:
    """Run the suite's short (or ``whole``) forms, compare, and write the reports into ``out``."""
    forms = [_forms(job, bounds, whole=whole)[-1] for job in jobs]
    results = _run([job for _, job in forms], runner)
    limits = [bounds.scenarios.get(job.name) for job in jobs]
    pairs = [
        (result, getattr(limit, length) if limit else None)
        for (length, _), result, limit in zip(forms, results, limits, strict=True)
    ]
    strangers = [] if only else sorted(bounds.scenarios.keys() - {job.name for job in jobs})
    checks = gate(pairs, strangers)
    out.mkdir(parents=True, exist_ok=True)
    write_junit(out / "junit.xml", checks)
    (out / "summary.md").write_text(markdown(results, checks), encoding="utf-8")
    (out / "results.json").write_bytes(as_json(results))
    write_index(out / "index.html", results, checks)
    return checks


def _kept(scenarios: Path | None, bounds: Path) -> list[Path | None]:
    """List the suite's folders: the shipped scenarios, and beside the bounds those captured from the street."""
    captured = bounds.parent / "scenarios"
    return [scenarios, *([captured] if scenarios is None and captured.is_dir() else [])]


def _forms(job: Job, bounds: Bounds, *, whole: bool) -> list[tuple[Length, Job]]:
    """List the forms of a run that are asked for, the whole one last."""
    cut = short(job, bounds.scenarios.get(job.name))
    forms: list[tuple[Length, Job]] = [] if cut is None else [("short", cut)]
    return [*forms, ("whole", job)] if whole or cut is None else forms


def _run(jobs: Sequence[Job], runner: Runner | None = None) -> list[Result]:
    try:
        return asyncio.run(run_suite(jobs, runner))
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def as_json(results: Sequence[Result]) -> bytes:
    """Encode the figures of every run by its scenario."""
    return msgspec.json.format(encode({"scenarios": {result.job.name: _row(result) for result in results}})) + b"\n"


def _row(result: Result) -> dict[str, Any]:
    figures = msgspec.structs.asdict(result.figures)
    delays = {"p50": figures.pop("delay_p50_s"), "p99": figures.pop("delay_p99_s")}
    ran = {"seed": result.job.seed, "length_s": result.job.length_s, "samples": result.samples}
    told = {"details": result.details, "digest": result.digest, "reproduce": result.job.command()}
    return {**ran, **figures, "delay_s": delays, "seconds": round(result.seconds, 3), "crash": result.crash, **told}
