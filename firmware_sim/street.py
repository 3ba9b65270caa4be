"""Come and fool it: what a visitor can do to the running street, and what happens to it by itself afterwards."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from firmware_sim.cable import Cable
from firmware_sim.happenings import KINDS
from firmware_sim.scenario import Event, candidates
from firmware_sim.world import World
from rules.district import Text
from wire.clock import NANOSECONDS, Clock

CABLE_WALL_S = 20.0


class Action(msgspec.Struct, frozen=True):
    """A button: ``target`` is the device, site or gateway that the next press will act on."""

    id: str
    title: Text
    target: str | None
    note: Text


class Outcome(msgspec.Struct, frozen=True):
    """What came of a press."""

    started: bool
    target: str | None
    note: Text


@dataclass(frozen=True, slots=True)
class Trick:
    """One thing to do: ``lasts_s`` in city seconds, after which the street mends itself."""

    id: str
    what: str
    lasts_s: float
    title: Text
    note: Text


TRICKS = (
    Trick(
        "truck",
        "truck",
        20,
        Text("卡车驶过井盖", "A truck over a cover"),
        Text(
            "井盖晃动约二十秒后复位，不应派单。",
            "The lid shakes for some twenty seconds and lies still again: no order.",
        ),
    ),
    Trick(
        "theft",
        "cover_stolen",
        1800,
        Text("井盖被盗", "A cover is stolen"),
        Text("井盖被掀开；半小时后补装。", "The lid is lifted out; a new one is put in after half an hour."),
    ),
    Trick(
        "headlights",
        "headlights",
        45,
        Text("车灯直射镜头", "Headlights on a lens"),
        Text("摄像机把反光看成积水，液位计没有。", "The camera takes the glare for water; the level sensors do not."),
    ),
    Trick(
        "flood",
        "burst_main",
        300,
        Text("水淹下立交", "Flood the underpass"),
        Text(
            "水管爆裂，水泵停机五分钟，随后退水。",
            "A main bursts and stops the pumps for five minutes.",
        ),
    ),
    Trick(
        "freeze",
        "level_freezes",
        2400,
        Text("液位计卡死", "Freeze a level sensor"),
        Text("读数不再变化，应派设备故障单，而不是水淹。", "Its reading stands still: a device fault, not a flood."),
    ),
)
CABLE = Action(
    "cable",
    Text("拔掉网关网线", "Pull a gateway's cable"),
    None,
    Text(
        "二十秒后插回；数据对账先转黄再归零。",
        "It is put back after twenty seconds: the line goes amber, then balances with 0 lost.",
    ),
)
_BUSY = Text("此刻没有合适的对象，请稍后再试。", "Nothing fits at this moment; try again in a while.")


class Street:
    """The buttons over one world. A repeated press takes another target where there is one."""

    def __init__(self, world: World, clock: Clock, cables: Sequence[Cable], spawn: Callable[[Cable], object]) -> None:
        self._world = world
        self._clock = clock
        self._cables = cables
        self._spawn = spawn
        self._presses: Counter[str] = Counter()

    def actions(self) -> list[Action]:
        """Every button that this district has a target for."""
        shown = [
            Action(trick.id, trick.title, self._pick(trick), trick.note) for trick in TRICKS if self._fitting(trick)
        ]
        cable = self._pick_cable()
        if self._cables:
            shown.append(msgspec.structs.replace(CABLE, target=cable.gateway if cable else None))
        return shown

    def press(self, action: str) -> Outcome:
        """Do it; ``KeyError`` for a button that is not there."""
        if action == CABLE.id and self._cables:
            return self._pull()
        trick = next((trick for trick in TRICKS if trick.id == action and self._fitting(trick)), None)
        if trick is None:
            raise KeyError(action)
        target = self._pick(trick)
        if target is None:
            return Outcome(started=False, target=None, note=_BUSY)
        self._presses[action] += 1
        # The next whole second of the world's grid: nothing that was read already may change.
        begin = self._clock.now() + 2 * NANOSECONDS
        begin -= (begin - self._world.start) % NANOSECONDS
        name = f"visitor-{action}-{self._presses[action]}"
        size = sum(KINDS[trick.what].size) / 2
        self._world.add(Event(name, trick.what, target, begin, begin + round(trick.lasts_s * NANOSECONDS), size))
        return Outcome(started=True, target=target, note=trick.note)

    def _pull(self) -> Outcome:
        cable = self._pick_cable()
        if cable is None:
            return Outcome(started=False, target=None, note=_BUSY)
        self._presses[CABLE.id] += 1
        cable.cut()
        self._spawn(cable)
        return Outcome(started=True, target=cable.gateway, note=CABLE.note)

    def _pick(self, trick: Trick) -> str | None:
        """Choose the next target in turn to which nothing is happening."""
        fitting = self._fitting(trick)
        turn = self._presses[trick.id] % len(fitting)
        now = self._clock.now()
        busy = {
            event.target
            for event in self._world.events
            if event.at <= now + 2 * NANOSECONDS and (event.until is None or event.until > now)
        }
        wet = self._world.wet_sites(now)
        if trick.what == "burst_main":
            busy |= wet
        if trick.what in ("headlights", "level_freezes"):  # neither deceives where there is water
            busy |= {device.id for device in self._world.district.device if device.site in wet}
        return next((target for target in fitting[turn:] + fitting[:turn] if target not in busy), None)

    def _fitting(self, trick: Trick) -> list[str]:
        try:
            fitting = candidates(trick.what, (), self._world.district, self._world.scenario)
        except ValueError:
            return []
        devices = {device.id: device for device in self._world.district.device}
        if trick.what == "truck":  # a lid that reports at once: a monitor read every 10 s may sleep through it
            return [lid for lid in fitting if devices[lid].kind == "manhole_cover"] or fitting
        if trick.what == "headlights":  # where a camera looks for water
            underpasses = {underpass.site for underpass in self._world.scenario.underpass}
            return [camera for camera in fitting if devices[camera].site in underpasses]
        return fitting

    def _pick_cable(self) -> Cable | None:
        whole = [cable for cable in self._cables if not cable.cut_off]
        return whole[self._presses[CABLE.id] % len(whole)] if whole else None


async def put_back(cable: Cable) -> None:
    """Somebody notices the cable on the floor."""
    await asyncio.sleep(CABLE_WALL_S)
    cable.restore()
