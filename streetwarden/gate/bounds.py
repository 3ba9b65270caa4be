"""The bounds that are kept in the repository, and what a run that is past one says of it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from rules.declared import Refused
from streetwarden.gate.result import DAY_S, Figures, Job, Result
from streetwarden.score import Detail

SHORT_S = 3 * DAY_S  # what the short form runs of a scenario that is longer and was never kept
SHOWN = 5  # causes that a failure lists
Length = Literal["short", "whole"]

DRIFTS = {
    "truth": "the world changed",
    "emitted": "an instrument or a transport changed",
    "told": "alerts or orders changed",
}
AT_LEAST = ("found", "useful_share")
# What must not grow, and the kinds of detail that explain it.
AT_MOST = (
    "missed",
    "late",
    "misfires",
    "benign",
    "duplicates",
    "delay_p50_s",
    "delay_p99_s",
    "lost",
    "doubled",
    "garbled",
    "alien",
    "unexpected",
)
FIGURES = (*AT_LEAST, *AT_MOST)
CAUSES: Mapping[str, tuple[str, ...]] = {
    "found": ("missed",),
    "useful_share": ("misfire", "benign", "duplicate"),
    "missed": ("missed",),
    "late": ("late",),
    "misfires": ("misfire",),
    "benign": ("benign",),
    "duplicates": ("duplicate",),
    "delay_p50_s": ("late",),
    "delay_p99_s": ("late",),
    "lost": ("lost",),
    "doubled": ("doubled",),
    "garbled": ("garbled",),
    "alien": ("alien",),
    "unexpected": ("unexpected",),
}


class Bound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run of ``length_s`` city seconds at the scenario's own seed gave when it was last agreed to.

    ``digest`` and ``alerts`` are equalities, ``figures`` bounds. ``known`` counts by ``"kind hazard device rule"`` the
    shortfalls that were agreed to, so that a failure can name the new ones.
    """

    length_s: float
    figures: Figures
    digest: dict[str, str] = {}
    alerts: dict[str, str] = {}
    known: dict[str, int] = {}


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scenario's bounds; one with a ``short`` form is run for that length where time is short."""

    whole: Bound | None = None
    short: Bound | None = None


class Because(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why bounds were rewritten, when (a UTC date), and of which scenarios."""

    on: str
    reason: str
    changed: tuple[str, ...]


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file ``bounds.json``; ``because`` only grows."""

    because: tuple[Because, ...] = ()
    scenarios: dict[str, Kept] = {}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; an empty ``failure`` means it is in order, else its first line is the headline."""

    scenario: str
    name: str
    failure: str = ""
    seconds: float = 0.0


def read_bounds(file: Path) -> Bounds:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Bounds)
    except OSError as error:
        raise Refused(str(file), f"cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise Refused(str(file), str(error)) from error


def write_bounds(file: Path, bounds: Bounds) -> None:
    content = msgspec.json.format(msgspec.json.encode(bounds, order="sorted"))
    file.write_bytes(content + b"\n")


def short(job: Job, kept: Kept | None) -> Job | None:
    """Cut a run to its short form; ``None`` when it is short enough as it is."""
    length_s = kept.short.length_s if kept and kept.short else SHORT_S
    if job.length_s <= length_s:
        return None
    folder = job.folder.with_name(f"{job.folder.name}-short")
    return msgspec.structs.replace(job, length_s=length_s, folder=folder, cut=True)


def bound_of(result: Result) -> Bound:
    known: Counter[str] = Counter()
    for detail in result.details:
        known[_key(detail)] += detail.count
    return Bound(result.job.length_s, result.figures, result.digest, result.alerts, dict(known))


def gate(results: Sequence[tuple[Result, Bound | None]], strangers: Sequence[str] = ()) -> list[Check]:
    """Hold every result against its bound; drifts stand first. ``strangers`` are bounds that no scenario is for."""
    checks = [check for result, bound in results for check in compare(result, bound)]
    checks += [
        Check(name, "scenario", f"{name}: its bound has no scenario any more\n  {_cure('its scenario is gone')}")
        for name in strangers
    ]
    return sorted(checks, key=lambda check: not check.name.startswith("digest"))  # stable


def compare(result: Result, bound: Bound | None) -> list[Check]:
    """Hold one result against its bound: that it ran, then each digest by itself, then each figure."""
    name = result.job.name
    if result.crash:
        failure = f"{name}: the run failed: {result.crash}\n  reproduce: {result.job.command()}"
        return [Check(name, "run", failure, result.seconds)]
    if bound is None or bound.length_s != result.job.length_s:
        run = f"{result.job.length_s:g} s"
        kept = f"no bounds are kept of it yet (run for {run})" if bound is None else f"kept for {bound.length_s:g} s"
        failure = f"{name}: {kept}{'' if bound is None else f', run for {run}'}\n  {_cure('what is new')}"
        return [Check(name, "run", failure, result.seconds)]
    return [Check(name, "run", seconds=result.seconds), *_drifts(result, bound), *_figures(result, bound)]


def _drifts(result: Result, bound: Bound) -> Iterator[Check]:
    name = result.job.name
    for part, meaning in DRIFTS.items():
        was, now = bound.digest.get(part, ""), result.digest.get(part, "")
        failure = ""
        if was != now:
            lines = [f"{name}: digest of `{part}` drifted, {was[:12] or 'none'} to {now[:12] or 'none'}: {meaning}"]
            first = ""
            if part == "told":
                moved, first = _moved(result.alerts, bound.alerts)
                lines += moved
            causes = _new(result.details, bound.known)
            lines += _listed(causes)
            first = first or (causes[0].device if causes else "")
            failure = "\n  ".join([*lines, f"reproduce: {result.job.command(first)}"])
        yield Check(name, f"digest {part}", failure)


def _moved(now: Mapping[str, str], was: Mapping[str, str]) -> tuple[list[str], str]:
    """Say whose alerts are not those of the bound, and name the first device."""
    lines: list[str] = []
    for key in sorted(now.keys() | was.keys()):
        if now.get(key) != was.get(key):
            rule, _, device = key.partition(" ")
            how = "new" if key not in was else "gone" if key not in now else "changed"
            same_alerts = now.get(key, "").split()[:1] == was.get(key, "").split()[:1]
            stage = "confirmation" if same_alerts else "rules"
            lines.append(f"{device}: alerts of rule {rule} are {how} (stage: {stage})")
    first = lines[0].partition(":")[0] if lines else ""
    return _cut(lines), first


def _figures(result: Result, bound: Bound) -> Iterator[Check]:
    name = result.job.name
    for figure in FIGURES:
        now, limit = getattr(result.figures, figure), getattr(bound.figures, figure)
        failure = ""
        if now is not None and limit is not None and (now < limit if figure in AT_LEAST else now > limit):
            of = [detail for detail in result.details if detail.kind in CAUSES[figure]]
            causes = _new(of, bound.known) or of
            side = "at least" if figure in AT_LEAST else "at most"
            lines = [f"{name}: {figure} {shown(now)}, {side} {shown(limit)} is kept", *_listed(causes)]
            failure = "\n  ".join([*lines, f"reproduce: {result.job.command(causes[0].device if causes else '')}"])
        yield Check(name, figure, failure)
    # Of runs that are the same to the byte only the scorer can tell anything else.
    moved = [
        f"{figure}: {shown(was)} is kept, {shown(now)} is told"
        for figure in Figures.__struct_fields__
        if (was := getattr(bound.figures, figure)) != (now := getattr(result.figures, figure))
    ]
    same_bytes = result.digest == bound.digest
    lines = [f"{name}: the same bytes are scored otherwise (stage: score)", *moved, _cure("the scorer is better")]
    yield Check(name, "score", "\n  ".join(lines) if moved and same_bytes else "")


def _new(details: Sequence[Detail], known: Mapping[str, int]) -> list[Detail]:
    """Leave out as many details of each sort as were agreed to."""
    left = Counter(known)
    new = []
    for detail in details:
        left[_key(detail)] -= detail.count
        if left[_key(detail)] < 0:
            new.append(detail)
    return new


def _listed(details: Sequence[Detail]) -> list[str]:
    return _cut(
        [
            f"{detail.device or detail.hazard}: {detail.kind}{f' ×{detail.count}' if detail.count > 1 else ''}"
            f"{f', rule {detail.rule}' if detail.rule else ''}{f', {detail.at}' if detail.at else ''}: {detail.reason}"
            f" (lost at stage: {detail.stage or 'unknown'})"
            for detail in details
        ]
    )


def _cut(lines: list[str]) -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"and {more} more"] if more > 0 else lines


def _key(detail: Detail) -> str:
    return " ".join((detail.kind, detail.hazard, detail.device or "-", detail.rule or "-"))


def _cure(what: str) -> str:
    return f'if that is meant: make city-update BECAUSE="{what}"'


def shown(value: float | None) -> str:
    """Write a figure as a person reads it."""
    return "–" if value is None else f"{round(value, 4):,}"


def updated(
    bounds: Bounds, results: Sequence[tuple[Length, Result]], gone: Sequence[str], reason: str
) -> tuple[Bounds, list[str]]:
    """Take the results as the new bounds, without those that are ``gone``, and tell the difference, a line each."""
    scenarios = {name: kept for name, kept in bounds.scenarios.items() if name not in gone}
    changed = list(gone)
    lines = [f"{name}: gone" for name in gone]
    for length, result in results:
        name = result.job.name
        kept = scenarios.get(name, Kept())
        old, new = getattr(kept, length), bound_of(result)
        if old != new:
            changed.append(name)
            lines += [f"{name}, {length} form:", *(f"  {line}" for line in difference(old, new))]
        scenarios[name] = msgspec.structs.replace(kept, **{length: new})
    if not changed:
        return bounds, []
    because = Because(datetime.now(UTC).date().isoformat(), reason, tuple(sorted(set(changed))))
    return Bounds((*bounds.because, because), scenarios), lines


def difference(old: Bound | None, new: Bound) -> Iterator[str]:
    """Tell for review what changes, better and worse marked."""
    if old is None:
        yield "new"
    else:
        for part, meaning in DRIFTS.items():
            if old.digest.get(part) != new.digest.get(part):
                yield f"digest of `{part}`: {meaning}"
        yield from _moved(new.alerts, old.alerts)[0]
    for figure in Figures.__struct_fields__:
        was, now = getattr(old.figures if old else Figures(), figure), getattr(new.figures, figure)
        if was != now:
            yield f"{figure}: {shown(was)} → {shown(now)}{_judged(figure, was, now) if old else ''}"
    for key, count in sorted(new.known.items()):
        if old is None or old.known.get(key, 0) < count:
            yield f"agreed to from now on: {key} ×{count}"


def _judged(figure: str, was: float | None, now: float | None) -> str:
    if was is None or now is None or figure not in FIGURES:
        return ""
    return "  better" if (now > was) == (figure in AT_LEAST) else "  WORSE"
