import msgspec
import numpy as np
import pytest

from edge.installed import filter_of, installed, table_of
from edge.profile import load_profile, load_profiles
from rules.declared import Refused
from rules.district import Chirpstack, Device, District, Modbus, Text
from rules.samples import Block, Quality

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
        (HEAD + "[limits]\nmax_registers = 126\n" + POINT, "x.toml", "between 2 and 125"),
        (HEAD.replace("10", "0") + POINT, "interval_s", "above 0"),
        (HEAD + POINT.replace("function = 3", "function = 1"), "x.toml", "single bits"),
        (HEAD + POINT.replace("register = 1", "register = 65536"), "x.toml", "outside the addresses"),
        (HEAD + POINT.replace("u16", "bit") + "bit = 15\nwidth = 2", "x.toml", "within the 16 bits"),
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
    reading = level.reading(7, np.array([3.1]), np.array([0], np.uint8))
    assert reading.taken_at == 7
    assert reading.point.tolist() == [0, 1]
    assert reading.value == pytest.approx([3.1, 0.4])

    bad = level.reading(7, np.array([0.0]), np.array([Quality.BAD_RANGE], np.uint8))
    assert bad.value.tolist() == [0.0, 0.0]
    assert bad.quality.tolist() == [Quality.BAD_RANGE] * 2


def test_a_ratio_is_not_there_while_its_divisor_is_zero() -> None:
    device = _device(kind="lamp_controller", profile="reference_lamp_controller", install={"nominal_power_w": 150.0})
    (lamp,) = installed(_district(device), "gw", load_profiles())
    names = [quantity.metric for quantity in lamp.profile.quantities]

    def reading(power: float, dim: float) -> dict[str, float]:
        values = {"power": power, "dim_level": dim}
        value = np.array([values.get(point.metric, 1.0) for point in lamp.profile.point])
        made = lamp.reading(0, value, np.zeros(len(value), np.uint8))
        return {names[row]: float(told) for row, told in zip(made.point, made.value, strict=True)}

    assert reading(power=45.0, dim=60.0)["power_ratio"] == pytest.approx(0.5)
    assert "power_ratio" not in reading(power=0.0, dim=0.0)
    assert len(reading(power=0.0, dim=0.0)) == 8


def test_what_was_not_told_is_not_there_nor_what_derives_from_it() -> None:
    device = _device(
        kind="manhole_cover",
        profile="milesight_em310_tilt",
        wire=Chirpstack("a", "b"),
        install={"background_x_deg": 1.0, "background_y_deg": -1.0},
    )
    (cover,) = installed(_district(device), "gw", load_profiles())
    whole = cover.reading(0, np.array([4.0, 3.0, 80.0, 99.0]), np.zeros(4, np.uint8))
    assert whole.value[-1] == pytest.approx(5.0)
    partial = cover.reading(0, np.array([4.0, np.nan, np.nan, 99.0]), np.zeros(4, np.uint8))
    assert partial.point.tolist() == [0, 3]


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
