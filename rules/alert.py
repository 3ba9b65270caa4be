"""One rule on one device: pending → raised → cleared, told as transitions with their reasons."""

import uuid
from enum import StrEnum
from typing import Annotated

import msgspec

from rules.samples import Instant

NAMESPACE = uuid.UUID("8b6f2f0e-6f6b-5b0e-9a53-3d3c3b5c0d11")


class Severity(StrEnum):
    """报警级别 Ⅰ to Ⅳ (red, orange, yellow, blue); ``info`` never makes a work order."""

    I = "I"  # noqa: E741 - the grade's own name
    II = "II"
    III = "III"
    IV = "IV"
    INFO = "info"

    @property
    def rank(self) -> int:
        """Higher is graver: ``info`` is 0, Ⅰ is 4."""
        return {"info": 0, "IV": 1, "III": 2, "II": 3, "I": 4}[self.value]


class Phase(StrEnum):
    """Where an alert stands. ``lapsed`` is a pending one that fell away before its on-delay had passed: a near miss."""

    PENDING = "pending"
    LAPSED = "lapsed"
    RAISED = "raised"
    UPDATED = "updated"
    CLEARED = "cleared"


class Reason(msgspec.Struct, frozen=True):
    """Why, as a code with numbers; the screen renders it in its reader's language.

    Codes of the engine: ``above``, ``below``, ``equals``, ``silent``, each with ``column`` and the numbers ``value``,
    ``limit`` and ``for_s`` (how long it has held, seconds).
    """

    code: str
    column: str = ""
    numbers: dict[str, float] = {}


class Transition(msgspec.Struct, frozen=True):
    """One step in an alert's life; ``revision`` counts the steps of one alert from 1.

    Times are UTC nanoseconds: ``since`` is ``taken_at`` of the first deciding sample, ``decided_at`` that of the sample
    (or the deadline) that brought this step. ``evidence`` holds the columns the rule compared, at that instant.
    """

    alert: str
    revision: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    phase: Phase
    rule: str
    level: str
    severity: Severity
    device: str
    since: Instant
    decided_at: Instant
    reason: Reason
    evidence: dict[str, float]


def alert_id(gateway: str, rule: str, device: str, since: int) -> str:
    """The same alert told twice has one id: UUIDv5 (RFC 9562) over what makes it that alert."""
    return str(uuid.uuid5(NAMESPACE, f"{gateway}\n{rule}\n{device}\n{since}"))
