"""What speaks by itself: every dialect over MQTT and what platforms push, up to the readings of a gateway."""

import os
from collections.abc import Sequence
from functools import cache

import msgspec

from edge.decoders.chirpstack import ChirpstackDialect
from edge.decoders.dialect import Dialect
from edge.decoders.frigate import OBJECTS_MOST, FrigateDialect
from edge.decoders.onvif import OnvifDialect
from edge.decoders.plain import PlainDialect
from edge.decoders.senml import SenmlDialect
from edge.decoders.sparkplug import HELD_MOST, SparkplugHost
from edge.decoders.things_stack import ThingsStackDialect
from edge.drivers.platforms import Platform, Push, Unauthorised, doors
from edge.hearing import MOST_TOLD, Heard, Hearing, Said
from edge.installed import Installed
from edge.reading import Reading
from rules.district import Chirpstack, Frigate, Onvif, PlainJson, Pushed, Senml, Sparkplug, ThingsStack
from streetwarden.fast.clock import VirtualClock
from tests.fuzz import messages, mutator
from tests.fuzz.messages import START, Message
from tests.fuzz.mutator import Mutator
from tests.fuzz.running import DECODED, NOTHING, Input, Run, Samples, Wrong, longest
from wire.batch import Malformed
from wire.clock import NANOSECONDS
from wire.counted import Counted
from wire.sparkplug import Datatype, Metric, Payload, Value, encode, state

APPLICATION = "17c82e96-be03-4f38-aef3-f83d48582d97"
ORIGINS_MOST = 1000  # those of an episode are about a hundred; one for each message would be ten thousand
_MILLISECOND = 1_000_000
# City time between two inputs, by twelve bits of a choice: mostly less than a message may be missing, and now and then
# so long that everything expires.
_STEP_BITS = 12
_STEPS_S = {0.0: 2048, 0.001: 1024, 0.3: 768, 0.9: 160, 2.5: 48, 31.0: 40, 700.0: 7, 25_000.0: 1}
_STEPS = tuple(round(each * NANOSECONDS) for each, times in _STEPS_S.items() for _ in range(times))
assert len(_STEPS) == 1 << _STEP_BITS


class Heeding(Run):
    """What messages tell, made into readings as a gateway does; the city's clock goes on between them."""

    def __init__(self, places: Sequence[Installed]) -> None:
        super().__init__()
        self.now = START
        self._clock = VirtualClock.at(START)
        self._samples = Samples(places)
        self.hearing = Hearing(self._clock, Counted())

    def go_on(self, choice: int) -> None:
        self.now += _STEPS[choice & len(_STEPS) - 1]
        self._clock.set(self.now)

    def keep(self, heard: Sequence[Heard], where: str) -> str:
        """Take what was heard; what became of it."""
        said = [each for each in heard if each.__class__ is Said]
        readings = self.hearing.readings(heard, where)
        if len(readings) != len(said):
            raise Wrong(f"{len(readings)} readings of {len(said)}")
        for each, read in zip(said, readings, strict=True):
            if read.told is None and each.values is not None:  # a repeat: what it tells is checked all the same
                again = Reading(each.place, read.taken_at, each.values, each.quality, read.lag_ns)
                self._samples.add(again, self.given)
            else:
                self._samples.add(read, self.given)
        return DECODED if said else "Unsaid"

    def settle(self) -> int:
        self._samples.settle()
        origins, told = len(self.hearing._known), len(self.hearing._told)
        if origins > ORIGINS_MOST or told > MOST_TOLD:
            raise Wrong(f"{origins} origins and {told} faults are remembered")
        return 0


class Spoken(Heeding):
    """A dialect over MQTT, which holds on to at most ``most`` things of one kind."""

    def __init__(self, dialect: Dialect, places: Sequence[Installed], speech: "Speech", most: int = 0) -> None:
        super().__init__(places)
        self.dialect = dialect
        self._mutate = speech.mutate
        self._messages = speech.messages
        self._most = max(longest(dialect), most)

    def take(self, choice: int, mutations: Sequence[int]) -> str:
        self.go_on(choice)
        self.expire()
        topic, data = self.valid(choice >> _STEP_BITS)
        return self.hear(topic, self._mutate(data, mutations))

    def valid(self, choice: int) -> Message:
        """Say what is said next; now and then on the topic of another."""
        message = self._messages[(choice >> 4) % len(self._messages)]
        if choice & 0xF == 0xF:
            return Message(self._messages[(choice >> 10) % len(self._messages)].topic, message.data)
        return message

    def hear(self, topic: str, data: bytes) -> str:
        self.given = Input(topic, data, self.now)
        try:
            heard = self.dialect.hear(topic, data, self.now)
        except Malformed as error:
            self.hearing.refuse(error, topic, self.dialect.device_of(topic))
            return type(error).__name__
        return self.keep(heard, topic) if heard else NOTHING

    def expire(self) -> None:
        """Let what is due expire; whoever is due at once again would never let the gateway listen."""
        due = self.dialect.due
        if due is not None and due <= self.now:
            self.keep(self.dialect.expire(self.now), "")
            due = self.dialect.due
            if due is not None and due <= self.now:
                raise Wrong(f"due at {due} still, and it is {self.now}")

    def settle(self) -> int:
        super().settle()
        holds = longest(self.dialect)
        if holds > self._most:
            raise Wrong(f"the dialect holds on to {holds} things of one kind, and {self._most} are the most")
        return 0


class Speech:
    """Valid messages of a dialect and how they are mutated: made once, for all runs."""

    def __init__(self, told: Sequence[Message], ways: Sequence[mutator.Way], others: Sequence[bytes] = ()) -> None:
        self.messages = tuple(told)
        self.mutate = Mutator(ways, [*(message.data for message in told if message.data), *others])


# Without a state of their own. The last device of some is another gateway's, and some messages are of nobody's.


def _heard_elsewhere(told: Sequence[Message], protocol: str, end: str) -> Speech:
    nobody = [Message(each.topic.removesuffix(end) + "0" + end, each.data) for each in told[:2]]
    return Speech([*told, *nobody], mutator.JSON, messages.malformed(protocol))


@cache
def _chirpstack_places() -> tuple[Sequence[Installed], Speech]:
    names = (*messages.speaking("lorawan"), "milesight_em310_tilt")
    wired = [(name, Chirpstack(APPLICATION, f"24e124136b{n:06x}")) for n, name in enumerate(names)]
    places = messages.install(wired)
    return places, _heard_elsewhere(messages.of_chirpstack(places), "lorawan", "/event/up")


def chirpstack() -> Run:
    places, speech = _chirpstack_places()
    return Spoken(ChirpstackDialect(places[:-1], [places[-1].device]), places, speech)


@cache
def _things_stack_places() -> tuple[Sequence[Installed], Speech]:
    names = (*messages.speaking("lorawan"), "milesight_em310_tilt")
    wired = [(name, ThingsStack("district", "city", f"mh-{n}", f"24e124136b{n:06x}")) for n, name in enumerate(names)]
    places = messages.install(wired)
    return places, _heard_elsewhere(messages.of_things_stack(places), "lorawan", "/up")


def things_stack() -> Run:
    places, speech = _things_stack_places()
    return Spoken(ThingsStackDialect(places[:-1], [places[-1].device]), places, speech)


@cache
def _plain_places() -> tuple[Sequence[Installed], Speech]:
    alone = [(name, PlainJson(f"boxes/{n}")) for n, name in enumerate(messages.speaking("json"))]
    shared = [(name, PlainJson("boxes/all", f"box-{n}")) for n, name in enumerate(messages.speaking("json"))]
    places = messages.install([*alone, *shared])
    return places, Speech(messages.of_plain(places), mutator.JSON, messages.malformed("json"))


def plain() -> Run:
    places, speech = _plain_places()
    return Spoken(PlainDialect(places[:-1], [places[-1].device]), places, speech)


@cache
def _senml_places(form: str) -> tuple[Sequence[Installed], Speech]:
    topics = ("covers/1", "covers/all", "covers/all")
    bases = ("", "cover-s8/", "cover-s9/")
    profile = "reference_senml_cover"
    places = messages.install([(profile, Senml(*each)) for each in zip(topics, bases, strict=True)])
    told = [
        (place.device.wire.topic, pack)
        for place in places
        if isinstance(place.device.wire, Senml)
        for pack in messages.packs(place.device.wire.base, place.device, place.device.wire)
    ]
    if form == "json":
        written = [Message(topic, msgspec.json.encode(pack)) for topic, pack in told]
        return places, Speech(written, mutator.JSON, messages.malformed("senml"))
    packed = [(topic, *mutator.packed(messages.in_cbor(pack), mutator.CBOR_PACKING)) for topic, pack in told]
    members = {data: members for _, data, members in packed}
    return places, Speech([Message(topic, data) for topic, data, _ in packed], mutator.cbor(members))


def senml(form: str) -> Run:
    places, speech = _senml_places(form)
    return Spoken(SenmlDialect(places), places, speech)


@cache
def _onvif_places() -> tuple[Sequence[Installed], Speech]:
    places = messages.install([("onvif_profile_m", Onvif("cam12")), ("onvif_profile_m", Onvif("city/cam13"))])
    told = messages.of_onvif(places)
    odd = ("cam12/onvif-ej/", "cam12/onvif-ej//&", "nobody/onvif-ej/RuleEngine", "cam12/onvif-ej/onvif-ej/&/&")
    told += [Message(topic, told[0].data) for topic in odd]
    return places, Speech(told, mutator.JSON, messages.malformed("onvif"))


def onvif() -> Run:
    places, speech = _onvif_places()
    return Spoken(OnvifDialect(places), places, speech)


# With a state.

_OBJECT, _SECONDS = b"@object", b"1781752366.0"  # what is written anew in each message


@cache
def _frigate_places() -> tuple[Sequence[Installed], Speech, Sequence[Message]]:
    wires = [Frigate("underpass-1"), Frigate("underpass-2"), Frigate("elsewhere")]
    places = messages.install([("frigate_camera", wire) for wire in wires])
    told = messages.of_frigate(places)
    templates = [Message(topic, messages.without_ids(data, _OBJECT)) for topic, data in told]
    return places, Speech([*told, Message("frigate/available", b"online")], mutator.JSON), templates


class Watched(Spoken):
    """Frigate with objects that come, stay and go: a few for a while, then a crowd, more than is counted."""

    def __init__(self) -> None:
        places, speech, self._templates = _frigate_places()
        super().__init__(FrigateDialect(places[:2], [places[2].device]), places, speech, OBJECTS_MOST)
        self._comes = next(each for each in self._templates if b'"type":"new"' in each.data)
        self._is_crowded = False

    def take(self, choice: int, mutations: Sequence[int]) -> str:
        if self._is_crowded:
            self.hear(*self._written(self._comes, choice >> _STEP_BITS))
        return super().take(choice, mutations)

    def valid(self, choice: int) -> Message:
        if choice & 0x3F == 0x3F:
            return Message("frigate/available", b"offline" if choice & 0x40 else b"online")
        if choice & 0x3FF == 0x3FE:
            self._is_crowded = not self._is_crowded
        which = choice if self._is_crowded else choice >> 12 & 0x7
        return self._written(self._templates[(choice >> 6) % len(self._templates)], which)

    def _written(self, template: Message, which: int) -> Message:
        """Give what is told the present time, and an object."""
        seconds = b"%d.%06d" % divmod(self.now // 1000, 1_000_000)
        name = b"1781752300.%06d-ab12cd" % (which & 0xFFFF)
        return Message(template.topic, template.data.replace(_OBJECT, name).replace(_SECONDS, seconds))


_GROUP = "bluestone"
_ODD = tuple(f"spBv1.0/{each}" for each in ("", "STATE/", "/////", "bluestone/DDATA/pump-house/nobody"))
_ODD += tuple(f"spBv1.0/bluestone/{each}" for each in ("NCMD/pump-house", "DDATA/pump-house", "NDATA/pump-house/x"))
_NAMES = ("Level/Distance", "Level/Temperature", "Level/Fault")
_STAMP = mutator.varint(START // _MILLISECOND)


def _metrics(*values: Value | None, named: bool = True, aliases: int = 0, **flags: bool) -> list[Metric]:
    """The three quantities of a level gauge, those that are told; ``aliases`` count from there, none from 0."""
    types = (Datatype.DOUBLE, Datatype.FLOAT, Datatype.BOOLEAN)
    return [
        Metric(name * named, aliases + n if aliases else None, START, kind * named, value=value, **flags)
        for n, (name, kind, value) in enumerate(zip(_NAMES, types, values, strict=False))
        if value is not None
    ]


class _Words:
    """What a node and its devices say, as payloads without the number that each message has."""

    def __init__(self) -> None:
        born = (
            Metric("bdSeq", None, START, Datatype.INT64, value=7),
            Metric("Node Control/Rebirth", None, START, Datatype.BOOLEAN, value=False),
        )
        self.node_birth = _payload(*born, *_metrics(2.5, 12.5, False, aliases=1))
        self.births = [_payload(*_metrics(2.345, 12.5, False, aliases=10 * n)) for n in (1, 2)]
        self.death = encode(Payload(START, metrics=(born[0],)))
        self.device_death = _payload()
        self.node_data = [_payload(*_metrics(2.6, named=False, aliases=1)), _payload(*_metrics(2.4, 11.0, True))]
        self.data = [
            [
                _payload(*_metrics(2.315, named=False, aliases=aliases)),
                _payload(*_metrics(2.3, 12.0, True)),
                _payload(*_metrics(2.2, 12.25, named=False, aliases=aliases)),
                _payload(*_metrics(2.1, is_historical=True), *_metrics(2.0)),
                _payload(*_metrics(2.0, 3.0, named=False, aliases=aliases, is_transient=True)),
                _payload(Metric(_NAMES[0], None, START, Datatype.DOUBLE, is_null=True)),
                _payload(Metric(_NAMES[1], None, START, Datatype.INT16, value=-3)),
                _payload(Metric(_NAMES[1], None, None, Datatype.STRING, value="12.5"), Metric("Other", 77, value=1)),
                # A data set and properties, which are passed over.
                _payload(*_metrics(1.5)) + bytes.fromhex("12130A055461626C6518") + _STAMP + bytes.fromhex("20108A0100"),
            ]
            for aliases in (10, 20)
        ]

    def every(self) -> list[bytes]:
        told = [message.data for message in messages.golden_messages("reference_sparkplug_level")]
        own = [each for data in self.data for each in data]
        return [self.node_birth, *self.births, self.death, *self.node_data, *own, *told]


def _payload(*metrics: Metric) -> bytes:
    return encode(Payload(START, metrics=metrics))


@cache
def _sparkplug_places() -> tuple[Sequence[Installed], Speech, _Words]:
    words = _Words()
    level, on_change = "reference_sparkplug_level", "level_on_change"
    devices = {"level-1": level, "level-2": on_change, "": level}
    places = messages.install([(name, Sparkplug(_GROUP, "pump-house", each)) for each, name in devices.items()])
    return places, Speech([Message("", data) for data in words.every()], mutator.PROTOBUF), words


class Hosted(Spoken):
    """A Sparkplug node that goes on speaking around what is mutated, and tells its births when it is asked.

    Most of what is not understood it says again as it should be, so that the sequence goes on; when that does not help,
    it is born anew before the host asks, at times.
    """

    def __init__(self) -> None:
        places, speech, self._words = _sparkplug_places()
        self._host = SparkplugHost(places, "fuzz", START, Counted())
        super().__init__(self._host, places, speech, 2 * HELD_MOST)  # or metrics of a message
        self._seq = 0
        self._is_asked = True
        self._host.connected(START)

    def take(self, choice: int, mutations: Sequence[int]) -> str:
        self.go_on(choice)
        self.expire()
        choice >>= _STEP_BITS
        if choice & 0x3FF == 0x3FF:
            self._host.connected(self.now)
        self._answer()
        topic, data = self.valid(choice)
        outcome = self.hear(topic, self._mutate(data, mutations))
        given = self.given
        if outcome is not DECODED and choice & 0x3 != 0x3:
            self._is_asked = self.hear(topic, data) is not DECODED and bool(choice >> 19 & 1)
            self.given = given
        return outcome

    def _answer(self) -> None:
        """Take what the host sends, and do what it asks for."""
        for topic, _, _ in self._host.outgoing():
            self._is_asked = self._is_asked or "/NCMD/" in topic
        if self._is_asked:
            self._is_asked = False
            words = self._words
            self._hear("NBIRTH", "", self._numbered(words.node_birth, begins=True))
            for device, birth in zip(("level-1", "level-2"), words.births, strict=True):
                self._hear("DBIRTH", device, self._numbered(birth))

    def _hear(self, kind: str, device: str, data: bytes) -> None:
        self.hear(_topic(kind, device), data)

    def valid(self, choice: int) -> Message:
        words, kind, which = self._words, choice >> 2 & 0x3F, choice >> 8
        device = which & 1
        name = ("level-1", "level-2")[device]
        match kind:
            case 63:
                return Message(_topic("NBIRTH"), self._numbered(words.node_birth, begins=True))
            case 62:
                return Message(_topic("NDEATH"), self._stamped(words.death))
            case 61:
                return Message(_topic("DDEATH", name), self._numbered(words.device_death))
            case 60:
                return Message(f"spBv1.0/STATE/{'fuzz' if device else 'other'}", state(bool(which & 2), self.now))
            case 57 | 58 | 59:
                return Message(_topic("DBIRTH", name), self._numbered(words.births[device]))
            case 56:
                odd = _ODD[which % len(_ODD)]
                return Message(odd, self._numbered(words.data[0][0]))
            case n if n >= 48:
                return Message(_topic("NDATA"), self._numbered(words.node_data[which & 1]))
        own = words.data[device]
        return Message(_topic("DDATA", name), self._numbered(own[(which >> 1) % len(own)]))

    def _numbered(self, data: bytes, *, begins: bool = False) -> bytes:
        """Give a message the present time and its number."""
        self._seq = 0 if begins else (self._seq + 1) % 256
        return self._stamped(data) + b"\x18" + mutator.varint(self._seq)

    def _stamped(self, data: bytes) -> bytes:
        return data.replace(_STAMP, mutator.varint(self.now // _MILLISECOND))


def _topic(kind: str, device: str = "") -> str:
    return f"spBv1.0/{_GROUP}/{kind}/pump-house" + (f"/{device}" if device else "")


# What platforms push.

_SECRET = "STREETWARDEN_FUZZ_SECRET"


@cache
def _push_places() -> tuple[Sequence[Installed], Speech, Push]:
    os.environ[_SECRET] = "a secret of nobody"
    platforms = {how: Platform(how, secret_env=_SECRET) for how in ("bearer", "query", "signature")}
    wired = [(name, Pushed(how, f"box-{n}")) for n, name in enumerate(messages.speaking("json")) for how in platforms]
    places = messages.install(wired)
    speech = Speech(messages.of_push(places), mutator.JSON, messages.malformed("json"))
    return places, speech, Push("127.0.0.1", 1, platforms)


class Posted(Heeding):
    """Bodies as platforms post them, up to the answer; one that must be signed is, in most cases, by its sender."""

    def __init__(self) -> None:
        places, speech, push = _push_places()
        super().__init__(places)
        self._messages, self._mutate = speech.messages, speech.mutate
        self._doors = doors(push, places)
        self._most = longest(self._doors)

    def take(self, choice: int, mutations: Sequence[int]) -> str:
        self.go_on(choice)
        choice >>= _STEP_BITS
        platform, data = self._messages[(choice >> 3) % len(self._messages)]
        door, where = self._doors[platform], f"push/{platform}"
        if not door.signs:
            body = self._mutate(data, mutations)
        elif choice & 0x7 != 0x7:
            body = self._signed(self._mutate(data, mutations))
        else:
            body = self._mutate(self._signed(data), mutations)
        self.given = Input(where, body, self.now)
        try:
            heard = door.named.heard(door.open(body), self.now)
        except Malformed as error:
            self.hearing.refuse(error, where)
            return type(error).__name__
        except Unauthorised as error:
            self.hearing.note("unauthorised_pushes", where, str(error))
            return type(error).__name__
        return self.keep(heard, where) if heard else NOTHING

    def settle(self) -> int:
        super().settle()
        if longest(self._doors) > self._most:
            raise Wrong("the doors hold on to what came through")
        return 0

    @staticmethod
    def _signed(message: bytes) -> bytes:
        """Put a message into OneNET's envelope."""
        signature = messages.signature(os.environ[_SECRET].encode(), b"nonce", message)
        return b'{"msg":%s,"nonce":"nonce","signature":"%s"}' % (message, signature)
