"""What commissioning makes of words and messages, without a device: doubts, scores, and what is never asked."""

import asyncio
import math
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import scanning
from edge.doubts import Words, doubts_of, shown
from edge.drivers.address import Address
from edge.drivers.modbus import Declined, Garbled, NoAnswer, Unreachable
from edge.messages import probe_message
from edge.plan import Request, plan
from edge.probing import clearing_places, request_places, sparing, text_of, touches
from edge.profile import Head, Limits, Profile, Register, Text, UnitFrom, load_profiles
from edge.reading import Replies
from edge.reads import Reads
from edge.scanning import BAUDS, GARBLED, PARITIES, Scan, settings
from firmware_sim.registers import Illegal, Registers
from rules.declared import Refused
from streetwarden.commissioning import addresses_of, check, numbers_of, profile_of, units_of
from wire.batch import Malformed
from wire.clock import from_iso

PROFILES = load_profiles()
MODBUS = [profile for profile in PROFILES.values() if profile.point]
HEAD = Head("x", "power_meter", "m", "x", "m", "modbus", 10)
GOLDEN = Path(__file__).parents[1] / "golden"
LIMITS = " which often says that there is no value"


def words_of(data: str, *points: Register) -> Words:
    """Some points that one read from address 0 on brings."""
    profile = Profile(HEAD, point=points)
    request = Request(3, 0, len(bytes.fromhex(data)) // 2, tuple(range(len(points))))
    return Words(profile, Replies(Reads(profile, 0, (request,)), (bytes.fromhex(data),)))


def doubts(data: str, *points: Register) -> list[str]:
    """What is said of the last of some points."""
    return list(doubts_of(words_of(data, *points), len(points) - 1))


def u16(**changes: Any) -> Register:
    return msgspec.structs.replace(Register("x", "m", 3, 0, "u16", scale=0.001, range=(0.04, 4.0)), **changes)


VOLTS = Register("voltage", "V", 3, 0, "f32", range=(0.0, 500.0))
ENERGY = Register("energy", "kW.h", 3, 0, "u32", scale=0.01)
CODE = Register("code", "1", 3, 1, "u16", range=(0.0, 8.0))
DEPTH = u16(unit_from=UnitFrom("code", {"1": 0.1, "7": 1.0}))


@pytest.mark.parametrize(
    ("data", "point", "said"),
    [
        ("07 0B", u16(), []),
        ("FF FF", u16(invalid=(0xFFFF,)), ["FFFF says that it has no value"]),
        ("13 88", u16(), ["5 m is not within 0.04 to 4"]),
        ("7F FF", u16(range=None), ["7FFF is the end of what u16 holds," + LIMITS]),
        ("80 00", u16(type="s16", range=None), ["8000 is the end of what s16 holds," + LIMITS]),
        ("FF FF", u16(type="s16", range=None), []),  # -1
        (
            "FF 38",
            u16(scale=0.1, range=(-40.0, 85.0)),
            ["6533.6 m is not within -40 to 85", 'with `type = "s16"` it would be -20 m'],
        ),
        ("43 66 33 33", VOLTS, []),
        ("33 33 43 66", VOLTS, ['with `order = "CDAB"` it would be 230.2 V']),
        ("66 43 33 33", VOLTS, ["2.30451e+23 V is not within 0 to 500", 'with `order = "BADC"` it would be 230.2 V']),
        ("33 33 66 43", VOLTS, ['with `order = "DCBA"` it would be 230.2 V']),
        ("00 00 00 00", VOLTS, []),
        ("7F C0 00 00", VOLTS, ["no number: NaN, or beyond all numbers"]),
        ("00 01 E2 40", ENERGY, []),
        ("E2 40 00 01", ENERGY, ['with `order = "CDAB"` it would be 1234.56 kW.h']),
        ("12 3A", u16(type="bcd16", range=None), ["no decimal digits"]),
    ],
)
def test_what_is_doubtful_about_a_point(data: str, point: Register, said: list[str]) -> None:
    assert doubts(data, point) == said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("07 0B 00 07", []),
        ("07 0B 00 01", []),
        ("07 0B 00 02", ["`code` shows the unit code 2; known are 1, 7"]),
        ("07 0B 00 09", ["`code` shows the unit code 9; known are 1, 7"]),
        ("27 10 00 07", ["10 m is not within 0.04 to 4"]),
    ],
)
def test_a_unit_code_that_nobody_knows(data: str, said: list[str]) -> None:
    assert doubts(data, CODE, DEPTH) == said


def test_what_has_no_scale_has_no_value_to_show() -> None:
    assert [math.isnan(words_of(data, CODE, DEPTH).value(1)) for data in ("07 0B 00 07", "07 0B 00 02")] == [
        False,
        True,
    ]


@pytest.mark.parametrize("value", [0.0, 1.803, 230.2, -12.5, 123456789.0, 4.2e-8, 2.3e23])
def test_shown_numbers_can_be_told_apart(value: float) -> None:
    assert float(shown(value)) == pytest.approx(value, rel=1e-5)


@given(st.lists(st.tuples(st.sampled_from([3, 4]), st.integers(0, 60)), unique=True, max_size=20), st.data())
def test_no_read_touches_what_is_spared_and_nothing_else_is_left_out(
    places: list[tuple[int, int]], data: st.DataObject
) -> None:
    points = [Register(f"p{n}", "1", function, at, "u16") for n, (function, at) in enumerate(places)]  # type: ignore[arg-type]
    spared = set(data.draw(st.lists(st.sampled_from(places)) if places else st.just([])))
    requests = sparing(points, Limits(max_hole=data.draw(st.integers(0, 20))), spared)
    assert not any(touches(request_places(request), spared) for request in requests)
    asked = sorted(n for request in requests for n in request.points)
    assert asked == [n for n, place in enumerate(places) if place not in spared]


def test_what_is_not_spared_is_read_as_planned() -> None:
    for profile in MODBUS:
        assert sparing(profile.point, profile.limits, ()) == plan(profile.point, profile.limits)


@pytest.mark.parametrize(
    ("chars", "data", "text"),
    [
        ("both", "57422D44414C 4900", "WB-DALI"),
        ("low", "0057 0042 0000 0044", "WB"),
        ("high", "5700 4200", "WB"),
        ("both", "1B5B 4100", "�[A"),
    ],
)
def test_texts(chars: Any, data: str, text: str) -> None:
    assert text_of(Text("t", 4, 0, 4, chars), bytes.fromhex(data)) == text


# --- a scan


class Wired:
    """Stands for ``Connection``: devices at the settings of a line, each with its registers."""

    devices: dict[tuple[int, str, int], Callable[[Request], bytes]] = {}  # noqa: RUF012 - set by each test
    unable: Callable[[Address], bool]
    asked: list[tuple[int, Request]]

    def __init__(self, address: Address) -> None:
        self._address = address

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        pass

    async def read(self, unit: int, request: Request, guard_s: float = 0.0) -> bytes:
        if self.unable(self._address):
            raise Unreachable("this terminal does not do that")
        self.asked.append((unit, request))
        device = self.devices.get((self._address.baud, self._address.parity, unit))
        if device is None:
            raise NoAnswer("no answer")
        return device(request)


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> type[Wired]:
    monkeypatch.setattr(scanning, "Connection", Wired)
    Wired.devices, Wired.asked, Wired.unable = {}, [], staticmethod(lambda _: False)
    return Wired


def device_of(profile: Profile) -> Callable[[Request], bytes]:
    """A device of a model: it has its own registers and no others, and measures what is within its ranges."""
    registers = Registers(profile)
    values = {point.metric: np.array([_plausible(point)]) for point in profile.point}

    def answer(request: Request) -> bytes:
        for text in profile.text:
            if (request.function, request.start, request.count) == (text.function, text.register, text.words):
                return text.starts.ljust(text.words, "\0").encode("utf-16-be")
        try:
            return registers.reply(request.function, request.start, request.count, values).tobytes()
        except Illegal as error:
            raise Declined(error.code, "") from error

    return answer


def _plausible(point: Register) -> float:
    if point.unit_from or point.scale_from:
        return 0.1
    if point.metric in {"unit_code", "decimals", "divisor"}:
        return 1.0
    low, high = point.range or (0.0, 100.0 * point.scale)
    return low + 0.3 * (high - low) if point.type != "bit" or point.width > 1 else 1.0


def scanned(addresses: Sequence[Address], units: Sequence[int] = range(1, 4)) -> Scan:
    scan = Scan(addresses, units, PROFILES.values(), lambda _: None)
    asyncio.run(scan.run())
    return scan


@pytest.mark.parametrize("profile", MODBUS, ids=lambda profile: profile.id)
def test_a_device_of_every_model_is_known_by_its_registers(wired: type[Wired], profile: Profile) -> None:
    wired.devices = {(9600, "N", 2): device_of(profile)}
    (found,) = scanned(settings("/dev/line", (9600,), ("N",))).found
    assert found.likely
    mine = [likely for likely in found.likely if likely.profile == profile.id]
    assert mine, found.likely
    assert (mine[0].fitting, mine[0].missing) == (mine[0].asked, 0)
    assert mine[0].score == pytest.approx(max(likely.score for likely in found.likely), abs=0.5)


def test_a_scan_asks_nothing_that_reading_clears_and_writes_nothing(wired: type[Wired]) -> None:
    spared = clearing_places(PROFILES.values())
    assert spared, "no shipped model has such a register: this test needs one"
    wired.devices = {(9600, "N", 2): device_of(PROFILES["deltaohm_hd2016"])}
    (found,) = scanned(settings("/dev/line", (9600,), ("N",))).found
    assert found.likely
    assert [each.asked for each in found.likely if each.profile == "deltaohm_hd2016"] == [3]
    assert not [request for _, request in wired.asked if touches(request_places(request), spared)]
    assert {request.function for _, request in wired.asked} <= {1, 2, 3, 4}


def test_units_are_found_at_their_own_speed_and_parity(wired: type[Wired]) -> None:
    lamp, monitor = (device_of(PROFILES[f"reference_{name}"]) for name in ("lamp_controller", "manhole_monitor"))
    wired.devices = {(9600, "N", 1): lamp, (19200, "E", 1): monitor, (2400, "O", 3): lamp}
    scan = scanned(settings("/dev/line"))
    assert [(f.address.baud, f.address.parity, f.unit, f.likely[0].profile) for f in scan.found if f.likely] == [
        (9600, "N", 1, "reference_lamp_controller"),
        (19200, "E", 1, "reference_manhole_monitor"),
        (2400, "O", 3, "reference_lamp_controller"),
    ]
    assert (scan.asked, scan.unable) == (scan.questions, {})


def test_settings_that_a_terminal_does_not_do_are_passed_over_and_told(wired: type[Wired]) -> None:
    wired.unable = staticmethod(lambda address: address.parity != "N")
    wired.devices = {(115200, "N", 3): device_of(PROFILES["xunchip_xm9505"])}
    scan = scanned(settings("/dev/line"))
    assert [found.unit for found in scan.found] == [3]
    assert {address.parity for address in scan.unable} == {"E", "O"}
    assert len(scan.unable) == 2 * len(BAUDS)
    assert scan.asked == scan.questions


def test_what_a_unit_answers_is_told(wired: type[Wired]) -> None:
    def refuse(code: int) -> Callable[[Request], bytes]:
        def answer(_: Request) -> bytes:
            raise Declined(code, "") if code else Garbled("noise")

        return answer

    wired.devices = {(9600, "N", unit): refuse(code) for unit, code in ((1, 2), (2, 11), (3, 0), (4, 10))}
    scan = scanned(settings("/dev/line", (9600,), ("N",)), range(1, 6))
    assert [(found.unit, found.answer, found.likely) for found in scan.found] == [
        (1, "exception 02", ()),
        (3, GARBLED, ()),
    ]


def test_an_endpoint_that_does_not_look_at_unit_ids_is_one_device(wired: type[Wired]) -> None:
    monitor = device_of(PROFILES["reference_manhole_monitor"])
    wired.devices = {(9600, "N", unit): monitor for unit in range(1, 248)}
    scan = scanned([Address("plc", 502)], range(1, 248))
    assert [found.unit for found in scan.found] == [1]
    assert "does not look at it" in scan.notes[0]
    assert len(wired.asked) < 2 * 247


def test_the_commonest_settings_come_first() -> None:
    tried = [(address.baud, address.parity) for address in settings("/dev/line")]
    assert tried[:2] == [(9600, "N"), (19200, "N")]
    assert len(set(tried)) == len(BAUDS) * len(PARITIES) == 21


# --- messages


def _messages() -> Iterable[Any]:
    for path in sorted(GOLDEN.glob("*.toml")):
        file = tomllib.loads(path.read_text("utf-8"))
        for vector in file.get("message", []):
            if "first" not in vector:
                yield pytest.param(PROFILES[file["profile"]], vector, id=f"{path.stem}: {vector['say']}")


@pytest.mark.parametrize(("profile", "vector"), list(_messages()))
def test_a_message_is_shown_as_the_gateway_reads_it(profile: Profile, vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["data"]) if "data" in vector else vector["payload"].encode()
    now = from_iso(vector.get("taken_at", "2026-06-18T03:12:45Z"))
    told = {**vector, **vector.get("earlier", [{}])[-1]} if "values" not in vector else vector
    if "values" not in told and "bad" not in told:
        with pytest.raises(Malformed):
            probe_message(profile, {}, payload, now)
        return
    probed = probe_message(profile, {}, payload, now)
    rows = {row.name: row for row in probed.rows}
    for metric, value in told.get("values", {}).items():
        assert rows[metric].value == pytest.approx(value), metric
        assert rows[metric].quality == "good"
        assert not rows[metric].doubts
    for metric in told.get("bad", {}):
        assert rows[metric].doubts, metric


NOW = from_iso("2026-06-18T03:12:45Z")


def tilt(time: str, **more: object) -> bytes:
    return msgspec.json.encode({"time": time, "object": {"angle_x": 3.5, "angle_y": 4.5, "angle_z": 89, **more}})


def test_a_message_tells_when_it_was_taken_and_what_is_derived() -> None:
    install = {"background_x_deg": 0.5, "background_y_deg": 0.5}
    probed = probe_message(PROFILES["milesight_em310_tilt"], install, tilt("2026-06-18T03:12:40Z"), NOW)
    rows = {row.name: row for row in probed.rows}
    assert rows["tilt_change"].value == pytest.approx(5.0)
    assert rows["heard_after"].value == pytest.approx(5.0)
    assert (rows["battery"].quality, rows["battery"].doubts) == ("not told", ())
    assert "taken at 2026-06-18T03:12:40.000+00:00, 5 s ago" in probed.notes
    assert not probed.any_doubt


def test_what_is_derived_says_which_number_it_waits_for() -> None:
    probed = probe_message(PROFILES["milesight_em310_tilt"], {}, tilt("2026-06-18T03:12:40Z"), NOW)
    assert [row.quality for row in probed.rows if row.name == "tilt_change"] == ["not known"]
    assert "`tilt_change` needs a number of the installation: --install background_x_deg=…" in probed.notes


@pytest.mark.parametrize("time", ["2026-06-18T03:13:50Z", "1970-01-01T00:00:10Z"])
def test_a_clock_that_was_never_set_is_a_doubt(time: str) -> None:
    probed = probe_message(PROFILES["milesight_em310_tilt"], {}, tilt(time), NOW)
    assert [row.quality for row in probed.rows if row.name == "angle_x"] == ["clock fault"]
    assert any("its clock says" in doubt for doubt in probed.doubts)


def test_a_field_out_of_range_is_shown_with_its_number() -> None:
    probed = probe_message(PROFILES["milesight_em310_tilt"], {}, tilt("2026-06-18T03:12:40Z", battery=120), NOW)
    (battery,) = (row for row in probed.rows if row.name == "battery")
    assert (battery.raw, battery.value, battery.quality) == ("120", 120.0, "out of range")
    assert battery.doubts == ("120 % is not within 0 to 100",)


def test_an_object_without_the_servers_envelope_is_taken_as_decoded() -> None:
    payload = msgspec.json.encode({"angle_x": 3.5, "angle_y": 4.5, "angle_z": 89})
    probed = probe_message(PROFILES["milesight_em310_tilt"], {}, payload, NOW)
    assert probed.rows[0].value == 3.5
    assert any("no uplink of ChirpStack or The Things Stack" in note for note in probed.notes)


def test_a_pack_tells_the_base_that_its_wire_needs() -> None:
    pack = [{"bn": "urn:dev:mac:0024befffe804ff1:", "n": "battery", "v": 90, "u": "%EL"}]
    probed = probe_message(PROFILES["reference_senml_cover"], {}, msgspec.json.encode(pack), NOW)
    assert [row.value for row in probed.rows if row.name == "battery"] == [90.0]
    assert 'its `wire` needs base = "urn:dev:mac:0024befffe804ff1:"' in probed.notes


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"{}", b'{"object": 1}', b'{"object": {"x": 1}}'])
def test_what_is_no_message_of_the_model_is_refused(payload: bytes) -> None:
    with pytest.raises(Malformed):
        probe_message(PROFILES["milesight_em310_tilt"], {}, payload, NOW)


# --- the commands' arguments


def test_units() -> None:
    assert units_of("1-3,20") == (1, 2, 3, 20)
    assert units_of("5") == (5,)


@pytest.mark.parametrize("text", ["", "0-3", "1-248", "3-1", "a", "1-", "-1"])
def test_units_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(Refused, match="--units"):
        units_of(text)


def test_numbers_of_an_installation() -> None:
    assert numbers_of(["mounting_height_m=3.5", "b=-1"]) == {"mounting_height_m": 3.5, "b": -1.0}
    with pytest.raises(Refused, match="as in mounting_height_m"):
        numbers_of(["mounting_height_m"])
    with pytest.raises(Refused, match="did you mean `background_x_deg`"):
        probe_message(PROFILES["milesight_em310_tilt"], {"background_x": 1.0}, tilt("2026-06-18T03:12:40Z"), NOW)


@pytest.mark.parametrize(
    ("port", "baud", "why"),
    [
        ("plc", None, "HOST:PORT"),
        ("plc:modbus", None, "HOST:PORT"),
        ("plc:0", None, "`port` lies between"),
        ("/dev/ttyUSB0", 9601, "`baud` is one of"),
    ],
)
def test_where_no_bus_can_be_is_refused(port: str, baud: int | None, why: str) -> None:
    with pytest.raises(Refused, match=why):
        addresses_of(port, "tcp", baud, None, 0.5)


def test_addresses_of_a_scan() -> None:
    (address,) = addresses_of("[::1]:502", "rtu", None, None, 0.5)
    assert address == Address("::1", 502, framing="rtu", timeout_s=0.5)
    (address,) = addresses_of("/dev/ttyUSB0", "tcp", 19200, "E", 0.5)
    assert address == Address(serial="/dev/ttyUSB0", baud=19200, parity="E", timeout_s=0.5)
    assert len(addresses_of("/dev/ttyUSB0", "tcp", None, None, 0.5)) == 21


def test_a_profile_is_found_by_id_or_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    shipped = (Path(__file__).parents[2] / "edge/profiles/dfrobot_sen0492.toml").read_text("utf-8")
    mine.write_text(shipped.replace('id = "dfrobot_sen0492"', 'id = "mine"'), "utf-8")
    assert profile_of(str(mine), None).id == profile_of("mine", tmp_path).id == "mine"
    with pytest.raises(Refused, match="did you mean `dfrobot_sen0492`"):
        profile_of("dfrobot_sen0429", None)


def test_check_tells_what_a_maintainer_should_know() -> None:
    assert check(PROFILES["dfrobot_sen0492"]) == "dfrobot_sen0492: in order, 1 read, 1 point, 1 derived"
    assert check(PROFILES["milesight_em500_swl"]) == "milesight_em500_swl: in order, 2 fields, 2 derived"
    far = msgspec.structs.replace(u16(metric="far", range=None), register=30)
    profile = Profile(HEAD, Limits(max_hole=0), point=(u16(), far, CODE))
    assert check(profile) == ("x: in order, 2 reads, 3 points; max_hole = 0 makes 2 reads instead of 1; no range: far")
