"""The gate's outcome as one page: every run with what it found and ordered, leading to the run's own page."""

import html
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from streetwarden.gate.bounds import Check
from streetwarden.gate.result import Figures, Result
from streetwarden.score import span

_BAR = 160  # px


def write_index(file: Path, results: Sequence[Result], checks: Sequence[Check]) -> None:
    """Write a page beside the runs' folders: failures first, then a line for each run, the failed ones on top."""
    failed = [check for check in checks if check.failure]
    at_fault = {check.scenario for check in failed} | {result.job.name for result in results if result.crash}
    style = (resources.files("streetwarden") / "timeline.css").read_text(encoding="utf-8")
    rows = "".join(
        _row(file, result, bad=result.job.name in at_fault)
        for result in sorted(results, key=lambda result: (result.job.name not in at_fault, result.job.name))
    )
    failures = "".join(f"<pre>{html.escape(check.failure)}</pre>" for check in failed)
    said = f"{len(checks) - len(failed)} of {len(checks)} checks passed" if checks else "not compared with bounds"
    file.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>City</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>\n'
        f"<body><header><h1>City, {len(results)} runs</h1><p>{said}</p></header>"
        f'<dl class="tiles">{"".join(_tiles([result.figures for result in results]))}</dl>'
        f"{f'<section><h2>Failures</h2>{failures}</section>' if failures else ''}"
        f"<section>{_LEGEND}<table><thead>{_HEAD}</thead><tbody>{rows}</tbody></table></section></body></html>\n",
        encoding="utf-8",
    )


_LEGEND = (
    '<p class="legend"><i class="key found"></i>found <i class="key tardy"></i>late <i class="key missed"></i>missed'
    ' &emsp; <i class="key found"></i>real <i class="key kind"></i>benign <i class="key tardy"></i>duplicate'
    ' <i class="key missed"></i>misfire</p>'
)
_HEAD = (
    "<tr><th>scenario<th>incidents<th><th>work orders<th><th>useful<th>onset to alert, p50<th>p99"
    "<th>samples<th>flawed<th>seconds</tr>"
)


def _tiles(figures: Sequence[Figures]) -> Iterator[str]:
    incidents, found = sum(each.incidents for each in figures), sum(each.found for each in figures)
    orders, real = sum(each.orders for each in figures), sum(each.real for each in figures)
    misfires, duplicates = sum(each.misfires for each in figures), sum(each.duplicates for each in figures)
    flaws = sum(_flaws(each) for each in figures)
    yield _tile("incidents found", f"{found:,} <i>of {incidents:,}</i>", "warn" if found < incidents else "good")
    yield _tile("useful share", f"{real / orders:.1%}" if orders else "–", "")
    yield _tile("misfires", f"{misfires:,} <i>of {orders:,}</i>", "warn" if misfires else "good")
    yield _tile("orders doubled", f"{duplicates:,}", "warn" if duplicates else "good")
    yield _tile("samples with a flaw", f"{flaws:,}", "bad" if flaws else "good")


def _tile(title: str, value: str, mood: str) -> str:
    return f'<div class="tile {mood}"><dt>{title}</dt><dd>{value}</dd></div>'


def _row(file: Path, result: Result, *, bad: bool) -> str:
    name = html.escape(result.job.name)
    page = result.job.folder / "score.html"
    if page.is_file():
        name = f'<a href="{html.escape(page.relative_to(file.parent).as_posix())}">{name}</a>'
    name += f"<small>seed {result.job.seed}, {result.job.length_s / 3600:g} h</small>"
    mood = ' class="bad"' if bad else ""
    if result.crash:
        return f'<tr{mood}><td>{name}<td colspan="10">{html.escape(result.crash)}</tr>'
    of = result.figures
    in_time = of.found - of.late
    cells = (
        f"{of.found} of {of.incidents}" if of.incidents else "none",
        _bar(of.incidents, (in_time, "found"), (of.late, "tardy"), (of.missed, "missed")),
        str(of.orders),
        _bar(
            of.orders,
            (of.real - of.duplicates, "found"),
            (of.benign, "kind"),
            (of.duplicates, "tardy"),
            (of.misfires, "missed"),
        ),
        "–" if of.useful_share is None else f"{of.useful_share:.0%}",
        _delay(of.delay_p50_s),
        _delay(of.delay_p99_s),
        f"{result.samples:,}",
        f"{_flaws(of):,}",
        f"{result.seconds:.1f}",
    )
    return f"<tr{mood}><td>{name}{''.join(f'<td>{cell}' for cell in cells)}</tr>"


def _bar(whole: int, *parts: tuple[int, str]) -> str:
    """Draw the parts of a whole side by side, each wide enough to be seen."""
    drawn = "".join(
        f'<i class="part {kind}" style="width:{max(4, round(_BAR * count / whole))}px" title="{count}"></i>'
        for count, kind in parts
        if count > 0
    )
    return f'<span class="parts">{drawn}</span>'


def _delay(seconds: float | None) -> str:
    return "–" if seconds is None else span(seconds)


def _flaws(of: Figures) -> int:
    return of.lost + of.doubled + of.garbled + of.alien
