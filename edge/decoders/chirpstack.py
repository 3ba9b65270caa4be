"""ChirpStack v4 integration events (JSON): an uplink whose payload ChirpStack's codec has decoded into ``object``.

``time`` is when the network received the frame, a second or so after the sensor measured: no later than the uplink's
airtime and backhaul. It is the stamp; measurements that waited in the device have their own times in its history.
Envelope fields that some versions leave out when they are zero (``fCnt``, ``rssi``) are not needed here.
"""

import string
from collections.abc import Iterable

import msgspec

from edge.decoders.application import ApplicationDialect
from edge.decoders.dialect import alone
from edge.decoders.payload import instant
from edge.installed import Installed
from rules.district import Chirpstack, Device
from wire.batch import Malformed

TOPIC = "application/{application}/device/{dev_eui}/event/{event}"


class _Up(msgspec.Struct, frozen=True, gc=False):
    time: object = None
    fields: object = msgspec.field(default=None, name="object")


class ChirpstackDialect(ApplicationDialect):
    """The LoRaWAN devices of a gateway that speak through ChirpStack.

    ``topic`` is the server's own template, with ``{application}``, ``{dev_eui}`` and ``{event}``; ``ValueError`` says
    what it lacks.
    """

    def __init__(self, places: Iterable[Installed], elsewhere: Iterable[Device] = (), topic: str = TOPIC) -> None:
        check(topic)
        own = [(place, place.device.wire) for place in places]
        wires = [wire for _, wire in own if isinstance(wire, Chirpstack)]
        super().__init__(
            alone((_up(topic, wire), place) for place, wire in own if isinstance(wire, Chirpstack)),
            (_up(topic, device.wire) for device in elsewhere if isinstance(device.wire, Chirpstack)),
            (_up(topic, Chirpstack(wire.application, "+")) for wire in wires),
            "object",
        )
        self._decoder = msgspec.json.Decoder(_Up)

    def uplink(self, place: Installed, payload: bytes) -> tuple[dict[str, object], int]:
        del place
        try:
            up = self._decoder.decode(payload)
        except (ValueError, RecursionError) as error:  # of msgspec, or of a text that is not UTF-8
            raise Malformed(f"not JSON of an uplink: {error}") from error
        if not isinstance(up.fields, dict):
            raise Malformed("`object` is missing: has the device profile in ChirpStack a payload codec?")
        return up.fields, instant(up.time, "time")


def check(template: str) -> None:
    """Check a template of topics; ``ValueError`` says what would mend it."""
    names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    if sorted(names) != ["application", "dev_eui", "event"]:
        raise ValueError(f"`{template}` is no template of ChirpStack's topics: write one as in `{TOPIC}`")


def _up(topic: str, wire: Chirpstack) -> str:
    return topic.format(application=wire.application, dev_eui=wire.dev_eui, event="up")
