"""ONVIF event broker messages in JSON ("onvif-ej"), one event a message.

The topic is ``PREFIX/onvif-ej/LOCAL/TOPIC/&SOURCE/VALUES``; the payload says ``UtcTime``, ``Source`` and ``Data``.
"""

from edge.decoders.payload import Decoded, find, instant, number, parse
from edge.profile import Profile
from wire.batch import Malformed

MARK = "/onvif-ej/"


def decode(profile: Profile, topic: str, payload: bytes) -> Decoded | None:
    """Read an event; None when the profile declares nothing of it, or when the property was deleted (no payload)."""
    local = topic.partition(MARK)[2].partition("/&")[0]
    fields = [field for field in profile.field if field.topic == local]
    if not fields or not payload:
        return None
    message = parse(payload)
    rule = find(message, "Source.Rule")
    values: dict[str, float] = {}
    for field in fields:
        if field.rule == rule or not field.rule:
            value = number(message, field.path)
            if value is None:
                raise Malformed(f"`{field.path}` is missing")
            values[field.metric] = value * field.scale
    return Decoded(instant(message, "UtcTime"), values) if values else None
