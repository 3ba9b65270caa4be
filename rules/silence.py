"""Silence: a deadline that every sample moves. It is judged densely, over all devices of a kind at once."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rules.alert import Phase, Reason, Transition, alert_id
from rules.columns import SILENCE
from rules.rule import Rule
from rules.samples import Point, Quality
from rules.tile import NEVER, earlier

NOT_FROM_DEVICE = (int(Quality.BAD_COMMS), int(Quality.BAD_STALE))  # the driver's own words about a device


class Silence:
    """When the devices of one kind were last heard, and the rules that say it is too long ago.

    A device is heard by any sample that came from it, good or bad. One not heard yet counts from the first watermark.
    ``state``: ``heard`` ``[N]`` and ``since`` ``[rules, N]`` (of the standing alert), UTC ns, ``NEVER`` where none.
    """

    def __init__(self, gateway: str, rules: Sequence[Rule], devices: Sequence[Sequence[Point]]) -> None:
        self._gateway = gateway
        self._rules = tuple(rules)
        self._devices = tuple(points[0].device for points in devices)
        interval_ns = np.array([min(point.interval_s for point in points) * 1e9 for points in devices])
        self._interval_s = interval_ns / 1e9
        self._limit = np.array([rule.level[0].when.above for rule in rules], np.float64)
        self._allowed = np.rint(self._limit[:, None] * interval_ns).astype(np.int64)
        self._heard = np.full(len(devices), NEVER, np.int64)
        self._since = np.full((len(rules), len(devices)), NEVER, np.int64)
        self.state: dict[str, NDArray[np.generic]] = {"heard": self._heard, "since": self._since}

    def listen_anew(self) -> None:
        """Nobody listened for a while: what was not heard then says nothing about a device."""
        self._heard[:] = NEVER

    def hear(
        self, rows: NDArray[np.intp], at: NDArray[np.int64], judged: NDArray[np.bool_], quality: NDArray[np.uint8]
    ) -> Iterator[Transition]:
        """Take the next readings of the devices in ``rows``: ``at`` ``[n, T]``, samples ``[M, n, T]``."""
        from_device = (judged & (quality != NOT_FROM_DEVICE[0]) & (quality != NOT_FROM_DEVICE[1])).any(axis=0)
        before = self._heard[rows]
        heard = np.maximum(np.maximum.accumulate(np.where(from_device, at, NEVER), axis=-1), before[:, None])
        last = earlier(heard, before)
        self._heard[rows] = heard[:, -1]
        if not self._rules:
            return
        came = from_device & (at > last)
        was_silent = (last != NEVER) & (at - last > self._allowed[:, rows, None])
        stood = self._since[:, rows, None] != NEVER
        for rule, line, step in np.argwhere(came & (was_silent | stood)).tolist():
            row = int(rows[line])
            now, quiet_since = int(at[line, step]), int(last[line, step])
            if self._since[rule, row] == NEVER:
                if not was_silent[rule, line, step]:
                    continue  # it stood before this tile, and an earlier reading has cleared it
                yield self._raised(rule, row, quiet_since)
            yield self._cleared(rule, row, now)

    def advance(self, until: NDArray[np.int64]) -> Iterator[Transition]:
        """Nothing that a device took before its ``until`` ``[N]`` (UTC ns) is still to come: say who is overdue."""
        np.copyto(self._heard, until, where=self._heard == NEVER)
        if self._rules:
            late = (until - self._heard > self._allowed) & (self._since == NEVER)
            for rule, row in np.argwhere(late).tolist():
                yield self._raised(rule, row, int(self._heard[row]))

    def _raised(self, rule: int, row: int, heard: int) -> Transition:
        due = heard + int(self._allowed[rule, row])
        self._since[rule, row] = due
        return self._told(Phase.RAISED, rule, row, due, float(self._limit[rule]))

    def _cleared(self, rule: int, row: int, now: int) -> Transition:
        told = self._told(Phase.CLEARED, rule, row, max(now, int(self._since[rule, row])), 0.0)
        self._since[rule, row] = NEVER
        return told

    def _told(self, phase: Phase, rule: int, row: int, at: int, silence: float) -> Transition:
        declared, device, since = self._rules[rule], self._devices[row], int(self._since[rule, row])
        limit = float(self._limit[rule])
        for_s = silence * float(self._interval_s[row])
        return Transition(
            alert=alert_id(self._gateway, declared.id, device, since),
            revision=1 if phase is Phase.RAISED else 2,
            phase=phase,
            rule=declared.id,
            level=declared.level[0].name,
            severity=declared.level[0].severity,
            device=device,
            since=since,
            decided_at=at,
            reason=Reason("silent", SILENCE, {"value": silence, "limit": limit, "for_s": for_s}),
            evidence={SILENCE: silence},
        )
