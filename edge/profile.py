"""A sensor model as data: where its quantities stand, in what unit, what may be trusted. No codec and no I/O here."""

import math
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Literal

import msgspec

from rules.declared import Refused, Source, decode, located, nearest
from wire.files import declared_in, read

INSTALL = "install."
KINDS = (
    "beacon",
    "camera",
    "door_contact",
    "flow_meter",
    "gas_detector",
    "lamp_controller",
    "level_sensor",
    "manhole_cover",
    "manhole_monitor",
    "power_meter",
    "rain_gauge",
    "tilt_sensor",
    "warning_board",
    "weather_station",
)
# Only these may be told what to do: a lamp, a board or a beacon that is wrong misleads, a barrier or a pump harms.
WRITABLE = ("lamp_controller", "warning_board", "beacon")
_WORDS = {
    **dict.fromkeys(("bit", "u16", "s16", "bcd16"), 1),
    **dict.fromkeys(("u32", "s32", "f32", "bcd32"), 2),
    **dict.fromkeys(("u64", "s64", "f64"), 4),
}
_FITS = {"bit": (0, 1), "u16": (0, 0xFFFF), "s16": (-0x8000, 0x7FFF)}
_TERMS = {
    "minus": (2, 2),
    "difference": (2, 2),
    "hypot": (4, 4),
    "ratio": (2, 9),
    "sum": (2, 9),
    "product": (2, 9),
    "lag": (0, 0),
}
TimeAs = Literal["iso", "s", "ms"]


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model is: ``manual`` cites where the map comes from, ``interval_s`` is the reporting interval (s).

    ``protocol`` says what its words look like, not who carries them: ``lorawan`` is what a payload codec made of an
    uplink, whichever network server ran it; ``json`` comes by MQTT or is pushed by an operator's platform.
    """

    id: str
    kind: str
    maker: str
    model: str
    manual: str
    protocol: Literal["modbus", "lorawan", "senml", "sparkplug", "onvif", "frigate", "json"]
    interval_s: float
    reports_on_change: bool = False


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the device bears.

    ``max_registers`` in one read, ``max_hole`` unwanted ones in between (functions 1 and 2: 16 bits each), or
    ``one_field_per_request``. Wall seconds: ``pause_after_connect_s``; ``pause_between_requests_s`` of one poll;
    ``guard_s`` of silence on the bus before each question to it. ``close_after_cycle`` gives the connection back after
    each poll. ``single_session``: the device serves one master at a time.
    """

    max_registers: int = 125
    max_hole: int = 10
    one_field_per_request: bool = False
    pause_after_connect_s: float = 0.0
    pause_between_requests_s: float = 0.0
    guard_s: float = 0.0
    close_after_cycle: bool = False
    single_session: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.max_registers <= 125 and self.max_hole >= 0):
            raise ValueError("`max_registers` lies between 1 and 125 and `max_hole` is not negative")
        if not all(
            0 <= pause <= 5 for pause in (self.pause_after_connect_s, self.pause_between_requests_s, self.guard_s)
        ):
            raise ValueError("`pause_after_connect_s`, `pause_between_requests_s` and `guard_s` lie between 0 and 5")


class ScaleFrom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the rest of a scale stands: the value of ``metric`` is a number of decimals, a divisor or a factor."""

    metric: str
    how: Literal["decimals", "divisor", "factor"]


class UnitFrom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the unit stands: ``factors`` into the declared unit, by the code that ``metric`` shows."""

    metric: str
    factors: dict[str, float]

    def __post_init__(self) -> None:
        if not self.factors or not all(code.isdecimal() for code in self.factors):
            raise ValueError("`factors` has a factor for each code, as in { 1 = 0.102, 7 = 1.0 }")
        if not all(math.isfinite(factor) and factor != 0 for factor in self.factors.values()):
            raise ValueError("`factors` are finite and not 0")


class Register(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quantity in Modbus registers: value = raw x ``scale`` + ``offset``, in ``unit`` (UCUM/SenML).

    ``register`` is the 0-based PDU address; ``order`` names the bytes of a value as they arrive: big-endian (ABCD),
    words swapped (CDAB), bytes swapped within words (BADC), little-endian (DCBA); eight bytes likewise. A ``bit`` is
    ``width`` bits from ``bit`` up (0 the least) in one register, or one coil or input (functions 1, 2). ``invalid``
    lists raw patterns that mean "no value", ``range`` the values that can be true. ``scale_from`` and ``unit_from``
    multiply the scale by what another point of the same profile shows. A ``counter`` that ``wraps`` (at its type's
    end, or falls to zero with its power) or ``clears`` (each read takes away what it shows) becomes a growing total.
    """

    metric: str
    unit: str
    function: Literal[1, 2, 3, 4]
    register: int
    type: Literal["bit", "u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64", "bcd16", "bcd32"]
    order: Literal["ABCD", "CDAB", "BADC", "DCBA"] = "ABCD"
    bit: int = 0
    width: int = 1
    scale: float = 1.0
    offset: float = 0.0
    invalid: tuple[int, ...] = ()
    range: tuple[float, float] | None = None
    scale_from: ScaleFrom | None = None
    unit_from: UnitFrom | None = None
    counter: Literal["", "wraps", "clears"] = ""
    deadband: float = 0.0
    heartbeat_s: float = 60.0

    def __post_init__(self) -> None:
        if not (self.register >= 0 and self.register + self.words <= 0x10000):
            raise ValueError(f"`{self.metric}` lies outside the addresses 0 to 65535")
        if self.function in (1, 2) and (self.type != "bit" or self.bit or self.width != 1):
            raise ValueError(f"`{self.metric}`: functions 1 and 2 read single bits")
        if not (self.bit >= 0 and self.width >= 1 and self.bit + self.width <= 16):
            raise ValueError(f"`{self.metric}`: a bit field lies within the 16 bits of its register")
        if self.scale == 0:
            raise ValueError(f"`{self.metric}`: `scale` is not 0")
        _check_range(self.metric, self.range)
        if self.counter and not (self.type.startswith("u") and self.scale > 0 and self.offset == 0):
            raise ValueError(
                f"`{self.metric}`: a counter is unsigned (u16, u32 or u64), with a scale above 0 and no offset"
            )

    @property
    def words(self) -> int:
        """How many addresses it takes."""
        return _WORDS[self.type]


def _check_range(metric: str, within: tuple[float, float] | None) -> None:
    if within is not None and not within[0] <= within[1]:
        raise ValueError(f"`{metric}`: `range` is the least and the most, and {within[0]:g} is above {within[1]:g}")


class Flags(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A status register whose ``bits`` are named: each becomes a point of its own, 0 or 1."""

    function: Literal[3, 4]
    register: int
    bits: dict[str, int]

    def points(self) -> Iterator[Register]:
        """Give each named bit as a point."""
        for metric, bit in self.bits.items():
            yield Register(metric, "1", self.function, self.register, "bit", bit=bit)


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Text in registers, by which a device can be known: read when it is commissioned, never polled.

    ``words`` registers from ``register`` on hold two characters each, or one in the ``high`` or ``low`` byte; the text
    ends at NUL. On a device of this model it ``starts`` so.
    """

    name: str
    function: Literal[3, 4]
    register: int
    words: int
    chars: Literal["both", "high", "low"] = "both"
    starts: str = ""

    def __post_init__(self) -> None:
        if not (1 <= self.words <= 125 and 0 <= self.register <= 0x10000 - self.words):
            raise ValueError(f"`{self.name}`: a text has 1 to 125 words within the addresses 0 to 65535")


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a lamp, a warning board or a beacon can be told: raw = (value - ``offset``) / ``scale``, into ``register``.

    A command has the fixed ``value``, or takes one within ``range`` (in ``unit``). It is done once the metric
    ``read_back`` shows it within ``tolerance``, which may take ``within_s`` (wall) where a lamp fades.
    """

    name: str
    function: Literal[5, 6, 16]
    register: int
    read_back: str
    type: Literal["bit", "u16", "s16"] = "u16"
    unit: str = "1"
    scale: float = 1.0
    offset: float = 0.0
    value: float | None = None
    range: tuple[float, float] | None = None
    tolerance: float = 0.0
    within_s: float = 5.0

    def __post_init__(self) -> None:
        if (self.value is None) == (self.range is None):
            raise ValueError(f"`{self.name}`: a command has either a fixed `value` or a `range` to choose from")
        if (self.function == 5) != (self.type == "bit"):
            raise ValueError(f"`{self.name}`: function 5 writes a bit, and nothing else does")
        if self.scale == 0 or not 0 <= self.register <= 0xFFFF:
            raise ValueError(f"`{self.name}`: `scale` is not 0, and `register` lies between 0 and 65535")
        low, high = _FITS[self.type]
        for value in self.range or (self.value or 0.0,):
            if not (math.isfinite(value) and low <= self.raw(value) <= high):
                raise ValueError(f"`{self.name}`: {value:g} does not fit a {self.type}")

    def raw(self, value: float) -> int:
        """Tell the number to write for a value."""
        return round((value - self.offset) / self.scale)


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quantity in a message: value = told x ``scale`` + ``offset``, in ``unit``.

    ``path`` is dotted (JSON), a metric's name (Sparkplug) or a record's name without the device's own (SenML).
    ``absent`` is what a message says that leaves the field out, where zeros are not sent. ``words`` are numbers for
    texts; numbers in texts, true and false are read as they are. ``invalid`` lists told numbers that mean "no value".
    For ONVIF, ``topic`` is the local topic without namespace, and ``rule`` the value of ``Source.Rule``. For Frigate,
    ``topic`` is ``events`` or ``reviews``, and the value is how many objects with one of ``labels`` (empty: any) are in
    ``zone`` (empty: anywhere); one that nothing was heard of for ``expires_s`` has left.
    """

    metric: str
    unit: str
    path: str = ""
    topic: str = ""
    rule: str = ""
    zone: str = ""
    labels: tuple[str, ...] = ()
    expires_s: float = 600.0
    absent: float | None = None
    words: dict[str, float] = {}
    scale: float = 1.0
    offset: float = 0.0
    invalid: tuple[float, ...] = ()
    range: tuple[float, float] | None = None
    deadband: float = 0.0
    heartbeat_s: float = 60.0

    def __post_init__(self) -> None:
        _check_range(self.metric, self.range)


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a JSON message says when and who: dotted paths, each empty where it does not.

    ``time`` (written as ISO 8601, or as Unix seconds or milliseconds), ``device`` (where many share a topic or a
    platform), ``id`` (the same for a message that comes twice; without it, device and time are).
    """

    time: str = ""
    time_as: TimeAs = "iso"
    device: str = ""
    id: str = ""


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Earlier readings inside a message: a list at ``path``, each with the paths of the fields and a ``time``."""

    path: str
    time: str = "timestamp"
    time_as: TimeAs = "s"


class Derived(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quantity worked out from others of the same reading, times ``scale``.

    ``of`` names metrics of this profile, or numbers of the installation as ``install.NAME``:
    ``minus`` a - b · ``difference`` abs(a - b) · ``hypot`` hypot(a - b, c - d) · ``ratio`` a / (b x c x ...), which
    is not there while the divisor is 0 · ``sum`` · ``product`` · ``lag``, of nothing: seconds from the time of reading
    to the time of receipt, which keeps both.
    """

    metric: str
    unit: str
    how: Literal["minus", "difference", "hypot", "ratio", "sum", "product", "lag"]
    of: tuple[str, ...] = ()
    scale: float = 1.0
    deadband: float = 0.0
    heartbeat_s: float = 60.0


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sensor model: ``point`` and ``flags`` for Modbus, ``field`` for messages, ``derived`` for both.

    A loaded profile has its flags among its points, each bit as one.
    """

    profile: Head
    limits: Limits = Limits()
    point: tuple[Register, ...] = ()
    flags: tuple[Flags, ...] = ()
    text: tuple[Text, ...] = ()
    command: tuple[Command, ...] = ()
    message: Message = Message()
    history: History | None = None
    field: tuple[Field, ...] = ()
    derived: tuple[Derived, ...] = ()

    @property
    def id(self) -> str:
        return self.profile.id

    @property
    def measured(self) -> tuple[Register | Field, ...]:
        """What the device itself tells."""
        return self.point or self.field

    @property
    def quantities(self) -> tuple[Register | Field | Derived, ...]:
        """Everything a device of this model reports, in the order of its rows in a point table."""
        return (*self.measured, *self.derived)

    def install_names(self) -> Iterator[str]:
        """Name the numbers that an installation of this model must give."""
        for derived in self.derived:
            yield from (term.removeprefix(INSTALL) for term in derived.of if term.startswith(INSTALL))


def load_profile(text: str, place: str) -> Profile:
    """Read and check one profile; ``Refused`` names the file, the quantity and the key."""
    profile = decode(text, Profile, place)
    with located(Source(place, text)):
        _check(profile, place)
        bits = tuple(bit for flags in profile.flags for bit in flags.points())
        profile = msgspec.structs.replace(profile, point=profile.point + bits, flags=())
        _check_names(profile, place)
        _check_overlap(profile.point, place)
        _check_commands(profile, place)
    return profile


def _check(profile: Profile, place: str) -> None:
    head, is_modbus = profile.profile, profile.profile.protocol == "modbus"
    if bool(profile.point or profile.flags) != is_modbus or bool(profile.field) == is_modbus:
        raise Refused(place, "a modbus profile has `[[point]]` tables, any other has `[[field]]` tables")
    if head.interval_s <= 0:
        raise Refused(f"{place}: profile.interval_s", "must be above 0")
    if head.kind not in KINDS:
        raise Refused(f"{place}: profile.kind", f"no kind `{head.kind}` is known to rules{nearest(head.kind, KINDS)}")
    for point in profile.point:
        bits = point.width if point.type == "bit" else 16 * point.words
        if not all(-(1 << (bits - 1)) <= raw < 1 << bits for raw in point.invalid):
            raise Refused(f"{place}: {point.metric}.invalid", f"has a pattern that {bits} bits never show")
        if point.words > profile.limits.max_registers:
            why = (
                f"has {point.words} words, and `max_registers` is {profile.limits.max_registers}: a value is never cut"
            )
            raise Refused(f"{place}: {point.metric}.type", why)
    for flags in profile.flags:
        for metric, bit in flags.bits.items():
            if not 0 <= bit < 16:
                raise Refused(f"{place}: flags.{metric}", f"is bit {bit}; a register has bits 0 to 15")
    for field in profile.field:
        if head.protocol == "frigate" and field.topic not in ("events", "reviews"):
            raise Refused(f"{place}: {field.metric}.topic", "is `events` or `reviews` for Frigate")
        if head.protocol != "frigate" and not field.path:
            raise Refused(f"{place}: {field.metric}.path", "is missing: it says where the field stands in a message")


def load_profiles(folder: Traversable | None = None) -> dict[str, Profile]:
    """Read the profiles of a folder (the shipped one), by id; ``Refused`` names the file and the key."""
    profiles: dict[str, Profile] = {}
    for file in declared_in(folder or resources.files("edge") / "profiles"):
        profile = load_profile(read(file), str(file))
        if file.name != f"{profile.id}.toml":
            raise Refused(f"{file}: profile.id", f"is `{profile.id}`; a profile is named as its file")
        profiles[profile.id] = profile
    return profiles


def _check_names(profile: Profile, place: str) -> None:
    known: set[str] = set()
    for quantity in profile.quantities:
        at = f"{place}: {quantity.metric}"
        if quantity.metric in known:
            raise Refused(at, "this metric is declared twice")
        if isinstance(quantity, Derived):
            few, many = _TERMS[quantity.how]
            if not few <= len(quantity.of) <= many:
                count = str(few) if few == many else "two or more"
                raise Refused(f"{at}.of", f"`{quantity.how}` takes {count} terms")
            if quantity.how == "lag" and profile.profile.protocol == "modbus":
                raise Refused(f"{at}.how", "a register is received when it is read: there is no lag")
            for term in quantity.of:
                if not term.startswith(INSTALL) and term not in known:
                    raise Refused(f"{at}.of", f"no metric `{term}` is declared above it; it has {sorted(known)}")
        known.add(quantity.metric)
    scaled = {point.metric for point in profile.point if point.scale_from or point.unit_from}
    for point in profile.point:
        for key in ("scale_from", "unit_from"):
            source: ScaleFrom | UnitFrom | None = getattr(point, key)
            if source is not None and source.metric not in {other.metric for other in profile.point}:
                at = f"{place}: {point.metric}.{key}"
                raise Refused(at, f"no point `{source.metric}`{nearest(source.metric, known)}")
            if source is not None and (source.metric == point.metric or source.metric in scaled):
                raise Refused(f"{place}: {point.metric}.{key}", f"`{source.metric}` has no scale of its own to give")


def _check_commands(profile: Profile, place: str) -> None:
    if profile.command and profile.profile.kind not in WRITABLE:
        raise Refused(f"{place}: command", f"a {profile.profile.kind} is never written to, only {', '.join(WRITABLE)}")
    points = {point.metric for point in profile.point}
    for command in profile.command:
        if command.read_back not in points:
            at = f"{place}: {command.name}.read_back"
            raise Refused(at, f"no point `{command.read_back}`{nearest(command.read_back, points)}")


def _check_overlap(points: tuple[Register, ...], place: str) -> None:
    taken: dict[tuple[int, int], Register] = {}
    for point in points:
        for address in range(point.register, point.register + point.words):
            other = taken.setdefault((point.function, address), point)
            if other is not point and not (other.type == point.type == "bit" and point.function in (3, 4)):
                raise Refused(f"{place}: {point.metric}.register", f"{address} belongs to `{other.metric}` already")
