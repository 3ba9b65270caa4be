"""Sensor Measurement Lists (SenML, RFC 8428): a pack in JSON or CBOR becomes resolved records.

Which of the two it is, its first byte tells: a JSON array begins with ``[`` or white space, a CBOR array with none of
these.
"""

import base64
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from io import BytesIO
from math import inf, isfinite, nan, pi
from typing import NamedTuple, Never

import cbor2
import msgspec

from wire.batch import Malformed

# RFC 9100: a version is a set of features, and 26 is version 10 with secondary units.
VERSIONS = (*range(1, 11), 26)
RELATIVE = 2**28  # seconds: a time below is relative to now (RFC 8428, 4.5.3)
_CLOCKS = 9e9  # seconds: 64 bits of nanoseconds hold no more
_LABELS = {
    -1: "bver",
    -2: "bn",
    -3: "bt",
    -4: "bu",
    -5: "bv",
    -6: "bs",
    0: "n",
    1: "u",
    2: "v",
    3: "vs",
    4: "vb",
    5: "s",
    6: "t",
    7: "ut",
    8: "vd",
}
_KNOWN = frozenset(_LABELS.values())
_BASE = frozenset(label for label in _KNOWN if label.startswith("b"))
_VALUES = ("v", "vs", "vb", "vd")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")

Labelled = Mapping[str, object]
Value = float | bool | str | bytes


class Record(NamedTuple):
    """One resolved record: nothing in it is relative to another.

    ``at`` is UTC ns, to the microsecond; ``until`` the latest time (UTC ns) of the next one, where that is told.
    ``sum`` is the integral of the value over time (unit x s). ``unit`` is empty where none is told. A record with a sum
    may have no value.
    """

    name: str
    at: int
    value: Value | None
    sum: float | None
    unit: str
    until: int | None


def resolve(payload: bytes, now: int) -> list[Record]:
    """Resolve a pack that came at ``now`` (UTC ns), in chronological order; ``Malformed`` names record and label."""
    pack = _cbor(payload) if payload and 0x80 <= payload[0] < 0xA0 else _json(payload)
    if not pack:
        raise Malformed("a SenML pack has at least one record")
    base = _Base(now)
    records = []
    for number, labelled in enumerate(pack, 1):
        try:
            records.append(base.resolve(labelled))
        except ValueError as error:
            raise Malformed(f"record {number}: {error}") from error
    records.sort(key=lambda record: record.at)
    return records


class _Base:
    """The base fields of a pack, each as the newest record that has it says."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._version: object = None
        self._name = self._unit = ""
        self._time = self._value = 0.0
        self._sum: float | None = None

    def resolve(self, of: Labelled) -> Record:
        """Resolve the next record; ``ValueError`` names the label."""
        for label in of.keys() - _KNOWN:
            if label.endswith("_"):
                raise ValueError(f"`{label:.60}` must be understood, and is not")
        if self._version is None or not _BASE.isdisjoint(of):
            self._take(of)
        name = self._name + (_text(of, "n") or "")
        if not _NAME.fullmatch(name):
            raise ValueError(f"`{name:.60}` is not a name: letters, digits and - : . / _ after a letter or digit")
        seconds = self._time + (_number(of, "t") or 0.0)
        if not abs(seconds) < _CLOCKS:
            raise ValueError(f"`t` is {seconds:g} s, which no clock says")
        at = round(seconds * 1e6) * 1000  # a double holds no more than microseconds of a Unix time
        if seconds < RELATIVE:
            at += self._now
        total, until = _number(of, "s"), _number(of, "ut")
        if until is not None and not 0 <= until < _CLOCKS:
            raise ValueError(f"`ut` is {until:g} s, not a time until the next record")
        told = _text(of, "u")
        return Record(
            name,
            at,
            self._value_of(of),
            self._sum if total is None else total + (self._sum or 0.0),
            self._unit if told is None else told,
            None if until is None else at + round(until * 1e6) * 1000,
        )

    def _take(self, of: Labelled) -> None:
        version = of.get("bver", 10 if self._version is None else self._version)
        if isinstance(version, bool) or version not in VERSIONS or not isinstance(version, int):
            raise ValueError(f"`bver` is {version!r:.60}; versions 1 to 10 and 26 are understood")
        if self._version not in (None, version):
            raise ValueError(f"`bver` is {version}, and {self._version} before: a pack has one version")
        self._version = version
        name, unit = _text(of, "bn"), _text(of, "bu")
        time, value, total = _number(of, "bt"), _number(of, "bv"), _number(of, "bs")
        self._name = self._name if name is None else name
        self._unit = self._unit if unit is None else unit
        self._time = self._time if time is None else time
        self._value = self._value if value is None else value
        self._sum = self._sum if total is None else total

    def _value_of(self, of: Labelled) -> Value | None:
        labels = [label for label in _VALUES if label in of]
        if len(labels) > 1 or not (labels or "s" in of):
            raise ValueError(f"it has {' and '.join(labels) or 'no value'}; a record has one of {', '.join(_VALUES)}")
        if not labels:
            return None
        match labels[0], of[labels[0]]:
            case "v", _:
                return self._value + (_number(of, "v") or 0.0)
            case ("vb", bool(value)) | ("vs", str(value)) | ("vd", bytes(value)):
                return value
            case label, found:
                kind = {"vb": "true or false", "vs": "a text", "vd": "data"}[label]
                raise ValueError(f"`{label}` is {found!r:.60}, not {kind}")


def _number(of: Labelled, label: str) -> float | None:
    """Give a number, None where there is none of this label."""
    if label not in of:
        return None
    found = of[label]
    try:
        number = float(found) if isinstance(found, int | float) and not isinstance(found, bool) else nan
    except OverflowError:  # an integer beyond all doubles
        number = inf
    if not isfinite(number):
        raise ValueError(f"`{label}` is {found!r:.60}, not a finite number")
    return number


def _text(of: Labelled, label: str) -> str | None:
    if label not in of:
        return None
    found = of[label]
    if not isinstance(found, str):
        raise ValueError(f"`{label}` is {found!r:.60}, not a text")  # noqa: TRY004 - wrong data, not a wrong program
    return found


def _json(payload: bytes) -> list[Labelled]:
    try:
        pack = msgspec.json.decode(payload, type=list[dict[str, object]])
        for record in pack:
            data = record.get("vd")
            if isinstance(data, str):  # base64url without padding
                record["vd"] = base64.b64decode(data + "=" * (-len(data) % 4), b"-_", validate=True)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise Malformed(f"not SenML in JSON: {error}") from error
    return list(pack)


def _cbor(payload: bytes) -> list[Labelled]:
    stream = BytesIO(payload)
    decoder = cbor2.CBORDecoder(
        stream,
        semantic_decoders=_TAGS,
        max_depth=8,  # pack, record, decimal fraction; extensions may hold a little more
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=False,
    )
    try:
        pack = decoder.decode()
    except (cbor2.CBORError, ValueError, ArithmeticError, MemoryError, RecursionError) as error:
        raise Malformed(f"not SenML in CBOR: {error.__cause__ or error}") from error
    if stream.tell() != len(payload):
        raise Malformed("not SenML in CBOR: bytes follow its end")
    if not all(isinstance(record, dict) for record in pack):
        raise Malformed("not SenML in CBOR: its records are maps")
    return [{_label(key): value for key, value in record.items()} for record in pack]


def _label(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool) and key in _LABELS:
        return _LABELS[key]
    raise Malformed(f"not SenML in CBOR: {key!r:.60} is not a label")


def _decimal(found: object, _: bool) -> float:
    """Read a decimal fraction: 10 ** exponent x mantissa."""
    match found:
        case [int(exponent), int(mantissa)]:
            return float(Decimal(mantissa).scaleb(exponent))
    raise ValueError(f"{found!r:.60} is not a decimal fraction")


def _refuse(_: object, __: bool) -> Never:
    raise ValueError("SenML has no tags but 4, decimal fractions")


class _Tags(dict[int, Callable[[object, bool], object]]):
    """How to read tags. What the library would make of the others (dates, patterns, references) is none of SenML's."""

    def __missing__(self, tag: int) -> Callable[[object, bool], object]:
        return _refuse


_TAGS = _Tags({4: _decimal})


class _Unit(NamedTuple):
    """A quantity by the symbol of its own unit; x of this one is x * ``scale`` + ``offset`` of that."""

    quantity: str
    scale: float
    offset: float = 0.0


# RFC 8428 (12.1) and RFC 8798 (table 2); a unit that is not here is its quantity's own.
_TOLD = {
    "g": _Unit("kg", 1e-3),
    "Cel": _Unit("K", 1, 273.15),
    "deg": _Unit("rad", pi / 180),
    "l": _Unit("m3", 1e-3),
    "l/s": _Unit("m3/s", 1e-3),
    "1/min": _Unit("1/s", 1 / 60),
    "%": _Unit("/", 1),  # no percentage, whatever it looks like
    "%RH": _Unit("/", 1e-2),
    "%EL": _Unit("/", 1e-2),
    "/100": _Unit("/", 1e-2),
    "/1000": _Unit("/", 1e-3),
    "ppm": _Unit("/", 1e-6),
    "count": _Unit("/", 1),
    "ms": _Unit("s", 1e-3),
    "min": _Unit("s", 60),
    "h": _Unit("s", 3600),
    "kW": _Unit("W", 1e3),
    "kVA": _Unit("VA", 1e3),
    "kvar": _Unit("var", 1e3),
    "Ah": _Unit("C", 3600),
    "Wh": _Unit("J", 3600),
    "kWh": _Unit("J", 3.6e6),
    "varh": _Unit("vars", 3600),
    "kvarh": _Unit("vars", 3.6e6),
    "kVAh": _Unit("VAs", 3.6e6),
    "Wh/km": _Unit("J/m", 3.6),
    "KiB": _Unit("B", 1024),
    "GB": _Unit("B", 1e9),
    "Mbit/s": _Unit("bit/s", 1e6),
    "MB/s": _Unit("bit/s", 8e6),
    "mV": _Unit("V", 1e-3),
    "mA": _Unit("A", 1e-3),
    "dBm": _Unit("dBW", 1, -30),
    "ug/m3": _Unit("kg/m3", 1e-9),
    "mm/h": _Unit("m/s", 1 / 3.6e6),
    "m/h": _Unit("m/s", 1 / 3600),
    "hPa": _Unit("Pa", 100),
    "mm": _Unit("m", 1e-3),
    "cm": _Unit("m", 1e-2),
    "km": _Unit("m", 1e3),
    "km/h": _Unit("m/s", 1 / 3.6),
}
# What a point may want besides, as UCUM writes it.
_WANTED = _TOLD | {
    "%": _Unit("/", 1e-2),
    "1": _Unit("/", 1),
    "[ppm]": _Unit("/", 1e-6),
    "A.h": _TOLD["Ah"],
    "W.h": _TOLD["Wh"],
    "kW.h": _TOLD["kWh"],
    "var.h": _TOLD["varh"],
    "kvar.h": _TOLD["kvarh"],
    "kV": _Unit("V", 1e3),
    "kPa": _Unit("Pa", 1e3),
    "bar": _Unit("Pa", 1e5),
    "m3/h": _Unit("m3/s", 1 / 3600),
}


def convert(value: float, told: str, wanted: str) -> float:
    """Turn a value in a SenML unit into the unit of a point; as it is where none is told.

    ``Malformed`` names both units when they are not of one quantity.
    """
    if not told:
        return value
    scale, offset = _conversion(told, wanted)
    return value * scale + offset


@lru_cache(maxsize=256)
def _conversion(told: str, wanted: str) -> tuple[float, float]:
    one, other = _TOLD.get(told, _Unit(told, 1)), _WANTED.get(wanted, _Unit(wanted, 1))
    if one.quantity != other.quantity:
        raise Malformed(f"unit `{told:.60}` cannot become `{wanted}`, which the profile declares")
    return one.scale / other.scale, (one.offset - other.offset) / other.scale
