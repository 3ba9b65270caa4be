"""The shipped district and its storm, for tests of the simulator."""

from functools import cache
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from firmware_sim.noise import Times
from firmware_sim.scenario import Event, Rain, load_scenario
from firmware_sim.world import World
from rules.district import Device, District, load_district
from wire.clock import NANOSECONDS, from_iso

START = from_iso("2026-06-18T11:30:00Z")
DISTRICT = Path(__file__).parents[1] / "firmware_sim" / "districts" / "bluestone.toml"


@cache
def district() -> District:
    return load_district(DISTRICT.read_text(encoding="utf-8"), "district.toml")


def device(name: str) -> Device:
    return next(device for device in district().device if device.id == name)


def storm(seed: int = 1) -> World:
    return World(district(), load_scenario("storm")[0], seed, START)


def quiet(*happening: Event, seed: int = 1, start: int = START, **changes: object) -> World:
    """The storm's district on a dry day on which nothing happens but ``happening``; ``changes`` to its scenario."""
    scenario = msgspec.structs.replace(load_scenario("storm")[0], event=(), **{"rain": Rain(), **changes})
    world = World(district(), scenario, seed, start)
    for event in happening:
        world.add(event)
    return world


def at(*seconds: float) -> Times:
    """Instants so many seconds after the start."""
    return np.array([START + round(second * NANOSECONDS) for second in seconds], np.int64)


def every_second(minutes: float = 45) -> Times:
    return START + np.arange(round(minutes * 60), dtype=np.int64) * NANOSECONDS


def first(times: Times, holds: NDArray[np.bool_]) -> float:
    """The first minute of scenario time at which something holds."""
    return float(times[int(np.argmax(holds))] - START) / NANOSECONDS / 60


def the(world: World, what: str) -> Event:
    """The one event of a kind."""
    (event,) = (event for event in world.events if event.what == what)
    return event
