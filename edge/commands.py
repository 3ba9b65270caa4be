"""Lamps, warning boards and beacons told what to do, by local rule or by the centre, and held to it.

What each is to show is a state, not a message: the last word wins, it is written until the device shows it, and a
board that a power cut has cleared is set again. Rules speak here on the box, so a board warns with the link down.
Nothing is written that the gateway's owner has not allowed, and no profile but those of ``edge.profile.WRITABLE`` has
a command at all: never a barrier, never a pump.
"""

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
import structlog

from edge.codec import Codec
from edge.drivers.modbus import Failed, Write
from edge.installed import Installed
from edge.plan import Request, plan
from edge.profile import Command
from rules.alert import Phase, Transition
from rules.declared import Refused, nearest
from rules.district import Modbus
from rules.samples import BAD
from wire.clock import Clock
from wire.counted import Counted

CHECK_S = 30.0  # wall: how often what a rule wants shown is looked at
LOOK_S = 0.2  # wall: between two looks while a lamp fades
RETRY_S = 1.0  # wall; doubled up to the most
RETRY_MOST_S = 30.0
LOOK_AROUND_S = 300.0  # city: longer than the on-delay of any rule that a board should show
PATIENCE_S = 600.0  # city: an order of the centre that could not be carried out for so long is given up

log = structlog.get_logger(__name__)


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a local rule has a device do: at each of the rule's ``levels`` a command, as in ``"show 2"`` or ``"on"``.

    Of the levels that stand the one written last counts, and of a device's acts the last that has one; ``otherwise``
    while none has. The rule may stand on any device in ``of`` (empty: on any at the same site).
    """

    device: str
    rule: str
    levels: dict[str, str]
    otherwise: str
    of: tuple[str, ...] = ()


class NotAllowed(Exception):  # noqa: N818 - the gateway's word
    """An order that this gateway does not carry out; the text says why. Another try would not help."""


class NotDone(Exception):  # noqa: N818 - what came of it
    """An order that was tried for as long as it had; the text says what stood in its way."""


class Written(Protocol):
    """What commands need of ``edge.poller.ModbusBus``: its turns, between two polls."""

    async def write(self, place: Installed, write: Write) -> None: ...

    async def read(self, place: Installed, request: Request) -> bytes: ...


class Commands:
    """Every device of a gateway that may be told something.

    Parameters
    ----------
    places, buses
        The gateway's devices, and its buses by name.
    allowed
        By device, the commands that may be written to it.
    acts
        What local rules do.
    clock, counted
        The city's clock, and where writes are counted.

    ``Refused`` names what is allowed or acted on and does not exist.
    """

    def __init__(
        self,
        places: Iterable[Installed],
        buses: Mapping[str, Written],
        allowed: Mapping[str, Sequence[str]],
        acts: Sequence[Act],
        clock: Clock,
        counted: Counted | None = None,
    ) -> None:
        self._places = {place.device.id: place for place in places}
        self._allowed = {device: frozenset(commands) for device, commands in allowed.items()}
        self._acts = tuple(acts)
        self._clock = clock
        self._counted = counted or Counted()
        check(self._places, self._allowed, self._acts)
        self._actors = {device: _Actor(self._places[device], buses, self._counted) for device in self._allowed}
        self._raised: dict[tuple[str, str], str] = {}  # by rule and device, the level that stands
        self._begun = False

    def follow(self, transitions: Iterable[Transition]) -> None:
        """Take note of what was raised and cleared, and have boards show it."""
        for transition in transitions:
            key = transition.rule, transition.device
            if transition.phase in (Phase.RAISED, Phase.UPDATED):
                self._raised[key] = transition.level
            elif transition.phase is Phase.CLEARED:
                self._raised.pop(key, None)
            else:
                continue
            self._act(act.device for act in self._acts if act.rule == transition.rule)

    def begin(self, standing: Iterable[tuple[str, str, str]]) -> None:
        """Begin with what stands (rule, level, device), as the engine remembers it: boards are set at once.

        Without it, as on a box that is new, a board is set at the first word of a rule, and otherwise only once the
        rules have had time to look (``LOOK_AROUND_S``): else it would be cleared in the middle of a flood.
        """
        self._begun = True
        self._raised = {(rule, device): level for rule, level, device in standing}
        self._act(act.device for act in self._acts)

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_around(), name="boards of a new box")
            for device, actor in self._actors.items():
                tasks.create_task(actor.run(), name=f"commands of {device}")

    async def _look_around(self) -> None:
        if not self._begun:
            await self._clock.sleep(LOOK_AROUND_S)
            self._act(act.device for act in self._acts if not self._actors[act.device].was_told)

    async def order(self, device: str, command: str, value: float | None, within_s: float = PATIENCE_S) -> float:
        """Carry out an order of the centre; what the device then shows.

        ``NotAllowed`` when it is not to be, ``NotDone`` when it could not be ``within_s`` seconds of the city (ten
        minutes at most) or another word took its place.
        """
        try:
            declared, wanted = self._permitted(device, command, value)
        except ValueError as error:
            self._counted.add("edge_commands_refused_total")
            log.warning("command refused", device=device, command=command, value=value, why=str(error))
            raise NotAllowed(f"{device}: {error}") from error
        done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._actors[device].want(_Wanted(declared, wanted, "centre", done))
        try:
            async with asyncio.timeout(self._clock.wall_seconds(min(within_s, PATIENCE_S))):
                return await asyncio.shield(done)
        except TimeoutError:
            why = f"{device}: `{command}` could not be done within {min(within_s, PATIENCE_S):g} s"
            self._actors[device].drop(done)
            raise NotDone(why) from None

    def _permitted(self, device: str, command: str, value: float | None) -> tuple[Command, float]:
        if command not in self._allowed.get(device, ()):
            raise ValueError(f"`{command}` is not in this gateway's `[allow]`")
        for act in self._acts:
            if act.device == device and self._standing(act).intersection(act.levels):
                raise ValueError(f"rule `{act.rule}` stands, and has the say while it does")
        return _asked(self._places[device], command, value)

    def _act(self, devices: Iterable[str]) -> None:
        for device in dict.fromkeys(devices):
            text, by = "", ""
            for act in self._acts:
                if act.device == device:
                    stands = [level for level in act.levels if level in self._standing(act)]
                    if stands or not text:
                        text, by = (act.levels[stands[-1]] if stands else act.otherwise), f"rule {act.rule}"
            self._actors[device].want(_Wanted(*_spoken(self._places[device], text), by))

    def _standing(self, act: Act) -> set[str]:
        """Name the levels of an act's rule that stand on the devices it looks at."""
        site = self._places[act.device].device.site
        return {
            level
            for (rule, device), level in self._raised.items()
            if rule == act.rule and (device in act.of if act.of else self._places[device].device.site == site)
        }


class _Wanted:
    """A state that a device is to reach; ``done`` hears of it where somebody waits."""

    def __init__(self, command: Command, value: float, by: str, done: "asyncio.Future[float] | None" = None) -> None:
        self.command = command
        self.value = value
        self.by = by
        self.done = done

    def end(self, shown: float | None, why: str = "") -> None:
        if self.done is not None and not self.done.done():
            if shown is None:
                self.done.set_exception(NotDone(why))
            else:
                self.done.set_result(shown)


class _Actor:
    """One device that is told what to do: one wanted state at a time, the newest.

    Where a rule speaks too, the last word is held: what it brought is looked at again, and an order that could not be
    carried out gives way to what the rule wants. Elsewhere an order is done with once it is done: a lamp goes by its
    own schedule afterwards.
    """

    def __init__(self, place: Installed, buses: Mapping[str, Written], counted: Counted) -> None:
        assert isinstance(place.device.wire, Modbus)  # noqa: S101 - checked: only registers are written
        self._place = place
        self._bus = buses[place.device.wire.bus]
        self._base = place.device.wire.base
        self._counted = counted
        self._log = log.bind(device=place.device.id)
        self._wanted: _Wanted | None = None
        self._held: _Wanted | None = None  # the word that counts while nothing is ordered
        self._changed = asyncio.Event()
        self._failures = 0

    @property
    def was_told(self) -> bool:
        """Whether anybody has said anything yet."""
        return self._wanted is not None

    def want(self, wanted: _Wanted) -> None:
        before = self._wanted
        if before is not None:
            if before.done is None and (before.command, before.value) == (wanted.command, wanted.value):
                return  # the rule goes on wanting what it wanted
            before.end(None, f"{self._place.device.id}: {wanted.by} wants something else meanwhile")
        if wanted.done is None:
            self._held = wanted
        self._wanted = wanted
        self._changed.set()

    def drop(self, done: "asyncio.Future[float]") -> None:
        if self._wanted is not None and self._wanted.done is done:
            self._wanted = self._held
            self._changed.set()

    async def run(self) -> None:
        while True:
            wanted, self._failures = self._wanted, 0
            self._changed.clear()
            pause = await self._reach(wanted) if wanted is not None else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    async def _reach(self, wanted: _Wanted) -> float | None:
        """Bring the device to a state and tell who waits; how long until it is looked at again (None: not at all)."""
        pause = RETRY_S
        while self._wanted is wanted:
            try:
                shown = await self._bring(wanted)
            except Failed as failure:
                self._note_failure(wanted, str(failure))
            else:
                if shown is not None:
                    self._note_done(wanted, shown)
                    if wanted.done is not None and self._wanted is wanted:
                        if self._held is not None:
                            self._held = _Wanted(wanted.command, wanted.value, wanted.by)
                        self._wanted = self._held
                    return CHECK_S if self._held is not None else None
                self._note_failure(wanted, f"it does not show {wanted.command.read_back} {wanted.value:g}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(0.5, 1.0)):
                    await self._changed.wait()
            pause = min(2 * pause, RETRY_MOST_S)
        return 0.0

    async def _bring(self, wanted: _Wanted) -> float | None:
        """Write unless it shows already, and look until it does; None when it does not in time."""
        command = wanted.command
        shown = await self._look(command)
        if _shows(shown, wanted):
            return shown
        await self._bus.write(self._place, Write(command.function, command.register + self._base, _word(wanted)))
        self._counted.add("edge_commands_written_total")
        self._log.info("written", command=command.name, value=wanted.value, was=shown, by=wanted.by)
        loop = asyncio.get_running_loop()
        until = loop.time() + command.within_s
        while True:
            shown = await self._look(command)
            if _shows(shown, wanted):
                return shown
            if loop.time() >= until or self._wanted is not wanted:
                return None
            await asyncio.sleep(LOOK_S)

    async def _look(self, command: Command) -> float | None:
        """Read back; None when what is read is no value."""
        point = next(point for point in self._place.profile.point if point.metric == command.read_back)
        (request,) = plan([point], self._place.profile.limits)
        there = dataclasses.replace(request, start=request.start + self._base)
        data = await self._bus.read(self._place, there)
        value, quality = Codec([point], request).decode(np.frombuffer(data, np.uint8)[None])
        return float(value[0, 0]) if quality[0, 0] < BAD else None

    def _note_failure(self, wanted: _Wanted, why: str) -> None:
        self._counted.add("edge_commands_failed_total")
        if not self._failures:
            self._log.warning("not done, tried again", command=wanted.command.name, value=wanted.value, why=why)
        self._failures += 1

    def _note_done(self, wanted: _Wanted, shown: float) -> None:
        if wanted.done is not None or self._failures:
            self._log.info("done", command=wanted.command.name, value=wanted.value, shown=shown, by=wanted.by)
        self._failures = 0
        wanted.end(shown)


def check(places: Mapping[str, Installed], allowed: Mapping[str, Iterable[str]], acts: Sequence[Act]) -> None:
    """Check what is allowed and what rules do; ``Refused`` names the entry."""
    for device, commands in allowed.items():
        if device not in places:
            raise Refused(f"allow.{device}", f"no device of this gateway{nearest(device, places)}")
        known = [command.name for command in places[device].profile.command]
        for command in commands:
            if command not in known:
                profile = places[device].profile.id
                raise Refused(f"allow.{device}", f"`{profile}` has no command `{command}`{nearest(command, known)}")
    for act in acts:
        at = f"act {act.device}"
        for text in (*act.levels.values(), act.otherwise):
            name = text.partition(" ")[0]
            if name not in allowed.get(act.device, ()):
                raise Refused(at, f"`{name}` is not allowed; write `{act.device} = ['{name}']` into `[allow]`")
            try:
                _spoken(places[act.device], text)
            except ValueError as error:
                raise Refused(at, str(error)) from error
        for device in act.of:
            if device not in places:
                raise Refused(f"{at}.of", f"no device of this gateway{nearest(device, places)}")


def _spoken(place: Installed, text: str) -> tuple[Command, float]:
    """Read a command as it is written in an ``Act``."""
    name, _, value = text.partition(" ")
    return _asked(place, name, float(value) if value else None)


def _asked(place: Installed, name: str, value: float | None) -> tuple[Command, float]:
    """Find a command and its value; ``ValueError`` says what does not fit."""
    command = next(command for command in place.profile.command if command.name == name)
    if command.value is not None:
        if value not in (None, command.value):
            raise ValueError(f"`{name}` takes no value")
        return command, command.value
    low, high = command.range or (0.0, 0.0)
    if value is None or not low <= value <= high:
        raise ValueError(f"`{name}` takes a value from {low:g} to {high:g} {command.unit}")
    return command, value


def _word(wanted: _Wanted) -> int:
    raw = wanted.command.raw(wanted.value)
    return raw + 0x10000 if raw < 0 else raw  # a profile has no command whose values do not fit its type


def _shows(shown: float | None, wanted: _Wanted) -> bool:
    # Half a step of its register is what a value may differ by for being rounded.
    return shown is not None and abs(shown - wanted.value) <= wanted.command.tolerance + abs(wanted.command.scale) / 2
