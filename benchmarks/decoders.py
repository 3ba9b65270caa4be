"""Messages a second and core that each JSON dialect reads, from the payload to samples.

``python -m benchmarks.decoders [--seconds 2]``

Messages of 500 devices, each of its own instant, go through ``MqttSource.take`` and, a thousand at a time, through
``Decoding``: what the gateway does between the broker and the engine. They are as long as the servers make them.
Limit: 30,000 ChirpStack uplinks a second, in CPU time of one core. ``json.loads`` of the same bytes beside it says what
of that is JSON and the machine.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edge.decoding import Decoding
from edge.installed import Installed
from edge.profile import load_profiles
from edge.reading import Reading
from edge.sources import MqttSource
from rules.district import Chirpstack, Device, Frigate, Onvif, PlainJson, Senml, ThingsStack
from wire.clock import NANOSECONDS, Clock, iso

LIMIT = 30_000.0
DEVICES = 500
TICK = 1000
APPLICATION = "17c82e96-be03-4f38-aef3-f83d48582d97"
BEHIND = 3600 * NANOSECONDS  # the oldest message's time before now
RADIO = {
    "gateway_ids": {"gateway_id": "street-7", "eui": "0016C001F153A14C"},
    "time": "2026-06-18T03:12:45.120123Z",
    "timestamp": 4217106255,
    "rssi": -36,
    "channel_rssi": -36,
    "snr": 10.5,
    "location": {"latitude": 31.15, "longitude": 121.3, "altitude": 12, "source": "SOURCE_REGISTRY"},
    "uplink_token": "CiIKIAoUZXVpLTAwMTZjMDAxZjE1M2ExNGMSCAAWwAHxU6FMEI/m8doP",
}
Wire = Chirpstack | ThingsStack | PlainJson | Senml | Onvif | Frigate
Message = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Kind:
    """One dialect: how its devices are wired, and what the one of a number says (``turn`` by turn) at an instant."""

    name: str
    profile: str
    wire: Callable[[int], Wire]
    message: Callable[[int, int, int], tuple[str, object]]


def _angles(turn: int) -> dict[str, object]:
    return {"angle_x": round(0.1 + 0.37 * turn, 2), "angle_y": -0.8, "angle_z": 89.9}


def _chirpstack(number: int, turn: int, at: int) -> tuple[str, object]:
    device = {
        "tenantId": "52f14cd4-c6f1-4fbd-8f87-4025e1d49242",
        "tenantName": "ChirpStack",
        "applicationId": APPLICATION,
        "applicationName": "covers",
        "deviceProfileId": "14855bf7-d10d-4aee-b618-ebfcb64dc7ad",
        "deviceProfileName": "EM310-TILT",
        "deviceName": f"cover-{number}",
        "devEui": f"{number:016x}",
        "tags": {"street": "north"},
    }
    heard = {
        "gatewayId": "0016c001f153a14c",
        "uplinkId": 4217106255,
        "rssi": -36,
        "snr": 10.5,
        "context": "E3OWOQ==",
        "metadata": {"region_name": "cn470_10", "region_common_name": "CN470"},
    }
    lora = {"bandwidth": 125000, "spreadingFactor": 11, "codeRate": "CR_4_5"}
    states = {"threshold_x": "normal", "threshold_y": "normal", "threshold_z": "normal"}
    return f"application/{APPLICATION}/device/{number:016x}/event/up", {
        "deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
        "time": iso(at),
        "deviceInfo": device,
        "devAddr": "00189440",
        "adr": True,
        "dr": 1,
        "fCnt": turn,
        "fPort": 85,
        "confirmed": False,
        "data": "A88AAAAAKCMH",
        "object": {**_angles(turn), "battery": 97, **states},
        "rxInfo": [heard],
        "txInfo": {"frequency": 486300000, "modulation": {"lora": lora}},
    }


def _things_stack(number: int, turn: int, at: int) -> tuple[str, object]:
    ids = {
        "device_id": f"cover-{number}",
        "application_ids": {"application_id": "covers"},
        "dev_eui": f"{number:016X}",
        "join_eui": "800000000000000C",
        "dev_addr": "00BCB929",
    }
    lora = {"bandwidth": 125000, "spreading_factor": 11, "coding_rate": "4/5"}
    return f"v3/covers@ttn/devices/cover-{number}/up", {
        "end_device_ids": ids,
        "correlation_ids": ["gs:uplink:01H2XZ8Q2A6X9R0M7V2B9N4K5T"],
        "received_at": iso(at),
        "uplink_message": {
            "session_key_id": "AXA50tH0fK8b6w==",
            "f_cnt": turn,
            "f_port": 85,
            "frm_payload": "A88AAAAAKCMH",
            "decoded_payload": {**_angles(turn), "battery": 97},
            "rx_metadata": [RADIO],
            "settings": {"data_rate": {"lora": lora}, "frequency": "486300000", "timestamp": 2463457000},
            "received_at": iso(at),
            "consumed_airtime": "0.056576s",
        },
    }


def _plain(number: int, turn: int, at: int) -> tuple[str, object]:
    told = {"device": f"cover-{number}", "time": iso(at), "battery": 97.0, **_angles(turn), "alarm": False}
    return f"covers/cover-{number}", told


def _senml(number: int, turn: int, at: int) -> tuple[str, object]:
    base = {"bn": f"cover-{number}/", "bt": at / NANOSECONDS, "bu": "rad"}
    return f"covers/senml-{number}", [
        {**base, "n": "battery", "u": "%EL", "v": 97},
        {"n": "angle_x", "v": round(0.1 + 0.01 * turn, 3)},
        {"n": "angle_y", "v": -0.02},
        {"n": "angle_z", "v": 1.57},
        {"n": "alarm", "vb": False},
    ]


def _onvif(number: int, turn: int, at: int) -> tuple[str, object]:
    source = {"VideoSource": "1", "AnalyticsConfiguration": "2", "Rule": "Zone"}
    event = {"UtcTime": iso(at), "Source": source, "Data": {"ObjectId": str(turn), "IsInside": turn % 2 == 0}}
    return f"camera-{number}/onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&1/2/Zone", event


def _frigate(number: int, turn: int, at: int) -> tuple[str, object]:
    def state(zones: list[str], *, ended: bool) -> dict[str, object]:
        return {
            "id": f"1781752360.{turn // 2}-k{number}",
            "camera": f"camera-{number}",
            "frame_time": at / NANOSECONDS,
            "snapshot": {"frame_time": at / NANOSECONDS, "box": [412, 388, 676, 552], "area": 43296, "score": 0.79},
            "label": "car",
            "sub_label": None,
            "top_score": 0.79,
            "false_positive": False,
            "start_time": 1781752360.25,
            "end_time": at / NANOSECONDS if ended else None,
            "score": 0.79,
            "box": [412, 388, 676, 552],
            "area": 43296,
            "ratio": 1.6,
            "region": [300, 200, 800, 700],
            "stationary": False,
            "motionless_count": 0,
            "position_changes": 1,
            "current_zones": zones,
            "entered_zones": ["roadway"],
            "has_clip": True,
            "has_snapshot": True,
            "active": True,
        }

    begins = turn % 2 == 0
    before, after = (["roadway"], []) if not begins else ([], ["roadway"])
    return "frigate/events", {
        "type": "new" if begins else "end",
        "before": state(before, ended=False),
        "after": state(after, ended=not begins),
    }


KINDS = (
    Kind("ChirpStack", "milesight_em310_tilt", lambda n: Chirpstack(APPLICATION, f"{n:016x}"), _chirpstack),
    Kind(
        "Things Stack",
        "milesight_em310_tilt",
        lambda n: ThingsStack("covers", "ttn", f"cover-{n}", f"{n:016x}"),
        _things_stack,
    ),
    Kind("plain JSON", "reference_plain_cover", lambda n: PlainJson(f"covers/cover-{n}"), _plain),
    Kind("SenML JSON", "reference_senml_cover", lambda n: Senml(f"covers/senml-{n}", f"cover-{n}/"), _senml),
    Kind("ONVIF", "onvif_profile_m", lambda n: Onvif(f"camera-{n}"), _onvif),
    Kind("Frigate", "frigate_camera", lambda n: Frigate(f"camera-{n}"), _frigate),
)


def places_of(kind: Kind) -> Iterator[Installed]:
    profile = load_profiles()[kind.profile]
    install = dict.fromkeys(profile.install_names(), 0.0)
    width = len(profile.quantities)
    for number in range(DEVICES):
        device = Device(
            f"device-{number}",
            profile.profile.kind,
            profile.id,
            "gw",
            "site",
            "asset",
            "0103",
            0.0,
            0.0,
            kind.wire(number),
            install,
        )
        yield Installed(device, profile, np.arange(number * width, (number + 1) * width, dtype=np.int32))


def messages_of(kind: Kind, first_turn: int, turns: int, began: int) -> list[Message]:
    """Each device's messages in the order of their times, a tenth of a second apart."""
    made = [
        kind.message(number, turn, began + turn * (NANOSECONDS // 10) + number)
        for turn in range(first_turn, first_turn + turns)
        for number in range(DEVICES)
    ]
    return [(topic, json.dumps(content, separators=(",", ":")).encode()) for topic, content in made]


def measure(kind: Kind, seconds: float) -> tuple[float, float, float]:
    """Messages per CPU second, the same of ``json.loads`` alone, and bytes a message."""
    source, decoding = MqttSource(tuple(places_of(kind)), Clock()), Decoding()
    began, turn, spent, parsing, count, size = time.time_ns() - BEHIND, 0, 0.0, 0.0, 0, 0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        messages = messages_of(kind, turn, 4, began)
        turn += 4
        before = time.process_time()
        for start in range(0, len(messages), TICK):
            readings: list[Reading] = []
            for topic, payload in messages[start : start + TICK]:
                readings += source.take(topic, payload)
            assert len(decoding.block(readings)) >= len(readings) == TICK
        spent += time.process_time() - before
        before = time.process_time()
        for _, payload in messages:
            json.loads(payload)
        parsing += time.process_time() - before
        count += len(messages)
        size += sum(len(payload) for _, payload in messages)
    return count / spent, count / parsing, size / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="wall seconds a dialect, making messages included")
    options = parser.parse_args()
    rates: dict[str, float] = {}
    print(f"{'':14}  bytes  messages per CPU second  json.loads alone  ratio")
    for kind in KINDS:
        rate, parsed, size = measure(kind, options.seconds)
        rates[kind.name] = rate
        print(f"{kind.name:14}  {size:5,.0f}  {rate:23,.0f}  {parsed:16,.0f}  {rate / parsed:5.2f}")
    reached = rates["ChirpStack"] / LIMIT
    print(f"ChirpStack: {reached:.2f} of the {LIMIT:,.0f} a second that it must reach")
    if reached < 1:
        sys.exit(1)


if __name__ == "__main__":
    main()
