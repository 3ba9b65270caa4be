"""What a run of a scenario left behind: its folder holds ``truth.json`` (the simulator's) and ``told.json`` (this)."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from firmware_sim.scenario import Expected
from rules.alert import Transition

Stage = Literal["instrument", "edge", "rules", "outbox", "wire", "ingest", "store", "confirmation", "order"]

Wrong = Literal["lost", "doubled", "garbled", "alien"]


class Run(msgspec.Struct, frozen=True):
    """What was run: ``speed`` in city seconds a second (0 in fast time), ``length_s`` in city seconds.

    ``scenario`` is what reproduces it: a shipped name or a path.
    """

    scenario: str
    seed: int
    clock: Literal["fast", "real"]
    speed: float
    length_s: float


class Flaw(msgspec.Struct, frozen=True):
    """Samples of one point that are not in the store as the instrument emitted them, and the stage that did it.

    ``kind``: ``lost``, ``doubled``, ``garbled`` (another value), ``alien`` (never emitted). ``first_at`` is ISO 8601.
    """

    kind: Wrong
    device: str
    metric: str
    count: int
    stage: Stage
    first_at: str = ""
    note: str = ""


class Audit(msgspec.Struct, frozen=True):
    """Every stored sample held against what the instruments emitted: counts of samples, and what does not agree.

    ``audited`` are the stored samples that were read back and compared one by one.
    """

    emitted: int = 0
    acquired: int = 0
    filtered: int = 0
    dropped: int = 0
    committed: int = 0
    audited: int = 0
    flaws: tuple[Flaw, ...] = ()


class Step(msgspec.Struct, frozen=True):
    """One transition as a gateway decided it, before anything else could lose it (fast time only)."""

    gateway: str
    transition: Transition


class Told(msgspec.Struct, frozen=True):
    """What the district centre's API told at the end of a run, and the audit of its store.

    ``orders``, ``alerts`` and ``devices`` are the lists of ``/api/v1/work-orders``, ``/alerts`` and ``/devices``,
    ``balance`` is ``/api/v1/balance``. ``unanswered`` counts polls without an answer as each gateway counted them.
    ``latency_s`` are wall seconds from deciding sample to the order seen from outside (real time only).
    ``digest`` names the bytes of the run: ``truth``, ``emitted`` (registers and payloads) and ``told`` (alerts and
    orders); the same scenario and seed gives the same in fast time.
    """

    run: Run
    orders: list[dict[str, Any]]
    alerts: list[dict[str, Any]]
    devices: list[dict[str, Any]]
    balance: dict[str, Any]
    expected: tuple[Expected, ...] = ()
    audit: Audit = Audit()
    steps: tuple[Step, ...] = ()
    unanswered: dict[str, int] = {}
    latency_s: list[float] = []
    digest: dict[str, str] = {}


def write_told(folder: Path, told: Told) -> None:
    (folder / "told.json").write_bytes(msgspec.json.encode(told))


def read_told(folder: Path) -> Told:
    """Read back a run; ``OSError`` or ``msgspec.DecodeError`` when the folder holds none."""
    return msgspec.json.decode((folder / "told.json").read_bytes(), type=Told)
