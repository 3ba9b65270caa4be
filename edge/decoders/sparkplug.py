"""Sparkplug B 3.0: the host application's side of edge nodes and their devices.

Births tell names, and data follow in one sequence for each node (0 to 255 and again) and may call metrics by alias
only. So nothing is read from a message that is not the next one: it is held for a while. When the missing one does not
come, all that is held is dropped and the node is asked for its births, since until then an alias might stand for
something else.

A death makes what it ends stale, and so does a birth that does not come though it was asked for. Values marked as
historical pass only below something newer that is known: history never becomes the present. A metric that is null, or
holds what is no number, has no value: its quantity is bad until it has one. ``is_transient`` changes nothing here.

Metrics have their own times. In a birth, for a model that reports on change, a value says that it is so at the time of
the birth; for any other model, what is known already is not told again. What is derived from several metrics needs them
in one message, with one time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from edge.decoders.dialect import Dialect, Strange
from edge.decoders.payload import NOT_TOLD
from edge.decoders.told import NO_VALUE, columns_of, number, origin_of
from edge.hearing import AHEAD, UNSET, Heard, Said, Unsaid
from edge.installed import Installed
from rules.declared import Refused
from rules.district import Sparkplug
from rules.samples import Quality
from wire.batch import Malformed
from wire.clock import NANOSECONDS
from wire.counted import Counted
from wire.sparkplug import Metric, Payload, Value, decode, is_online, rebirth, signed, state

NAMESPACE = "spBv1.0"
REORDER = 2 * NANOSECONDS  # how long a message may be missing
HELD_MOST = 64  # messages of a node that wait for a missing one
ANSWER = 30 * NANOSECONDS  # what is not born so long after its birth was due is stale
PAUSE = 5 * NANOSECONDS  # between two requests to one node, and doubled while its births do not help
PAUSE_MOST = 600 * NANOSECONDS
_OF_NODES = ("NBIRTH", "NDEATH", "NDATA")
_OF_DEVICES = ("DBIRTH", "DDEATH", "DDATA")

log = structlog.get_logger(__name__)


class _Message(NamedTuple):
    """One message of a node: ``at`` is when it was sent, by the node's clock, ``now`` when it came (UTC ns)."""

    kind: str
    device: str
    payload: Payload
    at: int
    now: int

    @property
    def seq(self) -> int:
        return self.payload.seq or 0


class _Born(NamedTuple):
    """What a birth told: the datatype of each name, and the name of each alias."""

    datatypes: Mapping[str, int]
    aliases: Mapping[int, str]

    @classmethod
    def of(cls, payload: Payload) -> "_Born":
        aliases: dict[int, str] = {}
        for metric in payload.metrics:
            if metric.alias is not None and aliases.setdefault(metric.alias, metric.name) != metric.name:
                aliases[metric.alias] = ""  # it stands for two names, and so for none
        return cls({metric.name: metric.datatype for metric in payload.metrics if metric.name}, aliases)

    def name_of(self, metric: Metric) -> str | None:
        """Name a metric of a message; None when the birth did not tell of it."""
        name = metric.name or ("" if metric.alias is None else self.aliases.get(metric.alias, ""))
        return name if name in self.datatypes else None


class _Place:
    """An installed device, and when it said what last."""

    def __init__(self, place: Installed) -> None:
        self._place = place
        self._columns = columns_of(place.profile)
        self._reports_on_change = place.profile.profile.reports_on_change
        self._newest = [0] * len(place.profile.field)  # of each field, UTC ns by the node's clock while it is believed
        self._is_stale = False

    def hear(
        self, told: Iterable[tuple[str, Metric, Value | None]], message: _Message, counted: Counted
    ) -> list[Heard]:
        """Tell what a message says, each instant for itself, given its metrics with their names and mended values."""
        heard: list[Heard] = []
        instants: dict[int, list[float]] = {}
        # What is not history comes first: it tells what is.
        for name, metric, value in sorted(told, key=lambda each: each[1].is_historical):
            for column in self._columns.get(name, ()):
                at = self._time_of(metric, column, message, counted)
                if at is None:
                    continue
                row = instants.setdefault(at, [NOT_TOLD] * len(self._newest))
                row[column] = NO_VALUE
                if value is not None:
                    try:
                        row[column] = number(value, self._place.profile.field[column])
                    except Malformed as error:
                        heard.append(Unsaid(error, self._place.device.id))
                self._is_stale = self._is_stale and metric.is_historical
        for at, values in sorted(instants.items()):
            heard.append(Said(self._place, at, tuple(values), origin=origin_of(self._place, values)))
        return heard

    def stale(self, at: int) -> list[Said]:
        """Tell, once, that nothing of it is known any more."""
        if self._is_stale:
            return []
        self._is_stale = True
        # Not before its last word: a node whose clock is ahead of ours would live on.
        return [Said(self._place, max(at, max(self._newest) + 1), None, Quality.BAD_STALE)]

    def _time_of(self, metric: Metric, column: int, message: _Message, counted: Counted) -> int | None:
        """Give the instant of a value; None when it is not to be told."""
        at = message.at if metric.at is None else metric.at
        known = self._newest[column]
        if metric.is_historical:
            if at > known:
                counted.add("edge_sparkplug_refused_history_total")
            return at if at < known else None
        if message.kind in ("NBIRTH", "DBIRTH"):
            if self._reports_on_change:
                at = max(at, message.at)
            elif at <= known:
                return None
        is_believed = UNSET <= at <= message.now + AHEAD
        self._newest[column] = max(known, at if is_believed else message.now)
        return at


@dataclass(slots=True, eq=False)
class _Node:
    """What is known of an edge node. Instants are UTC ns by our clock, but where the node's is named."""

    group: str
    name: str
    places: dict[str, list[_Place]] = field(default_factory=dict)  # by device; the node's own under ""
    born: dict[str, _Born] = field(default_factory=dict)  # likewise
    next_seq: int | None = None  # None: it is not born, or a message of it is lost
    bd_seq: int | None = None  # of its newest birth
    birth_sent: int = 0  # by the node's clock
    heard_sent: int = 0  # the newest message that was read, by the node's clock
    held: dict[int, _Message] = field(default_factory=dict)  # by sequence number, in the order of arrival
    born_at: int = 0
    stale_at: int | None = None  # when what is not born then is stale
    asked_at: int = -PAUSE_MOST
    ask_at: int | None = None
    pause: int = 0  # after the newest request

    @property
    def lost_at(self) -> int | None:
        """When what is held has waited long enough."""
        return next(iter(self.held.values())).now + REORDER if self.held else None

    def is_late(self, message: _Message) -> bool:
        """Tell a message that comes after its turn, and not before it: of what was before the birth, or a second copy.

        The node's clock decides, and may be set back any time: so only within bounds that a loss does not reach.
        """
        if message.now - self.born_at < REORDER and message.at < self.birth_sent:
            return True
        behind = (message.seq - (self.next_seq or 0)) % 256 >= 128
        return behind and message.at <= self.heard_sent


class SparkplugHost(Dialect):
    """The edge nodes of a gateway's devices; ``host_id`` is the gateway's name as a host application.

    ``started`` (UTC ns) stamps its STATE: the birth and the ``will`` have the same. Counted are births asked for,
    messages that are late or dropped, deaths of older sessions, values passed over or no numbers, and history that
    would become the present.
    """

    def __init__(self, places: Iterable[Installed], host_id: str, started: int, counted: Counted | None = None) -> None:
        self._counted = counted or Counted()
        self._nodes: dict[tuple[str, str], _Node] = {}
        self._devices: dict[tuple[str, str, str], str] = {}
        self._outgoing: list[tuple[str, bytes, bool]] = []
        self._state = f"{NAMESPACE}/STATE/{host_id}"
        self._started = started
        for place in places:
            wire = place.device.wire
            if isinstance(wire, Sparkplug):
                if any(set("+/#") & set(name) for name in (wire.group, wire.node, wire.device)):
                    raise Refused(f"device {place.device.id}: wire", "names in Sparkplug have no +, / or #")
                node = self._nodes.setdefault((wire.group, wire.node), _Node(wire.group, wire.node))
                node.places.setdefault(wire.device, []).append(_Place(place))
                self._devices[wire.group, wire.node, wire.device] = place.device.id
        topics = [_filters(node) for node in self._nodes.values()]
        self.subscriptions = (*(topic for filters in topics for topic in filters), self._state) if topics else ()

    @property
    def will(self) -> tuple[str, bytes]:
        """What the broker publishes, retained, when the connection is lost; to be published before leaving, too."""
        return self._state, state(online=False, at=self._started)

    def owns(self, topic: str) -> bool:
        return topic.startswith(f"{NAMESPACE}/")

    def device_of(self, topic: str) -> str:
        match topic.split("/"):
            case [_, group, _, node]:
                return self._devices.get((group, node, ""), "")
            case [_, group, _, node, device]:
                return self._devices.get((group, node, device), "")
        return ""

    def connected(self, now: int) -> None:
        """Ask all nodes for their births: what they sent meanwhile is lost, a birth with other aliases too."""
        self._outgoing = [(self._state, state(online=True, at=self._started), True)]
        for node in self._nodes.values():
            self._lose(node, now)
            self._ask(node, now)

    def outgoing(self) -> Sequence[tuple[str, bytes, bool]]:
        taken, self._outgoing = self._outgoing, []
        return taken

    @property
    def due(self) -> int | None:
        instants = (at for node in self._nodes.values() for at in (node.lost_at, node.ask_at, node.stale_at))
        return min((at for at in instants if at is not None), default=None)

    def expire(self, now: int) -> Sequence[Said]:
        return [said for node in self._nodes.values() for said in self._expire(node, now)]

    def hear(self, topic: str, payload: bytes, now: int) -> Sequence[Heard] | None:
        if topic == self._state:
            if not is_online(payload):  # the will of a connection before this one came late
                self._outgoing.append((self._state, state(online=True, at=self._started), True))
            return None
        node, kind, device = self._route(topic)
        told = decode(payload)
        if told.seq is None and kind not in ("NBIRTH", "NDEATH"):
            raise Malformed("`seq` is missing")
        message = _Message(kind, device, told, now if told.at is None else told.at, now)
        heard: list[Heard] = [*self._expire(node, now)]
        match kind:
            case "NBIRTH":
                heard += self._begin(node, message)
            case "NDEATH":
                heard += self._end(node, message)
            case _:
                heard += self._arrive(node, message)
        self._ask(node, now)
        return heard or None  # that nothing declared is in a message of a node is no news

    def _route(self, topic: str) -> tuple[_Node, str, str]:
        match topic.split("/"):
            case [_, group, kind, name] if kind in _OF_NODES and (group, name) in self._nodes:
                return self._nodes[group, name], kind, ""
            case [_, group, kind, name, device] if kind in _OF_DEVICES and (group, name) in self._nodes:
                return self._nodes[group, name], kind, device
        raise Strange("no device of the district has this topic")

    def _begin(self, node: _Node, message: _Message) -> list[Heard]:
        """Take the birth of a node, and what came before its turn."""
        if node.next_seq is None:
            log.info("sparkplug node is born", group=node.group, node=node.name)
        node.bd_seq = message.payload.bd_seq
        node.birth_sent, node.born_at, node.born = message.at, message.now, {}
        node.ask_at, node.stale_at = None, message.now + ANSWER
        node.next_seq = message.seq
        for seq, held in tuple(node.held.items()):
            # What was sent in the same millisecond may be older, and mean other things by the same aliases.
            if held.at <= message.at or not 0 < (seq - message.seq) % 256 <= HELD_MOST:
                del node.held[seq]
                self._counted.add("edge_sparkplug_late_messages_total")
        return self._read_on(node, message)

    def _end(self, node: _Node, message: _Message) -> list[Heard]:
        """Take the death of a node, unless it is the will of a session before this one."""
        bd_seq = message.payload.bd_seq
        if node.next_seq is not None and None not in (bd_seq, node.bd_seq) and bd_seq != node.bd_seq:
            self._counted.add("edge_sparkplug_old_deaths_total")
            return []
        self._drop_held(node)
        node.born, node.next_seq, node.ask_at, node.stale_at = {}, None, None, None
        return [said for places in node.places.values() for place in places for said in place.stale(message.now)]

    def _arrive(self, node: _Node, message: _Message) -> list[Heard]:
        """Read a message whose turn it is, and hold any other."""
        if message.seq == node.next_seq:
            return self._read_on(node, message)
        if message.seq in node.held or (node.next_seq is not None and node.is_late(message)):
            self._counted.add("edge_sparkplug_late_messages_total")
            return []
        node.held[message.seq] = message
        if len(node.held) > HELD_MOST:
            self._give_up(node, message.now, f"more than {HELD_MOST} messages wait for one that is missing")
        return []

    def _read_on(self, node: _Node, message: _Message) -> list[Heard]:
        """Read a message and all that follow it without a gap."""
        heard: list[Heard] = []
        following: _Message | None = message
        while following is not None:
            heard += self._read(node, following)
            node.heard_sent = following.at
            node.next_seq = (following.seq + 1) % 256
            following = node.held.pop(node.next_seq, None)
        return heard

    def _read(self, node: _Node, message: _Message) -> list[Heard]:
        """Read a message in its turn; births and data of devices that nobody declared say nothing."""
        places = node.places.get(message.device, ())
        if not places:
            return []
        if message.kind == "DDEATH":
            node.born.pop(message.device, None)
            return [said for place in places for said in place.stale(message.at)]
        if message.kind in ("NBIRTH", "DBIRTH"):
            node.born[message.device] = _Born.of(message.payload)
            if node.places.keys() == node.born.keys():
                node.stale_at = None
        born = node.born.get(message.device)
        if born is None:
            self._counted.add("edge_sparkplug_dropped_messages_total")
            self._miss(node, message.now, f"data of device `{message.device}` came before its birth")
            return []
        told: list[tuple[str, Metric, Value | None]] = []
        for metric in message.payload.metrics:
            name = born.name_of(metric)
            if name is None:
                self._miss(node, message.now, "data came of a metric that no birth told of")
                continue
            if metric.value is None and not metric.is_null:
                self._counted.add("edge_sparkplug_skipped_values_total")
            told.append((name, metric, signed(metric.value, metric.datatype or born.datatypes[name])))
        return [heard for place in places for heard in place.hear(told, message, self._counted)]

    def _expire(self, node: _Node, now: int) -> list[Said]:
        """Let what was waited for in vain have its consequence."""
        said: list[Said] = []
        if node.lost_at is not None and node.lost_at <= now:
            self._give_up(node, now, "a message is missing")
        if node.stale_at is not None and node.stale_at <= now:
            node.stale_at = None
            unborn = [device for device in node.places if device not in node.born]
            said = [told for device in unborn for place in node.places[device] for told in place.stale(now)]
            if said:
                log.warning("sparkplug births did not come", group=node.group, node=node.name, devices=unborn)
        self._ask(node, now)
        return said

    def _give_up(self, node: _Node, now: int, why: str) -> None:
        """Give a missing message up."""
        if node.next_seq is not None:
            log.warning("sparkplug births wanted", group=node.group, node=node.name, why=why)
        self._lose(node, now)

    def _lose(self, node: _Node, now: int) -> None:
        """Want births anew, and read nothing before: data would be read wrongly where one of them was lost."""
        self._drop_held(node)
        node.born, node.next_seq = {}, None
        node.pause, node.ask_at = 0, max(now, node.asked_at + PAUSE)
        if node.stale_at is None:
            node.stale_at = now + ANSWER

    def _drop_held(self, node: _Node) -> None:
        if node.held:
            self._counted.add("edge_sparkplug_dropped_messages_total", len(node.held))
            node.held.clear()

    def _miss(self, node: _Node, now: int, why: str) -> None:
        """Want what the births left out; asked for ever more seldom where they go on to leave it out."""
        if node.ask_at is not None:
            return
        log.warning("sparkplug births wanted", group=node.group, node=node.name, why=why)
        if now - node.born_at > node.pause:
            node.pause = 0
        node.ask_at = max(now, node.asked_at + max(PAUSE, node.pause))

    def _ask(self, node: _Node, now: int) -> None:
        if node.ask_at is None or now < node.ask_at:
            return
        self._outgoing.append((f"{NAMESPACE}/{node.group}/NCMD/{node.name}", rebirth(now), False))
        self._counted.add("edge_sparkplug_births_asked_total")
        node.pause = min(max(PAUSE, 2 * node.pause), PAUSE_MOST)
        node.asked_at, node.ask_at = now, now + node.pause


def _filters(node: _Node) -> tuple[str, ...]:
    """Give the topics of a node; its devices that nobody declared have their numbers in the same sequence."""
    of_node = (f"{NAMESPACE}/{node.group}/{kind}/{node.name}" for kind in _OF_NODES)
    return (*of_node, *(f"{NAMESPACE}/{node.group}/{kind}/{node.name}/+" for kind in _OF_DEVICES))
