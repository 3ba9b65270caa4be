"""What a tick holds is decoded with its like, however many buses it came from."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge.decoding import Decoding
from edge.installed import Installed
from edge.profile import load_profiles
from edge.reading import Reading, Replies
from edge.reads import Layout, Reads
from rules.district import Device, Modbus
from rules.samples import Quality

PROFILE = load_profiles()["dfrobot_sen0492"]


def _gauge(number: int) -> Installed:
    wire = Modbus(f"bus-{number}", 1)
    install = {"mounting_height_m": 3.5}
    device = Device(f"gauge-{number}", "level_sensor", PROFILE.id, "gw", "s", "a", "0120", 0.0, 0.0, wire, install)
    return Installed(device, PROFILE, np.array([2 * number, 2 * number + 1], "i4"))


def test_devices_of_one_model_on_buses_of_their_own_are_one_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    decode: Callable[..., Any] = Layout.decode

    def noting(self: Layout, replies: Any) -> Any:
        rows.append(len(replies[0]))
        return decode(self, replies)

    monkeypatch.setattr(Layout, "decode", noting)
    block = Decoding().block(
        [
            Reading(_gauge(number), number, Replies(Reads(PROFILE), ((1000 + number).to_bytes(2, "big"),)))
            for number in range(50)
        ]
    )
    assert rows == [50]
    assert block.point.tolist() == list(range(100))
    assert block.value[::2] == pytest.approx(1.0 + np.arange(50) / 1000)
    assert not block.quality.any()


def test_nothing_makes_an_empty_block() -> None:
    assert len(Decoding().block([])) == 0
    assert len(Decoding().block([Reading(_gauge(0), 1, None)])) == 0
    assert Decoding().block([Reading(_gauge(0), 1, None, Quality.BAD_STALE)]).quality.tolist() == [20, 20]
