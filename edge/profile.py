"""A sensor model as data: where its quantities stand, in what unit, what may be trusted. No codec and no I/O here."""

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Literal

import msgspec

from rules.declared import Refused, Source, decode, located
from wire.files import declared_in, read

INSTALL = "install."
_WORDS = {"bit": 1, "u16": 1, "s16": 1, "u32": 2, "s32": 2, "f32": 2}
_TERMS = {"minus": (2, 2), "difference": (2, 2), "hypot": (4, 4), "ratio": (2, 9)}


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model is: ``manual`` cites where the map comes from, ``interval_s`` is the reporting interval (s)."""

    id: str
    kind: str
    maker: str
    model: str
    manual: str
    protocol: Literal["modbus", "chirpstack", "onvif"]
    interval_s: float
    reports_on_change: bool = False


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one read may ask for: registers in all, and unwanted ones in between (functions 1 and 2: 16 bits each)."""

    max_registers: int = 125
    max_hole: int = 10

    def __post_init__(self) -> None:
        if not (2 <= self.max_registers <= 125 and self.max_hole >= 0):
            raise ValueError("`max_registers` lies between 2 and 125 and `max_hole` is not negative")


class Register(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quantity in Modbus registers: value = raw x ``scale`` + ``offset``, in ``unit`` (UCUM/SenML).

    ``register`` is the 0-based PDU address; ``order`` names the bytes of a 32-bit value as they arrive. A ``bit`` is
    ``width`` bits from ``bit`` up (0 the least) in one register, or one coil or input (functions 1, 2). ``invalid``
    lists raw patterns that mean "no value", ``range`` the values that can be true.
    """

    metric: str
    unit: str
    function: Literal[1, 2, 3, 4]
    register: int
    type: Literal["bit", "u16", "s16", "u32", "s32", "f32"]
    order: Literal["ABCD", "CDAB", "BADC", "DCBA"] = "ABCD"
    bit: int = 0
    width: int = 1
    scale: float = 1.0
    offset: float = 0.0
    invalid: tuple[int, ...] = ()
    range: tuple[float, float] | None = None
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

    @property
    def words(self) -> int:
        """How many addresses it takes."""
        return _WORDS[self.type]


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quantity in a JSON payload, at the dotted ``path``.

    For ONVIF, ``topic`` is the local topic without namespace, and ``rule`` the value of ``Source.Rule``.
    """

    metric: str
    unit: str
    path: str
    topic: str = ""
    rule: str = ""
    scale: float = 1.0
    range: tuple[float, float] | None = None
    deadband: float = 0.0
    heartbeat_s: float = 60.0


class Derived(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quantity worked out from others of the same reading, times ``scale``.

    ``of`` names metrics of this profile, or numbers of the installation as ``install.NAME``:
    ``minus`` a - b · ``difference`` abs(a - b) · ``hypot`` hypot(a - b, c - d) · ``ratio`` a / (b x c x ...), which
    is not there while the divisor is 0.
    """

    metric: str
    unit: str
    how: Literal["minus", "difference", "hypot", "ratio"]
    of: tuple[str, ...]
    scale: float = 1.0
    deadband: float = 0.0
    heartbeat_s: float = 60.0


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sensor model: ``point`` for Modbus, ``field`` for MQTT payloads, ``derived`` for both."""

    profile: Head
    limits: Limits = Limits()
    point: tuple[Register, ...] = ()
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
    return profile


def _check(profile: Profile, place: str) -> None:
    is_modbus = profile.profile.protocol == "modbus"
    if bool(profile.point) != is_modbus or bool(profile.field) == is_modbus:
        raise Refused(place, "a modbus profile has `[[point]]` tables, any other has `[[field]]` tables")
    if profile.profile.interval_s <= 0:
        raise Refused(f"{place}: profile.interval_s", "must be above 0")
    _check_names(profile, place)
    _check_overlap(profile.point, place)


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
                raise Refused(f"{at}.of", f"`{quantity.how}` takes {few if few == many else 'two or more'} terms")
            for term in quantity.of:
                if not term.startswith(INSTALL) and term not in known:
                    raise Refused(f"{at}.of", f"no metric `{term}` is declared above it; it has {sorted(known)}")
        known.add(quantity.metric)


def _check_overlap(points: tuple[Register, ...], place: str) -> None:
    taken: dict[tuple[int, int], Register] = {}
    for point in points:
        for address in range(point.register, point.register + point.words):
            other = taken.setdefault((point.function, address), point)
            if other is not point and not (other.type == point.type == "bit" and point.function in (3, 4)):
                raise Refused(f"{place}: {point.metric}.register", f"{address} belongs to `{other.metric}` already")
