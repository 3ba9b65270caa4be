"""Messages of JSON: whose they are, of which time, their history; and messages that are several readings."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
import structlog
from structlog.testing import capture_logs

from edge import agent, hearing
from edge.agent import HISTORY_KNOWN, MESSAGES_KNOWN, Agent, Tick
from edge.decoders.chirpstack import ChirpstackDialect
from edge.decoders.payload import HISTORY_MOST
from edge.decoders.plain import OBJECTS_MOST
from edge.installed import Installed
from edge.profile import Field, Head, History, Message, Profile
from edge.reading import Reading
from edge.sources import MqttSource
from gateway.config import GatewayConfig
from rules.alert import Phase
from rules.declared import Refused, decode
from rules.district import Chirpstack, Device, Frigate, Onvif, PlainJson, Pushed, Senml, Sparkplug, ThingsStack
from rules.engine import Engine
from rules.samples import Point, PointTable, Quality
from streetwarden.fast.clock import VirtualClock
from tests.readings import block_of
from tests.rule_text import rule
from wire.clock import NANOSECONDS, Clock, from_iso, iso
from wire.counted import Counted

Wire = Chirpstack | ThingsStack | Senml | PlainJson | Sparkplug | Onvif | Frigate | Pushed

NOW = from_iso("2026-06-18T03:12:45Z")
LEVEL = (Field("level", "m", "level", range=(-1.0, 9.0)), Field("battery", "%", "battery"))
STACK = ThingsStack("covers", "city", "mh-0042", "24e124136b000042")
STACK_TOPIC = "v3/covers@city/devices/mh-0042/up"


def profile(
    protocol: Literal["json", "lorawan"],
    field: tuple[Field, ...] = LEVEL,
    message: Message = Message(),  # noqa: B008 - it is frozen
    history: History | None = None,
) -> Profile:
    head = Head("p", "gauge", "M", "X", "http://example.org", protocol, 600.0)
    return Profile(head, field=field, message=message, history=history)


PLAIN = profile("json", message=Message(time="time", device="name"))
WITH_HISTORY = profile("lorawan", history=History("history"))


def place(wire: Wire, of: Profile = PLAIN, name: str = "d", first_row: int = 0) -> Installed:
    device = Device(name, "gauge", of.id, "gw", "s", "a", "0", 0.0, 0.0, wire)
    return Installed(device, of, np.arange(first_row, first_row + len(of.field), dtype="i4"))


class Gateway:
    """A source of some devices, and what it counted."""

    def __init__(self, *places: Installed, elsewhere: tuple[Device, ...] = ()) -> None:
        self.clock = VirtualClock.at(NOW)
        self.counted = Counted()
        self.source = MqttSource(places, self.clock, self.counted, elsewhere)

    def take(self, topic: str, message: object, settle: Callable[[], None] | None = None) -> list[Reading]:
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        return self.source.take(topic, payload, settle)

    def told(self, topic: str, message: object) -> list[tuple[str, int, dict[str, float]]]:
        """Device, seconds before now, and numbers of each reading."""
        return [told(reading) for reading in self.take(topic, message)]


def told(reading: Reading) -> tuple[str, int, dict[str, float]]:
    block, metrics = block_of(reading), [field.metric for field in reading.place.profile.field]
    first = reading.place.rows[0]
    values = {metrics[n - first]: v for n, v in zip(block.point.tolist(), block.value.tolist(), strict=True)}
    return reading.place.device.id, (NOW - reading.taken_at) // NANOSECONDS, values


def ago(seconds: int) -> str:
    return iso(NOW - seconds * NANOSECONDS)


def test_a_camera_whose_clock_is_ahead_is_heard_again_and_again() -> None:
    """What is older than known is a replay; but of stamps that nobody believes, none is older than another."""
    field = Field("wet", "1", "Data.In", topic="Wet")
    of = Profile(Head("p", "gauge", "M", "X", "http://example.org", "onvif", 600.0), field=(field,))
    gateway = Gateway(place(Onvif("cam"), of))
    for day in range(30, 0, -1):
        message = {"UtcTime": f"2036-06-{day:02d}T00:00:00Z", "Source": {}, "Data": {"In": day % 2}}
        (reading,) = gateway.take("cam/onvif-ej/Wet/&1", message)
        assert (reading.quality, reading.told) == (Quality.BAD_CLOCK, (float(day % 2),))
    assert gateway.counted.snapshot() == {"edge_clock_fault_messages_total": 30}


def test_a_template_that_is_none_is_refused_in_the_configuration() -> None:
    text = 'gateway = "g"\ndistrict = "d"\ndata = "x"\nbroker = { host = "h", port = 1 }\nchirpstack_topic = "up/{x}"'
    with pytest.raises(Refused, match=r"write one as in `application/{application}"):
        decode(text, GatewayConfig, "gateway.toml")


# The Things Stack


def stack(received_at: str | None = None, **changed: Any) -> dict[str, Any]:
    message = {"received_at": received_at or ago(5), "decoded_payload": {"level": 1.5}, "settings": {"time": ago(900)}}
    return {
        "end_device_ids": {"device_id": "mh-0042", "dev_eui": "24E124136B000042"},
        "received_at": ago(1),
        "uplink_message": message | changed,
    }


def test_the_network_servers_time_counts_and_zeros_that_are_left_out_are_what_the_profile_says() -> None:
    zeros = profile("lorawan", field=(LEVEL[0], Field("battery", "%", "battery", absent=0.0)))
    gateway = Gateway(place(STACK, zeros))
    assert gateway.source.subscriptions == ("v3/covers@city/devices/+/up",)
    assert gateway.told(STACK_TOPIC, stack()) == [("d", 5, {"level": 1.5, "battery": 0.0})]


def test_a_server_of_one_tenant_has_no_tenant_in_its_topics() -> None:
    gateway = Gateway(place(msgspec.structs.replace(STACK, tenant=""), profile("lorawan")))
    assert gateway.told("v3/covers/devices/mh-0042/up", stack()) == [("d", 5, {"level": 1.5})]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (stack(decoded_payload=None), "has the device a payload formatter?"),
        ({"uplink_message": None}, "not JSON of an uplink"),
        ({}, "has the device a payload formatter?"),
        (stack() | {"simulated": True}, "somebody made it up"),
        (stack() | {"end_device_ids": {"dev_eui": "24E124136B000043"}}, "but d has 24e124136b000042"),
        (stack(received_at="yesterday"), "`uplink_message.received_at`"),
        (stack(decoded_payload={"level": []}), r"`uplink_message.decoded_payload.level` is []"),
    ],
)
def test_an_uplink_of_the_stack_that_cannot_be_the_devices_is_refused(message: object, why: str) -> None:
    structlog.reset_defaults()
    gateway = Gateway(place(STACK, profile("lorawan")))
    with capture_logs() as logs:
        assert gateway.take(STACK_TOPIC, message) == []
    assert [(line["counter"], line["device"]) for line in logs] == [("edge_malformed_messages_total", "d")]
    assert why in logs[0]["why"]
    assert gateway.take(STACK_TOPIC, stack())


def test_a_neighbour_of_the_application_is_noticed_unless_another_gateway_has_it() -> None:
    far = place(msgspec.structs.replace(STACK, device="far"), profile("lorawan")).device
    gateway = Gateway(place(STACK, profile("lorawan")), elsewhere=(far,))
    assert gateway.take("v3/covers@city/devices/far/up", b"{") == []
    assert gateway.counted.snapshot() == {}
    assert gateway.take("v3/covers@city/devices/stranger/up", stack()) == []
    assert gateway.take("v3/other@city/devices/mh-0042/up", stack()) == []
    assert gateway.counted.snapshot() == {"edge_unknown_device_messages_total": 2}


# ChirpStack


def test_the_template_of_topics_is_a_setting_and_a_wrong_one_says_what_is_right() -> None:
    wire = Chirpstack("app", "24e124136b000042")
    dialect = ChirpstackDialect([place(wire, profile("lorawan"))], (), "lora/{application}/{dev_eui}/{event}")
    assert dialect.subscriptions == ("lora/app/+/up",)
    assert dialect.owns("lora/app/24e124136b000042/up")
    assert not dialect.owns("lora/app/24e124136b000042/join")
    for wrong in ("lora/{application}", "lora/{application}/{devEui}/{event}", "{application}/{dev_eui}/{event}/{x}"):
        with pytest.raises(ValueError, match="write one as in"):
            ChirpstackDialect([], (), wrong)


# Plain JSON


def test_several_devices_share_a_topic_by_their_names_and_a_message_may_be_a_list() -> None:
    structlog.reset_defaults()
    places = [place(PlainJson("site/7", "7001"), name="a"), place(PlainJson("site/7", "b-2"), name="b", first_row=2)]
    gateway = Gateway(*places, elsewhere=(place(PlainJson("site/7", "far")).device,))
    messages = [
        {"name": 7001, "time": ago(9), "level": 1.0},
        {"name": "stranger", "time": ago(9), "level": 1.0},
        {"name": "b-2", "time": ago(8), "level": []},
        {"name": "far", "time": ago(8), "level": 3.0},
        "nonsense",
        {"name": "b-2", "time": ago(7), "level": "2.5", "battery": 50},
    ]
    with capture_logs() as logs:
        assert gateway.told("site/7", messages) == [("a", 9, {"level": 1.0}), ("b", 7, {"level": 2.5, "battery": 50})]
    assert [(line["counter"], line["device"]) for line in logs] == [
        ("edge_unknown_device_messages_total", "stranger"),
        ("edge_malformed_messages_total", "b"),
        ("edge_malformed_messages_total", ""),
    ]
    assert gateway.take("site/7", {"name": "far", "level": 3.0}) == []
    assert gateway.counted["edge_undeclared_messages_total"] == 0


def test_what_has_a_topic_to_itself_needs_no_name_and_what_has_no_name_is_refused() -> None:
    gateway = Gateway(place(PlainJson("mine")))
    assert gateway.told("mine", {"name": "whoever", "time": ago(9), "level": 1.0}) == [("d", 9, {"level": 1.0})]
    nameless = profile("json", message=Message(time="time"))
    with pytest.raises(Refused, match=r"device d: wire: is told apart by its name `x`, but `p` has no message.device"):
        Gateway(place(PlainJson("ours", "x"), nameless))
    with pytest.raises(Refused, match="device e: wire: is the same as of d"):
        Gateway(place(PlainJson("mine")), place(PlainJson("mine"), name="e"))


@pytest.mark.parametrize(
    ("time_as", "time"),
    [("iso", "2026-06-18T11:12:35+08:00"), ("s", 1781752355), ("s", "1781752355"), ("ms", 1781752355000)],
)
def test_a_time_is_read_as_the_profile_says(time_as: Any, time: object) -> None:
    gateway = Gateway(place(PlainJson("t"), profile("json", message=Message(time="at.when", time_as=time_as))))
    assert gateway.told("t", {"at": {"when": time}, "level": 1.0}) == [("d", 10, {"level": 1.0})]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b'{"level":1', "not JSON"),
        ({"level": 1.0}, "`time` is None, not a time"),
        ({"time": 5, "level": 1.0}, "`time` is 5, not a time"),
        ({"time": ago(1), "depth": 1.0}, "`the message` has none of level, battery"),
        ([{"time": ago(1), "level": 1.0}] * (OBJECTS_MOST + 1), f"at most {OBJECTS_MOST}"),
        (7, "7 is not an object"),
    ],
)
def test_a_plain_message_that_cannot_be_read_is_told_with_its_device(message: object, why: str) -> None:
    structlog.reset_defaults()
    gateway = Gateway(place(PlainJson("t")))
    with capture_logs() as logs:
        assert gateway.take("t", message) == []
    assert [(line["counter"], line["device"]) for line in logs] == [("edge_malformed_messages_total", "d")]
    assert why in logs[0]["why"]


def test_without_a_time_a_message_is_of_its_receipt_and_only_an_id_tells_a_repeat() -> None:
    timeless = Gateway(place(PlainJson("t"), profile("json")))
    message = {"level": 1.0}
    assert timeless.told("t", message) == timeless.told("t", message) == [("d", 0, {"level": 1.0})]
    named = Gateway(place(PlainJson("t"), profile("json", message=Message(id="nr"))))
    assert named.told("t", message | {"nr": 7}) == [("d", 0, {"level": 1.0})]
    assert named.told("t", message | {"nr": 7}) == [("d", 0, {})]
    assert named.told("t", message | {"nr": 8}) == [("d", 0, {"level": 1.0})]
    assert named.counted["edge_repeated_messages_total"] == 1


def test_two_messages_of_one_instant_that_tell_different_things_are_no_repeats() -> None:
    gateway = Gateway(place(PlainJson("t")))
    assert gateway.told("t", {"time": ago(9), "level": 1.0}) == [("d", 9, {"level": 1.0})]
    (reading,) = gateway.take("t", {"time": ago(9), "battery": 50})
    assert (reading.taken_at, told(reading)[2]) == (NOW - 9 * NANOSECONDS + 1000, {"battery": 50})
    assert gateway.told("t", {"time": ago(9), "battery": 50}) == [("d", 9, {})]


ALARM = (*LEVEL, Field("alarm", "1", "alarm"))


def alarms(wire: Wire) -> tuple[Profile, str, list[object]]:
    """A profile, its topic, and messages of one second: no alarm, an alarm, none and so much battery."""
    seconds = NOW // NANOSECONDS - 9
    told: list[dict[str, object]] = [{"alarm": False}, {"alarm": True}, {"alarm": False, "battery": 50}]
    match wire:
        case Chirpstack():
            return profile("lorawan", ALARM), LORA_TOPIC, [{"time": ago(9), "object": each} for each in told]
        case Senml():
            packs: list[object] = [[{"n": n, "v": float(v), "bt": seconds} for n, v in each.items()] for each in told]  # type: ignore[arg-type]
            return Profile(profile("json").profile, field=ALARM), "t", packs
    return profile("json", ALARM, Message(time="time")), "t", [{"time": ago(9), **each} for each in told]


@pytest.mark.parametrize("wire", [Chirpstack("app", "24e124136b000042"), PlainJson("t"), Senml("t", "")])
def test_an_alarm_that_changes_within_a_second_is_heard_each_time_and_repeats_of_it_are_not(wire: Wire) -> None:
    of, topic, messages = alarms(wire)
    gateway = Gateway(place(wire, of))
    readings = [reading for message in messages for reading in gateway.take(topic, message)]
    assert [told(reading)[2]["alarm"] for reading in readings] == [0.0, 1.0, 0.0]
    at = NOW - 9 * NANOSECONDS
    assert [reading.taken_at for reading in readings] == [at, at + 1000, at + 2000]  # stored, and judged, in order
    again = Gateway(place(wire, of))
    again.source.remember([reading.message for reading in readings[:2] if reading.message])
    assert [told(reading)[2] for message in messages[:2] for reading in again.take(topic, message)] == [{}, {}]
    (third,) = again.take(topic, messages[2])
    assert third.taken_at == at + 2000
    assert [told(reading)[2] for message in messages for reading in gateway.take(topic, message)] == [{}, {}, {}]
    assert gateway.counted.snapshot() == {"edge_repeated_messages_total": 3}


def test_two_messages_with_ids_of_their_own_are_both_judged_though_their_second_is_one() -> None:
    gateway = Gateway(place(PlainJson("t"), profile("json", ALARM, Message(time="time", id="nr"))))
    messages = [{"time": ago(9), "alarm": number % 2, "nr": number} for number in range(1, 4)]
    readings = [reading for message in messages for reading in gateway.take("t", message)]
    assert [reading.taken_at - readings[0].taken_at for reading in readings] == [0, 1000, 2000]
    assert [gateway.told("t", message)[0][2] for message in messages] == [{}, {}, {}]


def test_a_field_that_cannot_be_read_is_told_once_and_takes_no_other_with_it() -> None:
    structlog.reset_defaults()
    gateway = Gateway(place(PlainJson("t"), profile("json", ALARM, Message(time="time"))))
    with capture_logs() as logs:
        for seconds in (9, 8):
            (reading,) = gateway.take("t", {"time": ago(seconds), "alarm": True, "level": "?", "battery": [1]})
            assert block_of(reading).quality.tolist() == [Quality.BAD_SENTINEL, Quality.BAD_SENTINEL, Quality.GOOD]
            assert told(reading)[2]["alarm"] == 1.0
        assert gateway.take("t", {"time": ago(7), "level": "?"}) == []
    assert [(line["why"], line["device"]) for line in logs] == [("`level` is '?', not a number", "d")]
    assert gateway.counted.snapshot() == {"edge_malformed_messages_total": 5}


def test_more_readings_of_one_device_than_are_known_are_refused_and_the_others_stand() -> None:
    gateway = Gateway(place(PlainJson("s", "a"), name="a"), place(PlainJson("s", "b"), name="b", first_row=2))
    many = [{"name": "a", "time": ago(500 - number), "level": 1.0} for number in range(MESSAGES_KNOWN + 1)]
    one = {"name": "b", "time": ago(9), "level": 2.0}
    assert gateway.told("s", [*many, one]) == [("b", 9, {"level": 2.0})]
    assert gateway.counted.snapshot() == {"edge_malformed_messages_total": 1}
    assert len(gateway.told("s", many[1:])) == MESSAGES_KNOWN
    assert [numbers for *_, numbers in gateway.told("s", many[1:])] == [{}] * MESSAGES_KNOWN


def test_of_too_many_faults_the_oldest_is_forgotten_and_the_new_one_told(monkeypatch: pytest.MonkeyPatch) -> None:
    structlog.reset_defaults()
    monkeypatch.setattr(hearing, "MOST_TOLD", 2)
    notes = Gateway(place(PlainJson("t"))).source.hearing
    with capture_logs() as logs:
        for where in ("a", "b", "c", "c", "b", "a"):
            notes.note("malformed_messages", where, "why")
    assert [line["topic"] for line in logs] == ["a", "b", "c", "a"]


def test_an_unset_clock_does_not_silence_a_device_that_says_the_same_again() -> None:
    gateway = Gateway(place(PlainJson("t")))
    beats: list[bool] = []
    for _ in range(6):
        (reading,) = gateway.take("t", {"time": "1970-01-01T00:00:00Z", "level": 1.0})
        assert gateway.told("t", {"time": "1970-01-01T00:00:00Z", "level": 1.0})[0][2] == {}  # at once: a repeat
        beats.append(reading.told is not None)
        gateway.clock.set(gateway.clock.now() + hearing.REDELIVERY + NANOSECONDS)
    assert beats == [True] * 6


def test_a_clock_that_stands_still_does_not_silence_its_device() -> None:
    gateway = Gateway(place(PlainJson("t")))
    never_set = "1970-01-01T00:00:00Z"
    readings = [gateway.take("t", {"time": never_set, "level": level})[0] for level in (1.0, 1.1, 1.0)]
    assert [reading.quality for reading in readings] == [Quality.BAD_CLOCK, Quality.BAD_CLOCK, Quality.GOOD]
    assert [reading.told is None for reading in readings] == [False, False, True]  # the third may be the first again


# History


def uplink(seconds: int, *history: object, **fields: object) -> dict[str, Any]:
    return {"time": ago(seconds), "object": {"history": list(history), **fields}}


def entry(seconds: int, level: object) -> dict[str, object]:
    return {"timestamp": NOW // NANOSECONDS - seconds, "level": level}


LORA = Chirpstack("app", "24e124136b000042")
LORA_TOPIC = "application/app/device/24e124136b000042/event/up"


def test_history_goes_first_in_its_own_order_and_never_after_the_present() -> None:
    gateway = Gateway(place(LORA, WITH_HISTORY))
    message = uplink(10, entry(1200, 2.0), entry(600, 3.0), entry(1800, 1.0), level=4.0)
    assert gateway.told(LORA_TOPIC, message) == [
        ("d", 1800, {"level": 1.0}),
        ("d", 1200, {"level": 2.0}),
        ("d", 600, {"level": 3.0}),
        ("d", 10, {"level": 4.0}),
    ]


def test_history_is_known_entry_by_entry_also_what_was_the_present_before() -> None:
    clocked = profile("json", message=Message(time="time", time_as="s"), history=History("history"))
    gateway = Gateway(place(PlainJson("t"), clocked))

    def report(seconds: int, level: float, *history: object) -> dict[str, object]:
        return {"time": NOW // NANOSECONDS - seconds, "level": level, "battery": 90, "history": history}

    assert gateway.told("t", report(1200, 2.0, entry(1800, 1.0))) == [
        ("d", 1800, {"level": 1.0}),
        ("d", 1200, {"level": 2.0, "battery": 90}),
    ]
    overlapping = report(600, 3.0, entry(1800, 1.0), entry(1200, 2.0), entry(600, 3.0))
    assert gateway.told("t", overlapping) == [
        ("d", 1800, {}),
        ("d", 1200, {}),
        ("d", 600, {"level": 3.0, "battery": 90}),
    ]
    assert gateway.counted.snapshot() == {"edge_repeated_messages_total": 2}


def test_a_bad_entry_of_history_harms_no_other() -> None:
    structlog.reset_defaults()
    gateway = Gateway(place(LORA, WITH_HISTORY))
    bad = [
        entry(1200, "high"),
        {"level": 1.0},
        "nonsense",
        {"timestamp": 946684800, "level": 1.0},  # 2000: nobody knows when that was
        entry(5, 1.0),  # not history yet
        entry(-300, 1.0),
    ]
    with capture_logs() as logs:
        assert gateway.told(LORA_TOPIC, uplink(10, *bad, entry(600, 3.0), {"timestamp": 1}, level=4.0)) == [
            ("d", 600, {"level": 3.0}),
            ("d", 10, {"level": 4.0}),
        ]
    assert gateway.counted.snapshot() == {"edge_malformed_messages_total": len(bad)}
    assert [line["device"] for line in logs] == ["d"]


def test_a_present_whose_clock_errs_does_not_take_its_history_with_it() -> None:
    clocked = profile("json", message=Message(time="time"), history=History("history"))
    for wrong in ("1970-01-01T00:10:00Z", "2036-01-01T00:00:00Z"):
        gateway = Gateway(place(PlainJson("t"), clocked))
        readings = gateway.take("t", {"time": wrong, "level": 4.0, "history": [entry(600, 3.0)]})
        assert [(told(reading)[1], reading.quality) for reading in readings] == [
            (600, Quality.GOOD),
            (0, Quality.BAD_CLOCK),
        ]


def test_more_history_than_can_be_known_is_refused() -> None:
    gateway = Gateway(place(LORA, WITH_HISTORY))
    most = [entry(600 + number, 1.0) for number in range(HISTORY_MOST)]
    assert len(gateway.take(LORA_TOPIC, uplink(10, *most, level=1.0))) == HISTORY_MOST + 1
    assert gateway.take(LORA_TOPIC, uplink(9, *most, entry(599, 1.0), level=1.0)) == []
    assert gateway.counted["edge_malformed_messages_total"] == 1


def test_history_alone_may_be_all_that_an_uplink_tells() -> None:
    gateway = Gateway(place(LORA, WITH_HISTORY))
    assert gateway.told(LORA_TOPIC, uplink(10, entry(600, 3.0))) == [("d", 600, {"level": 3.0})]
    assert gateway.take(LORA_TOPIC, uplink(10)) == []
    assert gateway.counted["edge_malformed_messages_total"] == 1


FLOOD = rule("""
[[level]]
name = "high"
severity = "II"
when = { column = "level", above = 2.0 }
on_delay = "30s"
""")


def judged(*messages: dict[str, Any]) -> tuple[list[Phase], list[tuple[str, str, str]]]:
    """What uplinks with history tell of a flood, and which alerts stand at the end."""
    gateway = Gateway(place(LORA, WITH_HISTORY))
    points = tuple(Point("d", "gauge", field.metric, field.unit, 600.0) for field in LEVEL)
    engine = Engine(PointTable("gw", points), [FLOOD])
    readings = [reading for message in messages for reading in gateway.take(LORA_TOPIC, message)]
    steps = engine.evaluate(block_of(*readings)) + engine.advance(NOW)
    return [step.phase for step in steps], engine.standing()


def test_old_history_says_what_was_and_the_present_alone_what_stands() -> None:
    """A flood of yesterday, told today: it is raised and cleared in its own time, and nothing stands."""
    flood = [entry(80_000 - 60 * minute, 3.0) for minute in range(10)]
    over = [entry(79_000, 0.2), entry(78_000, 0.2)]
    phases, standing = judged(uplink(10, *flood, *over, level=0.1))
    assert phases == [Phase.PENDING, Phase.RAISED, Phase.CLEARED]
    assert standing == []
    # Not even its last entry needs to be dry.
    assert judged(uplink(10, *flood, level=0.1), uplink(5, level=0.1))[1] == []


def test_history_that_is_older_than_what_is_known_is_not_judged() -> None:
    phases, standing = judged(
        uplink(700, level=0.1), uplink(10, *[entry(80_000 - n, 3.0) for n in range(100)], level=0.1)
    )
    assert (phases, standing) == ([], [])


# Messages of several readings


def test_a_message_is_acknowledged_once_and_only_when_its_last_reading_is_safe() -> None:
    acknowledged: list[int] = []
    gateway = Gateway(place(LORA, WITH_HISTORY))
    readings = gateway.take(
        LORA_TOPIC, uplink(10, entry(1200, 2.0), entry(600, 3.0), level=4.0), lambda: acknowledged.append(1)
    )
    assert [reading.settle is not None for reading in readings] == [False, False, True]
    again = gateway.take(LORA_TOPIC, uplink(10, entry(1200, 2.0), level=4.0), lambda: acknowledged.append(2))
    assert [reading.settle is not None for reading in again] == [False, True]
    assert [told(reading)[2] for reading in again] == [{}, {}]


def test_a_crash_between_two_ticks_of_one_message_neither_loses_nor_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readings fit into a tick; the disk takes the first tick, and the process dies in the second."""
    monkeypatch.setattr(agent, "MOST_READINGS", 2)
    message = uplink(10, entry(1800, 1.0), entry(1200, 2.0), entry(600, 3.0), level=4.0)
    points = tuple(Point("d", "gauge", field.metric, field.unit, 600.0) for field in LEVEL)
    table = PointTable("gw", points)
    stored: list[Tick] = []
    acknowledged: list[bool] = []

    async def run(gateway: Gateway, ticks: int) -> None:
        full = asyncio.Event()

        async def append(tick: Tick) -> None:
            if len(stored) == ticks:
                full.set()
                await asyncio.Event().wait()  # it never comes back
            stored.append(tick)

        intake: asyncio.Queue[Reading] = asyncio.Queue(10)
        for reading in gateway.take(LORA_TOPIC, message, lambda: acknowledged.append(True)):
            intake.put_nowait(reading)
        running = asyncio.create_task(Agent(table, Engine(table, ()), intake, append, Clock(), 0.001).run())
        waiting = asyncio.create_task(full.wait())
        while not (waiting.done() or (ticks > 1 and acknowledged)):  # noqa: ASYNC110 - looks from outside
            await asyncio.sleep(0.001)
        waiting.cancel()
        running.cancel()
        await asyncio.wait([running, waiting])

    monkeypatch.setattr(agent, "LAST_TICK_S", 0.01)
    asyncio.run(run(Gateway(place(LORA, WITH_HISTORY)), 1))
    assert [tick.acquired for tick in stored] == [2]
    assert acknowledged == []

    again = Gateway(place(LORA, WITH_HISTORY))
    again.source.remember([message for tick in stored for message in tick.messages])
    asyncio.run(run(again, 9))
    assert acknowledged == [True]
    assert sum(tick.acquired for tick in stored) == 4
    taken = [at for tick in stored for at in tick.block.taken_at.tolist()]
    assert sorted(taken) == taken
    assert len(set(taken)) == 4


@pytest.mark.parametrize(("of", "known"), [(profile("lorawan"), MESSAGES_KNOWN), (WITH_HISTORY, HISTORY_KNOWN)])
def test_so_many_are_known_as_can_come_again(of: Profile, known: int) -> None:
    gateway = Gateway(place(LORA, of))
    for number in range(known + 1):
        gateway.take(LORA_TOPIC, {"time": ago(2000 - number), "object": {"level": 1.0}})
    (newer,) = gateway.take(LORA_TOPIC, {"time": ago(1999), "object": {"level": 1.0}})
    (oldest,) = gateway.take(LORA_TOPIC, {"time": ago(2000), "object": {"level": 1.0}})
    assert (newer.told is None, oldest.told is None) == (True, False)
