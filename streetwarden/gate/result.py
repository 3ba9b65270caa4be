"""One run of one scenario: what is asked for, and the figures that it gave."""

import hashlib
import shlex
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streetwarden.score import Detail

DAY_S = 86400.0


class Job(msgspec.Struct, frozen=True):
    """A run to make: ``scenario`` is a shipped name or a path, ``name`` what it is reported and kept under.

    ``length_s`` are city seconds from the scenario's start on, not all of it if ``cut``; ``folder`` is where it leaves
    its files.
    """

    name: str
    scenario: str
    seed: int
    length_s: float
    folder: Path
    rules: Path | None = None
    profiles: Path | None = None
    cut: bool = False

    def command(self, device: str = "") -> str:
        """Write the one command that runs it again, looking at ``device``."""
        words = ["streetwarden", "sim", "run", self.scenario, "--seed", str(self.seed)]
        length = f"{self.length_s:g}s" if self.cut else ""
        options = (("--for", length), ("--rules", self.rules), ("--profiles", self.profiles), ("--device", device))
        for option, value in options:
            if value:
                words += [option, str(value)]
        return shlex.join(words)


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is counted of a run; ``None`` where nothing was measured. Delays are city seconds from true onset to alert.

    ``useful_share`` is that of the orders that were ``real``. ``unexpected`` are the lines of the scenario's own
    expectations that did not come true.
    """

    incidents: int = 0
    found: int = 0
    missed: int = 0
    late: int = 0
    orders: int = 0
    real: int = 0
    benign: int = 0
    misfires: int = 0
    duplicates: int = 0
    useful_share: float | None = None
    delay_p50_s: float | None = None
    delay_p99_s: float | None = None
    lost: int = 0
    doubled: int = 0
    garbled: int = 0
    alien: int = 0
    unexpected: int = 0


class Result(msgspec.Struct, frozen=True):
    """A run that has been made; ``crash`` says why there are no figures.

    ``seconds`` are of the wall, ``samples`` those the instruments emitted. ``alerts`` is a fingerprint of all that was
    told, by ``"rule device"``: where the digest of what was told drifts, it names who.
    """

    job: Job
    figures: Figures = Figures()
    details: tuple[Detail, ...] = ()
    digest: dict[str, str] = {}
    alerts: dict[str, str] = {}
    devices: int = 0
    samples: int = 0
    seconds: float = 0.0
    crash: str = ""

    @property
    def device_days(self) -> float:
        return self.devices * self.job.length_s / DAY_S


Runner = Callable[[Job, Callable[[float], None]], Awaitable[Result]]
"""Makes a run, telling the city seconds it has done."""


def fingerprints(alerts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Fold all alerts of each rule on each device into two words, whatever their order.

    The first is of what the rule decided, the second of what the centre did about it.
    """
    raised: dict[str, list[str]] = defaultdict(list)
    decided: dict[str, list[str]] = defaultdict(list)
    for alert in alerts:
        key, decision = f"{alert['rule']} {alert['device']}", alert["decision"] or {"verdict": "", "code": ""}
        raised[key].append(" ".join(str(alert[each]) for each in ("since", "raised_at", "cleared_at", "level")))
        decided[key].append(f"{alert['since']} {decision['verdict']} {decision['code']}")
    return {key: f"{_folded(raised[key])} {_folded(decided[key])}" for key in sorted(raised)}


def _folded(lines: list[str]) -> str:
    return hashlib.blake2s("\n".join(sorted(lines)).encode(), digest_size=4).hexdigest()


def encode(value: object) -> bytes:
    """Encode records, paths as text, as JSON."""
    return msgspec.json.encode(value, enc_hook=str)


def decode_result(content: bytes) -> Result:
    return msgspec.json.decode(content, type=Result, dec_hook=lambda kind, value: kind(value))
