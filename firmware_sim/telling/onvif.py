"""ONVIF property events over MQTT in JSON, "onvif-ej" (ONVIF Core Specification, chapter Event Broker)."""

from collections.abc import Iterator

import msgspec

from firmware_sim.telling.told import Sighting, Written, iso
from rules.district import Onvif
from wire.clock import NANOSECONDS

_RULES = {"standing_water": "StandingWater", "object_inside": "Zone"}  # as the two were named when it was set up


def write(wire: Onvif, sighting: Sighting) -> Iterator[Written]:
    """Write a property's new state, retained; nothing for one that goes on, no bytes for one that is deleted."""
    rule = _RULES[sighting.metric]
    topic = f"{wire.prefix}/onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&1/2/{rule}"
    if sighting.phase == "deleted":
        yield Written(topic, b"", retain=True)
    elif sighting.phase != "stays":
        body = {
            "UtcTime": iso(sighting.stamp).replace("+00:00", "Z"),
            "Source": {"VideoSource": "1", "AnalyticsConfiguration": "2", "Rule": rule},
            "Data": {"ObjectId": str(sighting.began // NANOSECONDS % 1000), "IsInside": sighting.inside},
        }
        yield Written(topic, msgspec.json.encode(body), retain=True)
