"""The simulated street without sockets: what each gateway would have read, from registers and payloads, as columns.

Everything goes the way it goes on a wire: the instrument's values are packed into registers by the simulator's map and
read back by the gateway's own plan and codec, so that a fault in either shows here too.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.counters import Counters
from edge.decoding import Decoding
from edge.installed import Installed, derive
from edge.poller import TELL_EVERY_S
from edge.profile import Profile
from edge.reading import Reading
from edge.reads import Reads
from edge.schedule import DOWN_AFTER
from edge.sources import MqttSource
from firmware_sim.instruments import Instruments
from firmware_sim.modbus import COUNTER
from firmware_sim.noise import Floats, Times
from firmware_sim.registers import Registers
from firmware_sim.telling.telling import Message
from firmware_sim.wirefaults import answers
from firmware_sim.world import World
from rules.district import Modbus
from rules.samples import QUALITY, VALUE, Block, Quality
from streetwarden.fast.clock import VirtualClock
from wire.clock import NANOSECONDS


@dataclass(slots=True)
class _Polled:
    """One device on a bus: when it is read next (UTC ns), and how its polls went so far."""

    place: Installed
    interval: int
    due: int
    answered: int = 0
    failures: int = 0
    told_at: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Readings:
    """Readings of one profile, in order of time within each device: shapes ``[n]`` and ``[n, quantities]``."""

    first_row: NDArray[np.int32]
    taken_at: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]

    def block(self, chosen: NDArray[np.intp]) -> Block:
        width = self.value.shape[1]
        value = self.value[chosen].ravel()
        block = Block(
            np.add.outer(self.first_row[chosen], np.arange(width, dtype=np.int32)).ravel().astype(np.int32, copy=False),
            np.repeat(self.taken_at[chosen], width),
            value,
            self.quality[chosen].ravel(),
        )
        untold = np.isnan(value)
        return block.take(~untold) if untold.any() else block


class Emitted:
    """What the instruments gave away: when each device was read or told something, and all bytes.

    Instants are UTC ns; a ``stamp`` is what the device's own clock said, which is mostly the same.
    """

    def __init__(self) -> None:
        self.polls: dict[str, int] = {}
        self.samples = 0  # of quantities that are measured, not derived
        self._at: dict[str, list[tuple[Times, Times]]] = {}
        self._bytes = hashlib.sha256()

    def note(self, device: str, at: Times, stamp: Times | None = None) -> None:
        self._at.setdefault(device, []).append((at if stamp is None else stamp, at))

    def hash(self, data: bytes) -> None:
        self._bytes.update(data)

    def digest(self) -> str:
        return self._bytes.hexdigest()

    def instants(self, device: str) -> tuple[Times, Times]:
        """Take out every stamp of one device, rising, each once, and the instants that they stand for."""
        parts = self._at.pop(device, [])
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        stamps = np.concatenate([stamp for stamp, _ in parts])
        if (stamps[1:] > stamps[:-1]).all() and all(stamp is at for stamp, at in parts):
            return stamps, stamps  # a device on a bus, of which there may be millions
        stamps, first = np.unique(stamps, return_index=True)
        return stamps, np.concatenate([at for _, at in parts])[first]


class _Profiled:
    """The devices of one profile behind one gateway, read together."""

    def __init__(self, profile: Profile, map_: Profile, polled: Sequence[_Polled]) -> None:
        self.profile = profile
        self.polled = polled
        self._reads = Reads(profile)
        self._counters = Counters(each.place for each in polled)
        self._map = map_
        self._registers = Registers(map_)
        self._counts = any(point.metric == COUNTER for point in map_.point)
        self._counting = any(point.counter for point in profile.point)
        self._names = {term.removeprefix("install.") for each in profile.derived for term in each.of if "." in term}

    def read(
        self, world: World, instruments: Instruments, end: int, off: NDArray[np.int64], told: Emitted
    ) -> _Readings:
        """Poll every device on its schedule until ``end``; ``off`` ``[k, 2]`` are spans without power."""
        device_rows: list[tuple[_Polled, int]] = []
        ats: list[Times] = []
        shown: list[Mapping[str, Floats]] = []
        lost: list[tuple[_Polled, Times]] = []
        for each in self.polled:
            due = np.arange(each.due, end, each.interval, dtype=np.int64)
            each.due += len(due) * each.interval
            for begin, until in off:
                due = due[(due < begin) | (due >= until)]
            good = answers(world, each.place.device, due)
            at = due[good]
            if not good.all():
                lost.append((each, self._failed(each, due, good)))
            elif len(due):
                each.failures = 0
            values = dict(instruments.show(each.place.device, at)) if len(at) else {}
            if self._counts and len(at):
                values[COUNTER] = np.arange(each.answered + 1, each.answered + len(at) + 1, dtype=np.float64)
                each.answered += len(at)
                told.polls[each.place.device.id] = each.answered
            if len(at):
                told.note(each.place.device.id, at)
                device_rows.append((each, len(at)))
                ats.append(at)
                shown.append(values)
        return self._join(self._decoded(device_rows, ats, shown, told), lost)

    def _decoded(
        self, rows: list[tuple[_Polled, int]], ats: list[Times], shown: list[Mapping[str, Floats]], told: Emitted
    ) -> _Readings:
        width = len(self.profile.quantities)
        if not rows:
            nothing = np.empty((0, width))
            return _Readings(np.empty(0, np.int32), np.empty(0, np.int64), nothing, nothing.astype(QUALITY))
        values = {metric: np.concatenate([each[metric] for each in shown]) for metric in shown[0]}
        for point in self._map.point:  # by the simulator's map: how the gateway reads is not what was emitted
            told.hash(self._registers.reply(point.function, point.register, point.words, values).tobytes())
        told.samples += sum(size for _, size in rows) * len(self._map.point)
        value, quality = self._reads.decode(
            [self._registers.reply(each.function, each.start, each.count, values) for each in self._reads.requests]
        )
        sizes = [size for _, size in rows]
        devices = [each.place.device.id for each, size in rows for _ in range(size)] if self._counting else []
        value = self._counters.advance(self.profile, devices, value, quality)
        install = {
            name: np.repeat([each.place.device.install[name] for each, _ in rows], sizes) for name in self._names
        }
        value, quality = derive(self.profile, install, value, quality)
        first = np.repeat([each.place.rows[0] for each, _ in rows], sizes).astype(np.int32)
        return _Readings(first, np.concatenate(ats), value, quality)

    def _failed(self, each: _Polled, due: Times, good: NDArray[np.bool_]) -> Times:
        """When a device that does not answer is told as such: as ``edge.poller`` does."""
        told: list[int] = []
        for at, ok in zip(due.tolist(), good.tolist(), strict=True):
            each.failures = 0 if ok else each.failures + 1
            news = 0 < each.failures <= DOWN_AFTER
            if news or (each.failures > DOWN_AFTER and at - each.told_at >= TELL_EVERY_S * NANOSECONDS):
                each.told_at = at
                told.append(at)
        return np.array(told, np.int64)

    def _join(self, read: _Readings, lost: list[tuple[_Polled, Times]]) -> _Readings:
        lost = [(each, at) for each, at in lost if len(at)]
        if not lost:
            return read
        at = np.concatenate([at for _, at in lost])
        first = np.repeat([each.place.rows[0] for each, _ in lost], [len(at) for _, at in lost]).astype(np.int32)
        shape = (len(at), read.value.shape[1])
        joined = _Readings(
            np.concatenate([read.first_row, first]),
            np.concatenate([read.taken_at, at]),
            np.concatenate([read.value, np.zeros(shape, VALUE)]),
            np.concatenate([read.quality, np.full(shape, Quality.BAD_COMMS, QUALITY)]),
        )
        order = np.lexsort((joined.taken_at, joined.first_row))
        return _Readings(joined.first_row[order], joined.taken_at[order], joined.value[order], joined.quality[order])


@dataclass(slots=True)
class Street:
    """What one gateway reads; instants rise from call to call.

    ``fields`` says how many quantities a message of each device tells.
    """

    world: World
    instruments: Instruments
    clock: VirtualClock
    source: MqttSource
    groups: Sequence[_Profiled]
    off: NDArray[np.int64]
    fields: Mapping[str, int]
    told: Emitted = field(default_factory=Emitted)
    decoding: Decoding = field(default_factory=Decoding)

    def polls(self, end: int) -> list[_Readings]:
        """Read all buses until ``end`` (UTC ns)."""
        return [group.read(self.world, self.instruments, end, self.off, self.told) for group in self.groups]

    def messages(self, messages: Sequence[Message]) -> Block:
        """Hear messages, each at its own moment, as the gateway's MQTT source does."""
        readings: list[Reading] = []
        for message in messages:
            self.clock.set(message.delivered_at)
            readings += self.source.expire()
            self.told.note(message.device, np.array([message.at], np.int64), np.array([message.stamp], np.int64))
            self.told.hash(message.topic.encode())
            self.told.hash(message.payload)
            self.told.samples += self.fields[message.device]
            readings += self.source.take(message.topic, message.payload)
        return self.decoding.block(readings)


def slices(readings: Sequence[_Readings], begin: int, step: int, count: int) -> Iterator[Block]:
    """Cut readings into ``count`` blocks of ``step`` nanoseconds from ``begin`` on; per device in order of time."""
    cut: list[tuple[_Readings, NDArray[np.intp], NDArray[np.intp]]] = []
    for each in readings:
        place = (each.taken_at - begin) // step
        order = np.argsort(place, kind="stable")
        cut.append((each, order, np.searchsorted(place[order], np.arange(count + 1))))
    for number in range(count):
        yield Block.concatenate([each.block(order[edge[number] : edge[number + 1]]) for each, order, edge in cut])


def grouped(places: Sequence[Installed], maps: Mapping[str, Profile], start: int) -> list[_Profiled]:
    """Group a gateway's polled devices by profile, each on the schedule of its bus from ``start`` (UTC ns) on."""
    polled: dict[str, list[_Polled]] = {}
    buses: dict[str, list[Installed]] = {}
    for place in places:
        if isinstance(place.device.wire, Modbus):
            buses.setdefault(place.device.wire.bus, []).append(place)
    for on_bus in buses.values():
        for number, place in enumerate(on_bus):
            interval = int(place.interval_s * NANOSECONDS)
            due = start + interval * number // len(on_bus)  # as edge.poller spreads them
            polled.setdefault(place.profile.id, []).append(_Polled(place, interval, due))
    return [_Profiled(each[0].place.profile, maps[name], each) for name, each in polled.items()]
