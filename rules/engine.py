"""The rules engine: samples in, alert transitions out. Pure, columnar, and the same live and replayed.

Detectors make columns, rules compare columns, life turns truth into alerts. Three contracts hold it up: a block may be
cut between readings, never inside one; the order of arrival is kept per device; a watermark is a promise. Within them
the result never depends on how samples were batched.
"""

import hashlib
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from rules.alert import Transition
from rules.declared import Refused
from rules.life import Alert
from rules.rule import Rule
from rules.samples import Block, Point, PointTable, Quality
from rules.tile import Samples, changes, tiles
from rules.watch import Watch

_PART = 16_384  # samples judged at once: what fits the processor's cache


class OtherState(ValueError):  # noqa: N818 - named by what was handed in; the caller starts fresh and counts it
    """A saved state of other points, other rules or another layout; the engine has stayed as it was."""


class _Array(msgspec.Struct, frozen=True, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class _Standing(msgspec.Struct, frozen=True, array_like=True):
    rule: int
    row: int
    alert: Alert


class _State(msgspec.Struct, frozen=True):
    points: str
    rules: str
    late: int
    arrays: dict[str, dict[str, _Array]]
    alerts: dict[str, tuple[_Standing, ...]]


class Engine:
    """Judges the samples of one gateway. ``late`` counts samples not judged: at or below their point's newest stamp.

    ``Refused``: a device that has two points of one metric, or is of two kinds; a rule that stands twice.
    """

    def __init__(self, table: PointTable, rules: Sequence[Rule]) -> None:
        self.late = 0
        self._digests = (table.digest(), hashlib.sha256(msgspec.msgpack.encode(tuple(rules))).hexdigest()[:16])
        ids = [rule.id for rule in rules]
        for rule in rules:
            if ids.count(rule.id) > 1:
                raise Refused(f"rule {rule.id}", "this id is declared twice")

        devices = _devices(table)
        judged = sorted({points[0].kind for points in devices.values()} & {rule.kind for rule in rules})
        self._kinds = {
            kind: Watch(
                table.gateway,
                [rule for rule in rules if rule.kind == kind],
                [points for points in devices.values() if points[0].kind == kind],
            )
            for kind in judged
        }
        number = {kind: index for index, kind in enumerate(judged)}
        row = {device: index for watch in self._kinds.values() for index, device in enumerate(watch.devices)}
        self._kind_of = np.array([number.get(point.kind, -1) for point in table.points], np.int16)
        place = {device: index for index, device in enumerate(devices)}
        self._device_of = np.array([place[point.device] for point in table.points], np.intp)
        self._row_of = np.array([row.get(point.device, -1) for point in table.points], np.intp)
        self._metric_of = np.array(
            [self._kinds[p.kind].metrics[p.metric] if p.kind in self._kinds else -1 for p in table.points], np.intp
        )

    def evaluate(self, block: Block) -> list[Transition]:
        """Judge a block of whole readings; the transitions it brought, in the order they were decided."""
        told: list[Transition] = []
        starts = changes(self._device_of[block.point]) | changes(block.taken_at)
        # A stamp of a clock that is wrong would make everything after it late: such samples are stored, not judged.
        usable = block.quality != Quality.BAD_CLOCK
        for part in _parts(starts):
            reading = np.cumsum(starts[part], dtype=np.intp)
            kinds = np.where(usable[part], self._kind_of[block.point[part]], -1)
            for number, watch in enumerate(self._kinds.values()):
                which = np.flatnonzero(kinds == number)
                if which.size:
                    samples = self._samples(block, reading[which], which + part.start)
                    for tile in tiles(samples, len(watch.metrics)):
                        self.late += watch.step(tile, told)
        return _in_order(told)

    def advance(self, until_ns: int, on_change_until_ns: int | None = None) -> list[Transition]:
        """Take the promise that no sample taken before ``until_ns`` (UTC) is still to come, and let deadlines pass.

        Devices that report on change have a watermark of their own where one is given: what they said may wait at a
        broker, while polled devices are read here and now. ``NEVER`` promises nothing.

        Each is stamped with when it was due. Deadlines also pass before the next sample of their device, so ticks
        change when a transition is told, never what it says.
        """
        told: list[Transition] = []
        for watch in self._kinds.values():
            watch.advance(until_ns, until_ns if on_change_until_ns is None else on_change_until_ns, told)
        return _in_order(told)

    def standing(self) -> list[tuple[str, str, str]]:
        """Name the rule, level and device of every hazard alert that is raised; silence is none."""
        return [
            (of.id, of.level[alert.told - 1].name, watch.devices[row])
            for watch in self._kinds.values()
            for (rule, row), alert in sorted(watch.alerts.items())
            if alert.told
            for of in (watch.plan.rules[rule],)
        ]

    def save(self) -> bytes:
        """Everything the engine carries, as MessagePack that names its points and rules."""
        points, rules = self._digests
        arrays = {
            kind: {name: _Array(x.dtype.str, x.shape, x.tobytes()) for name, x in watch.state.items()}
            for kind, watch in self._kinds.items()
        }
        alerts = {
            kind: tuple(_Standing(rule, row, alert) for (rule, row), alert in sorted(watch.alerts.items()))
            for kind, watch in self._kinds.items()
        }
        return msgspec.msgpack.encode(_State(points, rules, self.late, arrays, alerts))

    def restore(self, state: bytes, *, listened: bool = False) -> None:
        """Go on from a saved state; ``OtherState`` when it is not one of these points and rules.

        Between saving and restoring a gateway heard nobody, so silence counts anew from the next watermark;
        ``listened`` says that nothing was missed (a replay in pieces).
        """
        try:
            saved = msgspec.msgpack.decode(state, type=_State)
        except msgspec.DecodeError as error:
            raise OtherState(f"not a state of the engine: {error}") from error
        if (saved.points, saved.rules) != self._digests:
            raise OtherState(f"a state of points {saved.points} and rules {saved.rules}, not of {self._digests}")
        own = {
            kind: {name: (x.dtype.str, x.shape) for name, x in watch.state.items()}
            for kind, watch in self._kinds.items()
        }
        if own != {kind: {name: (x.dtype, x.shape) for name, x in of.items()} for kind, of in saved.arrays.items()}:
            raise OtherState("a state of another layout")
        for kind, watch in self._kinds.items():
            for name, array in watch.state.items():
                stored = saved.arrays[kind][name]
                array[...] = np.frombuffer(stored.data, stored.dtype).reshape(stored.shape)
            watch.alerts = {(standing.rule, standing.row): standing.alert for standing in saved.alerts[kind]}
            if not listened:
                watch.silence.listen_anew()
        self.late = saved.late

    def _samples(self, block: Block, reading: NDArray[np.intp], which: NDArray[np.intp]) -> Samples:
        point = block.point[which]
        return Samples(
            reading,
            self._row_of[point],
            self._metric_of[point],
            block.taken_at[which],
            block.value[which],
            block.quality[which],
        )


def _devices(table: PointTable) -> dict[str, list[Point]]:
    devices: dict[str, list[Point]] = {}
    for point in table.points:
        points = devices.setdefault(point.device, [])
        at = f"point table of {table.gateway}: device {point.device}"
        if any(other.metric == point.metric for other in points):
            raise Refused(at, f"two points have the metric `{point.metric}`")
        if points and points[0].kind != point.kind:
            raise Refused(at, f"it is of kind `{points[0].kind}` and of kind `{point.kind}`")
        points.append(point)
    return devices


def _parts(starts: NDArray[np.bool_]) -> Iterator[slice]:
    """Cut a block into parts of some size, between readings; ``starts`` marks the first sample of each reading."""
    begin = 0
    while begin < len(starts):
        end = begin + _PART
        if end < len(starts):
            onward = np.flatnonzero(starts[end:])
            end = end + int(onward[0]) if onward.size else len(starts)
        yield slice(begin, end)
        begin = end


def _in_order(told: list[Transition]) -> list[Transition]:
    return sorted(told, key=lambda transition: transition.decided_at)
