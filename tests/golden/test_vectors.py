"""Every vector file in this folder: bytes as a manual prints them, and what they mean.

``[[encoding]]``: one ``value`` (or ``bad``: a quality) of a ``type``, under the name of each order of its bytes.

``[[reply]]``: the data of one read, from the address ``start`` on; as ``data``, or as a whole serial ``frame`` whose
length and CRC are checked. ``[[reading]]``: ``replies``, each with ``function``, ``start`` and ``data`` or ``frame``.
Both are what a device holds; the profile's own reads ask for it, ``base`` further on. ``values`` says what is told of
it, ``bad`` what is not, and why; with ``install``, also what is derived.

``[[message]]``: a ``payload`` (or ``data``, its bytes) on a ``topic``, after those that come ``first``. It tells
``values`` of ``taken_at``, and ``earlier`` ones before, or ``nothing``, or it is refused as ``malformed`` with this in
its words.
"""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import structlog
from numpy.typing import NDArray
from structlog.testing import capture_logs

from edge.decoding import Decoding
from edge.installed import Installed, derive
from edge.plan import Request
from edge.profile import Head, Profile, Register, load_profiles
from edge.reading import Reading
from edge.reads import Reads
from edge.sources import MqttSource
from rules.district import Chirpstack, Device, Frigate, Onvif, PlainJson, Senml, Sparkplug, ThingsStack
from rules.samples import Quality
from wire.clock import NANOSECONDS, Clock, from_iso

FILES = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in sorted(Path(__file__).parent.glob("*.toml"))}
PROFILES = load_profiles()
ORDERS: tuple[Literal["ABCD", "CDAB", "BADC", "DCBA"], ...] = ("ABCD", "CDAB", "BADC", "DCBA")
TOPICS = {
    "lorawan": "application/a/device/24e124136b000042/event/up",
    "onvif": "cam/onvif-ej/x",
    "frigate": "frigate/events",
}
Wire = Chirpstack | ThingsStack | Senml | PlainJson | Sparkplug | Onvif | Frigate
SERIAL = Head("x", "level_sensor", "m", "x", "m", "modbus", 10)


def _vectors(kind: str) -> list[Any]:
    return [
        pytest.param(file, vector, id=f"{name}: {vector['say']}")
        for name, file in FILES.items()
        for vector in file.get(kind, [])
    ]


@pytest.mark.parametrize(("_file", "vector"), _vectors("encoding"))
def test_encoding(_file: dict[str, Any], vector: dict[str, Any]) -> None:
    orders = [order for order in ORDERS if order in vector]
    assert orders
    for order in orders:
        point = Register("x", "1", 3, 10, vector["type"], order=order)
        value, quality = Reads(Profile(SERIAL, point=(point,))).decode([_matrix(bytes.fromhex(vector[order]))])
        if "bad" in vector:
            assert (value[0, 0], quality[0, 0]) == (0.0, Quality[vector["bad"]]), order
        else:
            assert (value[0, 0], quality[0, 0]) == (pytest.approx(vector["value"], rel=1e-7), Quality.GOOD), order


@pytest.mark.parametrize(("file", "vector"), _vectors("reply") + _vectors("reading"))
def test_reply(file: dict[str, Any], vector: dict[str, Any]) -> None:
    profile = PROFILES[file["profile"]]
    base = vector.get("base", 0)
    held = Held(vector.get("replies", [vector]))
    reads = Reads(profile, base)
    value, quality = reads.decode([_matrix(held.answer(request)) for request in reads.requests])
    if "install" in vector:
        install = {name: np.array([float(number)]) for name, number in vector["install"].items()}
        value, quality = derive(profile, install, value, quality)
    told = {
        quantity.metric: (value[0, n], Quality(quality[0, n]))
        for n, quantity in enumerate(profile.quantities[: value.shape[1]])
    }
    values, bad = vector.get("values", {}), vector.get("bad", {})
    derived = {each.metric for each in profile.derived}
    assert {point.metric for point in profile.point if held.shows(point, base)} == {*values, *bad} - derived
    for metric, expected in values.items():
        assert told[metric] == (pytest.approx(expected, rel=1e-6), Quality.GOOD), metric
    for metric, cause in bad.items():
        assert told[metric] == (0.0, Quality[cause]), metric


@pytest.mark.parametrize(("file", "vector"), _vectors("message"))
def test_message(file: dict[str, Any], vector: dict[str, Any]) -> None:
    profile = PROFILES[file["profile"]]
    topic = vector.get("topic") or TOPICS.get(profile.profile.protocol, "sensors/1")
    source = _source(profile, topic, vector)
    for each in vector.get("first", ()):
        source.take(each["topic"], _payload(each))
    structlog.reset_defaults()
    with capture_logs() as logs:
        readings = source.take(topic, _payload(vector))
    if "malformed" in vector:
        assert readings == []
        (line,) = logs
        assert vector["malformed"] in line["why"]
        return
    told = [(reading.taken_at, *_told(reading)) for reading in readings]
    if vector.get("nothing"):
        assert told == []
        return
    expected = [each for each in vector.get("earlier", ()) if each["values"]]  # the others tell nothing
    expected += [vector] if "taken_at" in vector else []
    assert len(told) == len(expected) > 0
    for (taken_at, good, bad), each in zip(told, expected, strict=True):
        assert taken_at == from_iso(each["taken_at"])
        assert good == pytest.approx(each.get("values", {}))
        assert bad == each.get("bad", {})


def _source(profile: Profile, topic: str, vector: dict[str, Any]) -> MqttSource:
    """The gateway of the one device that a vector is of, a second after it told."""
    now = from_iso(vector.get("taken_at", "2026-06-18T03:12:45Z")) + NANOSECONDS
    install = dict.fromkeys(profile.install_names(), 0.0)
    wire = _wire(profile, topic, vector)
    device = Device("d", profile.profile.kind, profile.id, "gw", "s", "a", "0120", 0.0, 0.0, wire, install)
    place = Installed(device, profile, np.arange(len(profile.quantities), dtype="i4"))
    return MqttSource([place], Clock(wall=0, city=now, speed=1e-30))


def _wire(profile: Profile, topic: str, vector: dict[str, Any]) -> Wire:
    levels = topic.split("/")
    match profile.profile.protocol:
        case "lorawan" if levels[0] == "v3":
            application, _, tenant = levels[1].partition("@")
            return ThingsStack(application, tenant, levels[3], "")
        case "lorawan":
            return Chirpstack(levels[1], levels[3])
        case "senml":
            return Senml(topic, f"{levels[-1]}/")
        case "sparkplug":
            return Sparkplug(levels[1], levels[3], *levels[4:])
        case "onvif":
            return Onvif(topic.partition("/onvif-ej/")[0])
        case "frigate":
            return Frigate(json.loads(vector["payload"])["after"]["camera"], levels[0])
    return PlainJson(topic)


def _payload(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["data"]) if "data" in vector else bytes(vector["payload"], "utf-8")


def _told(reading: Reading) -> tuple[dict[str, float], dict[str, str]]:
    """What a reading says, by metric: numbers, and why there is none."""
    block, measured = Decoding().block([reading]), reading.place.profile.measured
    samples = zip(block.point.tolist(), block.value.tolist(), block.quality.tolist(), strict=True)
    of = [(measured[n].metric, value, Quality(quality)) for n, value, quality in samples if n < len(measured)]
    good = {metric: value for metric, value, quality in of if quality is Quality.GOOD}
    return good, {metric: quality.name for metric, _, quality in of if quality is not Quality.GOOD}


class Held:
    """What a device holds: a word in each register, a bit in each coil and input, as far as a vector says."""

    def __init__(self, replies: Iterable[dict[str, Any]]) -> None:
        self._held: dict[tuple[int, int], int] = {}
        for reply in replies:
            function, start = reply["function"], reply["start"]
            data = _data_of_frame(reply["frame"]) if "frame" in reply else bytes.fromhex(reply["data"])
            held = _bits(data) if function in (1, 2) else _words(data)
            self._held |= {(function, start + n): each for n, each in enumerate(held)}

    def shows(self, point: Register, base: int) -> bool:
        addresses = range(base + point.register, base + point.register + point.words)
        return all((point.function, address) in self._held for address in addresses)

    def answer(self, request: Request) -> bytes:
        """The data bytes of the answer to a request; 0 where the vector says nothing."""
        held = [self._held.get((request.function, request.start + n), 0) for n in range(request.count)]
        if request.function in (1, 2):
            return np.packbits(held, bitorder="little").tobytes()
        return b"".join(word.to_bytes(2, "big") for word in held)


def _words(data: bytes) -> list[int]:
    assert len(data) % 2 == 0
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


def _bits(data: bytes) -> list[int]:
    """Eight to a byte, the first in its lowest bit."""
    return [byte >> n & 1 for byte in data for n in range(8)]


def _matrix(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)[None]


def _data_of_frame(text: str) -> bytes:
    """The data bytes of a serial frame, after its own checks: unit, function, length, data, CRC."""
    frame = bytes.fromhex(text)
    assert frame[2] == len(frame) - 5
    assert _crc(frame[:-2]) == frame[-2:]
    return frame[3:-2]


def _crc(frame: bytes) -> bytes:
    crc = 0xFFFF
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")
