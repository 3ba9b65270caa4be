import msgspec
import numpy as np
import pytest

from edge.installed import Installed, derive, filter_of, installed, table_of
from edge.profile import load_profile, load_profiles
from edge.reading import Reading, Replies
from edge.reads import Reads
from rules.declared import Refused
from rules.district import Chirpstack, Device, District, Modbus, PlainJson, Text
from rules.samples import Block, Quality
from tests.readings import block_of

HEAD = """
[profile]
id = "x"
kind = "level_sensor"
maker = "M"
model = "X"
manual = "http://example.org"
protocol = "modbus"
interval_s = 10
"""
POINT = """
[[point]]
metric = "distance"
unit = "m"
function = 3
register = 1
type = "u16"
"""
FIELDS = HEAD.replace("modbus", "json") + '[[field]]\nmetric = "distance"\nunit = "m"\npath = "d"\n'
COMMAND = """
[[command]]
name = "on"
function = 6
register = 1
read_back = "distance"
value = 1
"""
DERIVED = """
[[derived]]
metric = "level"
unit = "m"
how = "minus"
of = ["install.mounting_height_m", "distance"]
"""


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        (HEAD, "x.toml", r"\[\[point\]\]"),
        (HEAD + POINT + "skale = 1.0", "x.toml", "did you mean `scale`"),
        (HEAD + POINT + 'order = "ACBD"', "x.toml", "ACBD"),
        (HEAD + POINT + "scale = 0", "x.toml", "`scale` is not 0"),
        (HEAD + POINT + POINT, "distance", "declared twice"),
        (HEAD + POINT + POINT.replace("distance", "other"), "other", "belongs to `distance`"),
        (HEAD + POINT + DERIVED.replace('"distance"]', '"distnce"]'), "level.of", "no metric `distnce`"),
        (HEAD + POINT + DERIVED.replace(', "distance"', ""), "level.of", "`minus` takes 2 terms"),
        (HEAD + "[limits]\nmax_registers = 126\n" + POINT, "x.toml", "between 1 and 125"),
        (HEAD.replace("10", "0") + POINT, "interval_s", "above 0"),
        (HEAD + POINT.replace("function = 3", "function = 1"), "x.toml", "single bits"),
        (HEAD + POINT.replace("register = 1", "register = 65536"), "x.toml", "outside the addresses"),
        (HEAD + POINT.replace("u16", "bit") + "bit = 15\nwidth = 2", "x.toml", "within the 16 bits"),
        (HEAD + "[limits]\nmax_registers = 1\n" + POINT.replace("u16", "u32"), "distance", "a value is never cut"),
        (HEAD + POINT.replace("u16", "s16") + 'counter = "wraps"', "x.toml", "a counter is unsigned"),
        (HEAD + POINT + 'scale_from = { metric = "decimal", how = "decimals" }', "scale_from", "no point `decimal`"),
        (HEAD + POINT + 'scale_from = { metric = "distance", how = "divisor" }', "scale_from", "no scale of its own"),
        (HEAD + POINT + 'counter = "wraps"\noffset = 1.0', "x.toml", "and no offset"),
        (HEAD + POINT + 'unit_from = { metric = "distance", factors = { 1 = 0 } }', "x.toml", "finite and not 0"),
        (HEAD + POINT + 'unit_from = { metric = "distance", factors = { m = 1.0 } }', "x.toml", "factor for each code"),
        (HEAD + "[[flags]]\nfunction = 3\nregister = 9\nbits = { wet = 16 }", "flags.wet", "bits 0 to 15"),
        (HEAD + POINT + COMMAND, "command", "a level_sensor is never written to, only lamp_controller"),
        (
            HEAD.replace("level_sensor", "beacon") + POINT + COMMAND.replace('"distance"', '"shown"'),
            "on",
            "no point `shown`",
        ),
        (
            HEAD.replace("level_sensor", "beacon") + POINT + COMMAND + "range = [0, 1]",
            "x.toml",
            "fixed `value` or a `range`",
        ),
        (HEAD + POINT + "range = [4.0, 0.0]", "x.toml", "4 is above 0"),
        (HEAD + POINT + "invalid = [0x1FFFF]", "distance.invalid", "16 bits never show"),
        (HEAD.replace("level_sensor", "levelsensor") + POINT, "kind", "did you mean `level_sensor`"),
        (HEAD + COMMAND.replace("value = 1", "range = [0, 100000]"), "x.toml", "100000 does not fit a u16"),
        (
            HEAD + COMMAND.replace("value = 1", "value = 2").replace("6", '5\ntype = "bit"'),
            "x.toml",
            "2 does not fit a bit",
        ),
        (HEAD + POINT + '[[derived]]\nmetric = "a"\nunit = "s"\nhow = "lag"', "a.how", "there is no lag"),
        (FIELDS + '[[derived]]\nmetric = "a"\nunit = "s"\nhow = "lag"\nof = ["distance"]', "a.of", "takes 0 terms"),
        (FIELDS.replace('path = "d"', ""), "distance.path", "is missing"),
    ],
)
def test_a_wrong_profile_is_refused_with_its_place(text: str, place: str, why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        load_profile(text, "x.toml")
    assert refused.value.place.startswith("x.toml")
    assert place in refused.value.place


def test_bits_of_one_register_may_share_it() -> None:
    bit = POINT.replace("u16", "bit")
    profile = load_profile(HEAD + bit + "bit = 0\n" + bit.replace("distance", "other") + "bit = 1\n", "x.toml")
    assert [point.words for point in profile.point] == [1, 1]


def test_named_bits_become_points() -> None:
    flags = "[[flags]]\nfunction = 4\nregister = 9\nbits = { lamp_fault = 1, wet = 15 }\n"
    profile = load_profile(HEAD + flags, "x.toml")
    assert [(p.metric, p.function, p.register, p.type, p.bit) for p in profile.point] == [
        ("lamp_fault", 4, 9, "bit", 1),
        ("wet", 4, 9, "bit", 15),
    ]


def _device(**changes: object) -> Device:
    device = Device(
        id="level-1",
        kind="level_sensor",
        profile="dfrobot_sen0492",
        gateway="gw",
        site="s",
        asset="a",
        component="0120",
        lon=0.0,
        lat=0.0,
        wire=Modbus("bus", 1),
        install={"mounting_height_m": 3.5},
    )
    return msgspec.structs.replace(device, **changes)


def _district(*devices: Device) -> District:
    return District("d", Text("区", "d"), (), (), (), (), devices)


@pytest.mark.parametrize(
    ("changes", "place", "why"),
    [
        ({"install": {}}, "device level-1: install.mounting_height_m", "missing"),
        ({"profile": "nothing"}, "device level-1: profile", "no profile `nothing`"),
        ({"kind": "camera"}, "device level-1: kind", "is a level_sensor"),
        ({"wire": Chirpstack("a", "b")}, "device level-1: wire", "speaks modbus"),
        ({"wire": Modbus("bus", 1, 65484)}, "device level-1: wire.base", "between 0 and 65483"),
    ],
)
def test_a_device_that_does_not_fit_is_refused_by_name(changes: dict[str, object], place: str, why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        table_of(_district(_device(**changes)), "gw", load_profiles())
    assert refused.value.place == place


def test_the_point_table_follows_district_and_profile() -> None:
    lamp = _device(
        id="lamp-1",
        kind="lamp_controller",
        profile="reference_lamp_controller",
        install={"nominal_power_w": 150.0},
    )
    district = _district(_device(), _device(id="level-far", gateway="other"), lamp)
    table = table_of(district, "gw", load_profiles())
    assert [(point.device, point.metric) for point in table.points[:3]] == [
        ("level-1", "distance"),
        ("level-1", "level"),
        ("lamp-1", "voltage"),
    ]
    assert len(table.points) == 11
    assert (table.points[1].unit, table.points[1].interval_s) == ("m", 10.0)
    assert [place.rows.tolist() for place in installed(district, "gw", load_profiles())] == [[0, 1], [*range(2, 11)]]


def test_derived_quantities() -> None:
    (level,) = installed(_district(_device()), "gw", load_profiles())
    reads = Reads(level.profile)
    whole = block_of(Reading(level, 7, Replies(reads, (b"\x0c\x1c",))))  # 3100 mm
    assert whole.taken_at.tolist() == [7, 7]
    assert whole.point.tolist() == [0, 1]
    assert whole.value == pytest.approx([3.1, 0.4])

    bad = block_of(Reading(level, 7, Replies(reads, (b"\x27\x10",))))
    assert bad.value.tolist() == [0.0, 0.0]
    assert bad.quality.tolist() == [Quality.BAD_RANGE] * 2

    down = block_of(Reading(level, 7, None, Quality.BAD_COMMS))
    assert down.point.tolist() == [0, 1]
    assert down.value.tolist() == [0.0, 0.0]
    assert down.quality.tolist() == [Quality.BAD_COMMS] * 2


def test_a_tick_keeps_the_order_of_a_device_whatever_it_was_told_as() -> None:
    first, second = installed(_district(_device(), _device(id="level-2")), "gw", load_profiles())
    answer = Replies(Reads(first.profile), (b"\x0c\x1c",))
    block = block_of(
        Reading(first, 1, answer),
        Reading(second, 2, answer),
        Reading(first, 3, None, Quality.BAD_COMMS),
        Reading(second, 4, None),  # a repeat: nothing
        Reading(first, 5, answer),
    )
    assert block.taken_at.tolist() == [1, 1, 2, 2, 3, 3, 5, 5]
    assert block.point.tolist() == [0, 1, 2, 3, 0, 1, 0, 1]
    assert block.quality.tolist() == [0] * 4 + [Quality.BAD_COMMS] * 2 + [0] * 2


def test_a_ratio_is_not_there_while_its_divisor_is_zero() -> None:
    profile = load_profiles()["reference_lamp_controller"]
    names = [quantity.metric for quantity in profile.quantities]

    def reading(power: float, dim: float) -> dict[str, float]:
        values = {"power": power, "dim_level": dim}
        value = np.array([values.get(point.metric, 1.0) for point in profile.point])
        told, _ = derive(profile, {"nominal_power_w": 150.0}, value, np.zeros(len(value), np.uint8))
        return {name: float(each) for name, each in zip(names, told, strict=True)}

    assert reading(power=45.0, dim=60.0)["power_ratio"] == pytest.approx(0.5)
    assert np.isnan(reading(power=0.0, dim=0.0)["power_ratio"])


def test_what_was_not_told_is_not_there_nor_what_derives_from_it() -> None:
    device = _device(
        kind="manhole_cover",
        profile="milesight_em310_tilt",
        wire=Chirpstack("a", "b"),
        install={"background_x_deg": 1.0, "background_y_deg": -1.0},
    )
    (cover,) = installed(_district(device), "gw", load_profiles())
    whole = block_of(Reading(cover, 0, (4.0, 3.0, 80.0, 99.0)))
    assert whole.value[4] == pytest.approx(5.0)
    partial = block_of(Reading(cover, 0, (4.0, np.nan, np.nan, 99.0)))
    assert 4 not in partial.point
    assert partial.point.tolist()[:2] == [0, 3]
    wrong = block_of(Reading(cover, 0, (4.0, 3.0, np.inf, 101.0)))
    assert wrong.quality.tolist()[2:4] == [Quality.BAD_SENTINEL, Quality.BAD_RANGE]


def test_what_overflows_is_out_of_range() -> None:
    text = FIELDS + '[[derived]]\nmetric = "twice"\nunit = "m"\nhow = "product"\nof = ["distance", "distance"]\n'
    there = Installed(_device(wire=PlainJson("t")), load_profile(text, "x.toml"), np.arange(2, dtype="i4"))
    block = block_of(Reading(there, 1, (1e200,)), Reading(there, 2, (2.0,)))
    assert block.value.tolist() == [1e200, 0.0, 2.0, 4.0]
    assert block.quality.tolist() == [Quality.GOOD, Quality.BAD_RANGE, Quality.GOOD, Quality.GOOD]


def test_both_times_are_kept_where_the_profile_asks_for_it() -> None:
    text = FIELDS + '[[derived]]\nmetric = "heard_after"\nunit = "s"\nhow = "lag"\n'
    profile = load_profile(text, "x.toml")
    there = Installed(_device(wire=PlainJson("t")), profile, np.arange(2, dtype="i4"))
    second = 1_000_000_000
    block = block_of(
        Reading(there, 10 * second, (2.0,), lag_ns=3 * second // 2),
        Reading(there, 20 * second, None, Quality.BAD_STALE),
    )
    assert block.point.tolist() == [0, 1, 0]
    assert block.value.tolist() == [2.0, 1.5, 0.0]


def test_the_filter_takes_deadband_and_heartbeat_from_the_profiles() -> None:
    places = installed(_district(_device()), "gw", load_profiles())
    keep = filter_of(places)
    second = 1_000_000_000

    def sample(at: int, value: float) -> Block:
        return Block(np.array([0], "i4"), np.array([at * second]), np.array([value]), np.zeros(1, "u1"))

    told = [
        keep.keep(sample(at, value)).tolist()
        for at, value in [(0, 3.0), (10, 3.003), (20, 3.005), (79, 3.005), (80, 3.005)]
    ]
    assert told == [[True], [False], [True], [False], [True]]
