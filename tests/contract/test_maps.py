"""Every shipped register map: what the simulator packs by it, the gateway reads by it, though they share no code."""

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.profile import Profile, Register, load_profiles
from edge.reads import Reads
from firmware_sim.registers import Registers
from rules.samples import Quality

MAPS = [profile for profile in load_profiles().values() if profile.point]
INSTANTS = 40

Numbers = NDArray[np.float64]


def _shown(profile: Profile) -> dict[str, Numbers]:
    """Values of whole raw numbers, as each point can show them; codes and decimals are some that mean something."""
    numbers = {point.metric: _raw(point) for point in profile.point}
    for point in profile.point:
        if point.scale_from is not None:
            numbers[point.scale_from.metric] = np.resize([1.0, 2.0, 3.0], INSTANTS)
        if point.unit_from is not None:
            numbers[point.unit_from.metric] = np.resize([float(code) for code in point.unit_from.factors], INSTANTS)
    return {p.metric: numbers[p.metric] * p.scale * _rest_of_scale(p, numbers) + p.offset for p in profile.point}


def _raw(point: Register) -> Numbers:
    """What stands in the register: over all of the point's range where it has one, and beyond it."""
    most = (1 << point.width) - 1 if point.type == "bit" else 9999
    low, high = point.range or (0.0, most * abs(point.scale))
    whole = np.rint((np.linspace(low, high, INSTANTS) - point.offset) / point.scale)
    whole[::8] += 100
    return np.clip(whole, -9999 if point.type[0] in "sf" else 0, most)


def _rest_of_scale(point: Register, numbers: dict[str, Numbers]) -> Numbers:
    rest = np.ones(INSTANTS)
    if point.scale_from is not None:
        shown = numbers[point.scale_from.metric]
        rest *= {"decimals": 10.0**-shown, "divisor": 1 / shown, "factor": shown}[point.scale_from.how]
    if point.unit_from is not None:
        rest *= [point.unit_from.factors[f"{code:.0f}"] for code in numbers[point.unit_from.metric]]
    return rest


@pytest.mark.parametrize("one_field_per_request", [False, True])
@pytest.mark.parametrize("profile", MAPS, ids=lambda profile: profile.id)
def test_the_gateway_reads_what_the_simulator_shows(profile: Profile, one_field_per_request: bool) -> None:
    limits = msgspec.structs.replace(profile.limits, one_field_per_request=one_field_per_request)
    reads, registers = Reads(msgspec.structs.replace(profile, limits=limits)), Registers(profile)
    shown = _shown(profile)
    replies = [registers.reply(each.function, each.start, each.count, shown) for each in reads.requests]
    value, quality = reads.decode(replies)
    good = quality == Quality.GOOD
    expected = np.array([shown[point.metric] for point in profile.point]).T
    assert value[good] == pytest.approx(expected[good], rel=1e-6)
    assert good.any(axis=0).all()
    for column, point in enumerate(profile.point):
        low, high = point.range or (-np.inf, np.inf)
        if not (point.invalid or point.scale_from or point.unit_from):
            inside = (expected[:, column] >= low) & (expected[:, column] <= high)
            assert (good[:, column] == inside).all(), point.metric
