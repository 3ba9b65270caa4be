"""SenML packs become records of their own (RFC 8428), and records the numbers of a device's fields."""

import base64
from collections.abc import Sequence
from math import inf, isnan, nan, pi

import cbor2
import msgspec
import numpy as np
import pytest

from edge.agent import HISTORY
from edge.decoders.dialect import Strange
from edge.decoders.senml import SenmlDialect, decode
from edge.hearing import Heard, Said, Unsaid
from edge.installed import Installed
from edge.profile import Field, Head, Profile
from rules.district import Device, Senml
from wire.batch import Malformed
from wire.clock import NANOSECONDS, from_iso
from wire.senml import Record, convert, resolve

NOW = from_iso("2026-06-18T03:10:00Z")
UNIX = NOW // NANOSECONDS

# RFC 8428, section 6: the example of section 5.1.2 in CBOR, one half-precision number among doubles.
CBOR = bytes.fromhex(
    "87a721781b75726e3a6465763a6f773a"
    "3130653230373361303130383030363a"
    "22fb41d303a15b001062236141200500"
    "67766f6c7461676501615602fb405e06"
    "6666666666a3006763757272656e7406"
    "2402fb3ff3333333333333a300676375"
    "7272656e74062302fb3ff4cccccccccc"
    "cda3006763757272656e74062202fb3f"
    "f6666666666666a3006763757272656e"
    "74062102f93e00a3006763757272656e"
    "74062002fb3ff999999999999aa30067"
    "63757272656e74060002fb3ffb333333"
    "333333"
)


def pack(*records: dict[str, object]) -> bytes:
    return msgspec.json.encode(records)


def one(**record: object) -> Record:
    (resolved,) = resolve(pack({"n": "a", **record}), NOW)
    return resolved


def test_the_example_of_the_standard_in_cbor() -> None:
    device, base = "urn:dev:ow:10e2073a0108006:", from_iso("2010-06-08T18:01:16.001Z")
    assert resolve(CBOR.replace(b"\x20\x05", b"\x20\x0a"), NOW) == [  # version 10 for the draft's 5
        *(
            Record(f"{device}current", base - back * NANOSECONDS, value, None, "A", None)
            for back, value in ((5, 1.2), (4, 1.3), (3, 1.4), (2, 1.5), (1, 1.6))
        ),
        Record(f"{device}voltage", base, 120.1, None, "V", None),
        Record(f"{device}current", base, 1.7, None, "A", None),
    ]
    assert resolve(CBOR, NOW) == resolve(CBOR.replace(b"\x20\x05", b"\x20\x0a"), NOW)


def test_base_fields_hold_for_their_record_and_all_after_it_until_replaced() -> None:
    records = resolve(
        pack(
            {"n": "x", "v": 1},
            {"bn": "lid/", "bt": UNIX, "bu": "m", "bv": 10, "bs": 100, "n": "a", "v": 1, "s": 2},
            {"n": "b", "u": "V", "t": 1, "v": 2},
            {"bn": "", "bu": "", "bv": 0, "bt": UNIX + 2, "n": "c", "v": 3, "t": 1},
        ),
        NOW,
    )
    assert records == [
        Record("x", NOW, 1.0, None, "", None),
        Record("lid/a", NOW, 11.0, 102.0, "m", None),
        Record("lid/b", NOW + NANOSECONDS, 12.0, 100.0, "V", None),
        Record("c", NOW + 3 * NANOSECONDS, 3.0, 100.0, "", None),
    ]


def test_each_kind_of_value_and_until_when_it_holds() -> None:
    assert one(vs="open").value == "open"
    assert one(vb=False).value is False
    assert one(vd="_-8").value == b"\xff\xef"
    assert one(s=3.5) == Record("a", NOW, None, 3.5, "", None)
    assert one(v=1, t=-1.5, ut=600).until == NOW + round(598.5 * NANOSECONDS)
    assert one(v=1, something=[1, {}], else_where=None).value == 1.0


def test_a_time_below_2_to_the_28_seconds_is_relative_to_the_receipt() -> None:
    assert one(v=1).at == NOW
    assert one(v=1, t=-10).at == NOW - 10 * NANOSECONDS
    assert one(v=1, bt=-100, t=90).at == NOW - 10 * NANOSECONDS
    assert one(v=1, t=2**28 - 1).at == NOW + (2**28 - 1) * NANOSECONDS
    assert one(v=1, t=2**28).at == 2**28 * NANOSECONDS
    assert one(v=1, bt=2**27, t=2**27).at == 2**28 * NANOSECONDS


def test_times_are_to_the_microsecond() -> None:
    assert one(v=1, bt=UNIX, t=0.1).at == NOW + 100_000_000
    assert one(v=1, t=UNIX + 0.000001).at == NOW + 1000


def test_records_stand_in_chronological_order_and_otherwise_as_they_came() -> None:
    records = resolve(pack(*({"n": name, "v": 0, "t": t} for name, t in (("a", 0), ("b", -9), ("c", 0)))), NOW)
    assert [record.name for record in records] == ["b", "a", "c"]


def test_cbor_has_decimal_fractions_and_both_kinds_of_labels() -> None:
    told = [{-2: "a", 2: cbor2.CBORTag(4, [-2, 2731]), "extra": [[[1]]]}, {0: "b", 8: b"\x01"}, {0: "c", 4: True}]
    assert [record.value for record in resolve(cbor2.dumps(told), NOW)] == [27.31, b"\x01", True]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"v": 1, "must_": 1}, "record 1: `must_` must be understood"),
        ({"v": 1, "bver": 11}, "record 1: `bver` is 11; versions 1 to 10 and 26"),
        ({"v": 1, "bver": 10.0}, "`bver` is 10.0"),
        ({"v": 1, "bver": True}, "`bver` is True"),
        ({"v": 1, "n": "-a"}, "`-a` is not a name"),
        ({"v": 1, "n": "a b"}, "`a b` is not a name"),
        ({"v": 1, "n": ""}, "`` is not a name"),
        ({"v": 1, "n": 7}, "`n` is 7, not a text"),
        ({"v": 1, "u": None}, "`u` is None, not a text"),
        ({"v": 1, "vb": True}, "it has v and vb; a record has one of"),
        ({}, "it has no value; a record has one of"),
        ({"bv": 1}, "it has no value; a record has one of"),
        ({"v": "1"}, "`v` is '1', not a finite number"),
        ({"v": True}, "`v` is True, not a finite number"),
        ({"v": None}, "`v` is None, not a finite number"),
        ({"v": int("9" * 309)}, "`v` is 9{60}, not a finite number"),
        ({"vb": 1}, "`vb` is 1, not true or false"),
        ({"vs": 1}, "`vs` is 1, not a text"),
        ({"vd": 1}, "`vd` is 1, not data"),
        ({"vd": "aGkX!!!!"}, "not SenML in JSON"),
        ({"v": 1, "t": 1e10}, r"`t` is 1e\+10 s, which no clock says"),
        ({"v": 1, "t": -1e10}, r"`t` is -1e\+10 s, which no clock says"),
        ({"v": 1, "ut": -1}, "`ut` is -1 s"),
        ({"v": 1, "s": "2"}, "`s` is '2', not a finite number"),
    ],
)
def test_what_is_wrong_is_named(record: dict[str, object], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        resolve(pack({"n": "a", **record}), NOW)


def test_a_pack_has_one_version() -> None:
    assert (
        len(resolve(pack({"n": "a", "v": 1, "bver": 26}, {"n": "b", "v": 1}, {"n": "c", "v": 1, "bver": 26}), NOW)) == 3
    )
    for first, second in (({"bver": 9}, {"bver": 10}), ({}, {"bver": 9})):
        with pytest.raises(Malformed, match=r"record 2: `bver` is .*, and .* before"):
            resolve(pack({"n": "a", "v": 1, **first}, {"n": "a", "v": 1, **second}), NOW)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"\x80",
        b"{}",
        b"[1]",
        b'[{"n":"a","v":1e400}]',
        b"\xff",
        b"[" * 100_000,
        b"\x81" * 100_000,
        cbor2.dumps([[1]]),
        cbor2.dumps([{0: "a", 2: 1}]) + b"\x00",
        cbor2.dumps([{0: "a", 2: 1, 99: 1}]),
        cbor2.dumps([{0: "a", 2: 1, b"x": 1}]),
        cbor2.dumps([{False: "a", 2: 1}]),
        cbor2.dumps([{0: "a", 2: nan}]),
        cbor2.dumps([{0: "a", 2: 2**70}]),  # a bignum
        cbor2.dumps([{0: "a", 2: cbor2.CBORTag(1, 0)}]),  # a date
        cbor2.dumps([{0: "a", 2: cbor2.CBORTag(35, "(a*)*")}]),  # a pattern
        cbor2.dumps([{0: "a", 2: cbor2.CBORTag(5, [2**60, 1])}]),
        cbor2.dumps([{0: "a", 2: cbor2.CBORTag(4, [2**60, 1])}]),
        cbor2.dumps([{0: "a", 2: cbor2.CBORTag(4, [400, 1])}]),
        cbor2.dumps([{0: "a", 2: cbor2.CBORTag(4, [1])}]),
        cbor2.dumps([{0: "a", 2: 1, "x": [[[[[[[1]]]]]]]}]),
        bytes.fromhex("d81c81d81d00"),  # an array that holds itself
        bytes.fromhex("9fa20061610201ff"),  # of indefinite length
        bytes.fromhex("81a2006161027f6161ff"),
        bytes.fromhex("81a30061610061620201"),  # the same label twice
        bytes.fromhex("9bffffffffffffffff"),  # more than there is memory for
        bytes.fromhex("81a1035b0000ffffffffffff"),
        bytes.fromhex("81a120f7"),  # undefined
    ],
)
def test_garbage_is_malformed_in_json_and_in_cbor(payload: bytes) -> None:
    with pytest.raises(Malformed):
        resolve(payload, NOW)


@pytest.mark.parametrize(
    ("value", "told", "wanted", "made"),
    [
        (0.1, "rad", "deg", 18 / pi),
        (12.5, "cm", "m", 0.125),
        (0.27, "m", "mm", 270.0),
        (4.2, "mA", "A", 0.0042),
        (1.5, "kW", "W", 1500.0),
        (36.0, "kWh", "kW.h", 36.0),
        (3.6e6, "J", "kW.h", 1.0),
        (300.0, "K", "Cel", 26.85),
        (93.0, "%EL", "%", 93.0),
        (0.93, "/", "%", 93.0),
        (0.93, "%", "%", 93.0),  # RFC 8428: no percentage, but the ratio itself
        (1.0, "/", "1", 1.0),
        (36.0, "mm/h", "mm/h", 36.0),
        (20.5, "Cel", "Cel", 20.5),
        (7.0, "", "m", 7.0),
        (7.0, "unheard", "unheard", 7.0),
    ],
)
def test_a_told_unit_becomes_the_points(value: float, told: str, wanted: str, made: float) -> None:
    assert convert(value, told, wanted) == pytest.approx(made, rel=1e-12)


def test_a_unit_of_another_quantity_is_malformed_and_both_are_named() -> None:
    with pytest.raises(Malformed, match="unit `V` cannot become `m`"):
        convert(1.0, "V", "m")


FIELDS = (
    Field("angle_x", "deg", "angle_x"),
    Field("battery", "%", "battery"),
    Field("alarm", "1", "alarm", words={"ok": 0.0, "tamper": 2.0}),
)
PROFILE = Profile(Head("lid", "manhole_cover", "M", "X", "none", "senml", 600.0), field=FIELDS)


def place(device: str, topic: str, base: str = "") -> Installed:
    there = Device(device, "manhole_cover", "lid", "gw", "s", "a", "0120", 0.0, 0.0, Senml(topic, base))
    return Installed(there, PROFILE, np.arange(3, dtype="i4"))


def rows(values: list[tuple[int, tuple[float, ...]]]) -> list[tuple[int, list[float | None]]]:
    return [(at, [None if isnan(value) else value for value in row]) for at, row in values]


def test_each_instant_of_a_pack_is_a_row_and_history_comes_first() -> None:
    payload = pack(
        {"bn": "lid-1/", "bt": UNIX, "bu": "rad", "n": "angle_x", "v": pi / 4},
        {"n": "battery", "u": "%EL", "v": 93},
        {"n": "alarm", "vb": True},
        {"n": "angle_x", "t": -600, "v": pi / 2},
        {"n": "alarm", "t": -600, "vs": "tamper"},
        {"n": "unheard", "t": -900, "v": 1},
        {"n": "battery", "u": "%EL", "t": -900, "s": 1},
        {"bn": "lid-2/", "n": "angle_x", "t": -900, "v": 1},
    )
    assert rows(decode(PROFILE, "lid-1/", payload, NOW)) == [
        (NOW - 600 * NANOSECONDS, [90.0, None, 2.0]),
        (NOW, [45.0, 93.0, 1.0]),
    ]
    assert decode(PROFILE, "lid-9/", payload, NOW) == []


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"n": "angle_x", "u": "V", "v": 1}, "unit `V` cannot become `deg`"),
        ({"n": "alarm", "vs": "wide open"}, "`alarm` is 'wide open', not a number; `words` has ok, tamper"),
        ({"n": "alarm", "vd": base64.urlsafe_b64encode(b"\x01").decode()}, "not a number"),
    ],
)
def test_what_cannot_be_a_fields_is_malformed(record: dict[str, object], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        decode(PROFILE, "", pack(record), NOW)


def test_what_is_told_and_is_no_number_has_no_value() -> None:
    assert decode(PROFILE, "", pack({"n": "battery", "vs": "NaN"}), NOW)[0][1][1] == inf


def said(heard: Sequence[Heard]) -> list[tuple[str, int | None, list[float | None], str]]:
    return [
        (each.place.device.id, each.taken_at, [None if isnan(value) else value for value in each.values], each.origin)
        for each in heard
        if isinstance(each, Said) and each.values is not None
    ]


def test_devices_share_a_topic_by_their_base_names() -> None:
    dialect = SenmlDialect(
        [place("lid-1", "lids", "lid-1/"), place("lid-2", "lids", "lid-2/"), place("lid-3", "lid/3")]
    )
    assert dialect.subscriptions == dialect.topics == ("lids", "lid/3")
    assert [dialect.owns(topic) for topic in ("lids", "lid/3", "lid/4")] == [True, True, False]
    assert (dialect.device_of("lid/3"), dialect.device_of("lids")) == ("lid-3", "")
    payload = pack({"bn": "lid-1/", "n": "alarm", "v": 1}, {"bn": "lid-2/", "n": "alarm", "vs": "ok", "t": -1})
    assert said(dialect.hear("lids", payload, NOW)) == [
        ("lid-1", NOW, [None, None, 1.0], ""),
        ("lid-2", NOW - NANOSECONDS, [None, None, 0.0], ""),
    ]
    assert said(dialect.hear("lid/3", pack({"n": "alarm", "v": 1}), NOW)) == [("lid-3", NOW, [None, None, 1.0], "")]
    with pytest.raises(Strange):
        dialect.hear("lids/4", payload, NOW)


def test_a_value_that_cannot_be_read_leaves_the_other_devices_of_its_topic_alone() -> None:
    dialect = SenmlDialect([place("lid-1", "lids", "lid-1/"), place("lid-2", "lids", "lid-2/")])
    payload = pack(
        {"bn": "lid-1/", "n": "angle_x", "u": "V", "v": 1}, {"bn": "lid-2/", "bu": "deg", "n": "angle_x", "v": 1}
    )
    heard = dialect.hear("lids", payload, NOW)
    assert [(str(each.why), each.device) for each in heard if isinstance(each, Unsaid)] == [
        ("unit `V` cannot become `deg`, which the profile declares", "lid-1")
    ]
    assert said(heard) == [("lid-2", NOW, [1.0, None, None], "")]


def test_a_value_that_cannot_be_read_takes_nothing_else_with_it() -> None:
    dialect = SenmlDialect([place("lid-1", "lids")])
    payload = pack({"n": "angle_x", "u": "V", "v": 1}, {"n": "alarm", "v": 1}, {"n": "battery", "vs": "?", "t": -60})
    heard = dialect.hear("lids", payload, NOW)
    assert len([each for each in heard if isinstance(each, Unsaid)]) == 2
    assert said(heard) == [("lid-1", NOW, [inf, None, 1.0], "")]


def test_a_pack_of_many_instants_is_known_by_more_of_them() -> None:
    dialect = SenmlDialect([place("lid-1", "lids")])
    payload = pack({"n": "alarm", "v": 1}, {"n": "alarm", "v": 0, "t": -60})
    assert [origin for *_, origin in said(dialect.hear("lids", payload, NOW))] == [f"lid-1 alarm{HISTORY}"] * 2
