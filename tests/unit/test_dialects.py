"""Every dialect against a message in the shape of its documentation, and what a gateway makes of it.

Then one device of many in each of them, with every fault that messages can have on their way: its neighbours are
unharmed, and nothing has a wrong value, name or time.
"""

from collections import defaultdict

import msgspec
import numpy as np
import pytest

from edge.installed import Installed
from edge.profile import load_profiles
from edge.sources import MqttSource
from firmware_sim.fleet import Fleet, district_of
from firmware_sim.instruments import Instruments
from firmware_sim.scenario import Event, Scenario
from firmware_sim.telling import chirpstack, frigate, onvif, plain, senml, things_stack
from firmware_sim.telling.telling import Message, Telling
from firmware_sim.telling.told import Phase, Sighting, Uplink, Written
from firmware_sim.world import World
from rules.district import Chirpstack, Device, District, Frigate, Onvif, PlainJson, Senml, Text, ThingsStack
from rules.samples import Quality
from streetwarden.fast.clock import VirtualClock
from tests.readings import block_of
from wire.clock import NANOSECONDS, from_iso
from wire.counted import Counted

TOLD_AT = from_iso("2026-06-18T03:12:45.120Z")
HEARD_AT = from_iso("2026-06-18T03:12:46Z")
UPLINK = Uplink(TOLD_AT, TOLD_AT, 0, (0.0, -12.5, 77.5), 100.0, True, -97, 600)
COVER, CAMERA = district_of(Fleet(covers=1, cameras=1)).device
NETWORK = Chirpstack("17c82e96-be03-4f38-aef3-f83d48582d97", "24e124136b000042")

CHIRPSTACK = """{
  "deduplicationId": "5c4e272c-5730-32c5-25f4-d03027787350", "time": "2026-06-18T03:12:45.120+00:00",
  "deviceInfo": {
    "tenantId": "5014da55-4f82-5f6e-b7a5-51cf095a90aa", "tenantName": "district",
    "applicationId": "17c82e96-be03-4f38-aef3-f83d48582d97", "applicationName": "covers",
    "deviceProfileId": "3998e865-0da9-57c4-9029-e3f1377b831d", "deviceProfileName": "milesight_em310_tilt",
    "deviceName": "cover-0001", "devEui": "24e124136b000042", "deviceClassEnabled": "CLASS_A",
    "tags": {"asset": "01030000000000"}
  },
  "devAddr": "00000042", "adr": true, "dr": 3, "fCnt": 0, "fPort": 85, "confirmed": false, "data": "AXVkA88AAB77Rh4H",
  "object": {
    "battery": 100, "angle_x": 0, "angle_y": -12.5, "angle_z": 77.5,
    "threshold_x": "trigger", "threshold_y": "trigger", "threshold_z": "trigger"
  },
  "rxInfo": [{
    "gatewayId": "0016c001f153a14c", "uplinkId": 1000, "nsTime": "2026-06-18T03:12:46.000+00:00",
    "rssi": -97, "snr": 9.0, "context": "EFwMtA==", "crcStatus": "CRC_OK"
  }],
  "txInfo": {
    "frequency": 486300000,
    "modulation": {"lora": {"bandwidth": 125000, "spreadingFactor": 9, "codeRate": "CR_4_5"}}
  },
  "regionConfigId": "cn470_10"
}"""

# No `f_cnt`, no `confirmed`, no `channel_index`: they are 0 or false.
THINGS_STACK = """{
  "end_device_ids": {
    "device_id": "mh-0042", "application_ids": {"application_id": "district"},
    "dev_eui": "24E124136B000042", "join_eui": "24E124C0002A0001", "dev_addr": "00000042"
  },
  "correlation_ids": ["as:up:5c4e272c-5730-32c5-25f4-d03027787350"],
  "received_at": "2026-06-18T03:12:46.000Z",
  "uplink_message": {
    "session_key_id": "MjRlMTI0MTM2YjAwMDA0Mg==", "f_port": 85, "frm_payload": "AXVkA88AAB77Rh4H",
    "decoded_payload": {
      "battery": 100, "angle_x": 0, "angle_y": -12.5, "angle_z": 77.5,
      "threshold_x": "trigger", "threshold_y": "trigger", "threshold_z": "trigger"
    },
    "rx_metadata": [{
      "gateway_ids": {"gateway_id": "eui-0016c001f153a14c", "eui": "0016C001F153A14C"},
      "time": "2026-06-18T03:12:46.000Z", "timestamp": 2363123584,
      "rssi": -97, "channel_rssi": -97, "snr": 9.0, "uplink_token": "EFwMtA=="
    }],
    "settings": {
      "data_rate": {"lora": {"bandwidth": 125000, "spreading_factor": 9, "coding_rate": "4/5"}},
      "frequency": "486300000", "timestamp": 2363123584, "time": "2026-06-18T03:12:46.000Z"
    },
    "received_at": "2026-06-18T03:12:45.120Z", "consumed_airtime": "0.205824s",
    "network_ids": {"net_id": "000013", "tenant_id": "city", "cluster_id": "city"}
  }
}"""

SENML = """[
  {"bn": "cover-0001/", "bt": 1781752365.12, "bu": "rad", "n": "battery", "u": "%EL", "v": 100, "ut": 600},
  {"n": "angle_x", "v": 0, "ut": 600},
  {"n": "angle_y", "v": -0.21817, "ut": 600},
  {"n": "angle_z", "v": 1.35263, "ut": 600},
  {"n": "alarm", "vb": true, "ut": 600}
]"""

PLAIN = """{
  "device": "cover-0001", "time": "2026-06-18T03:12:45.120+00:00",
  "battery": 100, "angle_x": 0, "angle_y": -12.5, "angle_z": 77.5, "alarm": true
}"""

ONVIF = """{
  "UtcTime": "2026-06-18T03:12:46.000Z",
  "Source": {"VideoSource": "1", "AnalyticsConfiguration": "2", "Rule": "StandingWater"},
  "Data": {"ObjectId": "365", "IsInside": true}
}"""

FRIGATE_EVENT = """{
  "id": "1781752365.120000-4559f7", "camera": "underpass-1", "frame_time": 1781752366.0,
  "snapshot": {
    "frame_time": 1781752365.12, "box": [412, 388, 676, 552], "area": 43296,
    "region": [264, 258, 696, 690], "score": 0.84, "attributes": []
  },
  "label": "water", "sub_label": null, "top_score": 0.84, "false_positive": false,
  "start_time": 1781752365.12, "end_time": 1781752366.0, "score": 0.84,
  "box": [412, 388, 676, 552], "area": 43296, "ratio": 1.61, "region": [264, 258, 696, 690],
  "current_zones": [], "entered_zones": ["ponding"], "thumbnail": null, "has_snapshot": true, "has_clip": true,
  "active": false, "stationary": true, "motionless_count": 50, "position_changes": 1,
  "attributes": {}, "current_attributes": []
}"""

FRIGATE_REVIEW = """{
  "id": "1781752365.120000-ec2368", "camera": "underpass-1",
  "start_time": 1781752365.12, "end_time": 1781752366.0, "severity": "alert",
  "thumb_path": "/media/frigate/clips/review/thumb-underpass-1-1781752365.120000-ec2368.webp",
  "data": {
    "detections": ["1781752365.120000-4559f7"], "objects": ["water"],
    "sub_labels": [], "zones": ["ponding"], "audio": []
  }
}"""


def read(text: bytes | str) -> object:
    return msgspec.json.decode(text)


def sighting(phase: Phase, *, stayed: bool = True) -> Sighting:
    return Sighting(HEARD_AT, HEARD_AT, "standing_water", phase, TOLD_AT, stayed)


def test_chirpstack() -> None:
    topic, payload, retain = chirpstack.write("district", COVER, NETWORK, UPLINK, HEARD_AT)
    assert topic == "application/17c82e96-be03-4f38-aef3-f83d48582d97/device/24e124136b000042/event/up"
    assert read(payload) == read(CHIRPSTACK)
    assert not retain


def test_the_things_stack_leaves_out_what_is_zero() -> None:
    wire = ThingsStack("district", "city", "mh-0042", "24e124136b000042")
    topic, payload, retain = things_stack.write(wire, UPLINK, HEARD_AT)
    assert topic == "v3/district@city/devices/mh-0042/up"
    assert read(payload) == read(THINGS_STACK)
    assert not retain
    # A frame that is not the first tells its number; open-source builds know no tenants.
    later = msgspec.structs.replace(UPLINK, frame=17)
    topic, payload, _ = things_stack.write(msgspec.structs.replace(wire, tenant=""), later, HEARD_AT)
    assert topic == "v3/district/devices/mh-0042/up"
    assert b'"f_cnt":17' in payload
    assert b"tenant_id" not in payload


def test_senml() -> None:
    topic, payload, retain = senml.write(COVER, Senml("lids/1"), UPLINK)
    assert (topic, retain) == ("lids/1", False)
    assert read(payload) == read(SENML)


def test_plain_json() -> None:
    topic, payload, retain = plain.write(COVER, PlainJson("lids/1"), UPLINK)
    assert (topic, retain) == ("lids/1", False)
    assert read(payload) == read(PLAIN)


@pytest.mark.parametrize("name", ["chirpstack", "things_stack", "senml", "plain"])
def test_what_a_recording_did_not_tell_is_not_told(name: str) -> None:
    nothing = float("nan")
    uplink = msgspec.structs.replace(UPLINK, angles=(nothing, 1.0, nothing), battery=nothing)
    written = {
        "chirpstack": chirpstack.write("district", COVER, NETWORK, uplink, HEARD_AT),
        "things_stack": things_stack.write(ThingsStack("a", "", "b", NETWORK.dev_eui), uplink, HEARD_AT),
        "senml": senml.write(COVER, Senml("a"), uplink),
        "plain": plain.write(COVER, PlainJson("a"), uplink),
    }[name]
    assert b"angle_y" in written.payload
    assert not any(word in written.payload for word in (b"angle_x", b"angle_z", b"battery", b"null"))


def test_onvif_tells_a_property_and_retains_it() -> None:
    ((topic, payload, retain),) = onvif.write(Onvif("cam12"), sighting("begins"))
    assert topic == "cam12/onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&1/2/StandingWater"
    assert read(payload) == read(ONVIF)
    assert retain


def test_onvif_tells_a_property_once_and_deletes_it_with_no_bytes() -> None:
    ends, deleted, stays = (list(onvif.write(Onvif("a"), sighting(phase))) for phase in ("ends", "deleted", "stays"))
    assert [read(payload)["Data"]["IsInside"] for _, payload, _ in ends] == [False]  # type: ignore[index]
    assert [(payload, retain) for _, payload, retain in deleted] == [(b"", True)]
    assert stays == []


def test_frigate_ends_an_object_and_its_review() -> None:
    events, reviews = frigate.write(Frigate("underpass-1"), sighting("ends"))
    assert (events.topic, reviews.topic) == ("frigate/events", "frigate/reviews")
    assert not events.retain
    assert not reviews.retain
    open_event = read(FRIGATE_EVENT) | {"frame_time": 1781752365.12, "end_time": None, "current_zones": ["ponding"]}  # type: ignore[operator]
    assert read(events.payload) == {"type": "end", "before": open_event, "after": read(FRIGATE_EVENT)}
    open_review = read(FRIGATE_REVIEW) | {"end_time": None}  # type: ignore[operator]
    assert read(reviews.payload) == {"type": "end", "before": open_review, "after": read(FRIGATE_REVIEW)}


@pytest.mark.parametrize(
    ("phase", "stayed", "kind", "severities"),
    [
        ("begins", False, "new", ["detection", "detection"]),
        ("stays", True, "update", ["detection", "alert"]),
        ("ends", True, "end", ["alert", "alert"]),
        ("ends", False, "end", ["detection", "detection"]),
    ],
)
def test_frigate_raises_a_review_to_an_alert_once_its_object_stays(
    phase: Phase, stayed: bool, kind: str, severities: list[str]
) -> None:
    _, written = frigate.write(Frigate("underpass-1", "nvr"), sighting(phase, stayed=stayed))
    review = msgspec.json.decode(written.payload)
    assert written.topic == "nvr/reviews"
    assert review["type"] == kind
    assert [review["before"]["severity"], review["after"]["severity"]] == severities


@pytest.mark.parametrize("phase", ["clear", "deleted"])
def test_frigate_says_nothing_where_nothing_is(phase: Phase) -> None:
    assert list(frigate.write(Frigate("underpass-1"), sighting(phase))) == []


COVERS: dict[str, tuple[str, Chirpstack | ThingsStack | Senml | PlainJson]] = {
    "chirpstack": ("milesight_em310_tilt", NETWORK),
    "things_stack": ("milesight_em310_tilt", ThingsStack("district", "city", "mh-0042", NETWORK.dev_eui)),
    "senml": ("reference_senml_cover", Senml("lids/1", "cover-0001/")),
    "plain": ("reference_plain_cover", PlainJson("lids/1", "cover-0001")),
}
PROFILES = load_profiles()


def place(device: Device, first_row: int = 0) -> Installed:
    profile = PROFILES[device.profile]
    return Installed(device, profile, np.arange(first_row, first_row + len(profile.quantities), dtype="i4"))


def told(source: MqttSource, message: Written, of: Device) -> list[tuple[int, dict[str, float]]]:
    """What a gateway makes of a message: the times, and the numbers of what the device itself tells."""
    readings = source.take(message.topic, message.payload)
    metrics = [quantity.metric for quantity in PROFILES[of.profile].measured]
    blocks = [(reading.taken_at, block_of(reading)) for reading in readings]
    return [
        (at, {metrics[n]: v for n, v in zip(block.point, block.value, strict=True) if n < len(metrics)})
        for at, block in blocks
    ]


@pytest.mark.parametrize("name", COVERS)
def test_a_gateway_reads_a_cover(name: str) -> None:
    profile, wire = COVERS[name]
    cover = msgspec.structs.replace(COVER, profile=profile, wire=wire)
    match wire:
        case Chirpstack():
            message = chirpstack.write("district", cover, wire, UPLINK, HEARD_AT)
        case ThingsStack():
            message = things_stack.write(wire, UPLINK, HEARD_AT)
        case Senml():
            message = senml.write(cover, wire, UPLINK)
        case PlainJson():
            message = plain.write(cover, wire, UPLINK)
    source = MqttSource([place(cover)], VirtualClock.at(HEARD_AT))
    ((at, values),) = told(source, message, cover)
    assert at == TOLD_AT  # its own stamp, whenever it was heard
    alarm = {"tilt_alarm": 1.0} if "tilt_alarm" in values else {}
    expected = {"battery": 100.0, "angle_x": 0.0, "angle_y": -12.5, "angle_z": 77.5, **alarm}
    assert values == pytest.approx(expected, abs=5e-4)  # SenML tells radians to five places
    assert told(source, message, cover) == [(TOLD_AT, {})]  # once more, it is a repeat


def test_a_gateway_reads_a_camera_that_is_an_event_broker() -> None:
    camera = msgspec.structs.replace(CAMERA, wire=Onvif("cam12"))
    source = MqttSource([place(camera)], VirtualClock.at(HEARD_AT))
    (begins,) = onvif.write(Onvif("cam12"), sighting("begins"))
    assert told(source, begins, camera) == [(HEARD_AT, {"standing_water": 1.0})]
    (deleted,) = onvif.write(Onvif("cam12"), sighting("deleted"))
    assert told(source, deleted, camera) == []


def test_a_gateway_reads_a_camera_that_frigate_watches() -> None:
    camera = msgspec.structs.replace(CAMERA, profile="frigate_camera", wire=Frigate("underpass-1"))
    source = MqttSource([place(camera)], VirtualClock.at(HEARD_AT))
    _, review = frigate.write(Frigate("underpass-1"), sighting("begins"))
    assert told(source, review, camera) == [(TOLD_AT, {"standing_water": 1.0})]
    _, review = frigate.write(Frigate("underpass-1"), sighting("ends"))
    assert told(source, review, camera) == [(HEARD_AT, {"standing_water": 0.0})]


# One device of many is hurt.

START = from_iso("2026-06-18T03:00:00Z")
HOURS = 6
FAULTS = ("uplinks_doubled", "uplinks_reordered", "uplinks_late", "clock_jumps", "clock_unset")


def street() -> District:
    """Three covers in each dialect and two cameras in each, behind one gateway; the first of three will be hurt."""
    fleet = district_of(Fleet(gateways=1, covers=12, cameras=4))
    devices: list[Device] = []
    for number, device in enumerate(fleet.device):
        if device.kind == "camera":
            wire = Frigate(device.id) if number % 2 else Onvif(device.id)
            profile = "frigate_camera" if number % 2 else "onvif_profile_m"
            devices.append(msgspec.structs.replace(device, profile=profile, wire=wire))
            continue
        name = tuple(COVERS)[number // 3]
        assert isinstance(device.wire, Chirpstack)
        cover_wire = {
            "chirpstack": device.wire,
            "things_stack": ThingsStack("covers", "", device.id, device.wire.dev_eui),
            "senml": Senml("lids/senml", f"{device.id}/"),
            "plain": PlainJson("lids/plain", device.id),
        }[name]
        devices.append(msgspec.structs.replace(device, profile=COVERS[name][0], wire=cover_wire))
    return msgspec.structs.replace(fleet, device=tuple(devices))


def test_faults_of_one_device_in_each_dialect_harm_no_other_and_nothing_is_wrong() -> None:
    district = street()
    world = World(district, Scenario("calm", Text("平静", "Calm"), "1d"), 7, START)
    covers = [device for device in district.device if device.kind == "manhole_cover"]
    hurt = {device.id for device in covers[::3]}
    for name in sorted(hurt):
        for hour, what in enumerate(FAULTS):
            begin = START + hour * 3600 * NANOSECONDS
            size = -1500.0 if what == "clock_jumps" else 0.0
            world.add(Event(f"{what}-{name}", what, name, begin, begin + 3000 * NANOSECONDS, size))
    for camera in district.device[12:]:
        world.add(Event(f"car-{camera.id}", "parked_car", camera.id, START + 10**12, START + 2 * 10**12, 0.0))
    instruments, clock, counted = Instruments(world), VirtualClock.at(START), Counted()
    rows = 0
    places = []
    for device in district.device:
        places.append(place(device, rows))
        rows += len(places[-1].profile.quantities)
    source = MqttSource(places, clock, counted)

    sent: dict[str, dict[int, Message]] = defaultdict(dict)  # by device and when it was told, each once
    heard = []
    for message in Telling(district, instruments, START).until(START + HOURS * 3600 * NANOSECONDS):
        clock.set(message.delivered_at)
        if message.device not in hurt or message.at not in sent[message.device]:
            sent[message.device][message.at] = message
        heard += [(message, reading) for reading in source.take(message.topic, message.payload)]

    shown = {
        device.id: dict(zip(sorted(sent[device.id]), _shown(instruments, device, sorted(sent[device.id])), strict=True))
        for device in covers
    }
    taken: dict[str, list[int]] = defaultdict(list)
    cameras: dict[str, list[float]] = defaultdict(list)
    for message, reading in heard:
        block = block_of(reading)
        assert reading.place.device.id == message.device
        if reading.told is None:
            continue
        if message.device not in shown:
            cameras[message.device] += [
                value
                for point, value in zip(block.point - reading.place.rows[0], block.value, strict=True)
                if point == 1
            ]
            continue
        fault = next((what for what in FAULTS if world.during(what, message.device, np.array([message.at]))[0]), "")
        if fault == "clock_unset":
            assert (reading.taken_at, reading.quality) == (message.delivered_at, Quality.BAD_CLOCK)
        else:
            assert reading.taken_at // 10**6 == message.stamp // 10**6
            assert reading.quality is Quality.GOOD
        if fault != "clock_unset" or reading.place.profile.profile.protocol != "senml":  # which counts 1970 from now on
            assert reading.lag_ns // 10**6 == (message.delivered_at - message.stamp) // 10**6
        taken[message.device].append(message.at)
        angles = dict(zip([field.metric for field in reading.place.profile.field], block.value, strict=False))
        assert angles["angle_x"] == pytest.approx(shown[message.device][message.at], abs=0.006)
    for device in covers:
        # Each uplink is one reading: doubled ones, and those that came in another order, too.
        assert sorted(taken[device.id]) == sorted(sent[device.id]), device.id
        assert len(taken[device.id]) == len(set(taken[device.id])) >= 30
    for camera in district.device[12:]:  # the car comes, is told of again where Frigate does so, and goes
        inside = cameras[camera.id]
        assert inside[-1] == 0.0
        assert 1.0 in inside
        assert set(inside) == {0.0, 1.0}
    assert {name for name, count in counted.snapshot().items() if count} == {
        "edge_repeated_messages_total",
        "edge_clock_fault_messages_total",
    }


def _shown(instruments: Instruments, device: Device, at: list[int]) -> list[float]:
    return [float(value) for value in instruments.show(device, np.array(at, np.int64))["angle_x"]]
