"""The report of a run without a person: its score and what crews found, in the few figures that the demo promises."""

import msgspec

from streetwarden.score import Score, delay
from streetwarden.told import Run, Told


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


def report_of(score: Score, told: Told) -> Report:
    """Write the report of a run that has been scored."""
    samples, incidents, orders = score.samples, score.incidents, score.orders
    return Report(
        score.run,
        Samples(samples.acquired, samples.filtered, samples.committed, samples.lost, samples.doubled),
        Truth(incidents.total, incidents.found, incidents.missed, orders.misfires),
        Orders(orders.opened, orders.closed, orders.duplicates),
        Spread(score.delay_s.p50, score.delay_s.p99),
        Spread(score.latency_s.p50, score.latency_s.p99),
        tuple(msgspec.convert(device, DeviceRow) for device in told.devices),
        orders.held_back,
        tuple(f"{detail.kind}: {detail.device or detail.hazard}: {detail.reason}" for detail in score.details),
    )


def spread(values: list[float]) -> Spread:
    """Nearest-rank percentiles: see ``score.delay``."""
    found = delay(values)
    return Spread(found.p50, found.p99)
