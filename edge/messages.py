"""One message of a device that tells instead of being asked, read as the gateway would, for whoever installs it.

Nobody has to say who the device is, or on which topic it speaks: both are taken from the message, or made up where any
would do.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from edge.decoders.chirpstack import TOPIC, ChirpstackDialect
from edge.decoders.dialect import Dialect
from edge.decoders.frigate import FrigateDialect
from edge.decoders.onvif import MARK, OnvifDialect
from edge.decoders.payload import Numbers, find, parse
from edge.decoders.plain import PlainDialect
from edge.decoders.senml import SenmlDialect
from edge.decoders.sparkplug import NAMESPACE, SparkplugHost
from edge.decoders.things_stack import ThingsStackDialect
from edge.doubts import measure, shown
from edge.hearing import AHEAD, UNSET, Heard, Said, Unsaid
from edge.probed import NOT_TOLD, Probed, Row, derived_rows, judged, needs, placed, word
from edge.profile import Field, Profile
from edge.reading import Reading
from rules.district import Chirpstack, Frigate, Onvif, PlainJson, Senml, Sparkplug, ThingsStack
from rules.samples import Quality
from wire.batch import Malformed
from wire.clock import NANOSECONDS, iso
from wire.senml import resolve

_ANY = "probed"  # a name where any would do


def probe_message(profile: Profile, install: Mapping[str, float], payload: bytes, now: int) -> Probed:
    """Read a message that came at ``now`` (UTC ns); ``Malformed`` or ``Strange`` when it says nothing of the model.

    Of several instants in it the newest is shown. ``Refused`` names a wrong number in ``install``.
    """
    notes: list[str] = []
    heard = _heard(profile, install, payload, now, notes)
    said = [each for each in heard if isinstance(each, Said) and each.values is not None]
    unsaid = [str(each.why) for each in heard if isinstance(each, Unsaid)]
    if not said:
        raise Malformed(unsaid[0] if unsaid else f"nothing that `{profile.id}` declares is in this message")
    newest = max(said, key=lambda each: each.taken_at or now)
    values, place = newest.values or (), newest.place
    stamp = newest.taken_at
    doubts = list(unsaid)
    if stamp is None:
        notes.append("no time is in it: it counts as read when it is received")
        reading = Reading(place, now, values, newest.quality)
    elif UNSET <= stamp <= now + AHEAD:
        notes.append(f"taken at {iso(stamp)}, {(now - stamp) / NANOSECONDS:.0f} s ago")
        reading = Reading(place, stamp, values, newest.quality, now - stamp)
    else:
        doubts.append(f"its clock says {iso(stamp)}, and it is {iso(now)}: all that it tells is bad until that is set")
        reading = Reading(place, now, values, Quality.BAD_CLOCK)
    if len(said) > 1:
        first = min(each.taken_at or now for each in said)
        notes.append(f"it also tells of earlier instants: {len(said) - 1}, the first {iso(first)}")
    decoded = judged(reading)
    rows = [
        _row(field, told, decoded.get(n)) for n, (field, told) in enumerate(zip(profile.field, values, strict=True))
    ]
    return Probed((*rows, *derived_rows(place, decoded, {})), tuple(doubts), (*notes, *needs(place)))


def _row(field: Field, told: float, decoded: tuple[float, Quality] | None) -> Row:
    where = " ".join(filter(None, (field.topic, field.rule or field.zone, field.path)))
    if decoded is None:
        return Row(field.metric, field.unit, address=where, quality=NOT_TOLD)
    value, quality = told * field.scale + field.offset, decoded[1]
    doubts: list[str] = []
    if quality is Quality.BAD_SENTINEL:
        doubts.append(f"{shown(told)} says that it has no value")
        value = math.nan
    elif quality is Quality.BAD_RANGE and field.range is not None:
        low, high = map(shown, field.range)
        doubts.append(f"{measure(value, field.unit)} is not within {low} to {high}")
    return Row(field.metric, field.unit, "", where, shown(told), value, word(quality), doubts=tuple(doubts))


def _heard(
    profile: Profile, install: Mapping[str, float], payload: bytes, now: int, notes: list[str]
) -> Sequence[Heard]:
    """Hand a message to the dialect of its protocol, as that of a device which the dialect then knows."""
    match profile.profile.protocol:
        case "lorawan":
            return _uplink(profile, install, payload, now, notes)
        case "senml":
            base = _base(profile, payload, now)
            notes.append(f'its `wire` needs base = "{base}"')
            return SenmlDialect([placed(profile, Senml(_ANY, base), install)]).hear(_ANY, payload, now)
        case "sparkplug":
            # As a birth of its own, a message has the names that it needs, or has none at all.
            host = SparkplugHost([placed(profile, Sparkplug(_ANY, _ANY), install)], _ANY, now)
            return host.hear(f"{NAMESPACE}/{_ANY}/NBIRTH/{_ANY}", payload, now) or ()
        case "onvif":
            dialect = OnvifDialect([placed(profile, Onvif(_ANY), install)])
            return _first(dialect, [f"{_ANY}{MARK}{field.topic}" for field in profile.field], payload, now)
        case "frigate":
            message = parse(payload)
            camera, kind = find(message, "after.camera"), "reviews" if find(message, "after.data") else "events"
            frigate = FrigateDialect([placed(profile, Frigate(str(camera)), install)])
            return frigate.hear(f"frigate/{kind}", payload, now) or ()
        case _:
            return _plain(profile, install, payload, now, notes)


def _uplink(
    profile: Profile, install: Mapping[str, float], payload: bytes, now: int, notes: list[str]
) -> Sequence[Heard]:
    message = parse(payload)
    if find(message, "uplink_message") is not None:
        eui = find(message, "end_device_ids.dev_eui")
        place = placed(profile, ThingsStack(_ANY, "", _ANY, str(eui)), install)
        return ThingsStackDialect([place]).hear(f"v3/{_ANY}/devices/{_ANY}/up", payload, now) or ()
    place = placed(profile, Chirpstack(_ANY, _ANY), install)
    if find(message, "object") is not None or find(message, "deviceInfo") is not None:
        topic = TOPIC.format(application=_ANY, dev_eui=_ANY, event="up")
        return ChirpstackDialect([place]).hear(topic, payload, now) or ()
    notes.append("no uplink of ChirpStack or The Things Stack: read as what a payload codec makes of one")
    return Numbers(profile).said(place, message, None, now)


def _plain(
    profile: Profile, install: Mapping[str, float], payload: bytes, now: int, notes: list[str]
) -> Sequence[Heard]:
    message, path = parse(payload), profile.message.device
    one = message[0] if isinstance(message, list) and message else message
    name = find(one, path) if path else None
    if path:
        notes.append(f"it calls itself {name!r} (`{path}`)")
    device = "" if name is None else str(name)
    return PlainDialect([placed(profile, PlainJson(_ANY, device), install)]).hear(_ANY, payload, now) or ()


def _first(dialect: Dialect, topics: Sequence[str], payload: bytes, now: int) -> Sequence[Heard]:
    """Try each topic that could be the message's; ``Malformed`` of the last when it fits none."""
    why: Malformed | None = None
    for topic in dict.fromkeys(topics):
        try:
            heard = dialect.hear(topic, payload, now)
        except Malformed as error:
            why = error
        else:
            if heard:
                return heard
    if why is not None:
        raise why
    return ()


def _base(profile: Profile, payload: bytes, now: int) -> str:
    """Find what the names in a pack begin with, before those that the profile knows."""
    paths = {field.path for field in profile.field}
    bases = Counter(
        record.name.removesuffix(path)
        for record in resolve(payload, now)
        for path in paths
        if record.name.endswith(path)
    )
    return bases.most_common(1)[0][0] if bases else ""
