"""What MQTT devices tell, and when: a walk over city time second by second, the same whatever the size of its steps."""

import base64
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np

from firmware_sim import noise
from firmware_sim.instruments import Instruments, Shown
from firmware_sim.noise import Times
from rules.district import Chirpstack, Device, District, Onvif
from wire.clock import NANOSECONDS, iso

HEARTBEAT_S = 600
ALARM_DEG = 10.0  # the maker's default: reported at once, and again when it is over
CALM_S = 5  # how long a lid must lie still before the sensor calls it recovered
_INSIDE = "RuleEngine/FieldDetector/ObjectsInside"
_RULES = {"StandingWater": "standing_water", "Zone": "object_inside"}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a device, ready to publish; ``at`` is when the device says it (UTC ns)."""

    at: int
    device: str
    topic: str
    payload: bytes
    retain: bool


class Cover:
    """A LoRaWAN cover behind ChirpStack v4: a heartbeat, and an uplink at once when the alarm comes or goes."""

    def __init__(self, device: Device, wire: Chirpstack, instruments: Instruments, district: str, start: int) -> None:
        self.device = device
        self._wire = wire
        self._instruments = instruments
        self._district = district
        self._start = start
        seed = instruments.world.seed
        self._phase = 1 + int((HEARTBEAT_S - 1) * noise.draw(seed, device.id, "phase"))
        self._session = f"{int(noise.draw(seed, device.id, 'address') * 2**24):08x}"
        self._alarm = False
        self._calm = 0
        self._frame = 0

    def tell(self, at: Times) -> Iterator[Message]:
        """Yield the uplinks of consecutive seconds."""
        shown = self._instruments.show(self.device, at)
        install = self.device.install
        tilt = np.hypot(shown["angle_x"] - install["background_x_deg"], shown["angle_y"] - install["background_y_deg"])
        since = (at - self._start) // NANOSECONDS
        # A joining device tells its state at once; then by the minute hand of its own.
        due = (since == 0) | ((since > 0) & (since % HEARTBEAT_S == self._phase))
        calm = tilt < ALARM_DEG
        watched = range(len(at)) if self._alarm or not calm.all() else np.flatnonzero(due)
        for row in watched:
            if self._changes(bool(calm[row])) or due[row]:
                yield self._uplink(int(at[row]), {metric: float(column[row]) for metric, column in shown.items()})

    def _changes(self, calm: bool) -> bool:
        self._calm = self._calm + 1 if calm else 0
        before = self._alarm
        self._alarm = not calm or (self._alarm and self._calm < CALM_S)
        return self._alarm != before

    def _uplink(self, at: int, values: dict[str, float]) -> Message:
        seed, device, frame = self._instruments.world.seed, self.device, self._frame
        self._frame += 1
        rssi = round(noise.between(-112, -86, seed, device.id, "rssi", str(frame)))
        angles = [round(values[f"angle_{axis}"], 2) for axis in "xyz"]
        body = {
            "deduplicationId": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{seed}/{self._wire.dev_eui}/{frame}")),
            "time": iso(at),
            "deviceInfo": {
                "tenantId": str(uuid.uuid5(uuid.NAMESPACE_OID, self._district)),
                "tenantName": self._district,
                "applicationId": self._wire.application,
                "applicationName": "covers",
                "deviceProfileId": str(uuid.uuid5(uuid.NAMESPACE_OID, device.profile)),
                "deviceProfileName": device.profile,
                "deviceName": device.id,
                "devEui": self._wire.dev_eui,
                "deviceClassEnabled": "CLASS_A",
                "tags": {"asset": device.asset},
            },
            "devAddr": self._session,
            "adr": True,
            "dr": 3,
            "fCnt": frame,
            "fPort": 85,
            "confirmed": False,
            "data": base64.b64encode(_frame(angles, values["battery"], self._alarm)).decode(),
            "object": {
                "battery": values["battery"],
                **dict(zip(("angle_x", "angle_y", "angle_z"), angles, strict=True)),
                "threshold_x": "trigger" if self._alarm else "normal",
                "threshold_y": "trigger" if self._alarm else "normal",
                "threshold_z": "trigger" if self._alarm else "normal",
            },
            "rxInfo": [
                {
                    "gatewayId": "0016c001f153a14c",
                    "uplinkId": 1000 + frame,
                    "nsTime": iso(at),
                    "rssi": rssi,
                    "snr": round(8.0 + (rssi + 100) / 3, 1),
                    "context": "EFwMtA==",
                    "crcStatus": "CRC_OK",
                }
            ],
            "txInfo": {
                "frequency": 486300000,
                "modulation": {"lora": {"bandwidth": 125000, "spreadingFactor": 9, "codeRate": "CR_4_5"}},
            },
            "regionConfigId": "cn470_10",
        }
        topic = f"application/{self._wire.application}/device/{self._wire.dev_eui}/event/up"
        return Message(at, device.id, topic, msgspec.json.encode(body), retain=False)


def _frame(angles: list[float], battery: float, alarm: bool) -> bytes:
    """Pack as on the air: channel 01 type 75 battery; 03 CF x, y, z in 0.01° and a bit per axis in alarm."""
    words = b"".join(round(angle * 100).to_bytes(2, "little", signed=True) for angle in angles)
    return b"\x01\x75" + bytes([round(battery)]) + b"\x03\xcf" + words + bytes([7 if alarm else 0])


@dataclass(slots=True)
class Camera:
    """A camera's analytics as ONVIF property events, retained: told at the start and on every change."""

    device: Device
    wire: Onvif
    instruments: Instruments
    _last: dict[str, bool] = field(default_factory=dict)

    def tell(self, at: Times) -> Iterator[Message]:
        """Yield the events of consecutive seconds, in their order."""
        shown = self.instruments.show(self.device, at)
        told = [
            *self._rule(at, shown, "StandingWater", "standing_water"),
            *self._rule(at, shown, "Zone", "object_inside"),
        ]
        yield from sorted(told, key=lambda message: message.at)

    def _rule(self, at: Times, shown: Shown, rule: str, metric: str) -> Iterator[Message]:
        inside = shown[metric] > 0.5
        before = self._last.get(rule)
        changes = np.flatnonzero(np.diff(inside, prepend=inside[0] if before is None else before))
        if before is None:
            changes = np.concatenate([[0], changes])
        for row in changes:
            source = {"VideoSource": "1", "AnalyticsConfiguration": "2", "Rule": rule}
            data = {"ObjectId": str(int(at[row]) // NANOSECONDS % 1000), "IsInside": bool(inside[row])}
            payload = msgspec.json.encode({"UtcTime": _zulu(int(at[row])), "Source": source, "Data": data})
            topic = f"{self.wire.prefix}/onvif-ej/{_INSIDE}/&1/2/{rule}"
            yield Message(int(at[row]), self.device.id, topic, payload, retain=True)
        self._last[rule] = bool(inside[-1])


def _zulu(at: int) -> str:
    return iso(at).replace("+00:00", "Z")


class Telling:
    """Every MQTT device of a district, walked together from ``start`` (UTC ns) on."""

    def __init__(self, district: District, instruments: Instruments, start: int) -> None:
        self._tellers: list[Cover | Camera] = []
        for device in district.device:
            if isinstance(device.wire, Chirpstack):
                self._tellers.append(Cover(device, device.wire, instruments, district.id, start))
            elif isinstance(device.wire, Onvif):
                self._tellers.append(Camera(device, device.wire, instruments))
        self._next = start

    def until(self, now: int) -> list[Message]:
        """Everything told since the last call, up to and including ``now`` (UTC ns), in order of time."""
        at = np.arange(self._next, now + 1, NANOSECONDS, dtype=np.int64)
        if not len(at):
            return []
        self._next = int(at[-1]) + NANOSECONDS
        told = [message for teller in self._tellers for message in teller.tell(at)]
        return sorted(told, key=lambda message: (message.at, message.device))
