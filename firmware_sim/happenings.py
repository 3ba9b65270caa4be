"""What can happen in a simulated city: to whom, how strongly, and what it is in truth."""

from typing import Literal

import msgspec

Role = Literal["incident", "benign", "nuisance", "fault"]

_LIDS = ("manhole_cover", "manhole_monitor")
_WATER = ("level_sensor",)
_LAMPS = ("lamp_controller",)
_SHAFTS = ("manhole_monitor",)
_CAMERAS = ("camera",)
_POLLED = ("level_sensor", "rain_gauge", "manhole_monitor", "lamp_controller")
_UPLINKS = ("manhole_cover",)
_TOLD = ("manhole_cover", "camera")
_ANY = (*_POLLED, *_TOLD)

UNDERPASS, BUS, GATEWAY, BROKER = "underpass", "bus", "gateway", "broker"


class Kind(msgspec.Struct, frozen=True):
    """One kind of happening.

    ``on`` are the kinds of device it can happen to, or one of ``UNDERPASS``, ``BUS``, ``GATEWAY``, ``BROKER``.
    ``role`` is what it is in truth: an ``incident`` of ``hazard``; something ``benign`` (real, but announced or
    harmless) or a ``nuisance`` (nothing at all) that looks like ``hazard``; or a ``fault`` of instruments and wires,
    which says nothing of the street. ``size`` is the span that the seed draws its strength from, in ``unit``, unless
    the scenario narrows it. A ``case`` of ``device`` is the sensor's owner's business, not the city's.
    """

    on: tuple[str, ...]
    role: Role
    hazard: str = ""
    size: tuple[float, float] = (0.0, 0.0)
    unit: str = ""
    case: Literal["city", "device"] = "city"


KINDS: dict[str, Kind] = {
    # Lids. Where the lid leaves its frame further than `hazard.cover` says, it is an incident of hazard `cover`.
    "cover_stolen": Kind(_LIDS, "incident", "cover", (62.0, 85.0), "deg"),
    "cover_lifted": Kind(_LIDS, "incident", "cover", (20.0, 45.0), "deg"),
    "cover_ajar": Kind(_LIDS, "incident", "cover", (12.5, 18.0), "deg"),
    "works_opening": Kind(_LIDS, "benign", "cover", (25.0, 60.0), "deg"),
    "truck": Kind(_LIDS, "nuisance", "cover", (14.0, 18.0), "deg"),
    "frame_settles": Kind(_LIDS, "nuisance", "cover", (3.0, 6.5), "deg"),
    # Lamps.
    "lamp_fails": Kind(_LAMPS, "incident", "lamp"),
    "lamp_burns_by_day": Kind(_LAMPS, "incident", "day_burner"),
    "lamp_cycles": Kind(_LAMPS, "incident", "cycling", (150.0, 400.0), "s"),  # one on and off
    "lamp_leaks": Kind(_LAMPS, "incident", "leakage", (40.0, 180.0), "mA"),
    "lamp_ages": Kind(_LAMPS, "nuisance", "lamp", (0.15, 0.35), "1"),  # share of its power that goes
    "feeder_trips": Kind((BUS,), "incident", "feeder"),  # no voltage: lamps dark, controllers silent
    "concentrator_lost": Kind((BUS,), "incident", "device_silent", case="device"),  # silent, with the lamps lit
    "circuit_off": Kind((BUS,), "benign", "lamp"),  # switched off by schedule
    # Water. What a burst main, a failed pump or a blocked sewer leads to is for the hydraulics to say.
    "burst_main": Kind((UNDERPASS,), "fault", "flood", (0.45, 0.45), "m3/s"),
    "pumps_fail": Kind((UNDERPASS,), "fault", "flood"),
    "sewer_blocked": Kind(_SHAFTS, "fault", "surcharge", (0.90, 1.0), "1"),  # share of the pipe that is blocked
    # Gauges that tell of water where there is none, or none where there is.
    "debris": Kind(_WATER, "nuisance", "flood", (0.18, 0.45), "m"),
    "level_freezes": Kind(_WATER, "incident", "device_stuck", case="device"),
    "level_drifts": Kind(_WATER, "incident", "device_drift", (0.01, 0.03), "m/h", case="device"),
    "level_spikes": Kind(_WATER, "nuisance", "flood", (0.3, 1.2), "m"),  # one reading in some ten
    "level_blind": Kind(_WATER, "fault", "flood"),  # no echo: the sentinel
    "rain_gauge_clogs": Kind(("rain_gauge",), "incident", "device_stuck", case="device"),
    # Gas, with the true air as `hazard.gas` judges it.
    "gas_gathers": Kind(_SHAFTS, "incident", "gas", (14.0, 40.0), "%LEL"),
    "sewer_gas": Kind(_SHAFTS, "incident", "gas", (12.0, 60.0), "ppm"),
    "oxygen_sinks": Kind(_SHAFTS, "fault", "gas", (6.0, 12.0), "%"),  # oxygen left: catalytic sensors read low
    "gas_puff": Kind(_SHAFTS, "nuisance", "gas", (11.0, 16.0), "%LEL"),
    # Cameras.
    "headlights": Kind(_CAMERAS, "nuisance", "standing_water"),
    "rain_on_lens": Kind(_CAMERAS, "nuisance", "standing_water"),
    "parked_car": Kind(_CAMERAS, "nuisance", "object"),
    "object_in_zone": Kind(_CAMERAS, "incident", "object"),
    "camera_misses": Kind(_CAMERAS, "fault", "standing_water"),
    "event_end_lost": Kind(_CAMERAS, "fault", "standing_water"),
    # Instruments and wires.
    "device_dies": Kind(_ANY, "incident", "device_silent", case="device"),
    "no_answer": Kind((*_POLLED, BUS), "nuisance", "device_silent"),
    "late_answer": Kind((*_POLLED, BUS), "fault"),  # delivered to the next request
    "wrong_transaction": Kind((*_POLLED, BUS), "fault"),
    "exception_02": Kind((*_POLLED, BUS), "fault"),
    "exception_03": Kind((*_POLLED, BUS), "fault"),
    "exception_06": Kind((*_POLLED, BUS), "fault"),
    "partial_frame": Kind((*_POLLED, BUS), "fault"),
    "half_open": Kind((BUS,), "fault"),  # the connection stands, and nothing moves on it
    "single_session": Kind((BUS,), "fault"),  # a second connection is refused while one stands
    "slow_answer": Kind((*_POLLED, BUS), "fault", "", (0.2, 0.6), "s"),
    "uplinks_lost": Kind(_UPLINKS, "fault", "", (0.05, 0.30), "1"),  # share of them
    "uplinks_doubled": Kind(_TOLD, "fault"),
    "uplinks_reordered": Kind(_TOLD, "fault"),
    "uplinks_late": Kind(_UPLINKS, "fault"),  # kept in the device, told as history when it ends, with their own times
    "clock_unset": Kind(_TOLD, "fault"),  # 1970 or 2000
    "clock_jumps": Kind(_TOLD, "fault", "", (-7200.0, 7200.0), "s"),
    "broker_down": Kind((BROKER,), "fault"),
    "link_cut": Kind((GATEWAY,), "fault"),
    "gateway_off": Kind((GATEWAY,), "incident", "gateway_silent", case="device"),
}
