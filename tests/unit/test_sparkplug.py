"""Sparkplug B: payloads by their bytes, and edge nodes by everything that can go wrong with them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import inf, isnan, nan

import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from edge.decoders.dialect import Strange
from edge.decoders.sparkplug import ANSWER, HELD_MOST, PAUSE, PAUSE_MOST, REORDER, SparkplugHost
from edge.decoding import Decoding
from edge.hearing import Heard, Hearing, Said, Unsaid
from edge.installed import Installed
from edge.profile import Field, Head, Profile
from rules.declared import Refused
from rules.district import Device, PlainJson, Sparkplug
from rules.samples import Quality
from wire.batch import Malformed
from wire.clock import NANOSECONDS, Clock, from_iso
from wire.counted import Counted
from wire.sparkplug import (
    MAX_BYTES,
    MAX_METRICS,
    Datatype,
    Metric,
    Payload,
    Value,
    decode,
    encode,
    is_online,
    rebirth,
    signed,
    state,
)

NOW = from_iso("2026-06-18T03:10:00Z")
SECOND = NANOSECONDS
MILLISECOND = NANOSECONDS // 1000
Told = tuple[str, int, tuple[float | None, ...] | Quality]

# Field numbers and wire types of sparkplug_b.proto; a tag is number * 8 + type (0 varint, 2 length, 5 four bytes).
STAMP = "bb f7 d3 c5 ed 33"  # varint 1781752200123, seven bits a byte and the least first
NBIRTH = bytes.fromhex(
    f"08 {STAMP}"  # Payload.timestamp (1)
    f"12 12  0a 05 62 64 53 65 71  18 {STAMP}  20 04  58 07"  # bdSeq: datatype Int64, long_value (11) is 7
    f"12 21  0a 14 4e 6f 64 65 20 43 6f 6e 74 72 6f 6c 2f 52 65 62 69 72 74 68  18 {STAMP}  20 0b  70 00"
    # "Node Control/Rebirth": datatype Boolean, boolean_value (14) is false
    f"12 18  0a 05 4c 65 76 65 6c  10 03  18 {STAMP}  20 02  50 ff ff ff ff 0f"
    # "Level" is alias 3: datatype Int16, int_value (10) is -1 in 32 bits
    f"12 16  0a 04 4c 61 6d 70  10 04  18 {STAMP}  20 09  65 00 00 00 3f"
    # "Lamp" is alias 4: datatype Float, float_value (12) is 0.5
    f"12 13  0a 05 54 61 62 6c 65  18 {STAMP}  20 10  8a 01 00"
    # "Table": datatype DataSet, dataset_value (17) is empty
    f"12 10  0a 01 58  18 {STAMP}  20 0a  28 01  38 01"  # "X": Double, is_historical (5), is_null (7), no value
    "18 00"  # Payload.seq (3)
)


def test_the_bytes_of_a_birth() -> None:
    at = from_iso("2026-06-18T03:10:00.123Z")
    assert decode(NBIRTH) == Payload(
        at,
        0,
        (
            Metric("bdSeq", None, at, Datatype.INT64, value=7),
            Metric("Node Control/Rebirth", None, at, Datatype.BOOLEAN, value=False),
            Metric("Level", 3, at, Datatype.INT16, value=-1),
            Metric("Lamp", 4, at, Datatype.FLOAT, value=0.5),
            Metric("Table", None, at, 16),
            Metric("X", None, at, Datatype.DOUBLE, is_historical=True, is_null=True),
        ),
    )
    assert decode(NBIRTH).bd_seq == 7


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        (Datatype.INT8, -128),
        (Datatype.INT16, -2),
        (Datatype.INT32, -(2**31)),
        (Datatype.INT64, -(2**63)),
        (Datatype.UINT8, 255),
        (Datatype.UINT32, 2**32 - 1),
        (Datatype.UINT64, 2**64 - 1),
        (Datatype.FLOAT, 0.25),
        (Datatype.DOUBLE, 0.1),
        (Datatype.BOOLEAN, True),
        (Datatype.STRING, "offen"),
        (Datatype.TEXT, "开"),
        (Datatype.DATE_TIME, 1781752200123),
    ],
)
def test_values_cross_as_they_are(datatype: Datatype, value: Value) -> None:
    sent = Payload(NOW, 255, (Metric("m", 9, NOW, datatype, is_transient=True, value=value),))
    assert decode(encode(sent)) == sent


def test_a_negative_integer_is_read_whether_its_field_or_only_its_type_is_filled() -> None:
    for raw in (0xFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, -1):
        assert signed(raw, Datatype.INT8) == -1
    assert signed(0x7F, Datatype.INT8) == 127
    assert signed(0xFFFF, Datatype.UINT16) == 0xFFFF
    assert signed(0xFFFF, 0) == 0xFFFF
    assert signed("-1", Datatype.INT8) == "-1"
    assert signed(True, Datatype.INT8) is True


@pytest.mark.parametrize(
    "payload",
    [
        NBIRTH[:-1] + b"\x80",
        NBIRTH[:-4],
        b"\x12\xff",
        b"{}",
        b"\x12\x03\x0a\x01\xff",  # a name that is not UTF-8
        b"\x12\x06\x0a\x01a\x7a\x01\xff",  # a value that is not
        b"\x12\x02\x50\x01",  # neither name nor alias
        b"\x18\x80\x02",  # seq 256
        b"\x12\x02\x10\x01" * (MAX_METRICS + 1),
        b"\x2a" + b"\x80\x80\x40" + bytes(MAX_BYTES),  # a body of one MiB
    ],
)
def test_garbage_is_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        decode(payload)


@given(st.binary(max_size=60) | st.tuples(st.integers(0, len(NBIRTH) - 1), st.binary(min_size=1, max_size=4)))
@settings(max_examples=300)
def test_bytes_are_a_payload_or_malformed(garbage: bytes | tuple[int, bytes]) -> None:
    if isinstance(garbage, tuple):
        at, new = garbage
        garbage = NBIRTH[:at] + new + NBIRTH[at + len(new) :]
    with suppress(Malformed):
        assert isinstance(decode(garbage), Payload)


def test_a_metric_that_is_null_has_no_value_whatever_else_it_says() -> None:
    assert decode(bytes.fromhex("12 07  0a 01 58  38 01  50 05")).metrics == (Metric("X", is_null=True),)


def test_a_stamp_that_no_clock_says_stands_at_the_end_of_them() -> None:
    assert decode(encode(Payload(2**64 * 1000))).at == 2**62


def test_commands_and_state_as_the_specification_writes_them() -> None:
    assert rebirth(NOW) == bytes.fromhex(
        "08 c0 f6 d3 c5 ed 33"
        "12 21  0a 14 4e 6f 64 65 20 43 6f 6e 74 72 6f 6c 2f 52 65 62 69 72 74 68  18 c0 f6 d3 c5 ed 33  20 0b  70 01"
    )
    assert state(online=True, at=NOW) == b'{"online":true,"timestamp":1781752200000}'
    assert [is_online(state(each, NOW)) for each in (True, False)] == [True, False]
    for garbage in (b"OFFLINE", b"{}", b'{"online":1,"timestamp":0}'):
        with pytest.raises(Malformed):
            is_online(garbage)


def profile(*, on_change: bool = False) -> Profile:
    head = Head("pump", "power_meter", "M", "X", "none", "sparkplug", 60.0, reports_on_change=on_change)
    fields = (
        Field("level", "m", "Level", scale=0.001),
        Field("power", "W", "Power"),
        Field("door", "1", "Door", words={"open": 1.0, "shut": 0.0}),
    )
    return Profile(head, field=fields)


def place(device: str, node: str = "n1", name: str = "", *, on_change: bool = False, first_row: int = 0) -> Installed:
    wire = Sparkplug("city", node, device)
    there = Device(name or device or node, "power_meter", "pump", "gw", "s", "a", "0120", 0.0, 0.0, wire)
    return Installed(there, profile(on_change=on_change), np.arange(first_row, first_row + 3, dtype="i4"))


class Node:
    """An edge node that writes what it is told to, with a sequence of its own; its clock is ``at``, ours is ``now``."""

    def __init__(self, host: SparkplugHost, name: str = "n1") -> None:
        self.host = host
        self.name = name
        self.seq = 0
        self.at = self.now = NOW

    def wait(self, span: int) -> None:
        self.at += span
        self.now += span

    def write(self, kind: str, device: str, *metrics: Metric) -> tuple[str, bytes]:
        seq, self.seq = self.seq, (self.seq + 1) % 256
        topic = f"spBv1.0/city/{kind}/{self.name}" + (f"/{device}" if device else "")
        return topic, encode(Payload(self.at, seq, metrics))

    def birth(self, *metrics: Metric, bd_seq: int = 0) -> tuple[str, bytes]:
        self.seq = 0
        return self.write("NBIRTH", "", Metric("bdSeq", None, self.at, Datatype.INT64, value=bd_seq), *metrics)

    def device_birth(self, device: str = "d1", level: int = 0) -> tuple[str, bytes]:
        return self.write(
            "DBIRTH",
            device,
            Metric("Level", 1, self.at, Datatype.INT16, value=level),
            Metric("Power", 2, self.at, Datatype.FLOAT, value=0.0),
            Metric("Door", 3, self.at, Datatype.STRING, value="shut"),
            Metric("Table", 4, self.at, 16),
        )

    def death(self, bd_seq: int | None) -> tuple[str, bytes]:
        metrics = () if bd_seq is None else (Metric("bdSeq", None, self.at, Datatype.INT64, value=bd_seq),)
        return f"spBv1.0/city/NDEATH/{self.name}", encode(Payload(self.at, None, metrics))

    def level(self, value: int, *, at: int | None = None, is_historical: bool = False) -> tuple[str, bytes]:
        """Write data as they mostly are: by alias, without a datatype, a negative number in 32 bits."""
        metric = Metric("", 1, self.at if at is None else at, is_historical=is_historical, value=value % 2**32)
        return self.write("DDATA", "d1", metric)

    def tell(self, *messages: tuple[str, bytes]) -> list[Told]:
        return told([heard for message in messages for heard in self.host.hear(*message, self.now) or ()])

    def expire(self) -> list[Told]:
        return told(self.host.expire(self.now))

    def due(self) -> int | None:
        return self.host.due

    def asked(self) -> int:
        """How often births were asked for since the last look."""
        wanted = (f"spBv1.0/city/NCMD/{self.name}", rebirth(self.now), False)
        return sum(message == wanted for message in self.host.outgoing())


def told(heard: Sequence[Heard]) -> list[Told]:
    """Shorten what was said: device, time, and values (None: not told) or what is wrong with all of them."""
    short: list[Told] = []
    for said in heard:
        assert isinstance(said, Said)
        assert said.taken_at is not None
        name, at = said.place.device.id, said.taken_at
        if said.values is None:
            short.append((name, at, said.quality))
        else:
            short.append((name, at, tuple([None if isnan(value) else value for value in said.values])))
    return short


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def node(counted: Counted) -> Node:
    return Node(SparkplugHost([place("d1"), place("d2")], "gw-1", NOW, counted))


@pytest.fixture
def born(node: Node) -> Node:
    node.tell(node.birth(), node.device_birth("d1"), node.device_birth("d2"))
    node.wait(SECOND)
    return node


def test_it_hears_each_message_of_its_nodes_and_its_own_state() -> None:
    host = SparkplugHost([place("d1"), place("d2"), place("", "n2")], "gw-1", NOW)
    assert set(host.subscriptions) == {
        *(f"spBv1.0/city/{kind}/{node}" for kind in ("NBIRTH", "NDEATH", "NDATA") for node in ("n1", "n2")),
        *(f"spBv1.0/city/{kind}/{node}/+" for kind in ("DBIRTH", "DDEATH", "DDATA") for node in ("n1", "n2")),
        "spBv1.0/STATE/gw-1",
    }
    assert host.will == ("spBv1.0/STATE/gw-1", b'{"online":false,"timestamp":1781752200000}')
    assert host.owns("spBv1.0/city/NBIRTH/n1")
    assert not host.owns("application/1/device/2/event/up")
    topics = ("spBv1.0/city/DDATA/n1/d2", "spBv1.0/city/NDATA/n2", "spBv1.0/city/NDATA/n1", "spBv1.0/STATE/gw-1")
    assert [host.device_of(topic) for topic in topics] == ["d2", "n2", "", ""]
    nobody = Installed(
        Device("x", "k", "p", "g", "s", "a", "c", 0, 0, PlainJson("t")), profile(), np.arange(3, dtype="i4")
    )
    assert SparkplugHost([nobody], "gw-1", NOW).subscriptions == ()


def test_names_that_would_be_filters_are_refused() -> None:
    with pytest.raises(Refused, match="device d: wire: names in Sparkplug have no"):
        SparkplugHost([place("a/b", name="d")], "gw-1", NOW)


@pytest.mark.parametrize(
    "topic", ["city/NBIRTH/n9", "city/DDATA/n1", "city/NDATA/n1/d1", "city/NCMD/n1", "STATE/other"]
)
def test_what_nobody_declared_is_strange(node: Node, topic: str) -> None:
    with pytest.raises(Strange):
        node.host.hear(f"spBv1.0/{topic}", node.birth()[1], NOW)


def test_births_and_data_by_alias_and_by_name(node: Node) -> None:
    assert node.tell(node.birth()) == []
    assert node.tell(node.device_birth(level=-5)) == [("d1", NOW, (-5.0, 0.0, 0.0))]
    node.wait(SECOND)
    assert node.tell(node.level(-1200)) == [("d1", NOW + SECOND, (-1200.0, None, None))]
    by_name = Metric("Door", None, NOW + SECOND, Datatype.STRING, value="open")
    assert node.tell(node.write("DDATA", "d1", by_name)) == [("d1", NOW + SECOND, (None, None, 1.0))]
    assert node.asked() == 0


def test_the_metrics_of_a_node_itself() -> None:
    node = Node(SparkplugHost([place("")], "gw-1", NOW))
    assert node.tell(node.birth(Metric("Power", 7, NOW, Datatype.DOUBLE, value=60.0))) == [
        ("n1", NOW, (None, 60.0, None))
    ]
    node.wait(SECOND)
    assert node.tell(node.write("NDATA", "", Metric("", 7, node.at, value=61.0))) == [
        ("n1", node.at, (None, 61.0, None))
    ]
    node.wait(ANSWER)
    assert node.expire() == []


def test_an_alias_belongs_to_its_device(born: Node) -> None:
    born.tell(born.write("DBIRTH", "d2", Metric("Power", 1, born.at, Datatype.FLOAT, value=1.0)))
    assert born.tell(born.level(3)) == [("d1", born.at, (3.0, None, None))]
    born.wait(SECOND)
    assert born.tell(born.write("DDATA", "d2", Metric("", 1, born.at, value=2.0))) == [
        ("d2", born.at, (None, 2.0, None))
    ]


def test_each_instant_of_a_message_is_told_for_itself_in_order(born: Node) -> None:
    at = born.at
    metrics = (Metric("", 1, at, value=1), Metric("", 2, at - MILLISECOND, value=2.0), Metric("", 3, at, value="open"))
    message = born.write("DDATA", "d1", *metrics)
    heard = born.host.hear(*message, born.now) or ()
    assert told(heard) == [("d1", at - MILLISECOND, (None, 2.0, None)), ("d1", at, (1.0, None, 1.0))]
    assert [each.origin for each in heard if isinstance(each, Said)] == ["d1 power", "d1 level door"]


def test_a_metric_without_a_time_has_its_messages_and_a_message_without_that_of_its_receipt(born: Node) -> None:
    born.at -= 5 * SECOND
    assert born.tell(born.write("DDATA", "d1", Metric("", 1, value=1))) == [("d1", born.at, (1.0, None, None))]
    topic = "spBv1.0/city/DDATA/n1/d1"
    untimed = encode(Payload(None, born.seq, (Metric("", 1, value=2),)))
    assert born.tell((topic, untimed)) == [("d1", born.now, (2.0, None, None))]


def test_the_sequence_goes_on_after_255_and_counts_devices_that_nobody_declared(born: Node) -> None:
    assert born.seq == 3
    for number in range(600):
        born.wait(MILLISECOND)
        kind = "DBIRTH" if number % 7 == 0 else "DDATA"
        if number % 2:
            assert born.tell(born.write(kind, "undeclared", Metric("m", 1, value=1))) == []
        else:
            assert len(born.tell(born.level(number))) == 1
    assert born.asked() == 0


def test_messages_out_of_order_wait_for_those_before_them(born: Node) -> None:
    first, second, third = (born.level(level, at=born.at + level) for level in (1, 2, 3))
    assert born.tell(third, second) == []
    assert born.due() == born.now + REORDER
    born.now += REORDER - 1
    assert [values for *_, values in born.tell(first)] == [(level, None, None) for level in (1.0, 2.0, 3.0)]
    assert born.due() is None
    assert born.asked() == 0


def test_when_the_missing_message_does_not_come_births_are_asked_for(born: Node, counted: Counted) -> None:
    lost, held = born.level(1), born.level(2)
    assert born.tell(held) == []
    born.wait(REORDER)
    assert born.expire() == []
    assert born.asked() == 1
    # Nothing is read until the births are there: an alias may stand for something else by then.
    assert born.tell(lost, born.level(4)) == []
    assert born.tell(born.birth()) == []
    assert born.tell(born.device_birth(level=5)) == [("d1", born.at, (5.0, 0.0, 0.0))]
    born.wait(SECOND)
    assert born.tell(born.level(6)) == [("d1", born.at, (6.0, None, None))]
    assert counted.snapshot() == {
        "edge_sparkplug_births_asked_total": 1,
        "edge_sparkplug_dropped_messages_total": 1,
        "edge_sparkplug_late_messages_total": 2,
        "edge_sparkplug_skipped_values_total": 3,
    }


def test_not_more_than_a_bound_waits(born: Node, counted: Counted) -> None:
    born.level(0)
    waiting = [born.level(level) for level in range(1, HELD_MOST + 2)]
    assert born.tell(*waiting[:-1]) == []
    assert born.asked() == 0
    assert born.tell(waiting[-1]) == []
    assert born.asked() == 1
    assert counted["edge_sparkplug_dropped_messages_total"] == HELD_MOST + 1


def test_what_waits_in_vain_is_given_up_also_when_the_next_message_tells_so(born: Node) -> None:
    missing, held = born.level(1), born.level(2)
    born.tell(held)
    born.wait(REORDER)
    assert born.tell(missing) == []
    assert born.asked() == 1


def test_a_message_that_comes_twice_is_late(born: Node, counted: Counted) -> None:
    first, second, third = (born.level(level, at=born.at + level) for level in (1, 2, 3))
    born.tell(first)
    assert born.tell(first, third, third) == []
    assert counted["edge_sparkplug_late_messages_total"] == 2
    assert len(born.tell(second)) == 2
    assert born.due() is None


def test_a_message_from_before_the_birth_is_late_after_it(born: Node, counted: Counted) -> None:
    born.seq = 40
    old = born.level(8)
    born.wait(MILLISECOND)
    born.tell(born.birth(), born.device_birth("d1"), born.device_birth("d2"))
    assert born.tell(old) == []
    assert counted["edge_sparkplug_late_messages_total"] == 1
    assert born.due() is None


def test_a_loss_is_a_loss_also_after_the_nodes_clock_was_set_back(born: Node) -> None:
    born.wait(REORDER)
    born.at -= 3600 * SECOND
    assert len(born.tell(born.level(1))) == 1
    born.level(2)
    assert born.tell(born.level(3)) == []
    born.wait(REORDER)
    born.expire()
    assert born.asked() == 1


def test_the_loss_of_half_a_round_is_a_loss(born: Node) -> None:
    for _ in range(200):
        born.level(0)
    born.wait(SECOND)
    assert born.tell(born.level(1)) == []
    born.wait(REORDER)
    born.expire()
    assert born.asked() == 1


def test_what_comes_before_a_birth_waits_for_it(node: Node, counted: Counted) -> None:
    birth = node.birth()
    node.at += MILLISECOND
    assert node.tell(node.device_birth(level=1), node.level(2, at=node.at + 1)) == []
    assert [values for *_, values in node.tell(birth)] == [(1.0, 0.0, 0.0), (2.0, None, None)]
    assert node.asked() == 0


def test_what_may_have_been_sent_before_a_birth_is_not_read_after_it(born: Node, counted: Counted) -> None:
    born.host.connected(born.now)
    assert born.tell(born.level(1)) == []  # 3 in its sequence, and in the birth's millisecond
    assert len(born.tell(born.birth(), born.device_birth("d1"), born.device_birth("d2"))) == 2
    assert counted["edge_sparkplug_late_messages_total"] == 1


def test_what_waits_for_a_birth_and_cannot_follow_it_is_late(node: Node, counted: Counted) -> None:
    birth = node.birth()
    node.at += MILLISECOND
    for node.seq in (0, HELD_MOST + 1, 255):
        assert node.tell(node.level(1)) == []
    node.tell(birth)
    assert counted["edge_sparkplug_late_messages_total"] == 3
    assert node.due() == node.now + ANSWER  # nothing is held


def test_data_before_a_birth_ask_for_it(node: Node, counted: Counted) -> None:
    node.seq = 17
    assert node.tell(node.level(1)) == []
    node.wait(REORDER)
    assert node.expire() == []
    assert node.asked() == 1
    assert counted["edge_sparkplug_dropped_messages_total"] == 1


def test_data_of_a_device_before_its_birth_ask_for_it(node: Node, counted: Counted) -> None:
    node.tell(node.birth())
    assert node.tell(node.level(1)) == []
    assert node.asked() == 1
    assert counted["edge_sparkplug_dropped_messages_total"] == 1


@pytest.mark.parametrize("metric", [Metric("", 99, NOW, value=1), Metric("Pump", None, NOW, value=1)])
def test_a_metric_that_no_birth_told_of_asks_for_births_and_the_rest_is_read(born: Node, metric: Metric) -> None:
    known = Metric("", 1, born.at, value=1)
    assert born.tell(born.write("DDATA", "d1", metric, known)) == [("d1", born.at, (1.0, None, None))]
    assert born.asked() == 1
    assert born.tell(born.level(2, at=born.at + 1)) != []  # the sequence is whole, so the known ones go on


def test_that_births_are_wanted_is_told_once(born: Node) -> None:
    structlog.reset_defaults()
    with capture_logs() as logs:
        for _ in range(3):
            born.tell(born.write("DDATA", "d1", Metric("", 99, born.at, value=1)))
    assert [(line["event"], line["node"]) for line in logs] == [("sparkplug births wanted", "n1")]


def test_an_alias_of_two_names_stands_for_neither(node: Node) -> None:
    metrics = (Metric(name, 1, NOW, Datatype.INT16, value=1) for name in ("Level", "Power"))
    node.tell(node.birth(), node.write("DBIRTH", "d1", *metrics))
    assert node.tell(node.level(2, at=NOW + 1)) == []
    assert node.asked() == 1


def test_births_are_asked_for_seldom_and_ever_more_so_while_they_do_not_help(born: Node) -> None:
    def pauses(count: int) -> Iterator[int]:
        for _ in range(count):
            asked = born.now
            while True:
                born.tell(born.write("DDATA", "d1", Metric("", 99, value=1)))
                if born.asked():
                    break
                born.wait(SECOND)
            born.tell(born.birth(), born.device_birth())
            yield (born.now - asked) // SECOND

    pause = PAUSE // SECOND
    assert list(pauses(4)) == [0, pause, 2 * pause, 4 * pause]
    # Births that helped for a while begin it anew.
    born.wait(PAUSE_MOST)
    assert list(pauses(2)) == [0, pause]


def test_a_node_that_does_not_answer_is_asked_again_and_what_is_not_born_is_stale_once(node: Node) -> None:
    node.host.connected(node.now)
    assert node.host.outgoing() == [
        ("spBv1.0/STATE/gw-1", b'{"online":true,"timestamp":1781752200000}', True),
        ("spBv1.0/city/NCMD/n1", rebirth(node.now), False),
    ]
    asked, stale = [], []
    for second in range(1, 200):
        node.wait(SECOND)
        if (node.due() or node.now) <= node.now:
            stale += [(second, *said) for said in node.expire()]
            asked += [second] * node.asked()
    pause = PAUSE // SECOND
    assert asked == [pause * times for times in (1, 3, 7, 15, 31)]
    until = ANSWER // SECOND
    assert stale == [(until, name, NOW + ANSWER, Quality.BAD_STALE) for name in ("d1", "d2")]


def test_a_node_that_goes_on_without_births_is_stale_and_asked_steadily(born: Node) -> None:
    born.level(0)
    asked, stale = [], []
    for second in range(50):
        stale += [(second, name) for name, *_ in born.tell(born.level(second))]
        asked += [second] * born.asked()
        born.wait(SECOND)
    lost, until, pause = (span // SECOND for span in (REORDER, ANSWER, PAUSE))
    assert asked == [lost, *range(lost + pause, 50, pause)]
    assert stale == [(lost + until, name) for name in ("d1", "d2")]


def test_a_device_that_is_not_born_with_its_node_is_stale(node: Node) -> None:
    node.tell(node.birth(), node.device_birth("d1"))
    assert node.due() == NOW + ANSWER
    node.wait(ANSWER)
    assert node.expire() == [("d2", node.now, Quality.BAD_STALE)]
    assert node.due() is None


def test_a_device_that_died_is_stale_once_until_it_is_born_again(born: Node) -> None:
    assert born.tell(born.write("DDEATH", "d1")) == [("d1", born.at, Quality.BAD_STALE)]
    born.wait(SECOND)
    assert born.tell(born.level(1)) == []
    assert born.asked() == 1
    assert born.tell(born.write("DDEATH", "d1")) == []
    assert born.tell(born.death(0)) == [("d2", born.now, Quality.BAD_STALE)]
    born.wait(SECOND)
    assert [name for name, *_ in born.tell(born.birth(bd_seq=1), born.device_birth("d1"))] == ["d1"]
    assert born.tell(born.write("DDEATH", "d1")) == [("d1", born.at + 1, Quality.BAD_STALE)]


def test_the_death_of_a_node_makes_all_its_devices_stale(born: Node) -> None:
    assert born.tell(born.death(0)) == [(name, born.now, Quality.BAD_STALE) for name in ("d1", "d2")]
    assert born.tell(born.death(0)) == []
    assert born.due() is None


def test_the_will_of_an_older_session_is_passed_over(born: Node, counted: Counted) -> None:
    born.tell(born.birth(bd_seq=8), born.device_birth())
    assert born.tell(born.death(7)) == []
    assert counted["edge_sparkplug_old_deaths_total"] == 1
    assert born.tell(born.level(1, at=born.at + 1)) != []
    assert len(born.tell(born.death(8))) == 2


@pytest.mark.parametrize(("is_lost", "bd_seq"), [(False, None), (True, None), (True, 3)])
def test_a_death_is_believed_where_nothing_speaks_against_it(born: Node, is_lost: bool, bd_seq: int | None) -> None:
    if is_lost:
        born.host.connected(born.now)  # its birth may have been missed
    assert len(born.tell(born.death(bd_seq))) == 2
    assert born.due() is None


def test_what_is_held_dies_with_its_node(born: Node, counted: Counted) -> None:
    born.level(1)
    born.tell(born.level(2), born.death(0))
    assert counted["edge_sparkplug_dropped_messages_total"] == 1
    assert born.due() is None


def test_a_node_whose_clock_is_ahead_is_stale_after_its_last_word(born: Node) -> None:
    born.at += 20 * SECOND
    born.tell(born.level(1))
    assert born.tell(born.death(0))[0] == ("d1", born.at + 1, Quality.BAD_STALE)


def test_history_has_its_own_times_and_never_becomes_the_present(born: Node, counted: Counted) -> None:
    past = [born.level(level, at=NOW - level * SECOND, is_historical=True) for level in (3, 2)]
    assert born.tell(*past) == [("d1", NOW - level * SECOND, (level, None, None)) for level in (3.0, 2.0)]
    # The birth said how it was at NOW: what claims to be newer and of the past is not the present, whatever its time.
    assert born.tell(born.level(9, at=NOW + 1 * MILLISECOND, is_historical=True)) == []
    assert counted["edge_sparkplug_refused_history_total"] == 1
    assert born.tell(born.level(0, at=NOW, is_historical=True)) == []  # known
    metrics = (Metric("", 1, born.at - 5, is_historical=True, value=1), Metric("", 1, born.at, value=2))
    both = born.write("DDATA", "d1", *metrics)
    assert [values for *_, values in born.tell(both)] == [(1.0, None, None), (2.0, None, None)]
    assert counted["edge_sparkplug_refused_history_total"] == 1


def test_history_does_not_bring_a_dead_device_back(born: Node) -> None:
    born.tell(born.write("DDEATH", "d1"))
    empty = born.write("DBIRTH", "d1", Metric("Level", 1, NOW - 1, Datatype.INT16, value=1))
    assert born.tell(empty, born.level(1, at=NOW - 2, is_historical=True)) == [
        ("d1", NOW - MILLISECOND, (1.0, None, None))
    ]
    assert born.tell(born.write("DDEATH", "d1")) == []


def test_a_birth_does_not_tell_again_what_is_known(born: Node) -> None:
    told_at = born.at
    born.tell(born.level(1))
    born.wait(60 * SECOND)
    metrics = (
        Metric("Level", 1, told_at, Datatype.INT16, value=1),
        Metric("Power", 2, born.at - SECOND, Datatype.FLOAT, value=5.0),
    )
    again = born.write("DBIRTH", "d1", *metrics)
    assert born.tell(again) == [("d1", born.at - SECOND, (None, 5.0, None))]


def test_a_late_value_does_not_make_a_birth_tell_again(born: Node) -> None:
    newest = born.at
    born.tell(born.level(1), born.level(2, at=newest - MILLISECOND))
    born.wait(SECOND)
    assert born.tell(born.write("DBIRTH", "d1", Metric("Level", 1, newest, Datatype.INT16, value=1))) == []


def test_a_clock_that_once_was_far_ahead_hides_no_birth(born: Node) -> None:
    born.tell(born.level(1, at=born.at + 86400 * SECOND))
    born.wait(SECOND)
    assert born.tell(born.device_birth(level=2)) == [("d1", born.at, (2.0, 0.0, 0.0))]


def test_a_birth_says_of_what_reports_on_change_that_it_is_so_now() -> None:
    node = Node(SparkplugHost([place("d1", on_change=True)], "gw-1", NOW))
    node.tell(node.birth(), node.device_birth(), node.death(0))
    node.wait(3600 * SECOND)
    metrics = (
        Metric("Level", 1, NOW, Datatype.INT16, value=0),
        Metric("Door", 3, NOW - 86400 * SECOND, Datatype.STRING, value="open"),
    )
    assert node.tell(node.birth(bd_seq=1), node.write("DBIRTH", "d1", *metrics)) == [("d1", node.at, (0.0, None, 1.0))]


def test_null_is_told_and_has_no_value(born: Node, counted: Counted) -> None:
    metrics = (Metric("", 1, born.at, is_null=True), Metric("", 2, born.at, value=nan), Metric("", 3, born.at))
    heard = born.host.hear(*born.write("DDATA", "d1", *metrics), born.now) or ()
    assert told(heard) == [("d1", born.at, (inf, inf, inf))]
    hearing = Hearing(Clock(wall=0, city=born.now, speed=1e-30), counted)
    block = Decoding().block(hearing.readings(heard, "topic"))
    assert block.quality.tolist() == [Quality.BAD_SENTINEL] * 3
    assert counted["edge_sparkplug_skipped_values_total"] == 2 + 1  # the tables of two births, and the door


def test_a_text_that_is_no_number_is_told_of_and_has_no_value(born: Node) -> None:
    metrics = (Metric("", 3, born.at, value="ajar"), Metric("", 1, born.at, value=4))
    unsaid, said = born.host.hear(*born.write("DDATA", "d1", *metrics), born.now) or ()
    assert isinstance(unsaid, Unsaid)
    assert (str(unsaid.why), unsaid.device) == ("`Door` is 'ajar', not a number; `words` has open, shut", "d1")
    assert told([said]) == [("d1", born.at, (4.0, None, inf))]


def test_two_devices_may_be_read_from_one(counted: Counted) -> None:
    node = Node(SparkplugHost([place("d1", name="lamp"), place("d1", name="lid")], "gw-1", NOW, counted))
    assert [name for name, *_ in node.tell(node.birth(), node.device_birth())] == ["lamp", "lid"]


def test_what_is_no_payload_of_a_node_is_malformed_and_changes_nothing(born: Node) -> None:
    topic = "spBv1.0/city/DDATA/n1/d1"
    for payload, words in ((b"\xff", "not a Sparkplug payload"), (encode(Payload(NOW)), "`seq` is missing")):
        with pytest.raises(Malformed, match=words):
            born.host.hear(topic, payload, born.now)
    assert born.tell(born.level(1)) == [("d1", born.at, (1.0, None, None))]


def test_a_new_connection_asks_everybody_anew_but_not_more_often_than_seldom(born: Node) -> None:
    born.host.connected(born.now)
    assert born.asked() == 1
    born.wait(SECOND)
    born.host.connected(born.now)
    assert born.asked() == 0
    assert born.due() == born.now - SECOND + PAUSE
    born.tell(born.birth(), born.device_birth("d1"), born.device_birth("d2"))
    assert born.due() is None


def test_a_will_of_its_own_that_comes_late_is_answered_with_its_birth(node: Node) -> None:
    topic, offline = node.host.will
    assert node.host.hear(topic, offline, NOW) is None
    assert node.host.outgoing() == [(topic, b'{"online":true,"timestamp":1781752200000}', True)]
    assert node.host.hear(topic, state(online=True, at=NOW), NOW) is None
    assert node.host.outgoing() == []


@given(st.data(), st.integers(0, 255), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_stream_shuffled_within_the_window_says_the_same(data: st.DataObject, lead: int, stands_still: bool) -> None:
    """Whatever the order of arrival within the bounds, and also over the end of the sequence."""

    def messages(node: Node) -> tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]]:
        births = [node.birth(), node.device_birth()]
        before = [node.write("DDATA", "undeclared") for _ in range(lead)]
        stream = []
        for number in range(24):
            node.wait(0 if stands_still else MILLISECOND)
            match number % 8:
                case 3:
                    stream.append(node.device_birth(level=number))
                case 5:
                    stream.append(node.write("DDEATH", "d1"))
                    stream.append(node.device_birth(level=number))
                case _:
                    stream.append(node.level(number))
        return births + before, stream

    shuffled = data.draw(st.permutations(range(27)))
    in_order, mixed = (Node(SparkplugHost([place("d1")], "gw-1", NOW)) for _ in range(2))
    births, stream = messages(in_order)
    expected = in_order.tell(*births, *stream)
    births, stream = messages(mixed)
    assert mixed.tell(*births, *(stream[number] for number in shuffled)) == expected
    assert len(expected) >= 20
    assert mixed.asked() == 0
