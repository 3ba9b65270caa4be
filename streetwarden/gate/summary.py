"""The gate's outcome in Markdown, for a pull request."""

from collections.abc import Sequence

from streetwarden.gate.bounds import FIGURES, Check, shown
from streetwarden.gate.result import Result

_COLUMNS = ("incidents", "orders", *FIGURES)


def markdown(results: Sequence[Result], checks: Sequence[Check]) -> str:
    """Write the failures first, then a table of all runs with the failed ones on top; without checks, the table."""
    failed = [check for check in checks if check.failure]
    at_fault = {check.scenario for check in failed}
    heading = f"{len(results)} runs"
    if checks:
        heading = f"all {len(checks)} checks passed"
    if failed:
        heading = f"{len(failed)} of {len(checks)} checks failed, in {len(at_fault)} scenarios"
    lines = [f"# City: {heading}", ""]
    for check in failed:
        headline, _, rest = check.failure.partition("\n")
        lines += [f"**{headline}**", "", *(["```text", rest, "```", ""] if rest else [])]
    lines += [table(["", "scenario", "seed", *(column.replace("_", " ") for column in _COLUMNS), "seconds"])]
    lines += ["|".join(["", "---", "---", *("---:" for _ in range(len(_COLUMNS) + 2)), ""])]
    for result in sorted(results, key=lambda result: result.job.name not in at_fault):
        figures = [shown(getattr(result.figures, column)) for column in _COLUMNS]
        if result.crash:
            figures = ["–" for _ in _COLUMNS]
        mark = "✗" if result.crash or result.job.name in at_fault else "✓" if checks else ""
        lines.append(table([mark, result.job.name, str(result.job.seed), *figures, f"{result.seconds:.1f}"]))
    return "\n".join([*lines, ""])


def table(cells: Sequence[str]) -> str:
    """Write one row of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
