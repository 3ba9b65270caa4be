"""Our water against EPA SWMM's: the same street and the same rain in another engine.

Independent is everything from the rain on. SWMM is told the rain as an inflow and routes it itself, by its iterative
solution of the dynamic wave: through a storage with a linear outlet (runoff), a V-shaped storage with a pump curve and
an outlet (an underpass), a cylinder with an orifice and a rim (a shaft). The design storm is derived here from the
totals of Shanghai's formula, not from its instantaneous form. Not independent are the numbers that describe the
street, the law of the gullies (a share of the water a second) and what flows through a shaft in dry weather, which is
taken from the level that it keeps there.
"""

import sys
from collections.abc import Callable
from itertools import pairwise
from math import log10, sqrt
from pathlib import Path

import numpy as np
import pytest
from pyswmm import Nodes, Simulation  # type: ignore[import-untyped]  # it ships no types

from firmware_sim.hydraulics import Water
from firmware_sim.noise import Floats
from firmware_sim.scenario import Burst, DesignStorm, Event, Rain, Scenario, Sewer, Underpass
from rules.district import Text
from tests.city import START, device, district
from wire.clock import NANOSECONDS

LENGTH_S = 3 * 3600
SECOND = np.arange(LENGTH_S)
TIMES = START + SECOND * NANOSECONDS
DIP = Underpass(
    site="underpass-bluestone",
    catchment_m2=14000,
    runoff=0.85,
    lag="2min",
    width_m=14,
    slope=0.0275,
    pump_m3_s=0.2,
    pump_from_m=0.06,
    pump_full_m=0.28,
)
DIP_LAG_S = 120.0
GULLY_S = 900.0
SEWER = Sewer()
SEWER_LAG_S = 600.0
MONITOR = "manhole-s2"
ORIFICE = 0.6 * SEWER.pipe_m2 * sqrt(2 * 9.81)  # m³/s at one metre of head
BLOCKED_S = 1200

Breaks = list[tuple[float, float]]  # second, mm/h; straight between


def triangle() -> tuple[Rain, Breaks]:
    return Rain(burst=(Burst("20min", "10min", 120.0),)), [(600, 0), (1200, 120), (1800, 0)]


def design() -> tuple[Rain, Breaks]:
    """Let the worst D minutes, for every D, begin 0.4 D before the peak."""

    def worst_mm(minutes: float) -> float:
        return float(0.36 * 1600 * (1 + 0.846 * log10(3)) / (minutes + 7.0) ** 0.656 * minutes / 60)

    def beside(share: float, step_s: float, steps: int) -> list[tuple[float, float]]:
        """Seconds from the peak to the middle of each step, and the step's mean, on the side that has this share."""
        fallen = [share * worst_mm(number * step_s / share / 60) for number in range(steps + 1)]
        return [
            ((number + 0.5) * step_s, (after - before) * 3600 / step_s)
            for number, (before, after) in enumerate(pairwise(fallen))
        ]

    peak_s = 600 + 2160
    rising = [(peak_s - second, mm_h) for second, mm_h in reversed(beside(0.4, 10.0, 216))]
    falling = [(peak_s + second, mm_h) for second, mm_h in beside(0.6, 10.0, 324)]
    return Rain(design=(DesignStorm("10min", "90min", 3.0, 0.4),)), [(599, 0), *rising, *falling, (6001, 0)]


def recorded() -> tuple[Rain, Breaks]:
    """Five-minute steps, as gauges record them: one shower on the heels of another."""
    steps = [6.0, 42.0, 96.0, 60.0, 12.0, 0.0, 30.0, 132.0, 66.0, 18.0, 6.0, 0.0]
    rain = Rain(recorded=tuple((f"{8 + 5 * number}min", mm_h) for number, mm_h in enumerate(steps)))
    begins = [480 + 300 * number for number in range(len(steps))]
    edges = [
        edge
        for begin, before, after in zip(begins, [0.0, *steps], steps, strict=False)
        for edge in ((begin - 0.5, before), (begin + 0.5, after))
    ]
    return rain, edges


storms = pytest.mark.parametrize("storm", [triangle, design, recorded], ids=lambda storm: storm.__name__)
Storm = Callable[[], tuple[Rain, Breaks]]


def water(rain: Rain) -> Water:
    scenario = Scenario("swmm", Text("暴雨", "Rain"), "3h", rain=rain, underpass=(DIP,), sewer=SEWER)
    return Water(district(), scenario, 1, START)


class Swmm:
    """Depths of one node, m at every second, and what left through each outfall, m³."""

    def __init__(self, path: Path, body: str, node: str, outfalls: tuple[str, ...]) -> None:
        path.write_text(OPTIONS + body, encoding="ascii")
        seconds, depths = [0.0], [0.0]
        with Simulation(str(path)) as simulation:
            nodes = Nodes(simulation)
            begin = simulation.start_time
            depths[0] = nodes[node].initial_depth
            for _ in simulation:
                seconds.append((simulation.current_time - begin).total_seconds())
                depths.append(nodes[node].depth)
            self.out_m3 = [nodes[outfall].cumulative_inflow for outfall in outfalls]
            assert abs(simulation.flow_routing_error) < 0.5  # percent
        self.depth_m: Floats = np.interp(SECOND, seconds, depths)


OPTIONS = f"""[OPTIONS]
FLOW_UNITS CMS
FLOW_ROUTING DYNWAVE
START_DATE 06/18/2026
START_TIME 00:00:00
END_DATE 06/18/2026
END_TIME {LENGTH_S // 3600:02}:00:00
REPORT_STEP 00:01:00
ROUTING_STEP 1
VARIABLE_STEP 0
MIN_SURFAREA 0.01
[OUTFALLS]
SEWER -5 FREE NO
PUMPED -5 FREE NO
"""


def runoff(breaks: Breaks, effective_m2: float, lag_s: float, into: str) -> str:
    """Write the surface that rain falls on, a storage of 100 m² with a linear outlet, and the rain."""
    return f"""[STORAGE]
SURFACE 20 100 0 FUNCTIONAL 0 0 100 0 0
[OUTLETS]
RUNOFF SURFACE {into} 0 FUNCTIONAL/DEPTH {100 / lag_s!r} 1 NO
[INFLOWS]
SURFACE FLOW RAIN FLOW 1.0 1.0
[TIMESERIES]
{series("RAIN", [(0, 0), *((second, mm_h / 3.6e6 * effective_m2) for second, mm_h in breaks), (LENGTH_S, 0)])}
"""


def series(name: str, rows: list[tuple[float, float]]) -> str:
    return "\n".join(f"{name} {second / 3600:.8f} {value:.9f}" for second, value in rows)


def underpass(breaks: Breaks, *, pumps: bool) -> str:
    pumping = f"""[PUMPS]
PUMPS DIP PUMPED RAMP ON 0 0
[CURVES]
RAMP Pump4 0 0
RAMP {DIP.pump_from_m} 0
RAMP {DIP.pump_full_m} {DIP.pump_m3_s}
RAMP 10 {DIP.pump_m3_s}
"""
    return f"""{runoff(breaks, DIP.runoff * DIP.catchment_m2, DIP_LAG_S, "DIP")}
[STORAGE]
DIP 0 5 0 FUNCTIONAL {2 * DIP.width_m / DIP.slope!r} 1 0 0 0
[OUTLETS]
GULLIES DIP SEWER 0 FUNCTIONAL/DEPTH {DIP.width_m / DIP.slope / GULLY_S!r} 2 NO
{pumping if pumps else ""}"""


def shaft(breaks: Breaks, catchment_m2: float, sill_m: float, dry_m: Floats, *, blocked: float) -> str:
    """Write a shaft that stands at its dry-weather level at first, and loses a share of its pipe."""
    flow = ORIFICE * np.sqrt(dry_m - sill_m)
    rule = f"""[CONTROLS]
RULE CLOG
IF SIMULATION TIME >= {BLOCKED_S / 3600:.8f}
THEN ORIFICE PIPE SETTING = {1 - blocked:.3f}
"""
    return f"""{runoff(breaks, SEWER.runoff * catchment_m2, SEWER_LAG_S, "SHAFT")}
[STORAGE]
SHAFT 0 {device(MONITOR).install["shaft_depth_m"]} {dry_m[0]:.6f} FUNCTIONAL 0 0 {SEWER.shaft_m2} 0 0
[ORIFICES]
PIPE SHAFT SEWER BOTTOM {sill_m:.6f} 0.6 NO 0
[XSECTIONS]
PIPE RECT_CLOSED 0.1 {SEWER.pipe_m2 / 0.1!r} 0 0
[INFLOWS]
SHAFT FLOW DRY FLOW 1.0 1.0
[TIMESERIES]
{series("DRY", [(second, float(flow[second])) for second in (*range(0, LENGTH_S, 60), LENGTH_S - 1)])}
{rule if blocked else ""}"""


def say(what: str, ours: float, theirs: float, unit: str) -> None:
    sys.stdout.write(f"  {what}: {ours:.4g} {unit}, SWMM {theirs:.4g} {unit}\n")


def compare(ours: Floats, theirs: Floats, above_m: float) -> None:
    """Hold the peak within 10 % and 2 min, and the time above a depth within 10 %."""
    say("peak", ours.max(), theirs.max(), "m")
    say("peak at", ours.argmax() / 60, theirs.argmax() / 60, "min")
    say(f"above {above_m:.2f} m for", (ours > above_m).sum() / 60, (theirs > above_m).sum() / 60, "min")
    assert ours.max() == pytest.approx(theirs.max(), rel=0.10)
    assert abs(int(ours.argmax()) - int(theirs.argmax())) < 120
    assert (theirs > above_m).sum() > 120
    assert (ours > above_m).sum() == pytest.approx((theirs > above_m).sum(), rel=0.10)


@storms
@pytest.mark.parametrize("pumps", [True, False], ids=["pumps", "no pumps"])
def test_an_underpass_fills_and_empties_as_in_swmm(storm: Storm, pumps: bool, tmp_path: Path) -> None:
    rain, breaks = storm()
    ours = water(rain)
    if not pumps:
        ours.add(Event("failed", "pumps_fail", DIP.site, START))
    depth = ours.depth_m(DIP.site, TIMES)
    theirs = Swmm(tmp_path / "dip.inp", underpass(breaks, pumps=pumps), "DIP", ("SEWER", "PUMPED")[: 1 + pumps])
    sys.stdout.write(f"\n{storm.__name__}, {'with' if pumps else 'without'} pumps\n")
    compare(depth, theirs.depth_m, 0.15)
    # Where the water went, from the depth alone.
    volume = depth**2 * DIP.width_m / DIP.slope
    ramp = np.interp(depth, [DIP.pump_from_m, DIP.pump_full_m], [0.0, DIP.pump_m3_s])
    gone = [(volume / GULLY_S).sum(), ramp.sum()][: 1 + pumps]
    for what, own, other in zip(("drained", "pumped"), gone, theirs.out_m3, strict=False):
        say(what, own, other, "m³")
        assert own == pytest.approx(other, rel=0.05)
    fallen = ours.rain_mm(TIMES[-1:])[0] / 1000 * DIP.catchment_m2 * DIP.runoff
    say("rain", fallen, sum(theirs.out_m3) + theirs.depth_m[-1] ** 2 * DIP.width_m / DIP.slope, "m³")
    assert sum(gone) + volume[-1] == pytest.approx(fallen, rel=0.01)
    assert np.trapezoid([mm_h for _, mm_h in breaks], [second for second, _ in breaks]) / 3600 == pytest.approx(
        ours.rain_mm(TIMES[-1:])[0], rel=0.01
    )


@storms
@pytest.mark.parametrize("blocked", [0.0, 0.4, 0.95])
def test_a_shaft_fills_and_empties_as_in_swmm(storm: Storm, blocked: float, tmp_path: Path) -> None:
    rain, breaks = storm()
    ours, dry = water(rain), water(Rain()).shaft_m(MONITOR, TIMES)
    if blocked:
        ours.add(Event("clogged", "sewer_blocked", MONITOR, START + BLOCKED_S * NANOSECONDS, size=blocked))
    level = ours.shaft_m(MONITOR, TIMES)
    row = ours._shafts._row[MONITOR]
    catchment_m2, sill_m = float(ours._shafts._catchment_m2[row]), float(ours._shafts._sill_m[row])
    body = shaft(breaks, catchment_m2, sill_m, dry, blocked=blocked)
    theirs = Swmm(tmp_path / "shaft.inp", body, "SHAFT", ("SEWER",))
    sys.stdout.write(f"\n{storm.__name__}, {blocked:.0%} of the pipe blocked\n")
    rim_m = device(MONITOR).install["shaft_depth_m"]
    if blocked < 0.9:
        assert level.max() < rim_m
        compare(level, theirs.depth_m, (dry.max() + level.max()) / 2)
        return
    full = [int((depth > rim_m - 1.0).argmax()) for depth in (level, theirs.depth_m)]
    say("a metre below the rim at", full[0] / 60, full[1] / 60, "min")
    assert full[0] > BLOCKED_S
    assert abs(full[0] - full[1]) < 120
    assert level.max() == rim_m
    assert theirs.depth_m.max() == pytest.approx(rim_m, abs=0.01)
