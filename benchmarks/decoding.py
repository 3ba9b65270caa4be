"""What decoding costs: from the replies of a tick to its block of samples, one reading at a time and many together.

    python -m benchmarks.decoding

Ten points as they are mixed in the field, and one quantity derived from them. Processor time is counted, since cores
may be shared; the ratio is to the limit of 0.3 us a sample, for 50 readings and more in a tick. Ends with 1 beyond it.
"""

import struct
import sys
from time import process_time_ns

import numpy as np

from edge.decoding import Decoding
from edge.installed import Installed
from edge.profile import Derived, Head, Profile, Register
from edge.reading import Reading, Replies
from edge.reads import Reads
from rules.district import Device, Modbus
from rules.samples import POINT

LIMIT_US = 0.3
LIMITED_FROM = 50  # readings in a tick
RUNS = 9
READINGS_A_RUN = 20_000
SIZES = (1, 10, 50, 500)

POINTS = (
    Register("voltage", "V", 3, 0, "u16", scale=0.1, invalid=(0xFFFF,), range=(0.0, 500.0)),
    Register("current", "A", 3, 1, "u16", scale=0.01, invalid=(0xFFFF,), range=(0.0, 100.0)),
    Register("power", "W", 3, 2, "s16", invalid=(-0x8000,)),
    Register("power_factor", "1", 3, 3, "s16", scale=0.001, range=(-1.0, 1.0)),
    Register("temperature", "Cel", 3, 4, "s16", scale=0.1, range=(-40.0, 125.0)),
    Register("frequency", "Hz", 3, 5, "u16", scale=0.01, range=(40.0, 70.0)),
    Register("energy", "W.h", 3, 6, "u32", scale=10.0, invalid=(-1,)),
    Register("uptime", "s", 3, 8, "u32", order="CDAB"),
    Register("leakage", "mA", 3, 10, "f32", range=(0.0, 1000.0)),
    Register("distance", "m", 3, 12, "f32", order="DCBA", range=(0.0, 30.0)),
)
DERIVED = Derived("level", "m", "minus", ("install.mounting_height_m", "distance"))
PROFILE = Profile(Head("bench", "power_meter", "none", "none", "none", "modbus", 1.0), point=POINTS, derived=(DERIVED,))


def readings(count: int) -> list[Reading]:
    """One reading of each of so many devices, each on a bus of its own; every value good."""
    width = len(PROFILE.quantities)
    random = np.random.default_rng(1)
    made = []
    for number in range(count):
        device = Device(
            *(f"device-{number}", "power_meter", "bench", "gw", "site", "asset", "0120", 0.0, 0.0),
            wire=Modbus(f"bus-{number}", 1),
            install={"mounting_height_m": 3.5},
        )
        place = Installed(device, PROFILE, np.arange(number * width, (number + 1) * width, dtype=POINT))
        any_of = random.integers(100, size=8).tolist()
        data = (
            struct.pack(">HHhhhHIHH", 2300 + any_of[0], *any_of[1:5], 4950 + any_of[5], *any_of[6:], 1)
            + struct.pack(">f", random.uniform(0, 30))
            + struct.pack("<f", random.uniform(0, 3.5))
        )
        made.append(Reading(place, 1_781_000_000_000_000_000 + number, Replies(Reads(PROFILE), (data,))))
    return made


def microseconds_a_sample(batch: list[Reading]) -> float:
    """The best of some runs, which a busy machine disturbs least."""
    decoding, rounds = Decoding(), max(READINGS_A_RUN // len(batch), 1)
    block = decoding.block(batch)
    assert len(block) == len(batch) * len(PROFILE.quantities)
    assert not block.quality.any()
    best = float("inf")
    for _ in range(RUNS):
        began = process_time_ns()
        for _ in range(rounds):
            decoding.block(batch)
        best = min(best, (process_time_ns() - began) / 1000 / rounds / len(block))
    return best


def main() -> None:
    print(
        f"{len(POINTS)} points and {len(PROFILE.derived)} derived; limit {LIMIT_US} us a sample at 50 readings or more"
    )
    print(f"{'readings':>9} {'us/sample':>10} {'us/reading':>11} {'of limit':>9}")
    beyond = False
    for size in SIZES:
        cost = microseconds_a_sample(readings(size))
        limited = size >= LIMITED_FROM
        beyond |= limited and cost > LIMIT_US
        told = f"{cost / LIMIT_US:>9.2f}" if limited else f"{'-':>9}"
        print(f"{size:>9} {cost:>10.3f} {cost * len(PROFILE.quantities):>11.2f} {told}")
    if beyond:
        sys.exit(1)


if __name__ == "__main__":
    main()
