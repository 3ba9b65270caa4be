"""Valid messages of every kind: those of ``tests/golden``, those the simulator writes, and what both leave out."""

import base64
import hashlib
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cbor2
import msgspec
import numpy as np

from edge.installed import Installed
from edge.plan import Request
from edge.profile import Profile, load_profile, load_profiles
from firmware_sim.telling import chirpstack, frigate, onvif, plain, senml, things_stack
from firmware_sim.telling.told import Phase, Sighting, Uplink
from rules.alert import Phase as AlertPhase
from rules.alert import Reason, Severity, Transition
from rules.district import Chirpstack, Device, Frigate, Onvif, PlainJson, Pushed, Senml, ThingsStack
from rules.samples import POINT, Block, Point, PointTable
from tests.golden.test_vectors import Held
from wire.batch import Answer, Batch, Order, Receipt, Status, Tally, columns
from wire.clock import HOUR, NANOSECONDS, from_iso

START = from_iso("2026-06-18T03:12:46Z")  # a second after the stamp of most golden messages
_GOLDEN = Path(__file__).parents[1] / "golden"
_LABELS = {"bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6, "bver": -1}
_LABELS |= {"n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "s": 5, "t": 6, "ut": 7, "vd": 8}
_STEPS: tuple[Phase, ...] = ("begins", "stays", "ends", "clear", "deleted")


class Message(NamedTuple):
    topic: str
    data: bytes


# What a profile of JSON may declare, and no shipped one does: no time but an id, words, sentinels, history.
_MADE = """
[profile]
id = "made_of_everything"
kind = "level_sensor"
maker = "nobody"
model = "all that a message may have"
manual = "this file"
protocol = "json"
interval_s = 60

[message]
id = "number"
device = "who.name"

[[field]]
metric = "level"
unit = "m"
path = "told.level"
scale = 1e3
offset = -2.5
invalid = [-1, 65535]
range = [-10.0, 1e4]

[[field]]
metric = "state"
unit = "1"
path = "told.state"
absent = 0.0
words = { dry = 0, wet = 1 }

[[field]]
metric = "voltage"
unit = "V"
path = "voltage"

[history]
path = "earlier"
time = "at"
time_as = "ms"

[[derived]]
metric = "power"
unit = "W"
how = "product"
of = ["level", "voltage"]

[[derived]]
metric = "part"
unit = "1"
how = "ratio"
of = ["voltage", "level", "install.most"]
"""
_TOLD_BY_MADE = b"""
{"number":17,"who":{"name":"x"},"told":{"level":0.0025,"state":"wet"},"voltage":"3.6"}
{"number":"18","told":{"level":65535},"voltage":3.5,"earlier":[{"at":1781752000000,"told":{"level":0.002}},{"at":"7"}]}
""".split()


@cache
def profiles() -> dict[str, Profile]:
    """The shipped ones, and what lies between them."""
    shipped = load_profiles()
    level = shipped["reference_sparkplug_level"]
    changing = msgspec.structs.replace(level.profile, id="level_on_change", reports_on_change=True)
    made = load_profile(_MADE, "made")
    return shipped | {
        made.id: made,
        changing.id: msgspec.structs.replace(level, profile=changing),
    }


@cache
def golden() -> dict[str, dict[str, Any]]:
    """Every golden file, by the profile that it is of."""
    files = [tomllib.loads(path.read_text("utf-8")) for path in sorted(_GOLDEN.glob("*.toml"))]
    return {file["profile"]: file for file in files if "profile" in file}


def golden_messages(profile: str) -> list[Message]:
    """The messages of a profile that are what they should be."""
    if profile == "made_of_everything":
        return [Message("", data) for data in _TOLD_BY_MADE]
    told = [each for each in golden()[profile].get("message", ()) if "malformed" not in each]
    return [Message(each.get("topic", ""), _data_of(each)) for each in told]


def malformed(protocol: str) -> list[bytes]:
    """The golden messages of a protocol that are refused: something to take from."""
    told = [each for name in speaking(protocol) if name in golden() for each in golden()[name].get("message", ())]
    return [_data_of(each) for each in told if "malformed" in each and _data_of(each)]


def _data_of(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["data"]) if "data" in vector else vector["payload"].encode()


@cache
def speaking(protocol: str) -> list[str]:
    """The profiles of a protocol."""
    return [name for name, profile in profiles().items() if profile.profile.protocol == protocol]


def install(wired: Sequence[tuple[str, Any]]) -> list[Installed]:
    """Install a device of each profile, wired so; every number of its installation is 1."""
    places: list[Installed] = []
    first = 0
    for number, (name, wire) in enumerate(wired):
        profile = profiles()[name]
        numbers = dict.fromkeys(profile.install_names(), 1.0)
        kind = profile.profile.kind
        device = Device(f"d-{number}", kind, name, "gw", "s", "a", "0120", 0.0, 0.0, wire, numbers)
        rows = np.arange(first, first := first + len(profile.quantities), dtype=POINT)
        places.append(Installed(device, profile, rows))
    return places


def uplinks() -> Iterator[Uplink]:
    """Reports of a cover that lies still and is lifted."""
    for number, angles in enumerate(((0.0, -12.5, 77.5), (0.61, -0.42, 88.0), (72.5, 3.1, 12.25))):
        at = START - (number + 1) * NANOSECONDS
        yield Uplink(at, at, number, angles, 100.0 - number, bool(number % 2), -97, 600)


def sightings() -> Iterator[Sighting]:
    """Every step of what a camera sees."""
    for metric in ("standing_water", "object_inside"):
        for number, phase in enumerate(_STEPS):
            at = START - (9 - number) * NANOSECONDS
            yield Sighting(at, at, metric, phase, START - 30 * NANOSECONDS, stayed=number > 0)


def of_chirpstack(places: Sequence[Installed]) -> list[Message]:
    found: list[Message] = []
    for place in places:
        wire = place.device.wire
        assert isinstance(wire, Chirpstack)
        topic = f"application/{wire.application}/device/{wire.dev_eui}/event/up"
        found += [Message(topic, message.data) for message in golden_messages(place.profile.id)]
        if place.profile.id == "milesight_em310_tilt":
            found += [Message(*chirpstack.write("d", place.device, wire, each, START)[:2]) for each in uplinks()]
    return found


def of_things_stack(places: Sequence[Installed]) -> list[Message]:
    found: list[Message] = []
    for place in places:
        wire = place.device.wire
        assert isinstance(wire, ThingsStack)
        topic, envelope, _ = things_stack.write(wire, next(uplinks()), START)
        for message in golden_messages(place.profile.id):
            told = msgspec.json.decode(message.data)
            body = msgspec.json.decode(envelope)
            body["uplink_message"] |= {"decoded_payload": told["object"], "received_at": told["time"]}
            found.append(Message(topic, msgspec.json.encode(body)))
        if place.profile.id == "milesight_em310_tilt":
            found += [Message(*things_stack.write(wire, each, START)[:2]) for each in uplinks()]
    return found


def of_plain(places: Sequence[Installed]) -> list[Message]:
    found: list[Message] = []
    for place in places:
        wire, name = place.device.wire, place.profile.message.device
        assert isinstance(wire, PlainJson)
        told = [_named(message.data, name, wire.device) for message in golden_messages(place.profile.id)]
        if place.profile.id == "reference_plain_cover":
            told += [_named(plain.write(place.device, wire, each).payload, name, wire.device) for each in uplinks()]
        found += [Message(wire.topic, data) for data in told]
        found.append(Message(wire.topic, b"[" + b",".join(told[:3]) + b"]"))
    return found


def of_push(places: Sequence[Installed]) -> list[Message]:
    """Bodies, by platform; without the envelope that some come in."""
    found: list[Message] = []
    for place in places:
        wire = place.device.wire
        assert isinstance(wire, Pushed)
        told = [
            _named(message.data, place.profile.message.device, wire.device)
            for message in golden_messages(place.profile.id)
        ]
        found += [Message(wire.platform, data) for data in told]
        found.append(Message(wire.platform, b"[" + b",".join(told[:3]) + b"]"))
    return found


def _named(data: bytes, path: str, name: str) -> bytes:
    """Give an object the name of a device."""
    told = msgspec.json.decode(data)
    *steps, last = path.split(".")
    inner = told
    for step in steps:
        inner = inner.setdefault(step, {})
    if name:
        inner[last] = name
    return msgspec.json.encode(told)


def packs(base: str, device: Device, wire: Senml) -> list[list[dict[str, Any]]]:
    """SenML packs of a cover: one instant, some of them, relative times, sums and other kinds of values."""
    told = [message.data for message in golden_messages("reference_senml_cover")]
    told += [senml.write(device, wire, each).payload for each in uplinks()]
    found: list[list[dict[str, Any]]] = [msgspec.json.decode(data) for data in told]
    for pack in found:
        pack[0]["bn"] = base
    now = START / NANOSECONDS
    return [
        *found,
        [
            {"bn": base, "bt": now - 60, "bu": "deg", "n": "angle_x", "v": 1.5},
            *({"n": "angle_x", "v": 1.5 + n, "t": 10 * n} for n in range(1, 5)),
            {"n": "battery", "u": "/", "v": 0.5, "t": 50},
        ],
        [
            {"bver": 10, "bn": base, "bv": 10, "bs": 0, "n": "battery", "u": "%", "v": -2, "t": -5, "ut": 60},
            {"n": "alarm", "vb": False, "t": -5},
            {"n": "angle_y", "vs": "12.5", "t": -5},
            {"n": "energy", "u": "J", "s": 12.5, "t": -5},
            {"n": "picture", "vd": "_-8", "t": -5},
        ],
        [{"bver": 26, "bn": base, "n": "battery", "u": "%", "v": 1}, {"n": "angle_x", "v": 1.0}],
        [{"n": f"{base}angle_z", "u": "rad", "v": 1e-3, "t": now}],
    ]


def in_cbor(pack: list[dict[str, Any]]) -> list[dict[object, object]]:
    """A pack with the labels of CBOR, data as bytes, and a number or two as decimal fractions."""
    return [
        {
            _LABELS.get(label, label): b"\xff\xef"
            if label == "vd"
            else cbor2.CBORTag(4, [-2, round(value * 100)])
            if label == "v" and n % 3 == 2
            else value
            for n, (label, value) in enumerate(record.items())
        }
        for record in pack
    ]


def of_onvif(places: Sequence[Installed]) -> list[Message]:
    found: list[Message] = []
    for place in places:
        wire = place.device.wire
        assert isinstance(wire, Onvif)
        told = golden_messages(place.profile.id)
        found += [Message(f"{wire.prefix}/{each.topic.partition('/')[2]}", each.data) for each in told]
        found += [Message(*each[:2]) for step in sightings() for each in onvif.write(wire, step)]
    return found


def of_frigate(places: Sequence[Installed]) -> list[Message]:
    """What Frigate tells of every camera, of objects that begin at ``START``; the golden ones as their first."""
    found = golden_messages("frigate_camera")
    for place in places:
        wire = place.device.wire
        assert isinstance(wire, Frigate)
        steps = [Sighting(START, START, each.metric, each.phase, START, each.stayed) for each in sightings()]
        found += [Message(*each[:2]) for step in steps for each in frigate.write(wire, step)]
    return found


def without_ids(data: bytes, instead: bytes) -> bytes:
    """Write something in the place of the ids of what Frigate tells."""
    told = msgspec.json.decode(data)
    for id_ in (told["after"]["id"], *told["after"].get("data", {}).get("detections", ())):
        data = data.replace(id_.encode(), instead)
    return data


def golden_replies(profile: str, requests: Sequence[Request]) -> list[bytes]:
    """What a device of a model answers to some requests, one after the other: by its vectors, and zeros."""
    vectors = [each for kind in ("reply", "reading") for each in golden()[profile].get(kind, ())]
    held = [Held(vector.get("replies", [vector])) for vector in vectors] or [Held(())]
    return [b"".join(each.answer(request) for request in requests) for each in held]


def signature(secret: bytes, nonce: bytes, message: bytes) -> bytes:
    """Sign as OneNET does, a message that is a text without its quotes."""
    text = message[1:-1] if message[:1] == message[-1:] == b'"' else message
    return base64.b64encode(hashlib.md5(secret + nonce + text, usedforsecurity=False).digest())


def uncompressed(data: bytes) -> bytes:
    """A Zstandard frame of one raw block (RFC 8878, 3.1.1), which costs nothing to make."""
    size = len(data).to_bytes(4, "little")
    return b"\x28\xb5\x2f\xfd\xa0" + size + (len(data) << 3 | 1).to_bytes(3, "little") + data


def crossing() -> Iterator[Batch | Receipt | Status | PointTable | Order | Answer]:
    """What crosses between gateway and cloud."""
    block = Block(
        np.array([0, 1, 2], np.int32),
        np.array([START, START, START + 1], np.int64),
        np.array([0.1, 2.5, -3.0]),
        np.array([0, 19, 1], np.uint8),
    )
    alert = Transition(
        "0b8ccb4e-36f4-5c2a-8b39-3d1e9a5e7a10",
        2,
        AlertPhase.RAISED,
        "underpass_water",
        "warning",
        Severity.II,
        "level-1",
        START,
        START + NANOSECONDS,
        Reason("above", "level", {"value": 0.3, "limit": 0.27, "for_s": 30.0}),
        {"level": 0.3},
    )
    hour = START // HOUR * HOUR
    yield Batch("gw-1", "boot", 7, 3, hour, "0123456789abcdef", clock_ok=True, samples=columns(block))
    yield Batch("gw-1", "boot", 8, 3, hour, "0123456789abcdef", clock_ok=False, transitions=(alert,))
    yield Receipt((1, 2, 300), ((4, "no such table"),))
    tally = Tally(hour, 1000, 900, 90, {"outbox_full": 10})
    counts = {"edge_repeated_messages_total": 3}
    yield Status("gw-1", "boot", START, True, 3, 900, (tally,), ("lamp-1",), counts, {"bus-1": 1.25})
    points = (
        Point("level-1", "level_sensor", "level", "m", 10.0),
        Point("cover-1", "manhole_cover", "tilt", "deg", 600.0, True),
    )
    yield PointTable("gw-1", points)
    yield Order("o-1", "lamp-1", "dim", 40.0, START)
    yield Order("o-2", "lamp-1", "on", None, START)
    yield Answer("o-1", 40.0)
    yield Answer("o-2", None, "no answer")
