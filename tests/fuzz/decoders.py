"""The table of all that decodes what comes from outside."""

from functools import partial

from tests.fuzz import asked, spoken
from tests.fuzz.running import Decoder

DECODERS = {
    decoder.name: decoder
    for decoder in (
        Decoder("chirpstack", spoken.chirpstack),
        Decoder("things_stack", spoken.things_stack),
        Decoder("plain", spoken.plain),
        Decoder("senml_json", partial(spoken.senml, "json")),
        Decoder("senml_cbor", partial(spoken.senml, "cbor")),
        Decoder("sparkplug", spoken.Hosted),
        Decoder("onvif", spoken.onvif),
        Decoder("frigate", spoken.Watched),
        Decoder("push", spoken.Posted),
        Decoder("modbus_tcp", asked.Tcp),
        Decoder("modbus_rtu", asked.Serial),
        Decoder("registers", asked.Metered),
        Decoder("batches", asked.Crossed),
    )
}
