"""Every vector file in this folder: bytes as a manual prints them, and what they mean."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.codec import Codec
from edge.decoders import chirpstack, onvif
from edge.plan import Request
from edge.profile import Profile, Register, load_profiles
from rules.samples import Quality
from wire.batch import Malformed
from wire.clock import from_iso

FILES = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in sorted(Path(__file__).parent.glob("*.toml"))}
PROFILES = load_profiles()


def _vectors(kind: str) -> list[Any]:
    return [
        pytest.param(file, vector, id=f"{name}: {vector['say']}")
        for name, file in FILES.items()
        for vector in file.get(kind, [])
    ]


@pytest.mark.parametrize(("_file", "vector"), _vectors("encoding"))
@pytest.mark.parametrize("order", ["ABCD", "CDAB", "BADC", "DCBA"])
def test_encoding(_file: dict[str, Any], vector: dict[str, Any], order: Any) -> None:
    point = Register("x", "1", 3, 10, vector["type"], order=order)
    value, quality = Codec([point], Request(3, 10, 2, (0,))).decode(_data(vector[order]))
    assert quality[0, 0] == Quality.GOOD
    assert value[0, 0] == pytest.approx(vector["value"], rel=1e-7)


@pytest.mark.parametrize(("file", "vector"), _vectors("reply"))
def test_reply(file: dict[str, Any], vector: dict[str, Any]) -> None:
    profile = PROFILES[file["profile"]]
    data = _data_of_frame(vector["frame"]) if "frame" in vector else _data(vector["data"])
    asked = {**vector.get("values", {}), **vector.get("bad", {})}
    chosen = tuple(n for n, point in enumerate(profile.point) if point.metric in asked)
    request = Request(vector["function"], vector["start"], data.shape[1] // 2, chosen)
    value, quality = Codec(profile.point, request).decode(data)
    told = {profile.point[n].metric: (value[0, k], Quality(quality[0, k])) for k, n in enumerate(chosen)}
    assert set(told) == set(asked)
    for metric, expected in vector.get("values", {}).items():
        assert told[metric] == (pytest.approx(expected, rel=1e-6), Quality.GOOD)
    for metric, cause in vector.get("bad", {}).items():
        assert told[metric] == (0.0, Quality[cause])


@pytest.mark.parametrize(("file", "vector"), _vectors("message"))
def test_message(file: dict[str, Any], vector: dict[str, Any]) -> None:
    profile, payload = PROFILES[file["profile"]], vector["payload"].encode()
    if "malformed" in vector:
        with pytest.raises(Malformed, match=vector["malformed"]):
            _decode(profile, vector.get("topic", ""), payload)
        return
    decoded = _decode(profile, vector.get("topic", ""), payload)
    if vector.get("nothing"):
        assert decoded is None
        return
    assert decoded is not None
    assert decoded.values == pytest.approx(vector["values"])
    assert decoded.taken_at == from_iso(vector["taken_at"])


def _decode(profile: Profile, topic: str, payload: bytes) -> Any:
    if profile.profile.protocol == "onvif":
        return onvif.decode(profile, topic, payload)
    return chirpstack.decode(profile, payload)


def _data(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(bytes.fromhex(text), np.uint8)[None]


def _data_of_frame(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The data bytes of a serial frame, after its own checks: unit, function, length, data, CRC."""
    frame = bytes.fromhex(text)
    assert frame[2] == len(frame) - 5
    assert _crc(frame[:-2]) == frame[-2:]
    return np.frombuffer(frame[3:-2], np.uint8)[None]


def _crc(frame: bytes) -> bytes:
    crc = 0xFFFF
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")
