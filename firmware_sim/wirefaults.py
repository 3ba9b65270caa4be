"""What happens on the way between a unit and its master: the one place that says which fault a poll meets."""

import numpy as np
from numpy.typing import NDArray

from firmware_sim.cable import Cable
from firmware_sim.noise import Times
from firmware_sim.scenario import Event
from firmware_sim.world import World
from rules.district import Device, Modbus
from wire.clock import Clock

SILENT = ("device_dies", "no_answer", "feeder_trips", "concentrator_lost", "half_open")
EXCEPTIONS = {"exception_02": 2, "exception_03": 3, "exception_06": 6}
_SPOILT = (*SILENT, *EXCEPTIONS, "partial_frame", "late_answer", "wrong_transaction")
_FAULTS = (*_SPOILT, "slow_answer")


def fault_of(world: World, device: Device, now: int) -> Event | None:
    """Find what is wrong with the answers of a device at an instant (UTC ns), on itself or on its bus; the worst."""
    for what in _FAULTS:
        for target in _targets(device):
            for event in world.of(what, target):
                if event.during(now):
                    return event
    return None


def bus_fault(world: World, what: str, bus: str, now: int) -> Event | None:
    """Find one kind of fault that a whole bus has at an instant (UTC ns)."""
    return next((event for event in world.of(what, bus) if event.during(now)), None)


def answers(world: World, device: Device, at: Times) -> NDArray[np.bool_]:
    """Whether a poll at each instant (UTC ns, shape ``[n]``) gets a valid answer; a slow one is valid."""
    answered = np.ones(len(at), np.bool_)
    for what in _SPOILT:
        for target in _targets(device):
            for event in world.of(what, target):
                answered &= (at < event.at) | (False if event.until is None else at >= event.until)
    return answered


async def cut_cable(cable: Cable, world: World, clock: Clock) -> None:
    """Pull a gateway's cable out whenever its link is cut, and put it back."""
    for cut in sorted(world.of("link_cut", cable.gateway), key=lambda cut: cut.at):
        await clock.sleep_until(cut.at)
        cable.cut()
        if cut.until is None:
            return
        await clock.sleep_until(cut.until)
        cable.restore()


def _targets(device: Device) -> tuple[str, ...]:
    return (device.id, device.wire.bus) if isinstance(device.wire, Modbus) else (device.id,)
