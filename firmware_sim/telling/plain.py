"""A flat JSON object with an ISO 8601 time, as boxes of no standard send it."""

import msgspec

from firmware_sim.telling.told import Uplink, Written, iso
from rules.district import Device, PlainJson


def write(device: Device, wire: PlainJson, uplink: Uplink) -> Written:
    """Write one object."""
    body = {"device": device.id, "time": iso(uplink.stamp), **uplink.values, "alarm": uplink.alarm}
    return Written(wire.topic, msgspec.json.encode(body))
