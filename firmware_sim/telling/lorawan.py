"""What every LoRaWAN network server passes on of a cover's frame, however it words it."""

import hashlib
import struct
from binascii import b2a_base64
from math import isnan

from firmware_sim.telling.told import Uplink

PORT = 85
FREQUENCY_HZ = 486_300_000
BANDWIDTH_HZ = 125_000
SPREADING_FACTOR = 9
CODING_RATE = "4/5"
GATEWAY = "0016c001f153a14c"
_FRAME = struct.Struct("<5B3hB")  # channel 01 type 75: battery; channel 03 type CF: x, y, z in 0.01°, an alarm bit each


def frame(uplink: Uplink) -> str:
    """Pack as an EM310-TILT does on the air, in base64.

    What a recording does not tell is 0 there; the decoded fields leave it out.
    """
    battery, x, y, z = [0 if isnan(value) else value for value in (uplink.battery, *uplink.angles)]
    angles = round(x * 100), round(y * 100), round(z * 100)
    packed = _FRAME.pack(0x01, 0x75, round(battery), 0x03, 0xCF, *angles, 7 if uplink.alarm else 0)
    return b2a_base64(packed, newline=False).decode()


def decoded(uplink: Uplink) -> dict[str, float | str]:
    """Decode a frame as the maker's payload decoder does, with its field names."""
    state = "trigger" if uplink.alarm else "normal"
    return {**uplink.values, "threshold_x": state, "threshold_y": state, "threshold_z": state}


def session(dev_eui: str) -> str:
    """The address of a device's session, 32 bits in hex."""
    return f"00{dev_eui[-6:]}"


def snr(uplink: Uplink) -> float:
    """Signal to noise ratio, dB."""
    return round(8.0 + (uplink.rssi + 100) / 3, 1)


def unique(dev_eui: str, uplink: Uplink) -> str:
    """Name one frame, shaped as a UUID."""
    digest = hashlib.blake2b(f"{dev_eui}/{uplink.frame}/{uplink.at}".encode(), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"
