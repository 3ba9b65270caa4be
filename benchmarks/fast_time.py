"""Fast time: 30 days of 500 devices at one sample a minute, from the world to work orders, in one process.

Prints the samples and the microseconds a sample of each stage beside its budget, the peak of memory, and whether the
samples reconcile. The rules are the shipped ones; there is no anomaly ensemble yet. At one sample a minute the filter's
heartbeat keeps every sample. ``--days`` for a shorter run.
"""

import argparse
import asyncio
import logging
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import structlog

from rules.samples import Block, PointTable
from streetwarden.fast.run import FastRun, Progress, Stages, run_fast
from wire.batch import Batch, columns, decode, encode

SCENARIO = """
name = "fleet"
title = { zh = "整月快跑", en = "A month of five hundred devices" }
length = "30d"
starts = "2026-05-31T16:00:00Z"

[fleet]
gateways = 2
manhole_monitors = 500
every = "60s"

[[event]]
id = "lifted"
what = "cover_lifted"
window = ["1h", "29d"]
lasts = ["10min", "1h"]
every = "6h"

[[event]]
id = "truck"
what = "truck"
window = ["0s", "29d"]
lasts = ["5s", "30s"]
every = "30min"
"""
BUDGET = {"street": 1.0, "rules": 1.0, "outbox": 0.7, "ingest": 1.3}  # us a sample; ingest with the wire's 0.3
LIMIT_S, LIMIT_MB = 600.0, 2048.0


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--days", type=float, default=30.0)
    days = asked.parse_args().days
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scenario.toml").write_text(SCENARIO)
        stages, began = Stages(), time.perf_counter()
        run = FastRun(str(folder), 1, folder / "run", length_s=days * 86_400, progress=_show)
        told = asyncio.run(run_fast(run, stages))
        took = time.perf_counter() - began
    audit, total = told.audit, told.audit.acquired
    sys.stderr.write("\n")
    print(f"{total:,} samples of {len(told.devices)} devices in {took:.0f} s: {1e6 * took / total:.2f} us a sample")
    print(f"limit {LIMIT_S * days / 30:.0f} s: {LIMIT_S * days / 30 / took:.2f} times as fast")
    for stage, seconds in stages.seconds.items():
        budget = f"   budget {BUDGET[stage]:.1f}" if stage in BUDGET else ""
        print(f"  {stage:8} {seconds:7.1f} s  {1e6 * seconds / total:5.2f} us a sample{budget}")
    print(f"  of these the wire (encode, decode) {_wire():.2f} us a sample sent   budget 0.3")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:,.0f} MB of {LIMIT_MB:,.0f}")
    print(
        f"emitted {audit.emitted:,} measured; acquired {audit.acquired:,} with the derived = filtered "
        f"{audit.filtered:,} + dropped {audit.dropped:,} + committed {audit.committed:,}; read back {audit.audited:,}, "
        f"flaws {len(audit.flaws)}"
    )
    balanced = audit.acquired == audit.filtered + audit.dropped + audit.committed
    reconciled = balanced and audit.audited == audit.committed and not audit.flaws
    print(f"the samples {'reconcile' if reconciled else 'do NOT reconcile'}; {len(told.orders)} work orders")
    sys.exit(0 if reconciled else 1)


def _show(progress: Progress) -> None:
    done = progress.done_s / progress.length_s
    sys.stderr.write(f"\r{done:6.1%}  {progress.samples:13,} samples  {progress.alerts:5} alerts")


def _wire() -> float:
    """Microseconds a sample to encode and decode batches of the size and kind of a run's."""
    generator = np.random.default_rng(1)
    count = 25_000
    block = Block(
        np.arange(count, dtype=np.int32) % 3000,
        np.repeat(np.arange(count // 10, dtype=np.int64), 10) * 60_000_000_000,
        np.round(generator.normal(10, 1, count), 2),
        np.zeros(count, np.uint8),
    )
    batch = Batch("gw-1", "boot", 1, 1, 0, PointTable("gw-1", ()).digest(), True, columns(block), ())
    began = time.perf_counter()
    for _ in range(20):
        decode(encode(batch), Batch).block()
    return 1e6 * (time.perf_counter() - began) / 20 / count


if __name__ == "__main__":
    main()
