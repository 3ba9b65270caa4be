"""The MQTT source: routing, replays, clock faults, bad messages. The decoders' vectors are in tests/golden."""

import asyncio
import json
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from edge.agent import Agent, Tick
from edge.decoding import Decoding
from edge.installed import installed, table_of
from edge.profile import load_profiles
from edge.reading import Reading
from edge.sources import MqttSource
from rules.district import Chirpstack, load_district
from rules.engine import Engine
from rules.samples import Quality
from wire.clock import Clock, from_iso
from wire.counted import Counted
from wire.session import Delivery

PLACE = Path(__file__).parents[2] / "firmware_sim/districts/bluestone.toml"
DISTRICT = load_district(PLACE.read_text("utf-8"), PLACE.name)
TABLE = table_of(DISTRICT, "gw-north", load_profiles())
UPLINK = "application/17c82e96-be03-4f38-aef3-f83d48582d97/device/24e124136b000042/event/up"
WATER = "camera-n1/onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&1/2/StandingWater"
START = from_iso("2026-06-18T11:30:00Z")


def _source() -> tuple[MqttSource, Counted]:
    counted = Counted()
    # A clock that does not move: the city stands at START.
    clock = Clock(wall=0, city=START, speed=1e-30)
    elsewhere = [device for device in DISTRICT.device if device.gateway != "gw-north"]
    return MqttSource(installed(DISTRICT, "gw-north", load_profiles()), clock, counted, elsewhere), counted


def _told(readings: list[Reading]) -> dict[tuple[str, str], float]:
    assert readings
    block = Decoding().block(readings)
    points = [TABLE.points[row] for row in block.point]
    told = {(p.device, p.metric): float(value) for p, value in zip(points, block.value, strict=True)}
    return {point: value for point, value in told.items() if point[1] != "heard_after"}


def _uplink(time: str, **measured: object) -> bytes:
    return json.dumps({"time": time, "object": measured}).encode()


def _water(time: str, inside: bool) -> bytes:
    return json.dumps({"UtcTime": time, "Source": {"Rule": "StandingWater"}, "Data": {"IsInside": inside}}).encode()


def test_subscribes_to_its_applications_and_cameras_and_passes_over_other_gateways_devices() -> None:
    source, counted = _source()
    application = UPLINK.split("/")[1]
    assert set(source.subscriptions) == {
        f"application/{application}/device/+/event/up",
        "camera-n1/onvif-ej/#",
        "camera-n2/onvif-ej/#",
    }
    elsewhere = next(device for device in DISTRICT.device if device.id == "cover-s1")
    assert isinstance(elsewhere.wire, Chirpstack)
    assert source.take(f"application/{application}/device/{elsewhere.wire.dev_eui}/event/up", b"{") == []
    assert counted.snapshot() == {}


def test_an_uplink_becomes_a_reading_with_its_own_time() -> None:
    source, _ = _source()
    (reading,) = source.take(UPLINK, _uplink("2026-06-18T11:29:58Z", angle_x=3.6, angle_y=3.2, angle_z=88, battery=97))
    assert _told([reading]) == pytest.approx(
        {
            ("cover-n1", "angle_x"): 3.6,
            ("cover-n1", "angle_y"): 3.2,
            ("cover-n1", "angle_z"): 88.0,
            ("cover-n1", "battery"): 97.0,
            ("cover-n1", "tilt_change"): 5.0,
        }
    )
    assert reading.taken_at == from_iso("2026-06-18T11:29:58Z")


def test_an_impossible_angle_is_bad_and_so_is_what_derives_from_it() -> None:
    source, _ = _source()
    readings = source.take(UPLINK, _uplink("2026-06-18T11:29:58Z", angle_x="NaN", angle_y=400, battery=97))
    assert _told(readings) == {
        ("cover-n1", "angle_x"): 0.0,
        ("cover-n1", "angle_y"): 0.0,
        ("cover-n1", "battery"): 97.0,
        ("cover-n1", "tilt_change"): 0.0,
    }
    quality = Decoding().block(readings).quality.tolist()
    assert quality[:4] == [Quality.BAD_SENTINEL, Quality.BAD_RANGE, Quality.GOOD, Quality.BAD_SENTINEL]


def test_a_retained_replay_is_not_a_new_reading() -> None:
    source, counted = _source()
    assert _told(source.take(WATER, _water("2026-06-18T11:29:00Z", inside=True))) == {
        ("camera-n1", "standing_water"): 1.0
    }
    assert _told(source.take(WATER, _water("2026-06-18T11:29:00Z", inside=True))) == {}
    assert _told(source.take(WATER, _water("2026-06-18T11:28:00Z", inside=False))) == {}
    assert counted["edge_repeated_messages_total"] == 2
    assert source.take(WATER, _water("2026-06-18T11:29:01Z", inside=False))
    assert source.take(WATER, b"") == []
    assert counted["edge_undeclared_messages_total"] == 1


def test_a_late_uplink_counts_but_a_redelivered_one_does_not() -> None:
    source, counted = _source()
    assert source.take(UPLINK, _uplink("2026-06-18T11:29:00Z", angle_x=1))
    assert source.take(UPLINK, _uplink("2026-06-18T11:09:00Z", angle_x=1))
    assert _told(source.take(UPLINK, _uplink("2026-06-18T11:29:00Z", angle_x=1))) == {}
    assert counted["edge_repeated_messages_total"] == 1


def test_what_a_broker_delivers_again_is_not_taken_again() -> None:
    source, counted = _source()
    burst = [_uplink(f"2026-06-18T11:{minute}:00Z", angle_x=minute) for minute in (27, 28, 29)]
    assert all(_told(source.take(UPLINK, uplink)) for uplink in burst)
    assert [_told(source.take(UPLINK, uplink)) for uplink in burst] == [{}, {}, {}]
    assert counted["edge_repeated_messages_total"] == 3


def test_what_was_taken_is_known_after_a_restart() -> None:
    source, _ = _source()
    messages = [
        (UPLINK, _uplink("2026-06-18T11:27:00Z", angle_x=1)),
        (UPLINK, _uplink("2026-06-18T11:29:00Z", angle_x=1)),
        (WATER, _water("2026-06-18T11:28:00Z", inside=True)),
        (WATER, _water("2036-01-01T00:00:00Z", inside=True)),
    ]
    readings = [reading for message in messages for reading in source.take(*message)]
    again, counted = _source()
    again.remember([reading.message for reading in readings if reading.message])
    assert [_told(again.take(*message)) for message in messages] == [{}, {}, {}, {}]
    assert _told(again.take(WATER, _water("2026-06-18T11:27:59Z", inside=False))) == {}
    assert counted.snapshot() == {"edge_repeated_messages_total": 5}
    assert _told(again.take(UPLINK, _uplink("2026-06-18T11:28:00Z", angle_x=1)))
    assert _told(again.take(WATER, _water("2026-06-18T11:28:01Z", inside=False)))


def test_a_stamp_from_the_future_is_a_clock_fault() -> None:
    source, counted = _source()
    (reading,) = source.take(WATER, _water("2036-01-01T00:00:00Z", inside=True))
    assert reading.taken_at == START
    assert reading.quality == Quality.BAD_CLOCK
    assert reading.taken_at - reading.lag_ns == from_iso("2036-01-01T00:00:00Z")
    assert counted["edge_clock_fault_messages_total"] == 1
    # and it does not shut out what comes after it
    assert source.take(WATER, _water("2026-06-18T11:29:30Z", inside=True))


class _Deliveries:
    """A session that has these messages and then nothing; it remembers what was acknowledged."""

    def __init__(self, *messages: tuple[str, bytes]) -> None:
        self.waiting = [Delivery(topic, payload, False, "", n, 1, 1) for n, (topic, payload) in enumerate(messages)]
        self.acknowledged: list[int] = []
        self.empty = asyncio.Event()

    async def receive(self) -> Delivery:
        if not self.waiting:
            self.empty.set()
            await asyncio.Event().wait()
        return self.waiting.pop(0)

    def acknowledge(self, delivery: Delivery) -> None:
        self.acknowledged.append(delivery.message_id)

    async def wait_connected(self, after: int = 0) -> int:
        await asyncio.Event().wait()
        return after

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        raise AssertionError(f"nothing is to be said here, but {topic} is")


def test_what_gives_no_reading_is_counted_told_and_acknowledged_and_the_next_passes() -> None:
    structlog.reset_defaults()
    source, counted = _source()
    messages = _Deliveries(
        ("application/x/device/y/event/up", b"{}"),
        (UPLINK, b"\xff"),
        (UPLINK, b'{"object":{"angle_x":[]}}'),
        (UPLINK, _uplink("2026-06-18T11:29:00Z", angle_x=1)),
    )

    async def scenario() -> list[Reading]:
        readings: asyncio.Queue[Reading] = asyncio.Queue(10)
        running = asyncio.create_task(source.run(messages, readings.put))
        await messages.empty.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return [readings.get_nowait() for _ in range(readings.qsize())]

    with capture_logs() as logs:
        (reading,) = asyncio.run(scenario())
    assert counted.snapshot() == {"edge_malformed_messages_total": 2, "edge_unknown_device_messages_total": 1}
    assert [(line["counter"], line["topic"]) for line in logs] == [
        ("edge_unknown_device_messages_total", "application/x/device/y/event/up"),
        ("edge_malformed_messages_total", UPLINK),
    ]
    # the good one waits for its settlement
    assert messages.acknowledged == [0, 1, 2]
    assert reading.settle is not None
    reading.settle()
    assert messages.acknowledged == [0, 1, 2, 3]


def test_a_repeat_is_acknowledged_only_once_its_first_copy_is_safe() -> None:
    source, _ = _source()
    message = _uplink("2026-06-18T11:29:00Z", angle_x=1)
    messages = _Deliveries((UPLINK, message), (UPLINK, message))
    stored = list[Tick]()

    async def scenario() -> None:
        disk = asyncio.Event()

        async def append(tick: Tick) -> None:
            await disk.wait()
            stored.append(tick)

        intake: asyncio.Queue[Reading] = asyncio.Queue(10)
        agent = Agent(TABLE, Engine(TABLE, ()), intake, append, Clock(), 0.001)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(source.run(messages, intake.put)), group.create_task(agent.run())]
            await messages.empty.wait()
            assert messages.acknowledged == [], "a crash now must leave the broker with the message"
            disk.set()
            async with asyncio.timeout(5):
                while len(messages.acknowledged) < 2:  # noqa: ASYNC110 - looks from outside
                    await asyncio.sleep(0.001)
            for task in tasks:
                task.cancel()

    asyncio.run(scenario())
    assert messages.acknowledged == [0, 1]
    assert sum(tick.acquired for tick in stored) == 2  # the angle, and how long after it was heard


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"[" * 50_000, "not JSON"),
        (b'{"time":"\xff","object":{}}', "not JSON"),
        (b"{}", "`object` is missing"),
        (_uplink("2026-06-18T11:29:00Z"), "has none of"),
        (_uplink("2026-06-18T11:29:00Z", humidity=3), "has none of"),
        (_uplink("2026-06-18T11:29:00Z", angle_x=[1]), "`object.angle_x` is [1], not a number"),
        (_uplink("2026-06-18T11:29:00Z", angle_x=10**400), "not a number"),
        (_uplink("2026-06-18T11:29:00", angle_x=1), "has no zone"),
        (_uplink("0001-01-01T00:00:00Z", angle_x=1), "which no clock says"),
        (_uplink("0001-01-01T00:00:00+23:00", angle_x=1), "`time`"),
    ],
)
def test_no_payload_breaks_the_source_and_the_next_passes(payload: bytes, why: str) -> None:
    structlog.reset_defaults()
    source, counted = _source()
    with capture_logs() as logs:
        assert source.take(UPLINK, payload) == []
    assert counted.snapshot() == {"edge_malformed_messages_total": 1}
    assert [(line["topic"], line["device"]) for line in logs] == [(UPLINK, "cover-n1")]
    assert why in logs[0]["why"]
    assert source.take(UPLINK, _uplink("2026-06-18T11:29:00Z", angle_x=1))


def test_an_event_without_its_time_is_malformed() -> None:
    source, counted = _source()
    assert source.take(WATER, b'{"Source":{"Rule":"StandingWater"},"Data":{"IsInside":true}}') == []
    assert counted.snapshot() == {"edge_malformed_messages_total": 1}
