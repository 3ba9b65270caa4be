"""The storm, from the world's water to closed work orders, over real sockets and separate processes.

Every true incident is found; the truck and the headlights bring no work order but stand in the held-back list with
their reason; the frozen sensor becomes a device-fault order and not a flood. The same storm in fast time raises the
same alerts.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from streetwarden.assembly import City, evening
from streetwarden.headless import run_headless
from streetwarden.score import Score
from streetwarden.told import Told, read_told
from tests.running import running
from tests.seeds import seeds
from tests.servers import influx
from wire.clock import NANOSECONDS, from_iso

SPEED = 60.0
# A wall second is a minute here: headlights may be over before they are told of.
HELD = {"truck": {"lapsed"}, "headlights": {"not_corroborated", "cleared_before_arrival"}}
LENGTH_S = 46.0  # wall: 46 city minutes, the whole scenario
# Fast time reads on the schedule to the nanosecond, real time when the bus comes round to it: an alert on a polled
# device may be raised two of its intervals (30 s at most) and a wall second earlier or later. What speaks by itself has
# its own stamps, and those are the same.
POLLED_S = 2 * 30.0 + SPEED


@pytest.mark.timeout(150)
@pytest.mark.parametrize("seed", seeds("3"))
def test_the_storm_ends_in_closed_orders(seed: int, tmp_path: Path) -> None:
    with contextlib.ExitStack() as servers:
        timeseries = ""
        if seed % 3 == 0:  # every third storm is stored in a real InfluxDB
            timeseries = f"influx://127.0.0.1:{servers.enter_context(influx(tmp_path)).port}/city"
        score, told, truth = asyncio.run(_weather(seed, tmp_path, timeseries))
    sys.stdout.write(f"seed {seed}: {score.summary()}; delay {score.delay_s}, latency {score.latency_s}\n")
    assert score.incidents.missed == 0, score.details
    assert score.orders.misfires == 0, score.details
    assert score.orders.duplicates == 0
    assert score.orders.closed == score.orders.opened == score.incidents.total == 4
    assert score.expectations == ()
    # On a machine that stalls, a bus may answer too late: its gateway counts each such poll, and no other is lost.
    assert {flaw.stage for flaw in told.audit.flaws if flaw.kind == "lost"} <= {"edge"}, told.audit
    assert score.samples.doubled == 0
    assert score.samples.acquired == score.samples.committed + score.samples.filtered
    _check_flood(told.orders)
    _check_frozen(told.orders, truth)
    _check_nuisances(told, truth)
    _check_fast_time(told, seed, tmp_path / "fast")


async def _weather(seed: int, folder: Path, timeseries: str) -> tuple[Score, Told, dict[str, Any]]:
    district = Path(str(resources.files("firmware_sim") / "districts" / "bluestone.toml"))
    city = City(folder / "city", district, evening(SPEED), seed=seed, timeseries=timeseries)
    async with running(city) as up:
        score, told = await run_headless(up.assembly, up.centre, city, LENGTH_S, asyncio.Event())
        return score, told, json.loads(up.assembly.truth.read_bytes())


def _check_flood(orders: list[dict[str, Any]]) -> None:
    """One order, told of once at each level, the closing of the road recorded and lifted, its trail unbroken."""
    (flood,) = [order for order in orders if order["hazard"] == "flood"]
    assert [told["level"] for told in flood["announcements"]] == ["slow", "close", "severe"]
    assert flood["severity"] == "II"
    assert flood["confirmation"]["by"], "nobody confirmed the flood"
    assert flood["closure"]["closed_at"] < flood["closure"]["lifted_at"]
    assert flood["unit"]["id"] == "drainage-north"
    assert flood["outcome"] == "confirmed"


def _check_frozen(orders: list[dict[str, Any]], truth: dict[str, Any]) -> None:
    (frozen,) = [incident for incident in truth["incidents"] if incident["hazard"] == "device_stuck"]
    of_device = [order for order in orders if order["device"] in frozen["devices"]]
    assert [(order["case"], order["hazard"], order["unit"]["id"]) for order in of_device] == [
        ("device", "device_stuck", "sensing")
    ]


def _check_nuisances(told: Told, truth: dict[str, Any]) -> None:
    assert {nuisance["kind"] for nuisance in truth["nuisances"]} == set(HELD)
    for nuisance in truth["nuisances"]:
        device = nuisance["device"]
        assert device not in {order["device"] for order in told.orders}, f"an order from the {nuisance['kind']}"
        codes = {alert["decision"]["code"] for alert in told.alerts if alert["device"] == device}
        assert codes, f"the {nuisance['kind']} left no trace in the held-back list"
        assert codes <= HELD[nuisance["kind"]], nuisance


def _check_fast_time(told: Told, seed: int, folder: Path) -> None:
    """The same scenario and seed raises the same alerts on both clocks, at the same time within the tolerance."""
    command = [sys.executable, "-m", "streetwarden", "sim", "run", "storm", "--seed", str(seed), "--keep", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    fast, real = _raised(read_told(folder)), _raised(told)
    assert fast.keys() == real.keys()
    for alert, at in fast.items():
        tolerance_s = 0.0 if alert[0] in ("cover.open", "camera.water") else POLLED_S
        assert abs(at - real[alert]) <= tolerance_s * NANOSECONDS, alert


def _raised(told: Told) -> dict[tuple[str, str, int], int]:
    """When alerts were raised (UTC ns), by rule, device and how many of them came before."""
    raised: dict[tuple[str, str, int], int] = {}
    for alert in sorted(told.alerts, key=lambda alert: alert["raised_at"] or ""):
        if alert["raised_at"]:
            nth = sum((rule, device) == (alert["rule"], alert["device"]) for rule, device, _ in raised)
            raised[alert["rule"], alert["device"], nth] = from_iso(alert["raised_at"])
    return raised
