"""Scenarios are data: the weather, the hydraulics, what happens, and what counts as a hazard in this world."""

from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from firmware_sim import noise
from rules.declared import Refused, decode, seconds
from rules.district import District, Text
from wire.clock import NANOSECONDS

What = Literal["cover_stolen", "cover_lifted", "truck", "lamp_fails", "level_freezes", "headlights", "burst_main"]

_MILLISECOND = NANOSECONDS // 1000  # to which the truth is told
_LIDS = ("manhole_cover", "manhole_monitor")
KINDS: dict[What, tuple[str, ...]] = {  # which devices an event can happen to; a burst main happens to an underpass
    "cover_stolen": _LIDS,
    "cover_lifted": _LIDS,
    "truck": _LIDS,
    "lamp_fails": ("lamp_controller",),
    "level_freezes": ("level_sensor",),
    "headlights": ("camera",),
    "burst_main": (),
}


class Burst(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A triangle of rain: none at ``at`` − ``half`` and ``at`` + ``half``, ``peak_mm_h`` at ``at`` (scenario time)."""

    at: str
    half: str
    peak_mm_h: float

    def __post_init__(self) -> None:
        seconds(self.at)
        if seconds(self.half) <= 0:
            raise ValueError("`half` of a burst of rain must be above 0s")


class Rain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A hyetograph as the sum of bursts; the seed moves each by ±``at_varies``, its peak by ±``peak_varies``."""

    burst: tuple[Burst, ...] = ()
    at_varies: str = "0s"
    peak_varies: float = 0.0

    def __post_init__(self) -> None:
        seconds(self.at_varies)


class Underpass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The hydraulics of a dip: a symmetric V along the road, ``width_m`` wide, falling by ``slope`` from both sides.

    Rain on ``catchment_m2`` runs off by the share ``runoff`` through a linear reservoir of time constant ``lag``. The
    pumps start at ``pump_from_m`` of depth and all of them run from ``pump_full_m`` on. The camera there sees water
    from ``seen_from_m`` until below ``unseen_below_m``.
    """

    site: str
    catchment_m2: float
    runoff: float
    lag: str
    width_m: float
    slope: float
    pump_m3_s: float
    pump_from_m: float
    pump_full_m: float
    seen_from_m: float = 0.15
    unseen_below_m: float = 0.10

    def __post_init__(self) -> None:
        if min(seconds(self.lag), self.width_m, self.slope) <= 0:
            raise ValueError("`lag`, `width_m` and `slope` of an underpass must be above 0")
        if self.pump_from_m >= self.pump_full_m or self.unseen_below_m >= self.seen_from_m:
            raise ValueError("`pump_from_m` must lie below `pump_full_m`, and `unseen_below_m` below `seen_from_m`")


class Happening(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that happens: the seed draws when (``window``, scenario time), to whom and for how long (``lasts``).

    ``among`` names devices (or sites, for a burst main); empty: every device that ``what`` can happen to. Without
    ``lasts`` it stays for good. With ``per_minute`` it happens again and again at that mean rate within the window.
    """

    id: str
    what: What
    window: tuple[str, str]
    among: tuple[str, ...] = ()
    lasts: tuple[str, str] | None = None
    per_minute: float | None = None

    def __post_init__(self) -> None:
        for span in (self.window, self.lasts or self.window):
            if seconds(span[0]) > seconds(span[1]):
                raise ValueError(f"`{self.id}`: the span {span[0]} to {span[1]} ends before it begins")
        if self.per_minute is not None and not (self.per_minute > 0 and self.lasts):
            raise ValueError(f"`{self.id}`: `per_minute` must be above 0 and needs `lasts`")


class FloodLevel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    deeper_than_m: float


class FloodHazard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Road ponding deeper and larger than this is a flood (the filing standard); it is over below ``over_below_m``."""

    deeper_than_m: float
    larger_than_m2: float
    over_below_m: float
    level: tuple[FloodLevel, ...]


class CoverHazard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lid lifted further than this out of its frame leaves a gap that one can fall into."""

    gap_from_deg: float


class Hazards(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the world must meet for the truth to call it an incident; never a rule's threshold."""

    flood: FloodHazard
    cover: CoverHazard


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One labelled stretch of a city's life. ``dim_level`` is what the lamps are commanded to, percent."""

    name: str
    title: Text
    length: str
    hazard: Hazards
    dim_level: float = 80.0
    rain: Rain = Rain()
    underpass: tuple[Underpass, ...] = ()
    event: tuple[Happening, ...] = ()

    def __post_init__(self) -> None:
        seconds(self.length)


class Event(msgspec.Struct, frozen=True):
    """Something that happens to ``target`` (device or underpass) from ``at`` to ``until`` (UTC ns), or for good."""

    id: str
    what: What
    target: str
    at: int
    until: int | None = None


def load_scenario(name: str) -> tuple[Scenario, str]:
    """Read a scenario of this package by its name, or any by its path (``.toml``), with its place for messages."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise Refused(name, "no such file")
        return decode(path.read_text(encoding="utf-8"), Scenario, name), name
    folder = resources.files("firmware_sim") / "scenarios"
    shipped = {file.name.removesuffix(".toml"): file for file in folder.iterdir() if file.name.endswith(".toml")}
    if name not in shipped:
        raise Refused(f"scenario {name}", f"none of that name is shipped; there are {', '.join(sorted(shipped))}")
    place = f"scenarios/{name}.toml"
    return decode(shipped[name].read_text(encoding="utf-8"), Scenario, place), place


def candidates(what: What, among: tuple[str, ...], district: District, scenario: Scenario) -> list[str]:
    """List the ids that ``what`` can happen to, in the district's order; ``ValueError`` names one that does not fit."""
    if what == "burst_main":
        fitting = [underpass.site for underpass in scenario.underpass]
    else:
        fitting = [device.id for device in district.device if device.kind in KINDS[what]]
    for wanted in among:
        if wanted not in fitting:
            raise ValueError(f"`{what}` cannot happen to `{wanted}`; it can to {', '.join(fitting) or 'nothing here'}")
    chosen = [target for target in fitting if not among or target in among]
    if not chosen:
        raise ValueError(f"nothing in this district can have `{what}` happen to it")
    return chosen


def check(scenario: Scenario, district: District, place: str) -> None:
    """Refuse a scenario that does not fit its district, naming the entry."""
    kinds = {site.id: site.kind for site in district.site}
    for underpass in scenario.underpass:
        if kinds.get(underpass.site) != "underpass":
            raise Refused(f"{place}: underpass {underpass.site}", "no site of kind `underpass` has this id")
    length = seconds(scenario.length)
    for happening in scenario.event:
        at = f"{place}: event {happening.id}"
        if [other.id for other in scenario.event].count(happening.id) > 1:
            raise Refused(at, "this id is declared twice")
        if seconds(happening.window[1]) > length:
            raise Refused(at, f"its window ends after the scenario's length of {scenario.length}")
        try:
            candidates(happening.what, happening.among, district, scenario)
        except ValueError as error:
            raise Refused(at, str(error)) from error


def events(scenario: Scenario, district: District, seed: int, start: int) -> tuple[Event, ...]:
    """Draw what happens by the seed; ``start`` (UTC ns) is scenario time 0. No target has two things at once."""
    drawn: dict[str, list[Event]] = {}
    for happening in scenario.event:
        targets = candidates(happening.what, happening.among, district, scenario)
        for number, at in enumerate(_instants(happening, seed)):
            name = happening.id if happening.per_minute is None else f"{happening.id}-{number}"
            begin = start + round(at * 1000) * _MILLISECOND
            end = None
            if happening.lasts is not None:
                low, high = (seconds(span) for span in happening.lasts)
                end = begin + round(noise.between(low, high, seed, name, "lasts") * 1000) * _MILLISECOND
            free = [one for one in targets if not any(_clash(event, begin, end) for event in drawn.get(one, ()))]
            if free:
                target = free[int(noise.draw(seed, name, "target") * len(free))]
                drawn.setdefault(target, []).append(Event(name, happening.what, target, begin, end))
    return tuple(sorted((event for on in drawn.values() for event in on), key=lambda event: (event.at, event.id)))


def _instants(happening: Happening, seed: int) -> list[float]:
    """Instants in scenario seconds; with a rate, cells of one mean gap hold one each, at a random phase."""
    first, last = (seconds(edge) for edge in happening.window)
    if happening.per_minute is None:
        return [noise.between(first, last, seed, happening.id, "at")]
    gap = 60.0 / happening.per_minute
    cells = int((last - first) / gap)
    return [first + gap * (cell + noise.draw(seed, happening.id, "at", str(cell))) for cell in range(cells)]


def _clash(event: Event, begin: int, end: int | None) -> bool:
    """Whether an event already drawn keeps its target busy (with a minute of rest around it)."""
    rest = 60 * NANOSECONDS
    starts_after = event.until is not None and event.until + rest < begin
    ends_before = end is not None and end + rest < event.at
    return not (starts_after or ends_before)
