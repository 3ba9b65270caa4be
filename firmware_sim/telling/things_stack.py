"""The Things Stack v3 uplink messages, JSON (lorawan-stack-docs, "Data Formats" and "MQTT Server")."""

import base64

import msgspec

from firmware_sim.telling import lorawan
from firmware_sim.telling.told import Uplink, Written, iso
from rules.district import ThingsStack

_JOIN_EUI = "24E124C0002A0001"


def write(wire: ThingsStack, uplink: Uplink, delivered_at: int) -> Written:
    """Write an ``up`` message; what is zero, false or empty is left out, as the Stack's JSON does.

    ``uplink_message.received_at`` is the device's own stamp (as ``time`` is in ``chirpstack``); the outer
    ``received_at`` and ``settings.time`` are when the network heard the frame.
    """
    heard = _zulu(delivered_at)
    application = f"{wire.application}@{wire.tenant}" if wire.tenant else wire.application
    body = {
        "end_device_ids": {
            "device_id": wire.device,
            "application_ids": {"application_id": wire.application},
            "dev_eui": wire.dev_eui.upper(),
            "join_eui": _JOIN_EUI,
            "dev_addr": lorawan.session(wire.dev_eui).upper(),
        },
        "correlation_ids": [f"as:up:{lorawan.unique(wire.dev_eui, uplink)}"],
        "received_at": heard,
        "uplink_message": {
            "session_key_id": base64.b64encode(wire.dev_eui.encode()).decode(),
            "f_port": lorawan.PORT,
            "f_cnt": uplink.frame,
            "frm_payload": lorawan.frame(uplink),
            "decoded_payload": msgspec.Raw(msgspec.json.encode(lorawan.decoded(uplink))),  # its zeros stay
            "rx_metadata": [
                {
                    "gateway_ids": {"gateway_id": f"eui-{lorawan.GATEWAY}", "eui": lorawan.GATEWAY.upper()},
                    "time": heard,
                    "timestamp": delivered_at // 1000 % 2**32,
                    "rssi": uplink.rssi,
                    "channel_rssi": uplink.rssi,
                    "snr": lorawan.snr(uplink),
                    "uplink_token": "EFwMtA==",
                    "channel_index": uplink.frame % 8,
                }
            ],
            "settings": {
                "data_rate": {
                    "lora": {
                        "bandwidth": lorawan.BANDWIDTH_HZ,
                        "spreading_factor": lorawan.SPREADING_FACTOR,
                        "coding_rate": lorawan.CODING_RATE,
                    }
                },
                "frequency": str(lorawan.FREQUENCY_HZ),
                "timestamp": delivered_at // 1000 % 2**32,
                "time": heard,
            },
            "received_at": _zulu(uplink.stamp),
            "confirmed": False,
            "consumed_airtime": "0.205824s",
            "network_ids": {"net_id": "000013", "tenant_id": wire.tenant, "cluster_id": "city"},
        },
    }
    return Written(f"v3/{application}/devices/{wire.device}/up", msgspec.json.encode(_sparse(body)))


def _sparse(message: object) -> object:
    match message:
        case dict():
            return {key: _sparse(value) for key, value in message.items() if value or isinstance(value, msgspec.Raw)}
        case list():
            return [_sparse(value) for value in message]
    return message


def _zulu(at: int) -> str:
    return iso(at).replace("+00:00", "Z")
