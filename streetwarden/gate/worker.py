"""One run in a process of its own: ``python -m streetwarden.gate.worker JOB`` tells its progress on standard output."""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable

import uvloop

from rules.declared import convert
from streetwarden.fast.run import FastRun, Parts, Progress, run_fast
from streetwarden.gate.result import Figures, Job, Result, encode, fingerprints
from streetwarden.score import Score
from streetwarden.scoring import score_folder

STEP_S = 600.0  # city seconds between two words of progress


async def make(job: Job, progress: Callable[[float], None], parts: Parts | None = None) -> Result:
    """Run one scenario in fast time, score it and leave all of it in the job's folder."""
    began = time.monotonic()
    under_way = job.folder / "run"
    await asyncio.to_thread(shutil.rmtree, under_way, ignore_errors=True)

    def tell(done: Progress) -> None:
        progress(done.done_s)

    told = await run_fast(
        FastRun(job.scenario, job.seed, under_way, job.rules, job.profiles, job.length_s, parts or Parts(), tell)
    )
    for file in ("truth.json", "told.json"):
        (under_way / file).replace(job.folder / file)
    await asyncio.to_thread(shutil.rmtree, under_way)  # its stores are large, and say no more than the rest
    scored = await asyncio.to_thread(score_folder, job.folder, job.folder / "score.html", job.folder / "score.json")
    seconds = time.monotonic() - began
    return Result(
        job,
        figures_of(scored),
        scored.details,
        told.digest,
        fingerprints(told.alerts),
        len(told.devices),
        told.audit.emitted,
        seconds,
    )


def figures_of(scored: Score) -> Figures:
    incidents, orders, samples = scored.incidents, scored.orders, scored.samples
    return Figures(
        incidents=incidents.total,
        found=incidents.found,
        missed=incidents.missed,
        late=incidents.late,
        orders=orders.opened,
        real=orders.real,
        benign=orders.benign,
        misfires=orders.misfires,
        duplicates=orders.duplicates,
        useful_share=orders.useful_share,
        delay_p50_s=scored.delay_s.p50,
        delay_p99_s=scored.delay_s.p99,
        lost=samples.lost,
        doubled=samples.doubled,
        garbled=samples.garbled,
        alien=samples.aliens,
        unexpected=len(scored.expectations),
    )


def main(parts: Parts | None = None) -> None:
    """Make the run that the last argument describes.

    What the product prints goes to standard error: standard output is for progress alone.
    """
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    job = convert(json.loads(sys.argv[-1]), Job, "job")
    said = 0.0

    def progress(done: float) -> None:
        nonlocal said
        if done - said >= STEP_S:
            said = done
            told.write(f"{done}\n")  # nobody listens any more: BrokenPipeError ends the run

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(make(job, progress, parts))
    (job.folder / "result.json").write_bytes(encode(result))


if __name__ == "__main__":
    main()
