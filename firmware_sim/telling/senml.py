"""Sensor Measurement Lists in JSON (RFC 8428), units of its registry: radians, and percent of energy left."""

import msgspec

from firmware_sim.telling.told import Uplink, Written
from rules.district import Device, Senml
from wire.clock import NANOSECONDS

_RADIANS = 0.017453292519943295  # of one degree


def write(device: Device, wire: Senml, uplink: Uplink) -> Written:
    """Write one pack: a base name, time and unit, and names relative to them.

    A clock that nobody set since 1970 gives a base time below 2^28 s, which readers take as relative to now: that is
    what such a device does.
    """
    pack: list[dict[str, object]] = []
    for name, value in uplink.values.items():
        told = {"u": "%EL", "v": value} if name == "battery" else {"v": round(value * _RADIANS, 5)}
        pack.append({"n": name, **told, "ut": uplink.interval_s})
    pack.append({"n": "alarm", "vb": uplink.alarm, "ut": uplink.interval_s})
    pack[0] = {"bn": f"{device.id}/", "bt": uplink.stamp / NANOSECONDS, "bu": "rad"} | pack[0]
    return Written(wire.topic, msgspec.json.encode(pack))
