"""Frigate's objects and review items as counts of what is in a zone now: whatever is lost, doubled or restarted."""

import json
from typing import Any

import numpy as np
import pytest
import structlog
from structlog.testing import capture_logs

from edge.decoders.frigate import OBJECTS_MOST
from edge.installed import Installed
from edge.profile import Field, Head, Profile
from edge.reading import Reading
from edge.sources import MqttSource
from rules.declared import Refused
from rules.district import Device, Frigate
from rules.samples import Quality
from streetwarden.fast.clock import VirtualClock
from tests.readings import block_of
from wire.clock import NANOSECONDS, from_iso
from wire.counted import Counted

START = from_iso("2026-06-18T03:00:00Z")
FIELDS = (
    Field("water", "1", topic="reviews", zone="ponding", labels=("water",), expires_s=3600.0),
    Field("cars", "1", topic="events", zone="roadway", labels=("car", "bus"), expires_s=100.0),
    Field("anything", "1", topic="events", expires_s=300.0),
)
PROFILE = Profile(Head("f", "camera", "M", "X", "http://example.org", "frigate", 3600.0), field=FIELDS)


def camera(name: str, first_row: int = 0, prefix: str = "frigate") -> Installed:
    wire = Frigate(name, prefix)
    device = Device(f"camera-{name}", "camera", "f", "gw", "s", "a", "0", 0.0, 0.0, wire)
    return Installed(device, PROFILE, np.arange(first_row, first_row + len(FIELDS), dtype="i4"))


class Watched:
    """A gateway of two cameras, and the city's clock in seconds after the start."""

    def __init__(self) -> None:
        self.clock = VirtualClock.at(START)
        self.counted = Counted()
        elsewhere = camera("far").device
        self.source = MqttSource([camera("one"), camera("two", 3)], self.clock, self.counted, [elsewhere])

    def at(self, second: float) -> None:
        self.clock.set(START + round(second * NANOSECONDS))

    def hear(self, topic: str, message: object) -> list[Reading]:
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        return self.source.take(f"frigate/{topic}", payload)

    def told(self, topic: str, message: object) -> dict[str, float]:
        return counts(self.hear(topic, message))


def counts(readings: list[Reading]) -> dict[str, float]:
    block = block_of(*readings)
    return {FIELDS[point % 3].metric: value for point, value in zip(block.point, block.value.tolist(), strict=True)}


def event(kind: str, second: float, id_: str = "a", **changed: Any) -> dict[str, Any]:
    after = {
        "id": id_,
        "camera": "one",
        "frame_time": START / NANOSECONDS + second,
        "start_time": START / NANOSECONDS,
        "end_time": START / NANOSECONDS + second if kind == "end" else None,
        "label": "car",
        "false_positive": False,
        "current_zones": ["roadway"],
        "entered_zones": ["roadway"],
    }
    return {"type": kind, "before": {}, "after": after | changed}


def review(kind: str, second: float, id_: str = "r", **data: Any) -> dict[str, Any]:
    after = {
        "id": id_,
        "camera": "one",
        "start_time": START / NANOSECONDS,
        "end_time": START / NANOSECONDS + second if kind == "end" else None,
        "severity": "detection",
        "data": {"detections": [], "objects": ["water"], "sub_labels": [], "zones": ["ponding"], "audio": []} | data,
    }
    return {"type": kind, "before": {}, "after": after}


def test_objects_add_up_while_they_are_in_the_zone_and_each_counts_once() -> None:
    watched = Watched()
    watched.at(10)
    assert watched.told("events", event("new", 1)) == {"cars": 1, "anything": 1}
    assert watched.told("events", event("update", 2)) == {"cars": 1, "anything": 1}
    assert watched.told("events", event("new", 2, "b", label="bus")) == {"cars": 2, "anything": 2}
    assert watched.told("events", event("new", 3, "c", label="dog", current_zones=[], entered_zones=[])) == {
        "anything": 3
    }
    assert watched.told("events", event("update", 4, current_zones=[])) == {"cars": 1, "anything": 3}
    assert watched.told("events", event("end", 5, "b", label="bus")) == {"cars": 0, "anything": 2}


def test_the_frame_is_the_time_and_two_objects_of_one_frame_are_both_told() -> None:
    watched = Watched()
    watched.at(10)
    (one,) = watched.hear("events", event("new", 4))
    (two,) = watched.hear("events", event("new", 4, "b"))
    assert one.taken_at == START + 4 * NANOSECONDS
    assert one.lag_ns == 6 * NANOSECONDS
    assert counts([two]) == {"cars": 2, "anything": 2}
    assert two.taken_at == START + 10 * NANOSECONDS  # later than the other, or it would be late


def test_a_review_item_is_told_by_its_beginning_its_receipt_and_its_end() -> None:
    watched = Watched()
    watched.at(1)
    (new,) = watched.hear("reviews", review("new", 0))
    watched.at(50)
    (update,) = watched.hear("reviews", review("update", 0, zones=["ponding", "roadway"]))
    watched.at(61)
    (end,) = watched.hear("reviews", review("end", 60))
    assert [reading.taken_at - START for reading in (new, update, end)] == [0, 50 * NANOSECONDS, 60 * NANOSECONDS]
    assert [counts([reading]) for reading in (new, update, end)] == [{"water": 1}, {"water": 1}, {"water": 0}]


def test_what_a_review_item_knows_by_name_is_still_what_it_is() -> None:
    assert Watched().told("reviews", review("new", 0, objects=["water-verified"])) == {"water": 1}


def test_a_repeat_changes_nothing_and_waits_behind_its_first_copy() -> None:
    watched = Watched()
    watched.at(10)
    new = event("new", 1)
    assert watched.told("events", new) == {"cars": 1, "anything": 1}
    (again,) = watched.hear("events", new)
    assert again.told is None
    assert watched.counted["edge_repeated_messages_total"] == 1
    assert watched.told("events", event("end", 2)) == {"cars": 0, "anything": 0}


def test_what_its_end_or_something_newer_has_overtaken_brings_nothing_back() -> None:
    watched = Watched()
    watched.at(10)
    watched.hear("events", event("new", 1))
    watched.hear("events", event("update", 3, current_zones=[]))
    (late,) = watched.hear("events", event("update", 2))
    assert late.told is None
    assert watched.told("events", event("end", 5)) == {"cars": 0, "anything": 0}
    (late,) = watched.hear("events", event("update", 4))
    assert late.told is None
    watched.hear("reviews", review("new", 0))
    assert watched.told("reviews", review("end", 5)) == {"water": 0}
    (late,) = watched.hear("reviews", review("update", 0))  # which has no time of its own
    assert late.told is None
    assert watched.told("events", event("new", 6, "b")) == {"cars": 1, "anything": 1}


def test_a_false_positive_is_not_there() -> None:
    watched = Watched()
    watched.at(10)
    assert watched.told("events", event("new", 1, false_positive=True)) == {"cars": 0, "anything": 0}
    assert watched.told("events", event("update", 2)) == {"cars": 1, "anything": 1}


def test_a_lost_end_expires_by_each_field_and_is_told_as_uncertain() -> None:
    watched = Watched()
    watched.hear("events", event("new", 0))
    watched.at(60)
    watched.hear("events", event("update", 60))
    watched.hear("events", event("new", 59, "dog", label="dog"))
    watched.at(159)
    assert watched.source.expire() == []
    watched.at(160)  # 100 s after the update
    (reading,) = watched.source.expire()
    assert (counts([reading]), reading.quality, reading.taken_at) == (
        {"cars": 0},
        Quality.UNCERTAIN,
        START + 160 * NANOSECONDS,
    )
    watched.at(360)
    (reading,) = watched.source.expire()
    assert counts([reading]) == {"anything": 0}
    # Its end, should it come yet, says so with certainty.
    (reading,) = watched.hear("events", event("end", 361))
    assert (counts([reading]), reading.quality) == ({"cars": 0, "anything": 0}, Quality.GOOD)


def test_when_frigate_goes_nobody_watches_and_when_it_is_back_all_is_as_it_was_but_uncertain() -> None:
    watched = Watched()
    assert watched.hear("available", b"online") == []
    watched.hear("events", event("new", 0))
    watched.hear("events", event("new", 0, "b"))
    lost = watched.hear("available", b"offline")
    assert {reading.place.device.id for reading in lost} == {"camera-one", "camera-two"}
    assert set(block_of(*lost).quality) == {Quality.BAD_COMMS}
    assert watched.hear("available", b"offline") == []  # it is retained, and comes again on each connection
    watched.at(20)
    (back,) = watched.hear("available", b"online")
    assert watched.hear("available", b"online") == []
    assert (counts([back]), back.quality) == ({"cars": 2, "anything": 2}, Quality.UNCERTAIN)
    # One of the two is still there, under a new id: it takes their place, and does not add up with them.
    assert watched.told("events", event("new", 20, "c")) == {"cars": 1, "anything": 1}
    assert watched.told("events", event("end", 21, "c")) == {"cars": 0, "anything": 0}


def test_a_connection_that_broke_is_no_restart_and_the_same_object_goes_on() -> None:
    watched = Watched()
    watched.hear("events", event("new", 0))
    watched.hear("available", b"offline")
    watched.hear("available", b"online")
    watched.at(60)
    assert watched.told("events", event("update", 60)) == {"cars": 1, "anything": 1}
    watched.hear("available", b"offline")
    watched.hear("available", b"online")
    watched.at(165)  # and one of before that never comes again expires
    assert [counts([reading]) for reading in watched.source.expire()] == [{"cars": 0}]


def test_what_was_open_before_the_gateway_started_is_known_with_its_next_message() -> None:
    """A passer-by is no reason to say that there is no water, and its end is told though nobody saw it begin."""
    watched = Watched()
    watched.at(10)
    assert "water" not in watched.told("events", event("new", 1, label="person"))
    assert watched.hear("available", b"offline")
    assert counts(watched.hear("available", b"online")) == {"anything": 1}
    assert watched.told("reviews", review("end", 9)) == {"water": 0}
    # Nor did anybody see this car enter the roadway that it has left, nor the water that still stands.
    assert watched.told("events", event("update", 9, "b", current_zones=[])) == {"cars": 0, "anything": 1}
    restarted = Watched()
    restarted.at(10)
    (reading,) = restarted.hear("reviews", review("update", 0))
    assert (counts([reading]), reading.taken_at) == ({"water": 1}, START + 10 * NANOSECONDS)


def test_a_camera_has_its_own_objects_and_a_strange_one_is_noted_once() -> None:
    structlog.reset_defaults()
    watched = Watched()
    watched.at(10)
    watched.hear("events", event("new", 1))
    assert watched.told("events", event("new", 1, "b", camera="two")) == {"cars": 1, "anything": 1}
    assert watched.hear("events", event("new", 1, "c", camera="far")) == []
    assert watched.counted.snapshot() == {}
    with capture_logs() as logs:
        for second in (1, 2, 3):
            assert watched.hear("events", event("update", second, "d", camera="three")) == []
            assert watched.hear("events", event("update", second))
    assert watched.counted["edge_unknown_device_messages_total"] == 3
    assert [(line["counter"], line["device"]) for line in logs] == [("edge_unknown_device_messages_total", "three")]


def test_open_objects_are_bounded() -> None:
    watched = Watched()
    watched.at(10)
    for number in range(OBJECTS_MOST):
        watched.hear("events", event("new", 1, f"id-{number}"))
    assert watched.hear("events", event("new", 1, "one-more")) == []
    assert watched.counted["edge_malformed_messages_total"] == 1
    assert watched.told("events", event("end", 2, "id-0")) == {"cars": OBJECTS_MOST - 1, "anything": OBJECTS_MOST - 1}


@pytest.mark.parametrize(
    ("topic", "message", "why"),
    [
        ("events", b"{", "not JSON of Frigate's events"),
        ("reviews", b"[]", "Expected `object`"),
        ("events", {"type": "gone", "after": {"id": "a", "camera": "one"}}, "gone"),
        ("events", {"type": "new"}, "after"),
        ("events", event("new", 1, frame_time=None), "`after.frame_time` is missing"),
        ("events", event("new", 1, frame_time=1e300), "which no clock says"),
        ("events", event("new", 1, current_zones="roadway"), "current_zones"),
    ],
)
def test_what_is_no_event_is_refused_and_the_next_passes(topic: str, message: object, why: str) -> None:
    structlog.reset_defaults()
    watched = Watched()
    with capture_logs() as logs:
        assert watched.hear(topic, message) == []
    assert [line["counter"] for line in logs] == ["edge_malformed_messages_total"]
    assert why in logs[0]["why"]
    assert watched.told("events", event("new", 0)) == {"cars": 1, "anything": 1}


def test_a_clock_of_the_future_does_not_shut_out_what_comes_after_it() -> None:
    watched = Watched()
    watched.at(10)
    (reading,) = watched.hear("events", event("new", 10**8))
    assert (reading.taken_at, reading.quality) == (START + 10 * NANOSECONDS, Quality.BAD_CLOCK)
    watched.at(12)
    (reading,) = watched.hear("events", event("new", 11, "b"))
    assert (reading.taken_at, reading.quality) == (START + 11 * NANOSECONDS, Quality.GOOD)


def test_two_devices_on_one_camera_are_refused() -> None:
    with pytest.raises(Refused, match="camera-one: wire: is the same as of camera-one"):
        MqttSource([camera("one"), camera("one", 3)], VirtualClock.at(START))
