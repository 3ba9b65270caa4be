"""SenML packs (RFC 8428, JSON or CBOR) over MQTT.

Each instant of a pack is a reading of its own: earlier ones in it are history, with their own times. What is not in a
pack was not told, zero or not, so ``absent`` means nothing here. A told unit is turned into the field's, which then
needs no ``scale``.
"""

from collections.abc import Iterable, Mapping, Sequence

from edge.agent import HISTORY
from edge.decoders.dialect import Dialect, Strange
from edge.decoders.payload import NOT_TOLD
from edge.decoders.told import NO_VALUE, columns_of, number, origin_of
from edge.hearing import Heard, Said, Unsaid
from edge.installed import Installed
from edge.profile import Profile
from rules.district import Senml
from wire.batch import Malformed
from wire.senml import Record, convert, resolve


def decode(profile: Profile, base: str, payload: bytes, now: int) -> list[tuple[int, tuple[float, ...]]]:
    """Read a pack that came at ``now`` (UTC ns): for each instant in order, numbers in the order of ``profile.field``.

    Only records whose names are ``base`` and the path of a field are read; NaN is what was not told. ``Malformed``
    names the record that is wrong, or whose value or unit cannot be the field's.
    """
    instants, wrong = _instants(profile, columns_of(profile, base), resolve(payload, now))
    if wrong:
        raise wrong[0]
    return instants


class SenmlDialect(Dialect):
    """The devices of a gateway that publish SenML, each to its topic, or several to one under their own base names."""

    def __init__(self, places: Iterable[Installed]) -> None:
        self._places: dict[str, list[tuple[Installed, Mapping[str, Sequence[int]]]]] = {}
        for place in places:
            wire = place.device.wire
            if isinstance(wire, Senml):
                self._places.setdefault(wire.topic, []).append((place, columns_of(place.profile, wire.base)))
        self.topics = self.subscriptions = tuple(self._places)

    def owns(self, topic: str) -> bool:
        return topic in self._places

    def device_of(self, topic: str) -> str:
        places = self._places.get(topic, ())
        return places[0][0].device.id if len(places) == 1 else ""

    def hear(self, topic: str, payload: bytes, now: int) -> Sequence[Heard]:
        if topic not in self._places:
            raise Strange("no device of the district has this topic")
        heard: list[Heard] = []
        records = resolve(payload, now)
        for place, columns in self._places[topic]:
            instants, wrong = _instants(place.profile, columns, records)
            heard += (Unsaid(why, place.device.id) for why in wrong)
            many = len(instants) > 1  # a device that tells of the past tells most of it again
            origins = [origin_of(place, values) + HISTORY if many else "" for _, values in instants]
            heard += (Said(place, *one, origin=origin) for one, origin in zip(instants, origins, strict=True))
        return heard


def _instants(
    profile: Profile, columns: Mapping[str, Sequence[int]], records: Iterable[Record]
) -> tuple[list[tuple[int, tuple[float, ...]]], list[Malformed]]:
    """Gather what was told at each instant, and say what cannot be read: it has no value, and the others stand."""
    told: dict[int, list[float]] = {}
    read: set[int] = set()  # instants
    wrong: list[Malformed] = []
    for record in records:
        if record.value is None:
            continue
        for column in columns.get(record.name, ()):
            field = profile.field[column]
            try:
                value = number(record.value, field)
                if isinstance(record.value, float):  # a base unit may stand before true and false: it means nothing
                    value = convert(value, record.unit, field.unit)
                read.add(record.at)
            except Malformed as error:
                wrong.append(error)
                value = NO_VALUE
            told.setdefault(record.at, [NOT_TOLD] * len(profile.field))[column] = value
    return [(taken_at, tuple(values)) for taken_at, values in told.items() if taken_at in read], wrong
