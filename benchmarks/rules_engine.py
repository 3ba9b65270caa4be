"""What the rules engine costs: the shipped catalog over 2,000 devices, for small, middling and large blocks.

Processor time is counted, since cores may be shared. It varies with the machine; the ratio to a limit measured in the
same run (one numpy comparison and one running maximum over the same columns) varies less. Nothing is asserted.

    python -m benchmarks.rules_engine
"""

from collections.abc import Callable
from statistics import median
from time import process_time_ns

import numpy as np

from rules.catalog import catalog
from rules.engine import Engine
from rules.samples import POINT, QUALITY, Block, Point, PointTable

SECOND = 1_000_000_000
START = 1_767_225_600 * SECOND
DEVICES = 2_000
KINDS: dict[str, dict[str, tuple[float, float]]] = {  # metric: (usual value, noise)
    "level_sensor": {"distance": (3.4, 0.002), "level": (0.05, 0.002)},
    "rain_gauge": {"rain_total": (100.0, 0.0)},
    "manhole_monitor": {"tilt": (1.0, 0.2), "tilt_change": (0.5, 0.2), "level": (0.4, 0.01), "ch4": (0.5, 0.1),
                        "h2s": (0.2, 0.05), "poll_counter": (1.0, 0.0)},
    "lamp_controller": {"voltage": (225.0, 1.0), "current": (0.4, 0.01), "power": (90.0, 1.0),
                        "power_ratio": (0.98, 0.01), "power_factor": (0.95, 0.01), "dim_level": (80.0, 0.0),
                        "lamp_fault": (0.0, 0.0), "poll_counter": (1.0, 0.0)},
}  # fmt: skip


def fleet() -> tuple[PointTable, np.ndarray, np.ndarray]:
    """The point table, and each point's usual value and noise."""
    kinds = ["level_sensor", "rain_gauge", "manhole_monitor", "manhole_monitor", "lamp_controller"]
    points, usual = [], []
    for index in range(DEVICES):
        kind = kinds[index % len(kinds)]
        for metric, number in KINDS[kind].items():
            points.append(Point(f"device-{index}", kind, metric, "1", 10.0))
            usual.append(number)
    return PointTable("bench", tuple(points)), np.array([n for n, _ in usual]), np.array([n for _, n in usual])


def rounds(table: PointTable, usual: np.ndarray, noise: np.ndarray, count: int) -> Block:
    """``count`` polls of the whole fleet, 10 s apart; each device at an instant of its own within them."""
    random = np.random.default_rng(1)
    size = len(table.points)
    device = np.cumsum([0] + [a.device != b.device for a, b in zip(table.points, table.points[1:], strict=False)])
    point = np.tile(np.arange(size), count)
    at = START + (np.repeat(np.arange(count), size) * 10 + 10 * np.tile(device, count) / DEVICES) * SECOND
    value = usual[point] + noise[point] * random.standard_normal(len(point))
    return Block(point.astype(POINT), at.astype(np.int64), value, np.zeros(len(point), QUALITY))


def microseconds(work: Callable[[Block], object], blocks: list[Block]) -> float:
    """Median cost of a sample over the blocks."""
    costs = []
    for part in blocks:
        began = process_time_ns()
        work(part)
        costs.append((process_time_ns() - began) / 1000 / len(part))
    return median(costs)


def floor(part: Block) -> None:
    """What no engine can go below: one comparison and one running maximum over the columns."""
    np.greater(part.value, 0.15)
    np.maximum.accumulate(part.taken_at)


def main() -> None:
    table, usual, noise = fleet()
    history = rounds(table, usual, noise, 60)
    rules = catalog()
    print(f"{len(rules)} rules, {DEVICES} devices, {len(table.points)} points")
    print(f"{'block':>7} {'us/sample':>10} {'ms/block':>9} {'limit us':>9} {'ratio':>7}")
    for size in (50, 500, 5_000, 50_000):
        engine = Engine(table, rules)
        # Warm: state, caches and rates are in place after the first fifth.
        edges = list(range(0, len(history), size))[: max(5, 200_000 // size)]
        blocks = [history.take(np.arange(start, min(start + size, len(history)))) for start in edges]
        for part in blocks[: len(blocks) // 5]:
            engine.evaluate(part)
        blocks = blocks[len(blocks) // 5 :]
        cost, limit = microseconds(engine.evaluate, blocks), microseconds(floor, blocks)
        print(f"{size:>7} {cost:>10.2f} {cost * size / 1000:>9.2f} {limit:>9.4f} {cost / limit:>7.0f}")
    ticks = [START + (700 + second) * SECOND for second in range(20)]
    began = process_time_ns()
    for tick in ticks:
        engine.advance(tick)
    print(f"advance: {(process_time_ns() - began) / 1e6 / len(ticks):.2f} ms over the fleet")


if __name__ == "__main__":
    main()
