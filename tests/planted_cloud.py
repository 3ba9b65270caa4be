"""The cloud with four kills planted, for ``tests/acceptance/test_kill.py``.

On each lane one strikes between a commit and its receipt, and one between a receipt and its MQTT acknowledgement. Each
leaves a mark in the city's folder, so that it strikes once.
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

# Groups that were owed a receipt, into one life of the process.
AFTER_GROUPS = {
    "alerts-receipt": 2,
    "alerts-acknowledgement": 3,
    "samples-receipt": 15,
    "samples-acknowledgement": 15,
}
_receipts = Ingest.send_receipts
_acknowledge = Ingest.acknowledge
_seen = dict.fromkeys(AFTER_GROUPS, 0)
_owed: set[str] = set()  # lanes whose group in hand has been receipted


def marks(folder: Path) -> set[str]:
    """Which of the planted kills have struck."""
    return {path.name.removeprefix("killed-before-") for path in folder.glob("killed-before-*")}


def _strike(before: str) -> None:
    mark = Path(sys.argv[1]).parent / f"killed-before-{before}"
    _seen[before] += 1
    if _seen[before] >= AFTER_GROUPS[before] and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _lane(ingest: Ingest, link: Link) -> str:
    return "alerts" if link is ingest._alerts else "samples"


async def _send_receipts(self: Ingest, link: Link, answers: Answers) -> None:
    lane = _lane(self, link)
    if answers.receipts():
        _owed.add(lane)
        _strike(f"{lane}-receipt")
    await _receipts(self, link, answers)


def _acknowledged(self: Ingest, link: Link, group: Sequence[Delivery]) -> None:
    lane = _lane(self, link)
    if lane in _owed:
        _owed.discard(lane)
        _strike(f"{lane}-acknowledgement")
    _acknowledge(self, link, group)


if __name__ == "__main__":
    setattr(Ingest, "send_receipts", _send_receipts)  # noqa: B010 - planted from outside, on purpose
    setattr(Ingest, "acknowledge", _acknowledged)  # noqa: B010
    centre_process.main()
