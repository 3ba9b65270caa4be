"""What instruments make of a quantity: each model a small function of true values, instants and a stream of chance."""

from collections.abc import Callable

import numpy as np

from firmware_sim import noise
from firmware_sim.chronicle import Chronicle, lasts
from firmware_sim.noise import Floats, Stream, Times
from wire.clock import NANOSECONDS

_HOUR = 3600 * NANOSECONDS
_SPIKES = 0.1  # share of the readings that spike
_THROUGH = 0.15  # share of the echoes that find a way through debris
_POISONED = (5.0, 15.0)  # % oxygen: a catalytic bead shows nothing below, everything above


def held(at: Times, chronicle: Chronicle, what: str, device: str) -> Times:
    """Stop the clock of an instrument that has frozen: the instants that it shows."""
    for event in chronicle.within(what, device, at):
        at = np.where(lasts(event, at), event.at, at)
    return at


def drifted(value: Floats, at: Times, chronicle: Chronicle, device: str) -> Floats:
    """Let a gauge drift by ``size`` an hour until it is set right."""
    for event in chronicle.within("level_drifts", device, at):
        value = value + np.where(lasts(event, at), event.size * (at - event.at) / _HOUR, 0.0)
    return value


def spiked(value: Floats, at: Times, of: Stream, chronicle: Chronicle, device: str) -> Floats:
    """Let single readings jump by up to ``size``: echoes off spray, or off nothing."""
    for event in chronicle.within("level_spikes", device, at):
        chosen = noise.uniform(of, at // NANOSECONDS) / _SPIKES
        value = value + np.where(lasts(event, at) & (chosen < 1.0), event.size * (0.5 + 0.5 * chosen), 0.0)
    return value


def covered(value: Floats, at: Times, of: Stream, chronicle: Chronicle, device: str) -> Floats:
    """Put debris under a gauge: it shows its top, ``size`` above the ground, unless an echo finds a way through."""
    for event in chronicle.within("debris", device, at):
        lane = noise.uniform(of, at // NANOSECONDS)
        top = event.size + 0.02 * (lane - 0.5)
        value = np.where(lasts(event, at) & (lane >= _THROUGH), np.maximum(value, top), value)
    return value


def caught(rain_mm: Callable[[Times], Floats], at: Times, chronicle: Chronicle, device: str) -> Floats:
    """Catch rain in a gauge, mm since the start; what falls while it is clogged is never counted."""
    total = rain_mm(held(at, chronicle, "rain_gauge_clogs", device))
    for event in chronicle.of("rain_gauge_clogs", device):
        if event.until is not None:
            before, after = rain_mm(np.array([event.at, event.until], np.int64))
            total = total - np.where(at >= event.until, after - before, 0.0)
    return total


def catalytic(ch4_lel: Floats, o2_percent: Floats) -> Floats:
    """Methane as a catalytic bead shows it: it burns the gas, and too little where the oxygen is short."""
    low, high = _POISONED
    return ch4_lel * np.clip((o2_percent - low) / (high - low), 0.0, 1.0)
