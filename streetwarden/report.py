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


class Report(msgspec.Struct, frozen=True):
    """``delay_s``: true onset to alert, city seconds. ``latency_s``: deciding sample to work order, wall seconds."""

    seed: int
    samples: Samples
    truth: Truth
    work_orders: Orders
    delay_s: Spread
    latency_s: Spread
    devices: tuple[DeviceRow, ...]
    details: tuple[str, ...] = ()


def spread(values: list[float]) -> Spread:
    """Nearest-rank percentiles: a value that was really measured, never one between two."""
    if not values:
        return Spread(None, None)
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[math.ceil(share * len(ordered)) - 1], 3)

    return Spread(at(0.5), at(0.99))
