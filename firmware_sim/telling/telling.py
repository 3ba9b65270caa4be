"""What every MQTT device of a district tells and when it arrives, the same whatever the size of the steps.

A walker decides what its device has to tell (``cover``, ``camera``), the ``air`` what becomes of it on its way, and a
dialect how it is written (``chirpstack``, ``things_stack``, ``senml``, ``plain``, ``onvif``, ``frigate``).
"""

import copy
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from firmware_sim.instruments import Instruments
from firmware_sim.telling import chirpstack, frigate, onvif, plain, senml, things_stack
from firmware_sim.telling.air import Air, Carried
from firmware_sim.telling.camera import Camera
from firmware_sim.telling.cover import Cover
from firmware_sim.telling.told import Sighting, Told, Uplink, Written
from rules.declared import Refused
from rules.district import Chirpstack, Device, District, Frigate, Modbus, Onvif, PlainJson, Senml, ThingsStack
from wire.clock import NANOSECONDS

# The walk goes ahead by stretches, to look at many heartbeats at once: each twice the last one, as long as nobody adds
# anything to the world.
SHORTEST_S = 600
LONGEST_S = 21_600
_SPEAK = {"manhole_cover": (Chirpstack, ThingsStack, Senml, PlainJson), "camera": (Onvif, Frigate)}


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a device, ready to publish.

    ``at`` is when the device told it, ``stamp`` what its own clock said then, ``delivered_at`` when it reaches the
    broker: UTC ns, the city's time but for the stamp.
    """

    at: int
    stamp: int
    delivered_at: int
    device: str
    topic: str
    payload: bytes
    retain: bool


class Teller(NamedTuple):
    """One device, its walk, and its way through the air."""

    device: Device
    walker: Cover | Camera
    air: Air

    def copied(self) -> "Teller":
        """Copy its state; nothing in it is changed in place."""
        return Teller(self.device, copy.copy(self.walker), copy.copy(self.air))


class Telling:
    """Every MQTT device of a district from ``start`` (UTC ns) on; ``Refused`` names one that cannot speak as wired.

    ``emitted`` counts, by device, the messages that reached the broker's door, without the ``doubled`` copies of some;
    ``lost_on_air`` those that never did. What a device keeps, or was too dead to say, is in none.
    """

    def __init__(self, district: District, instruments: Instruments, start: int) -> None:
        self.emitted: Counter[str] = Counter()
        self.doubled: Counter[str] = Counter()
        self.lost_on_air: Counter[str] = Counter()
        self._district = district.id
        self._world = instruments.world
        self._known = len(self._world.events)
        self._start = start
        self._given = start - 1  # up to when everything was given
        tellers = [_teller(device, instruments, start) for device in district.device]
        self._reached = Reached(-1, [teller for teller in tellers if teller is not None], [])
        self._set_out = self._reached  # where the last stretch of the walk began
        self._stretch_s = SHORTEST_S
        self._waiting: deque[tuple[Device, Carried]] = deque()

    def until(self, now: int) -> list[Message]:
        """Everything delivered since the last call, up to and including ``now`` (UTC ns), in order of delivery."""
        if len(self._world.events) != self._known:
            self._look_again()
        told: list[Message] = []
        while (now - self._start) // NANOSECONDS > self._reached.second:
            told += self._give(self._start + self._reached.second * NANOSECONDS)
            self._walk_on()
        told += self._give(now)
        self._given = max(self._given, now)
        return told

    def _give(self, now: int) -> Iterator[Message]:
        while self._waiting and self._waiting[0][1].delivered_at <= now:
            device, (delivered_at, record, copies) = self._waiting.popleft()
            if not copies:
                self.lost_on_air[device.id] += 1
                continue
            for topic, payload, retain in _write(self._district, device, record, delivered_at):
                self.emitted[device.id] += 1
                self.doubled[device.id] += copies - 1
                message = Message(record.at, record.stamp, delivered_at, device.id, topic, payload, retain)
                yield from (message,) * copies

    def _walk_on(self) -> None:
        """Walk the next stretch, and keep where it began."""
        self._set_out = Reached(self._reached.second, self._reached.tellers, list(self._waiting))
        self._walk(self._reached.second + self._stretch_s)
        self._stretch_s = min(2 * self._stretch_s, LONGEST_S)

    def _walk(self, last: int) -> None:
        """Walk from where the stretch began."""
        second, tellers, waiting = self._set_out
        tellers = [teller.copied() for teller in tellers]
        waiting = list(waiting)
        for device, walker, air in tellers:
            told = walker.tell(second + 1, last)
            waiting += [(device, carried) for carried in air.carry(told, self._start + last * NANOSECONDS)]
        waiting.sort(key=lambda due: (due[1].delivered_at, due[1].record.at, due[0].id))
        self._reached = Reached(last, tellers, [])
        self._waiting = deque(waiting)

    def _look_again(self) -> None:
        """Walk the last stretch once more, as something was added to the world; what was given stays given."""
        self._known = len(self._world.events)
        if self._reached.second > self._set_out.second:
            self._stretch_s = SHORTEST_S
            self._walk((self._given - self._start) // NANOSECONDS + SHORTEST_S)
            self._waiting = deque(due for due in self._waiting if due[1].delivered_at > self._given)


class Reached(NamedTuple):
    """How far the walk came: its last second, the tellers as they were then, and what was still under way."""

    second: int
    tellers: list[Teller]
    waiting: list[tuple[Device, Carried]]


def _teller(device: Device, instruments: Instruments, start: int) -> Teller | None:
    if isinstance(device.wire, Modbus):
        return None
    if not isinstance(device.wire, _SPEAK.get(device.kind, ())):
        raise Refused(f"device {device.id}: wire", f"no {device.kind} here speaks {type(device.wire).__name__}")
    walker = Camera if device.kind == "camera" else Cover
    air = Air(instruments.world, device.id, by_radio=device.kind != "camera")
    return Teller(device, walker(device, instruments, start), air)


def _write(district: str, device: Device, record: Told, delivered_at: int) -> Iterable[Written]:
    match device.wire, record:
        case Chirpstack() as wire, Uplink():
            return (chirpstack.write(district, device, wire, record, delivered_at),)
        case ThingsStack() as wire, Uplink():
            return (things_stack.write(wire, record, delivered_at),)
        case Senml() as wire, Uplink():
            return (senml.write(device, wire, record),)
        case PlainJson() as wire, Uplink():
            return (plain.write(device, wire, record),)
        case Onvif() as wire, Sighting():
            return onvif.write(wire, record)
        case Frigate() as wire, Sighting():
            return frigate.write(wire, record)
    return ()
