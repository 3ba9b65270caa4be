"""The register maps of the simulator's devices, by example."""

import math
from typing import Any

import numpy as np
import pytest
from pymodbus.constants import ExcCodes

from edge.profile import Head, Profile, Register, ScaleFrom, UnitFrom, load_profiles
from firmware_sim.registers import Illegal, Registers
from rules.declared import decode

HEAD = Head("any", "any", "any", "any", "any", "modbus", 1.0)
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


def test_the_four_orders_of_eight_bytes_and_decimal_digits() -> None:
    points = (
        Register("a", "1", 3, 0, "u64", order="CDAB"),
        Register("b", "1", 3, 4, "f64", order="BADC"),
        Register("c", "1", 3, 8, "s64", order="DCBA"),
        Register("d", "1", 3, 12, "bcd32", order="CDAB", scale=0.01),
        Register("e", "1", 3, 14, "bcd16", order="DCBA"),
    )
    values = {"a": 4_294_967_298.0, "b": 230.2, "c": -3.0, "d": 123456.78, "e": 2019.0}
    reply = Registers(Profile(HEAD, point=points)).reply(3, 0, 15, {name: np.array([v]) for name, v in values.items()})
    assert reply.tobytes().hex(" ", 2) == ("0002 0000 0001 0000 6c40 66c6 6666 6666 fdff ffff ffff ffff 5678 1234 2019")


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("u64", 1e30, "ffff ffff ffff ffff"),
        ("u64", -1.0, "0000 0000 0000 0000"),
        ("s64", 1e30, "7fff ffff ffff ffff"),
        ("s64", -1e30, "8000 0000 0000 0000"),
        ("bcd16", 1e5, "9999"),
        ("bcd16", -4.0, "0000"),
        ("bcd32", math.nan, "ffff ffff"),
        ("f64", math.nan, "7ff8 0000 0000 0000"),
        ("f64", -math.inf, "fff0 0000 0000 0000"),
    ],
)
def test_what_is_beyond_a_long_or_decimal_type(kind: Any, value: float, words: str) -> None:
    point = Register("m", "1", 3, 0, kind)
    reply = Registers(Profile(HEAD, point=(point,))).reply(3, 0, point.words, {"m": np.array([value])})
    assert reply.tobytes().hex(" ", 2) == words


@pytest.mark.parametrize(
    ("how", "by", "code", "words"),
    [
        ("decimals", 2.0, 1.0, "09c4"),  # 2.55 m are 25.00 kPa
        ("decimals", 3.0, 7.0, "09f6"),
        ("divisor", 100.0, 7.0, "00ff"),
        ("factor", 0.05, 7.0, "0033"),
        ("divisor", 0.0, 7.0, "8000"),  # what has no scale or no unit is not there
        ("decimals", 400.0, 7.0, "8000"),
        ("decimals", 2.0, 9.0, "8000"),
        ("decimals", math.nan, 7.0, "8000"),
    ],
)
def test_a_scale_and_a_unit_that_stand_elsewhere(how: Any, by: float, code: float, words: str) -> None:
    points = (
        Register("unit_code", "1", 3, 2, "u16"),
        Register("scale", "1", 3, 3, "u16"),
        Register(
            "level",
            "m",
            3,
            4,
            "s16",
            invalid=(0x8000,),
            scale_from=ScaleFrom("scale", how),
            unit_from=UnitFrom("unit_code", {"1": 0.102, "7": 1.0}),
        ),
    )
    registers = Registers(Profile(HEAD, point=points))
    values = {"unit_code": np.array([7.0, code]), "scale": np.array([1.0, by]), "level": np.array([math.nan, 2.55])}
    assert registers.metrics(3, 4, 1) == ("level",)
    assert [row.tobytes().hex() for row in registers.reply(3, 4, 1, values)] == ["8000", words]


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
