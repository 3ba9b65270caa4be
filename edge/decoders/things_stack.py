"""The Things Stack v3 uplink messages (JSON): what its payload formatter has decoded into ``decoded_payload``.

The stamp is ``uplink_message.received_at``, when the network server had the frame. ``settings.time`` and
``rx_metadata.time`` are nearer to the measurement by the backhaul's milliseconds, but they are the radio gateway's own
clock, which need not be set and is often left out; the outer ``received_at`` is the application server's, which can be
seconds later. Measurements that waited in the device have their own times in its history.

Fields that are zero, false or empty are left out: nothing of the envelope is needed that may be. The server speaks
MQTT 3.1.1 at QoS 0: what is sent while nobody listens is lost there.
"""

from collections.abc import Iterable

import msgspec

from edge.decoders.application import ApplicationDialect
from edge.decoders.dialect import alone
from edge.decoders.payload import instant
from edge.installed import Installed
from rules.district import Device, ThingsStack
from wire.batch import Malformed


class _Ids(msgspec.Struct, frozen=True, gc=False):
    dev_eui: str = ""


class _Message(msgspec.Struct, frozen=True, gc=False):
    decoded_payload: object = None
    received_at: object = None


class _Up(msgspec.Struct, frozen=True, gc=False):
    end_device_ids: _Ids = _Ids()
    uplink_message: _Message = _Message()
    simulated: bool = False


class ThingsStackDialect(ApplicationDialect):
    """The LoRaWAN devices of a gateway that speak through The Things Stack."""

    def __init__(self, places: Iterable[Installed], elsewhere: Iterable[Device] = ()) -> None:
        own = [(place, place.device.wire) for place in places]
        wires = [wire for _, wire in own if isinstance(wire, ThingsStack)]
        super().__init__(
            alone((_up(wire, wire.device), place) for place, wire in own if isinstance(wire, ThingsStack)),
            (_up(device.wire, device.wire.device) for device in elsewhere if isinstance(device.wire, ThingsStack)),
            (_up(wire, "+") for wire in wires),
            "uplink_message.decoded_payload",
        )
        self._decoder = msgspec.json.Decoder(_Up)

    def uplink(self, place: Installed, payload: bytes) -> tuple[dict[str, object], int]:
        try:
            up = self._decoder.decode(payload)
        except (ValueError, RecursionError) as error:  # of msgspec, or of a text that is not UTF-8
            raise Malformed(f"not JSON of an uplink: {error}") from error
        if up.simulated:
            raise Malformed("`simulated` is true: somebody made it up in the console")
        wire, told = place.device.wire, up.end_device_ids.dev_eui
        if isinstance(wire, ThingsStack) and told and told.lower() != wire.dev_eui.lower():
            raise Malformed(f"`end_device_ids.dev_eui` is {told}, but {place.device.id} has {wire.dev_eui}")
        message = up.uplink_message
        if not isinstance(message.decoded_payload, dict):
            raise Malformed("`uplink_message.decoded_payload` is missing: has the device a payload formatter?")
        return message.decoded_payload, instant(message.received_at, "uplink_message.received_at")


def _up(wire: ThingsStack, device: str) -> str:
    application = f"{wire.application}@{wire.tenant}" if wire.tenant else wire.application
    return f"v3/{application}/devices/{device}/up"
