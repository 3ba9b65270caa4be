"""Scenarios are data: a district, its weather, what happens, and the truth that should follow."""

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec

from firmware_sim import noise
from firmware_sim.fleet import Fleet, district_of
from firmware_sim.happenings import BROKER, BUS, GATEWAY, KINDS, UNDERPASS
from rules.declared import Refused, Source, decode, located, nearest, seconds
from rules.district import District, Text, load_district
from wire.clock import NANOSECONDS, from_iso
from wire.files import read

EVENING = "2026-06-18T11:30:00Z"  # 19:30 in Shanghai: the lamps are lit
Count = Annotated[int, msgspec.Meta(ge=0)]
_MILLISECOND = NANOSECONDS // 1000  # to which the truth is told


class Burst(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A triangle of rain: none at ``at`` − ``half`` and ``at`` + ``half``, ``peak_mm_h`` at ``at`` (scenario time)."""

    at: str
    half: str
    peak_mm_h: float

    def __post_init__(self) -> None:
        seconds(self.at)
        if seconds(self.half) <= 0:
            raise ValueError("`half` of a burst of rain must be above 0s")


class DesignStorm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A storm that comes once in ``return_years``, from ``at`` on for ``lasts``; its peak after the share ``peak_at``.

    Intensity follows the city's own formula; see ``hydraulics``.
    """

    at: str
    lasts: str
    return_years: float
    peak_at: float = 0.4

    def __post_init__(self) -> None:
        seconds(self.at)
        if not (seconds(self.lasts) > 0 and self.return_years > 0 and 0 < self.peak_at < 1):
            raise ValueError("a design storm has `lasts` and `return_years` above 0 and `peak_at` between 0 and 1")


class Rain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A hyetograph as the sum of its parts; the seed moves each by ±``at_varies``, its peak by ±``peak_varies``.

    ``recorded`` are steps of (from when on in scenario time, mm/h) as a gauge recorded them; the seed leaves them be.
    """

    burst: tuple[Burst, ...] = ()
    design: tuple[DesignStorm, ...] = ()
    recorded: tuple[tuple[str, float], ...] = ()
    at_varies: str = "0s"
    peak_varies: float = 0.0

    def __post_init__(self) -> None:
        seconds(self.at_varies)
        begins = [seconds(at) for at, _ in self.recorded]
        if begins != sorted(set(begins)):
            raise ValueError("the steps of `recorded` rain must stand in order of time")


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


class Sewer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The hydraulics of every manhole's shaft: rain on ``catchment_m2`` runs in, a pipe of ``pipe_m2`` lets it out."""

    catchment_m2: float = 900.0
    runoff: float = 0.7
    lag: str = "10min"
    shaft_m2: float = 1.2
    pipe_m2: float = 0.012


class Lighting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the lamps are commanded to: ``dim_level`` percent, always or (``by_sun``) while the sun stands low.

    By the sun, lamps are on while its elevation is below ``on_below_deg``; from ``late[0]`` to ``late[1]`` local time
    (UTC+8) at ``late_level`` percent.
    """

    dim_level: float = 80.0
    by_sun: bool = False
    on_below_deg: float = -2.0
    late: tuple[str, str] = ("23:30", "04:30")
    late_level: float = 50.0


class Happening(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that happens: the seed draws when (``window``, scenario time), to whom and for how long (``lasts``).

    ``what`` is one of ``happenings.KINDS``. ``among`` names devices (or sites, buses, gateways, where it happens to
    those); empty: all that ``what`` can happen to. Without ``lasts`` it stays for good. With ``every`` it happens again
    and again within the window, at that mean gap. ``size`` narrows how strong it is.
    """

    id: str
    what: str
    window: tuple[str, str]
    among: tuple[str, ...] = ()
    lasts: tuple[str, str] | None = None
    every: str | None = None
    size: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.what not in KINDS:
            raise ValueError(f"`{self.id}`: nothing is called `{self.what}`{nearest(self.what, KINDS)}")
        for span in (self.window, self.lasts or self.window):
            if seconds(span[0]) > seconds(span[1]):
                raise ValueError(f"`{self.id}`: the span {span[0]} to {span[1]} ends before it begins")
        if self.every is not None and not (seconds(self.every) > 0 and self.lasts):
            raise ValueError(f"`{self.id}`: `every` must be above 0s and needs `lasts`")
        if self.size is not None and self.size[0] > self.size[1]:
            raise ValueError(f"`{self.id}`: `size` goes from the smallest to the largest")


class FloodLevel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    deeper_than_m: float


class FloodHazard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Road ponding deeper and larger than this is a flood (the filing standard); it is over below ``over_below_m``."""

    deeper_than_m: float = 0.15
    larger_than_m2: float = 100.0
    over_below_m: float = 0.10
    level: tuple[FloodLevel, ...] = (
        FloodLevel("slow", 0.15),
        FloodLevel("close", 0.25),
        FloodLevel("severe", 0.40),
        FloodLevel("impassable", 0.60),
    )


class CoverHazard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lid lifted further than this out of its frame leaves a gap that one can fall into."""

    gap_from_deg: float = 5.0


class GasHazard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Air that burns or poisons: % of methane's lower explosive limit (OSHA), ppm H2S (GBZ 2.1: 10 mg/m³ at 20 °C)."""

    ch4_above_lel: float = 10.0
    h2s_above_ppm: float = 7.0


class SurchargeHazard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Water that stands this near below a manhole's rim, m, comes out of it with the next shower."""

    freeboard_below_m: float = 1.0


class Hazards(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the world must meet for the truth to call it an incident; never a rule's threshold."""

    flood: FloodHazard = FloodHazard()
    cover: CoverHazard = CoverHazard()
    gas: GasHazard = GasHazard()
    surcharge: SurchargeHazard = SurchargeHazard()


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What should follow for one hazard: how many true ``incidents``, and of each at most so many ``orders``.

    ``announcements`` is how often all its orders together should be announced, ``held`` how many alerts of the hazard
    should be held back. What is not given is not asked.
    """

    hazard: str
    incidents: Count = 0
    orders: Count = 1
    announcements: Count | None = None
    held: Count | None = None


class Recording(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a real ``device`` once showed, from a CSV ``file`` beside the scenario; it shows that instead of the world.

    The file's first column is ``taken_at`` (ISO 8601), the others are metrics of the profile; empty is not told.
    """

    device: str
    file: str


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person knows of a stretch of a recording (scenario time): an incident of ``hazard``, or what it was."""

    id: str
    device: str
    window: tuple[str, str]
    truth: str
    hazard: str


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One labelled stretch of a city's life.

    ``district`` is a shipped one's name or a path beside the scenario; a ``fleet`` generates one instead. Scenario time
    0 is ``starts`` (UTC), unless whoever runs it has a clock of his own. ``seed`` is the one it is kept with. Of what
    covers tell, the share ``radio_loss`` never arrives, on a good day as on a bad one.
    """

    name: str
    title: Text
    length: str
    district: str = "bluestone"
    fleet: Fleet | None = None
    starts: str = EVENING
    seed: int = 1
    rain: Rain = Rain()
    lighting: Lighting = Lighting()
    sewer: Sewer = Sewer()
    radio_loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    underpass: tuple[Underpass, ...] = ()
    event: tuple[Happening, ...] = ()
    recording: tuple[Recording, ...] = ()
    label: tuple[Label, ...] = ()
    hazard: Hazards = Hazards()
    truth: tuple[Expected, ...] = ()

    def __post_init__(self) -> None:
        seconds(self.length)
        from_iso(self.starts)


class Event(msgspec.Struct, frozen=True):
    """Something that happens to ``target`` from ``at`` to ``until`` (UTC ns) or for good; ``size`` as its kind says."""

    id: str
    what: str
    target: str
    at: int
    until: int | None = None
    size: float = 0.0

    def during(self, at: int) -> bool:
        return self.at <= at and (self.until is None or at < self.until)


def scenarios() -> Traversable:
    """Find the folder of the shipped scenarios."""
    return resources.files("firmware_sim") / "scenarios"


def load_scenario(name: str) -> tuple[Scenario, str]:
    """Read a shipped scenario by its name, or any by its path, with its place for messages (a ``Source``).

    A path is a `.toml` file, or the folder that holds a ``scenario.toml``.
    """
    path = Path(name)
    if path.is_dir():
        path = path / "scenario.toml"
    if path.suffix == ".toml":
        if not path.is_file():
            raise Refused(name, "no such file")
        place = Source(str(path), read(path))
    else:
        shipped = {
            file.name.removesuffix(".toml"): file for file in scenarios().iterdir() if file.name.endswith(".toml")
        }
        if name not in shipped:
            raise Refused(f"scenario {name}", f"none of that name is shipped; there are {', '.join(sorted(shipped))}")
        place = Source(f"firmware_sim/scenarios/{name}.toml", read(shipped[name]))
    return decode(place.text, Scenario, place), place


def load_scenario_district(scenario: Scenario, place: str) -> District:
    """Read or generate the district that a scenario names."""
    if scenario.fleet is not None:
        return district_of(scenario.fleet)
    folder = resources.files("firmware_sim") / "districts"
    shipped = {file.name.removesuffix(".toml"): file for file in folder.iterdir() if file.name.endswith(".toml")}
    if scenario.district in shipped:
        return load_district(shipped[scenario.district].read_text(encoding="utf-8"), f"districts/{scenario.district}")
    path = Path(place).parent / scenario.district
    if not path.is_file():
        known = f"it is neither beside the scenario nor shipped{nearest(scenario.district, shipped)}"
        raise Refused(f"{place}: district {scenario.district}", known)
    return load_district(path.read_text(encoding="utf-8"), str(path))


def candidates(what: str, among: tuple[str, ...], district: District, scenario: Scenario) -> list[str]:
    """List the ids that ``what`` can happen to, in the district's order; ``ValueError`` names one that does not fit."""
    on = KINDS[what].on
    fitting = [device.id for device in district.device if device.kind in on]
    if UNDERPASS in on:
        fitting += [underpass.site for underpass in scenario.underpass]
    if BUS in on:
        fitting += [bus.id for bus in district.bus]
    if GATEWAY in on:
        fitting += [gateway.id for gateway in district.gateway]
    if BROKER in on:
        fitting += [BROKER]
    known = set(fitting)
    for wanted in among:
        if wanted not in known:
            raise ValueError(f"`{what}` cannot happen to `{wanted}`{nearest(wanted, known)}")
    if among:
        return [target for target in fitting if target in among]
    if BUS in on and len(on) > 1:  # a fault of one device or of a whole bus: of devices, unless a bus is named
        fitting = [target for target in fitting if target not in {bus.id for bus in district.bus}]
    if not fitting:
        raise ValueError(f"nothing in this district can have `{what}` happen to it")
    return fitting


def check(scenario: Scenario, district: District, place: str) -> None:
    """Refuse a scenario that does not fit its district, naming the entry, and its line where ``place`` has the text."""
    with located(place):
        for entry, why in _misfits(scenario, district):
            raise Refused(f"{place}: {entry}", why)


def _misfits(scenario: Scenario, district: District) -> Iterator[tuple[str, str]]:
    """List what does not fit: the entry with its key, and why."""
    underpasses = {site.id for site in district.site if site.kind == "underpass"}
    for underpass in scenario.underpass:
        if underpass.site not in underpasses:
            why = f"no site of kind `underpass` has this id{nearest(underpass.site, underpasses)}"
            yield f"underpass {underpass.site}: site", why
    length = seconds(scenario.length)
    ids = [happening.id for happening in scenario.event]
    for happening in scenario.event:
        at = f"event {happening.id}"
        if ids.count(happening.id) > 1:
            yield f"{at}: id", "this id is declared twice"
        if seconds(happening.window[1]) > length:
            yield f"{at}: window", f"it ends after the scenario's length of {scenario.length}"
        try:
            candidates(happening.what, happening.among, district, scenario)
        except ValueError as error:
            yield f"{at}: {'among' if happening.among else 'what'}", str(error)
    for number, (milder, level) in enumerate(pairwise(scenario.hazard.flood.level), 1):
        if level.deeper_than_m <= milder.deeper_than_m:
            yield f"hazard.flood.level[{number}].deeper_than_m", "each level must be deeper than the one before it"
    devices = {device.id for device in district.device}
    for recording in scenario.recording:
        if recording.device not in devices:
            yield (
                f"recording {recording.device}: device",
                f"no such device is declared{nearest(recording.device, devices)}",
            )
    hazards = {kind.hazard for kind in KINDS.values() if kind.hazard}
    for label in scenario.label:
        at = f"label {label.id}"
        if label.device not in devices:
            yield f"{at}: device", f"no device `{label.device}` is declared{nearest(label.device, devices)}"
        try:
            begins, ends = (seconds(edge) for edge in label.window)
        except ValueError as error:
            yield f"{at}: window", str(error)
        else:
            if not begins < ends <= length:
                yield f"{at}: window", f"it must end after it begins, within the scenario's length of {scenario.length}"
        if label.truth.partition(":")[0] not in {"real", "benign", "misfire"}:
            yield (
                f"{at}: truth",
                f"`{label.truth}` says nothing; write `real`, or `misfire:` or `benign:` and what it was",
            )
        if label.hazard not in hazards:
            yield f"{at}: hazard", f"no such hazard is known{nearest(label.hazard, hazards)}"
    for expected in scenario.truth:
        if expected.hazard not in hazards:
            yield (
                f"truth {expected.hazard}: hazard",
                f"no such hazard is known{nearest(expected.hazard, hazards)}",
            )


def events(scenario: Scenario, district: District, seed: int, start: int) -> tuple[Event, ...]:
    """Draw what happens by the seed; ``start`` (UTC ns) is scenario time 0.

    No target has two things at once, but for a fault of its instrument or wire on top of what happens in the street.
    What happens once is drawn first; of what happens ``every`` so often, that is left out for which nobody is free.
    ``Refused``: something that happens once finds nobody free.
    """
    drawn: dict[tuple[str, bool], list[Event]] = {}
    for happening in sorted(scenario.event, key=lambda happening: happening.every is not None):
        targets = candidates(happening.what, happening.among, district, scenario)
        for number, at in enumerate(_instants(happening, seed)):
            name = happening.id if happening.every is None else f"{happening.id}-{number}"
            begin = start + round(at * 1000) * _MILLISECOND
            end = None
            if happening.lasts is not None:
                low, high = (seconds(span) for span in happening.lasts)
                end = begin + round(noise.between(low, high, seed, name, "lasts") * 1000) * _MILLISECOND
            size = noise.between(*(happening.size or KINDS[happening.what].size), seed, name, "size")
            first = int(noise.draw(seed, name, "target") * len(targets))
            for target in (*targets[first:], *targets[:first]):
                busy = drawn.setdefault((target, KINDS[happening.what].role == "fault"), [])
                if not any(_clash(event, begin, end) for event in busy):
                    busy.append(Event(name, happening.what, target, begin, end, size))
                    break
            else:
                if happening.every is None:
                    why = f"with seed {seed} everything it could happen to is busy then: widen `among` or `window`"
                    raise Refused(f"scenario {scenario.name}: event {happening.id}", why)
    return tuple(sorted((event for on in drawn.values() for event in on), key=lambda event: (event.at, event.id)))


def _instants(happening: Happening, seed: int) -> list[float]:
    """Instants in scenario seconds; with a rate, cells of one mean gap hold one each, at a random phase."""
    first, last = (seconds(edge) for edge in happening.window)
    if happening.every is None:
        return [noise.between(first, last, seed, happening.id, "at")]
    gap = seconds(happening.every)
    cells = int((last - first) / gap)
    return [first + gap * (cell + noise.draw(seed, happening.id, "at", str(cell))) for cell in range(cells)]


def _clash(event: Event, begin: int, end: int | None) -> bool:
    """Whether an event already drawn keeps its target busy (with a minute of rest around it)."""
    rest = 60 * NANOSECONDS
    starts_after = event.until is not None and event.until + rest < begin
    ends_before = end is not None and end + rest < event.at
    return not (starts_after or ends_before)
