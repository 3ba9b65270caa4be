"""Fresh seeds: rules tuned to the kept scenarios show where the kept figure lies outside what fresh seeds give.

Every share has Wilson's 95 % interval (Wilson, J. Am. Stat. Assoc. 22, 1927), the rate of misfires Garwood's exact one
of a Poisson count (Garwood, Biometrika 28, 1936). Both take incidents, orders and misfires for independent of each
other; those of one storm are not quite, so that the true intervals are somewhat wider.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cloud.misfire import Z
from streetwarden.gate.result import Figures, Result
from streetwarden.gate.summary import table

SEEDS = 20
_TAIL = 0.025
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """``count`` out of ``of`` (or in so many device-days); the interval holds the truth 95 times in 100."""

    count: int
    of: float
    value: float
    low: float
    high: float


def wilson(count: int, of: int) -> Interval:
    """Compute Wilson's score interval of a share."""
    share = count / of
    centre = share + Z * Z / (2 * of)
    spread = Z * math.sqrt(share * (1 - share) / of + Z * Z / (4 * of * of))
    scale = 1 + Z * Z / of
    # At 0 and 1 the ends are exact, but for the last bit of the root.
    return (centre - spread) / scale if count else 0.0, (centre + spread) / scale if count < of else 1.0


def garwood(count: int) -> Interval:
    """Compute the exact interval of the mean of a Poisson count."""
    most = count + 10 * math.sqrt(count + 1) + 20
    low = _falling_to(1 - _TAIL, lambda mean: _at_most(count - 1, mean), most) if count else 0.0
    return low, _falling_to(_TAIL, lambda mean: _at_most(count, mean), most)


def _at_most(count: int, mean: float) -> float:
    """Probability of ``count`` or fewer where ``mean`` are expected."""
    return math.fsum(math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in range(count + 1))


def _falling_to(value: float, of: Callable[[float], float], most: float) -> float:
    """Halve until the falling function has the value."""
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) > value else (low, middle)
    return (low + high) / 2


def _share(count: int, of: int) -> Measured | None:
    return Measured(count, of, count / of, *wilson(count, of)) if of else None


def measure(results: Iterable[Result]) -> dict[str, Measured | None]:
    """Pool runs; ``None`` where there was nothing to measure. Misfires are per 1,000 device-days."""
    runs = [result for result in results if not result.crash]

    def total(figure: Callable[[Figures], int]) -> int:
        return sum(figure(run.figures) for run in runs)

    misfires, days = total(lambda each: each.misfires), sum(run.device_days for run in runs)
    low, high = garwood(misfires)
    rate = Measured(misfires, days, *(1000 * each / days for each in (misfires, low, high))) if days else None
    return {
        "found share": _share(total(lambda each: each.found), total(lambda each: each.incidents)),
        "late share": _share(total(lambda each: each.late), total(lambda each: each.found)),
        "useful share": _share(total(lambda each: each.real), total(lambda each: each.orders)),
        "misfires per 1,000 device-days": rate,
    }


def unseen_report(fresh: Sequence[Result], kept: Sequence[Result], base: int) -> str:
    """Write a Markdown table, all scenarios together first; ``!`` marks a kept figure outside the fresh interval."""
    names = sorted({result.job.name for result in kept})
    seeds = len({result.job.seed for result in fresh})
    crashed = [f"- {result.job.command()}: {result.crash}" for result in (*fresh, *kept) if result.crash]
    lines = [f"# {seeds} fresh seeds from {base} on, beside the kept ones", ""]
    if crashed:
        lines += ["Runs that failed:", "", *crashed, ""]
    lines += [table(["scenario", "figure", "fresh seeds", "95 % interval", "out of", "kept seed", ""])]
    lines += ["|---|---|---:|:---:|---:|---:|---|"]
    for name in ("", *names):
        then = measure(result for result in kept if name in ("", result.job.name))
        for figure, now in measure(result for result in fresh if name in ("", result.job.name)).items():
            if now is None:
                continue
            was = then[figure]
            outside = was is not None and not now.low <= was.value <= now.high
            better = was is not None and (was.value > now.value) == (figure in {"found share", "useful share"})
            mark = ("! kept is better" if better else "! kept is worse") if outside else ""
            kept_value = "–" if was is None else f"{was.value:.3g}"
            interval = f"{now.low:.3g} to {now.high:.3g}"
            lines.append(
                table([name or "**all**", figure, f"{now.value:.3g}", interval, f"{now.of:.4g}", kept_value, mark])
            )
    return "\n".join([*lines, ""])
