"""``streetwarden sim score``: the score of a run's folder, as a table on the terminal, as JSON and as a page."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rules.declared import Refused
from streetwarden.matching import read_truth
from streetwarden.score import Delay, Detail, Score, score, span
from streetwarden.timeline import page
from streetwarden.told import read_told

SHOWN = 12  # details on the terminal; the others are in the JSON and on the page


def score_folder(folder: Path, html: Path | None, json: Path | None) -> Score:
    """Score the run that a folder holds; write its page and its figures where they are asked for.

    ``Refused`` when the folder holds no run, or a file cannot be written.
    """
    try:
        truth, told = read_truth(folder / "truth.json"), read_told(folder)
    except FileNotFoundError as error:
        cure = "make a run there first: streetwarden sim run SCENARIO --keep FOLDER"
        raise Refused(str(folder), f"holds no run ({Path(error.filename).name} is missing); {cure}") from error
    except OSError as error:
        raise Refused(str(error.filename), f"cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise Refused(str(folder), f"its run was written by another version, or not to its end: {error}") from error
    scored = score(truth, told)
    if json is not None:
        _write(json, msgspec.json.format(msgspec.json.encode(scored)) + b"\n")
    if html is not None:
        _write(html, page(scored, truth, told).encode())
    return scored


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise Refused(str(path), f"cannot be written: {error.strerror}") from error


def show(scored: Score, console: Console) -> None:
    """Print a score as one screen."""
    console.print(table(scored), highlight=False)


def table(scored: Score) -> RenderableType:
    """Lay a score out: figures, hazards, and what is not as it should be."""
    run = scored.run
    clock = "fast time" if run.clock == "fast" else f"real time at {run.speed:g}×"
    title = Text.assemble((f"{run.scenario}", "bold"), f", seed {run.seed}, {span(run.length_s)} in {clock}")
    parts: list[RenderableType] = [title, Padding(_figures(scored), (1, 0))]
    if scored.hazards:
        parts.append(Padding(_hazards(scored), (0, 0, 1, 0)))
    parts.append(_details(scored.details) if scored.details else Text("nothing is amiss", style="green"))
    return Group(*parts)


def _figures(scored: Score) -> Table:
    incidents, orders, samples = scored.incidents, scored.orders, scored.samples
    useful = "–" if orders.useful_share is None else f"{orders.useful_share:.1%}"
    per = "–" if orders.per_incident is None else f"{orders.per_incident:g}"
    held = ", ".join(f"{count:,} {code}" for code, count in orders.held_back.items()) or "nothing"
    grid = Table.grid(padding=(0, 2))
    rows: tuple[tuple[str | Text, ...], ...] = (
        (
            "incidents",
            f"{incidents.found:,} of {incidents.total:,} found",
            _bad(incidents.missed, "missed"),
            _bad(incidents.late, "late"),
        ),
        ("from onset", f"to alert {_delay(scored.delay_s)}", f"to order {_delay(scored.dispatch_s)}"),
        (
            "work orders",
            f"{orders.opened:,} opened, {orders.closed:,} closed",
            f"useful share {useful}",
            f"{per} an incident",
            _bad(orders.misfires, "misfires"),
            _bad(orders.duplicates, "duplicates"),
            f"{orders.benign} benign",
        ),
        ("misfires", f"{_most('device', orders.misfires_by_device)}", f"{_most('rule', orders.misfires_by_rule)}"),
        ("held back", held),
        (
            "samples",
            f"{samples.acquired:,} acquired, {samples.committed:,} stored",
            f"{samples.audited:,} compared with what was emitted",
            _bad(samples.lost, "lost"),
            _bad(samples.doubled, "doubled"),
            _bad(samples.garbled, "garbled"),
            _bad(samples.aliens, "alien"),
        ),
    )
    for name, *said in rows:
        if name != "misfires" or orders.misfires:
            grid.add_row(name, Text(" · ").join(Text(each) if isinstance(each, str) else each for each in said))
    grid.columns[0].style = "dim"
    return grid


def _hazards(scored: Score) -> Table:
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    shown.add_column("hazard")
    for column in ("true", "found", "missed", "late", "orders", "misfires", "p50", "p99", "most"):
        shown.add_column(column, justify="right")
    for row in scored.hazards:
        delays = (row.delay_s.p50, row.delay_s.p99, row.delay_s.most)
        shown.add_row(
            row.hazard,
            str(row.incidents),
            str(row.found),
            _count(row.missed),
            _count(row.late),
            str(row.orders),
            _count(row.misfires),
            *("–" if each is None else span(each) for each in delays),
        )
    return shown


def _details(details: Sequence[Detail]) -> Table:
    shown = Table.grid(padding=(0, 2))
    for detail in details[:SHOWN]:
        kind = f"{detail.kind} ×{detail.count:,}" if detail.count > 1 else detail.kind
        shown.add_row(
            Text(kind, style="yellow" if detail.kind in {"benign", "late"} else "red"),
            detail.device or detail.hazard,
            Text(f"{detail.rule + ': ' if detail.rule else ''}{detail.reason}", overflow="fold"),
            Text(f"at {detail.stage}", style="dim") if detail.stage else "",
        )
    if len(details) > SHOWN:
        shown.add_row("", f"and {len(details) - SHOWN:,} more")
    return shown


def _bad(count: int, what: str) -> Text:
    return Text(f"{count:,} {what}", style="red bold" if count else "")


def _count(count: int) -> Text:
    return Text(str(count), style="red bold" if count else "dim")


def _delay(delays: Delay) -> str:
    if delays.p50 is None or delays.p99 is None or delays.most is None:
        return "–"
    return f"{span(delays.p50)} (p99 {span(delays.p99)}, most {span(delays.most)})"


def _most(what: str, counts: dict[str, int]) -> str:
    return f"by {what}: " + (", ".join(f"{name} {count}" for name, count in list(counts.items())[:3]) or "none")
