"""ChirpStack v4 integration events (JSON): an uplink whose payload ChirpStack's codec has decoded into ``object``.

``time`` is when the network received the frame. Envelope fields that some versions leave out when they are zero
(``fCnt``, ``rssi``) are not needed here.
"""

from edge.decoders.payload import Decoded, find, instant, number, parse
from edge.profile import Profile
from wire.batch import Malformed


def decode(profile: Profile, payload: bytes) -> Decoded:
    """Read an ``up`` event; ``Malformed`` names the path that is wrong or missing."""
    message = parse(payload)
    if not isinstance(find(message, "object"), dict):
        raise Malformed("`object` is missing: has the device profile in ChirpStack a payload codec?")
    found = {field.metric: (number(message, field.path), field.scale) for field in profile.field}
    values = {metric: value * scale for metric, (value, scale) in found.items() if value is not None}
    if not values:
        raise Malformed(f"`object` has none of {', '.join(field.path for field in profile.field)}")
    return Decoded(instant(message, "time"), values)
