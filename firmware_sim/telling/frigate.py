"""Frigate's tracked objects and review items over MQTT (Frigate documentation, "MQTT")."""

import uuid
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from firmware_sim.telling.told import Phase, Sighting, Written
from rules.district import Frigate
from wire.clock import NANOSECONDS

_LABELS = {"standing_water": ("water", "ponding"), "object_inside": ("car", "roadway")}  # and the zone it is in
_BOX = (412, 388, 676, 552)


class _Seen(NamedTuple):
    """What Frigate knows of an object at one moment, in epoch seconds."""

    frame_time: float
    ended: float | None = None
    stays: bool = False


_TYPES: dict[Phase, str] = {"begins": "new", "stays": "update", "ends": "end"}


def write(wire: Frigate, sighting: Sighting) -> Iterator[Written]:
    """Write ``events`` and ``reviews``; where nothing is there, Frigate says nothing. Neither is retained.

    Times are epoch seconds by its own clock. A review rises from detection to alert once its object stays.
    """
    if sighting.phase not in _TYPES:
        return
    began, now = sighting.began / NANOSECONDS, sighting.stamp / NANOSECONDS
    match sighting.phase:
        case "begins":
            before = after = _Seen(now)
        case "stays":
            before, after = _Seen(began), _Seen(now, None, sighting.stayed)
        case _:
            before, after = _Seen(began, None, sighting.stayed), _Seen(now, now, sighting.stayed)
    for kind, item in (("events", _event), ("reviews", _review)):
        body = {
            "type": _TYPES[sighting.phase],
            "before": item(wire.camera, sighting.metric, began, before),
            "after": item(wire.camera, sighting.metric, began, after),
        }
        yield Written(f"{wire.prefix}/{kind}", msgspec.json.encode(body))


def _event(camera: str, metric: str, began: float, seen: _Seen) -> dict[str, object]:
    label, zone = _LABELS[metric]
    left, top, right, bottom = _BOX
    area = (right - left) * (bottom - top)
    score = 0.84 if seen.stays else 0.79
    return {
        "id": _id("event", camera, metric, began),
        "camera": camera,
        "frame_time": seen.frame_time,
        "snapshot": {
            "frame_time": began,
            "box": _BOX,
            "area": area,
            "region": (264, 258, 696, 690),
            "score": score,
            "attributes": [],
        },
        "label": label,
        "sub_label": None,
        "top_score": score,
        "false_positive": False,
        "start_time": began,
        "end_time": seen.ended,
        "score": score,
        "box": _BOX,
        "area": area,
        "ratio": round((right - left) / (bottom - top), 2),
        "region": (264, 258, 696, 690),
        "current_zones": [] if seen.ended else [zone],
        "entered_zones": [zone],
        "thumbnail": None,
        "has_snapshot": True,
        "has_clip": True,
        "active": not seen.stays,
        "stationary": seen.stays,
        "motionless_count": 50 if seen.stays else 0,
        "position_changes": 1,
        "attributes": {},
        "current_attributes": [],
    }


def _review(camera: str, metric: str, began: float, seen: _Seen) -> dict[str, object]:
    label, zone = _LABELS[metric]
    name = _id("review", camera, metric, began)
    return {
        "id": name,
        "camera": camera,
        "start_time": began,
        "end_time": seen.ended,
        "severity": "alert" if seen.stays else "detection",
        "thumb_path": f"/media/frigate/clips/review/thumb-{camera}-{name}.webp",
        "data": {
            "detections": [_id("event", camera, metric, began)],
            "objects": [label],
            "sub_labels": [],
            "zones": [zone],
            "audio": [],
        },
    }


def _id(kind: str, camera: str, metric: str, began: float) -> str:
    """Identify as Frigate does: the epoch of its beginning with a fraction, and six characters of chance."""
    chance = uuid.uuid5(uuid.NAMESPACE_OID, f"{kind}/{camera}/{metric}/{began}").hex[:6]
    return f"{began:.6f}-{chance}"
