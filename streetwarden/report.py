"""The report of a run: what the district really had, against what was told, ordered, stored and found."""

import math

import msgspec


class Samples(msgspec.Struct, frozen=True):
    """``missing`` and ``duplicated`` compare the instruments' own poll counters with the store, value by value."""

    acquired: int
    filtered: int
    committed: int
    missing: int
    duplicated: int


class Truth(msgspec.Struct, frozen=True):
    """``misfires`` are work orders of which the scenario knows no incident."""

    incidents: int
    found: int
    missed: int
    misfires: int


class Orders(msgspec.Struct, frozen=True):
    """``duplicate`` are work orders beyond the first of one true incident."""

    opened: int
    closed: int
    duplicate: int


class Spread(msgspec.Struct, frozen=True):
    """Seconds; ``None`` where nothing was measured."""

    p50: float | None
    p99: float | None


class Rate(msgspec.Struct, frozen=True):
    """A misfire rate with its interval; only ``n`` until there are five outcomes."""

    n: int
    mean: float | None
    low: float | None
    high: float | None


class DeviceRow(msgspec.Struct, frozen=True):
    """One device, with what crews found of its alerts."""

    id: str
    kind: str
    alerts: int
    outcomes: dict[str, int]
    misfire_rate: Rate


class Run(msgspec.Struct, frozen=True):
    """What was run: ``speed`` in city seconds a second, ``length_s`` in wall seconds."""

    scenario: str
    seed: int
    speed: float
    length_s: float


class Report(msgspec.Struct, frozen=True):
    """``delay_s``: true onset to alert, city seconds. ``latency_s``: deciding sample to work order, wall seconds.

    ``held_back`` counts the alerts that became no order, by the code of their reason.
    """

    run: Run
    samples: Samples
    truth: Truth
    work_orders: Orders
    delay_s: Spread
    latency_s: Spread
    devices: tuple[DeviceRow, ...]
    held_back: dict[str, int]
    details: tuple[str, ...] = ()

    def in_order(self) -> bool:
        """Whether nothing was missed, invented, doubled or lost."""
        truth, samples = self.truth, self.samples
        return not (
            truth.missed or truth.misfires or self.work_orders.duplicate or samples.missing or samples.duplicated
        )

    def summary(self) -> str:
        """One line for the terminal."""
        held = ", ".join(f"{count} {code}" for code, count in sorted(self.held_back.items())) or "nothing"
        return (
            f"found {self.truth.found} of {self.truth.incidents} incidents, {self.truth.misfires} misfires; "
            f"{self.work_orders.closed} of {self.work_orders.opened} orders closed; held back: {held}; "
            f"{self.samples.missing} samples missing, {self.samples.duplicated} doubled"
        )


def spread(values: list[float]) -> Spread:
    """Nearest-rank percentiles: a value that was really measured, never one between two."""
    if not values:
        return Spread(None, None)
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[math.ceil(share * len(ordered)) - 1], 3)

    return Spread(at(0.5), at(0.99))
