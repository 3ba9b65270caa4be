"""A scenario over real sockets and processes: power, broker and cable go and come back, and nothing is lost by it.

A run that was stopped, or refused, leaves nothing that could be taken for a run.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rules.declared import Refused
from streetwarden.scoring import score_folder
from streetwarden.told import read_told
from streetwarden.trial import run_trial, trial_of

SPEED = 60  # a city minute a second
CUTS = """
name = "cuts"
title = { zh = "断电断网", en = "Power, broker and cable go" }
length = "26min"
district = "street.toml"
[[event]]
id = "off"
what = "gateway_off"
among = ["gw-south"]
window = ["3min", "3min"]
lasts = ["4min", "4min"]
[[event]]
id = "lifted"
what = "cover_lifted"
among = ["manhole-n1"]
window = ["9min", "9min"]
[[event]]
id = "away"
what = "broker_down"
window = ["8min", "8min"]
lasts = ["3min", "3min"]
[[event]]
id = "cut"
what = "link_cut"
among = ["gw-north"]
window = ["13min", "13min"]
lasts = ["2min", "2min"]
"""
STOPS_S = 10.0  # wall: every part may take its 2.5 s to end, all of them at once


def command(scenario: str, folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "streetwarden", "sim", "run", scenario, "--keep", str(folder), *options]


def within(limit_s: float, true: Callable[[], object]) -> None:
    """Wait for what another process does, of which nothing tells."""
    ends = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < ends, f"not within {limit_s:g} s"
        time.sleep(0.1)


def written(folder: Path) -> Path:
    """Write the scenario into a folder of its own, which a relative path then names."""
    (folder / "cuts").mkdir()
    district = Path(__file__).parents[2] / "firmware_sim" / "districts" / "bluestone.toml"
    (folder / "cuts" / "street.toml").write_bytes(district.read_bytes())
    (folder / "cuts" / "scenario.toml").write_text(CUTS, encoding="utf-8")
    return folder


def processes(of: str) -> list[str]:
    """Command lines of what runs and names a text."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if of in words:
            found.append(words)
    return found


@pytest.mark.timeout(150)
def test_power_broker_and_cable_come_back(tmp_path: Path) -> None:
    options = ("--speed", str(SPEED), "--device", "manhole-n1")
    run = subprocess.run(
        command("cuts", tmp_path / "run", *options),
        cwd=written(tmp_path),
        capture_output=True,
        check=False,
        timeout=140,
    )
    shown = run.stderr.decode()
    told, scored = read_told(tmp_path / "run"), score_folder(tmp_path / "run", None, None)
    # Nothing tells yet of a gateway that is silent; the lid is found, by its own order, although the broker was away.
    assert {(each.kind, each.hazard) for each in scored.details} <= {("missed", "gateway_silent"), ("lost", "")}, shown
    assert [(order["hazard"], order["device"]) for order in told.orders] == [("cover", "manhole-n1")]
    # A gateway that loses its power forgets what it has just read and not yet kept: of each device one reading at most.
    districts = {device["id"]: device["gateway"] for device in told.devices}
    lost = [flaw for flaw in told.audit.flaws if flaw.kind == "lost" and flaw.stage != "edge"]
    assert all(districts[flaw.device] == "gw-south" and flaw.count == 1 for flaw in lost), told.audit
    assert scored.samples.doubled == 0
    _check_troubles(tmp_path / "run")
    timeline = shown[shown.index("true: cover (lifted)") :]
    assert re.search(r"order \S+: cover open", timeline)
    assert run.returncode == (0 if scored.in_order() else 1)


def _check_troubles(folder: Path) -> None:
    """Each part was away when the scenario said so, and is told of in its log."""
    south, north, street = ((folder / f"{name}.log").read_text() for name in ("gw-south", "gw-north", "simulator"))
    assert south.count('event="gateway runs"') == 2
    assert north.count('event="gateway runs"') == 1
    assert "mqtt not connected" in north
    assert "cable cut" in street
    assert "cable restored" in street


@pytest.mark.parametrize(
    ("scenario", "options", "under_way"),
    [("cuts", ("--speed", str(SPEED)), "streetwarden-*/gw-south.log"), ("ordinary-june", (), "streetwarden-*/cloud")],
    ids=["real time", "fast time"],
)
def test_a_person_stops_it(scenario: str, options: tuple[str, ...], under_way: str, tmp_path: Path) -> None:
    """Ctrl-C ends a run with 130 in bounded time, without a process or a run left behind, not even an earlier one's."""
    kept = tmp_path / "run"
    kept.mkdir()
    (kept / "told.json").write_text("{}")
    there = os.environ | {"TMPDIR": str(tmp_path)}
    words = command(scenario, kept, *options)
    with subprocess.Popen(words, cwd=written(tmp_path), stderr=subprocess.PIPE, env=there) as run:
        within(40.0, lambda: list(tmp_path.glob(under_way)))
        began = time.monotonic()
        run.send_signal(signal.SIGINT)
        _, shown = run.communicate(timeout=60)
    assert run.returncode == 130, shown.decode()
    assert time.monotonic() - began < STOPS_S
    assert processes(str(tmp_path)) == []
    assert not list(tmp_path.glob("streetwarden-*"))
    with pytest.raises(Refused, match="holds no run"):
        score_folder(kept, None, None)


@pytest.mark.parametrize(
    ("wrong", "place", "cure"),
    [
        ({"device": "manhole-n9"}, "--device manhole-n9", "did you mean `manhole-n"),
        ({"length": "3x"}, "--for 3x", "is not a duration"),
        ({"speed": 60.0, "profiles": Path()}, "--profiles .", "leave --speed away"),
        ({"folder": Path(__file__)}, f"--keep {__file__}", "cannot be written"),
    ],
)
def test_what_cannot_be_run_is_refused(wrong: dict[str, Any], place: str, cure: str, tmp_path: Path) -> None:
    good = {
        "scenario": "storm",
        "seed": None,
        "folder": tmp_path / "run",
        "speed": 0.0,
        "length": "",
        "rules": None,
        "profiles": None,
        "device": "",
    }
    with pytest.raises(Refused) as refused:
        run_trial(trial_of(**(good | wrong)))
    assert refused.value.place == place
    assert cure in refused.value.why
    assert not (tmp_path / "run").exists()
