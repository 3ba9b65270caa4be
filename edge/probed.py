"""What came of probing one device, ready to be shown: a row for each quantity, and what is doubtful or to be known."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edge.decoding import Decoding
from edge.installed import Installed
from edge.profile import INSTALL, Profile
from edge.reading import Reading
from rules.declared import Refused, nearest
from rules.district import (
    Chirpstack,
    Device,
    Frigate,
    Modbus,
    Onvif,
    PlainJson,
    Pushed,
    Senml,
    Sparkplug,
    ThingsStack,
)
from rules.samples import BAD, POINT, Quality

NOT_READ, NOT_KNOWN, NOT_TOLD, REFUSED = "not read", "not known", "not told", "refused"
_WORDS = {Quality.BAD_RANGE: "out of range", Quality.BAD_SENTINEL: "no value", Quality.BAD_CLOCK: "clock fault"}
Wire = Modbus | Chirpstack | ThingsStack | Senml | PlainJson | Sparkplug | Onvif | Frigate | Pushed
Judged = Mapping[int, tuple[float, Quality]]


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity or text. ``value`` is NaN where there is none, and shown where it is bad; so is ``again``.

    ``address`` is a register's, in both notations, or the place in a message. ``again`` is the value a moment later.
    """

    name: str
    unit: str = ""
    function: str = ""
    address: str = ""
    raw: str = ""
    value: float = math.nan
    quality: str = ""
    again: float = math.nan
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Probed:
    """All that came of it. ``doubts`` are of the device as a whole; ``notes`` are worth knowing and no doubts."""

    rows: tuple[Row, ...]
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def any_doubt(self) -> bool:
        return bool(self.doubts) or any(row.doubts for row in self.rows)

    @property
    def any_value(self) -> bool:
        """Whether anything was read at all."""
        return any(row.raw for row in self.rows)


def placed(profile: Profile, wire: Wire, install: Mapping[str, float]) -> Installed:
    """Install a device of a model for once; numbers of its installation that are not given are NaN.

    ``Refused`` names one that the model does not know.
    """
    wanted = dict.fromkeys(profile.install_names(), math.nan)
    for name in install:
        if name not in wanted:
            raise Refused(f"--install {name}", f"`{profile.id}` has no such number{nearest(name, wanted)}")
    head = profile.profile
    device = Device("probed", head.kind, profile.id, "", "", "", "", 0.0, 0.0, wire, {**wanted, **install})
    return Installed(device, profile, np.arange(len(profile.quantities), dtype=POINT))


def word(quality: Quality) -> str:
    """Name a quality as an installer would."""
    return _WORDS.get(quality, quality.name.lower().removeprefix("bad_"))


def judged(reading: Reading) -> Judged:
    """Decode one reading as the gateway would: value and quality by the number of the quantity; not told: not there."""
    block = Decoding().block([reading])
    columns = zip(block.point.tolist(), block.value.tolist(), block.quality.tolist(), strict=True)
    return {point: (value, Quality(quality)) for point, value, quality in columns}


def derived_rows(place: Installed, first: Judged, second: Judged) -> Iterator[Row]:
    """Show what is derived."""
    for number, derived in enumerate(place.profile.derived, len(place.profile.measured)):
        value, quality = first.get(number, (math.nan, None))
        again = second.get(number, (math.nan, Quality.GOOD))
        yield Row(
            derived.metric,
            derived.unit,
            address=derived.how,
            value=math.nan if quality is None or quality >= BAD else value,
            quality=NOT_KNOWN if quality is None else word(quality),
            again=math.nan if again[1] >= BAD else again[0],
        )


def needs(place: Installed) -> Iterator[str]:
    """Tell which derived quantities wait for a number of the installation."""
    for derived in place.profile.derived:
        for term in derived.of:
            name = term.removeprefix(INSTALL)
            if term.startswith(INSTALL) and math.isnan(place.device.install[name]):
                yield f"`{derived.metric}` needs a number of the installation: --install {name}=…"
