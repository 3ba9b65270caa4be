"""Every dialect against a message in the shape of its documentation, and what a gateway makes of those it can read."""

import msgspec
import pytest

from edge.decoders import chirpstack as chirpstack_decoder
from edge.decoders import onvif as onvif_decoder
from edge.installed import installed
from edge.profile import load_profiles
from firmware_sim.fleet import Fleet, district_of
from firmware_sim.telling import chirpstack, frigate, onvif, plain, senml, things_stack
from firmware_sim.telling.told import Phase, Sighting, Uplink
from rules.declared import Refused
from rules.district import Chirpstack, District, Frigate, Onvif, PlainJson, Senml, ThingsStack
from wire.clock import from_iso

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
    decoded = chirpstack_decoder.decode(load_profiles()[COVER.profile], payload)
    assert decoded.taken_at == TOLD_AT  # its own stamp, whenever it was heard
    assert decoded.values == {"battery": 100, "angle_x": 0, "angle_y": -12.5, "angle_z": 77.5}


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
    decoded = onvif_decoder.decode(load_profiles()[CAMERA.profile], topic, payload)
    assert decoded is not None
    assert (decoded.taken_at, decoded.values) == (HEARD_AT, {"standing_water": 1.0})


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


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (ThingsStack("a", "b", "c", "24e124136b000042"), "thingsstack"),
        (Senml("a"), "senml"),
        (PlainJson("a"), "plainjson"),
    ],
)
def test_a_gateway_refuses_what_it_cannot_read_yet(wire: ThingsStack | Senml | PlainJson, words: str) -> None:
    fleet = district_of(Fleet(covers=1))
    cover = msgspec.structs.replace(fleet.device[0], wire=wire)
    district: District = msgspec.structs.replace(fleet, device=(cover,))
    with pytest.raises(Refused, match=f"cover-0001: wire: is {words}, but `milesight_em310_tilt` speaks chirpstack"):
        installed(district, cover.gateway, load_profiles())
