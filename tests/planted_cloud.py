"""The cloud with two kills planted, for ``tests/acceptance/test_kill.py``.

One strikes between a commit and its receipt, one between a receipt and its MQTT acknowledgement. Each leaves a mark in
the city's folder, so that it strikes once.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from cloud.gate import Answers
from cloud.ingest import Ingest, Link
from streetwarden import centre_process
from wire.session import Delivery

AFTER_GROUPS = {"receipt": 20, "acknowledgement": 40}  # groups of samples into one life of the process
_receipts = Ingest.send_receipts
_acknowledge = Ingest.acknowledge
_seen = dict.fromkeys(AFTER_GROUPS, 0)


def marks(folder: Path) -> set[str]:
    """Which of the planted kills have struck."""
    return {path.name.removeprefix("killed-before-") for path in folder.glob("killed-before-*")}


def _strike(before: str) -> None:
    mark = Path(sys.argv[1]).parent / f"killed-before-{before}"
    _seen[before] += 1
    if _seen[before] >= AFTER_GROUPS[before] and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


async def _send_receipts(self: Ingest, link: Link, answers: Answers) -> None:
    if answers.receipts():
        _strike("receipt")
    await _receipts(self, link, answers)


def _acknowledged(self: Ingest, link: Link, group: Sequence[Delivery]) -> None:
    _strike("acknowledgement")
    _acknowledge(self, link, group)


if __name__ == "__main__":
    setattr(Ingest, "send_receipts", _send_receipts)  # noqa: B010 - planted from outside, on purpose
    setattr(Ingest, "acknowledge", _acknowledged)  # noqa: B010
    centre_process.main()
