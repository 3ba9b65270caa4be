"""The register maps of the simulator's devices, by example."""

import math

import numpy as np
import pytest
from pymodbus.constants import ExcCodes

from edge.profile import Profile, load_profiles
from firmware_sim.registers import Illegal, Registers
from rules.declared import decode

MONITOR = Registers(load_profiles()["reference_manhole_monitor"])
NOTHING = {metric: np.zeros(1) for metric in ("tilt", "ch4", "h2s", "level", "poll_counter")}


@pytest.mark.parametrize(
    ("order", "voltage", "energy"),
    [  # the test vectors of the field: 230.2 as float32 and 123456 as uint32, byte by byte
        ("ABCD", "43663333", "0001e240"),
        ("CDAB", "33334366", "e2400001"),
        ("BADC", "66433333", "010040e2"),
        ("DCBA", "33336643", "40e20100"),
    ],
)
def test_the_four_orders_of_bytes(order: str, voltage: str, energy: str) -> None:
    profile = decode(
        f"""
        [profile]
        id = "words"
        kind = "power_meter"
        maker = "none"
        model = "none"
        manual = "none"
        protocol = "modbus"
        interval_s = 1
        [[point]]
        metric = "voltage"
        unit = "V"
        function = 3
        register = 10
        type = "f32"
        order = "{order}"
        [[point]]
        metric = "energy"
        unit = "kWh"
        function = 3
        register = 20
        type = "u32"
        order = "{order}"
        scale = 0.01
        """,
        Profile,
        "words",
    )
    values = {"voltage": np.array([230.2]), "energy": np.array([1234.56])}
    reply = Registers(profile).reply(3, 10, 12, values)
    assert reply.tobytes().hex() == voltage + 8 * "0000" + energy


def test_many_instants_are_many_rows() -> None:
    tilts = np.array([0.0, 1.5, 2.25, math.nan])
    reply = MONITOR.reply(3, 0, 1, {"tilt": tilts})
    assert reply.tolist() == [[0, 0], [0, 150], [0, 225], [0xFF, 0xFF]]


@pytest.mark.parametrize(("tilt", "raw"), [(1e9, 0xFFFF), (-5.0, 0), (math.inf, 0xFFFF), (0.125, 12), (0.135, 14)])
def test_a_value_beyond_its_type_saturates_and_half_goes_to_even(tilt: float, raw: int) -> None:
    reply = MONITOR.reply(3, 0, 1, NOTHING | {"tilt": np.array([tilt])})
    assert int.from_bytes(reply.tobytes(), "big") == raw


def test_a_level_that_is_not_there_is_a_nan_and_one_beyond_a_float_infinite() -> None:
    reply = MONITOR.reply(3, 3, 2, {"level": np.array([math.nan, 1e300])})
    assert [row.tobytes().hex() for row in reply] == ["7fc00000", "7f800000"]


def test_a_read_names_what_it_shows() -> None:
    assert MONITOR.metrics(3, 0, 7) == ("tilt", "ch4", "h2s", "level", "poll_counter")
    assert MONITOR.metrics(3, 4, 2) == ("level", "poll_counter")  # half of each
    assert MONITOR.metrics(3, 0, 1) == ("tilt",)


@pytest.mark.parametrize(("function", "start", "count"), [(3, 8, 1), (3, 0, 9), (4, 0, 1), (1, 0, 1), (3, 65535, 1)])
def test_an_address_that_is_not_there_is_illegal(function: int, start: int, count: int) -> None:
    with pytest.raises(Illegal) as refused:
        MONITOR.reply(function, start, count, NOTHING)
    assert refused.value.code == ExcCodes.ILLEGAL_ADDRESS


def test_a_hole_that_may_be_read_across_holds_zeros_and_a_wider_one_is_not_there() -> None:
    profile = load_profiles()["hiking_dds238"]
    registers = Registers(profile)
    last = profile.point[-1]
    reply = registers.reply(3, 0, 18, {point.metric: np.ones(1) for point in profile.point})
    taken = {address for point in profile.point for address in range(point.register, point.register + point.words)}
    holes = [address for address in range(18) if address not in taken]
    assert holes
    assert all(reply[0, 2 * address : 2 * address + 2].tolist() == [0, 0] for address in holes)
    with pytest.raises(Illegal):
        registers.metrics(3, last.register + last.words, 1)
