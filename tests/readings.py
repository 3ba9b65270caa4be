"""Readings made by hand: a device that tells its numbers as they are."""

import numpy as np

from edge.decoding import Decoding
from edge.installed import Installed
from edge.profile import Field, Head, Profile
from edge.reading import Reading
from rules.district import Device, PlainJson
from rules.samples import Block


def place(*metrics: str, device: str = "d", kind: str = "k", first_row: int = 0) -> Installed:
    """Install a device of so many quantities, from a row of the point table on."""
    head = Head("made", kind, "M", "X", "http://example.org", "json", 10.0)
    profile = Profile(head, field=tuple(Field(metric, "1", metric) for metric in metrics))
    wire = PlainJson("topic")
    there = Device(device, kind, "made", "gw", "s", "a", "0120", 0.0, 0.0, wire)
    return Installed(there, profile, np.arange(first_row, first_row + len(metrics), dtype="i4"))


def block_of(*readings: Reading) -> Block:
    return Decoding().block(readings)
