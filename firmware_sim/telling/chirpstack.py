"""ChirpStack v4 integration events, JSON (chirpstack-docs, "Events"; ``api/proto/integration/integration.proto``)."""

import uuid
from functools import cache

import msgspec

from firmware_sim.telling import lorawan
from firmware_sim.telling.told import Uplink, Written, iso
from rules.district import Chirpstack, Device

_TX = {
    "frequency": lorawan.FREQUENCY_HZ,
    "modulation": {
        "lora": {
            "bandwidth": lorawan.BANDWIDTH_HZ,
            "spreadingFactor": lorawan.SPREADING_FACTOR,
            "codeRate": "CR_4_5",
        }
    },
}


def write(district: str, device: Device, wire: Chirpstack, uplink: Uplink, delivered_at: int) -> Written:
    """Write an ``up`` event.

    ``time`` is the device's own stamp, as of a network that takes it from the payload; when the frame was heard is
    ``rxInfo.nsTime``.
    """
    body = {
        "deduplicationId": lorawan.unique(wire.dev_eui, uplink),
        "time": iso(uplink.stamp),
        "deviceInfo": _device_info(district, device.id, device.profile, device.asset, wire),
        "devAddr": lorawan.session(wire.dev_eui),
        "adr": True,
        "dr": 3,
        "fCnt": uplink.frame,
        "fPort": lorawan.PORT,
        "confirmed": False,
        "data": lorawan.frame(uplink),
        "object": lorawan.decoded(uplink),
        "rxInfo": [
            {
                "gatewayId": lorawan.GATEWAY,
                "uplinkId": 1000 + uplink.frame,
                "nsTime": iso(delivered_at),
                "rssi": uplink.rssi,
                "snr": lorawan.snr(uplink),
                "context": "EFwMtA==",
                "crcStatus": "CRC_OK",
            }
        ],
        "txInfo": _TX,
        "regionConfigId": "cn470_10",
    }
    topic = f"application/{wire.application}/device/{wire.dev_eui}/event/up"
    return Written(topic, msgspec.json.encode(body))


@cache
def _device_info(district: str, device: str, profile: str, asset: str, wire: Chirpstack) -> msgspec.Raw:
    """Write what every event of a device says of it."""
    info = {
        "tenantId": str(uuid.uuid5(uuid.NAMESPACE_OID, district)),
        "tenantName": district,
        "applicationId": wire.application,
        "applicationName": "covers",
        "deviceProfileId": str(uuid.uuid5(uuid.NAMESPACE_OID, profile)),
        "deviceProfileName": profile,
        "deviceName": device,
        "devEui": wire.dev_eui,
        "deviceClassEnabled": "CLASS_A",
        "tags": {"asset": asset},
    }
    return msgspec.Raw(msgspec.json.encode(info))
