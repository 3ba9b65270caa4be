"""Boards, beacons and lamps: what rules want shown, what the centre may ask for, and what is never written."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from edge import commands as commands_module
from edge.commands import Act, Commands, NotAllowed, NotDone
from edge.drivers.modbus import NoAnswer, Write
from edge.installed import Installed, installed
from edge.plan import Request
from edge.profile import load_profiles
from rules.alert import Phase, Reason, Severity, Transition
from rules.declared import Refused
from rules.district import Device, District, Modbus, Text
from wire.clock import Clock
from wire.counted import Counted

WATER = "flood.depth"
BOARD = Act("board", WATER, {"slow": "show 1", "close": "show 2", "severe": "show 3"}, otherwise="show 0")
BEACON = Act("beacon", WATER, {"close": "on", "severe": "on"}, otherwise="off")
ALLOWED = {"board": ("show",), "beacon": ("on", "off"), "lamp": ("on", "off", "dim")}


def _device(name: str, kind: str, profile: str, unit: int, site: str = "underpass", base: int = 0) -> Device:
    return Device(
        id=name,
        kind=kind,
        profile=profile,
        gateway="gw",
        site=site,
        asset="a",
        component="0120",
        lon=0.0,
        lat=0.0,
        wire=Modbus("bus", unit, base),
        install={"mounting_height_m": 3.5, "nominal_power_w": 150.0},
    )


def _places() -> tuple[Installed, ...]:
    devices = (
        _device("gauge", "level_sensor", "dfrobot_sen0492", 1),
        _device("far-gauge", "level_sensor", "dfrobot_sen0492", 2, site="elsewhere"),
        _device("board", "warning_board", "reference_warning_board", 3),
        _device("beacon", "beacon", "reference_beacon", 4),
        _device("lamp", "lamp_controller", "intesis_dali", 5, site="road", base=7100),
    )
    return installed(District("d", Text("区", "d"), (), (), (), (), devices), "gw", load_profiles())


class Line:
    """Registers and coils that can be written, one device or all of them dead, and a lamp that fades."""

    def __init__(self) -> None:
        self.shown = {"board": 0, "beacon": 0, "lamp": 0}
        self.written: list[tuple[str, Write]] = []
        self.asked: list[tuple[str, Request]] = []
        self.dead: set[str] = set()
        self.fades = 0
        self.changed = asyncio.Event()

    async def write(self, place: Installed, write: Write) -> None:
        name = place.device.id
        self._answer(name)
        self.written.append((name, write))
        self.shown[name] = write.raw
        self.changed.set()

    async def read(self, place: Installed, request: Request) -> bytes:
        name = place.device.id
        self._answer(name)
        self.asked.append((name, request))
        if self.fades:
            self.fades -= 1
            return b"\x00\x00"
        return bytes((self.shown[name],)) if request.function == 1 else self.shown[name].to_bytes(2, "big")

    def _answer(self, name: str) -> None:
        if name in self.dead:
            self.changed.set()
            raise NoAnswer(f"{name}: no answer")

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    def values(self, name: str) -> list[int]:
        return [write.raw for device, write in self.written if device == name]


def _step(phase: Phase, level: str, device: str = "gauge", rule: str = WATER) -> Transition:
    reason = Reason("above", "level", {"value": 0.3})
    return Transition("a", 1, phase, rule, level, Severity.II, device, 1, 1, reason, {})


def _play(
    scene: Callable[[Commands, Line], Awaitable[None]], *acts: Act, counted: Counted | None = None, **kept: Any
) -> None:
    async def play() -> None:
        line = Line()
        commands = Commands(_places(), {"bus": line}, kept.get("allowed", ALLOWED), acts, Clock(), counted)
        running = asyncio.create_task(commands.run(), name="commands")
        try:
            await scene(commands, line)
        finally:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(play())


def test_a_board_follows_the_gravest_level_that_stands_at_its_site() -> None:
    async def scene(commands: Commands, line: Line) -> None:
        line.shown["board"] = 3  # whatever it showed before
        commands.begin([])
        await line.until(lambda: line.values("board") == [0])
        commands.follow([_step(Phase.PENDING, "slow"), _step(Phase.RAISED, "severe", device="far-gauge")])
        commands.follow([_step(Phase.RAISED, "slow"), _step(Phase.RAISED, "close", rule="another")])
        await line.until(lambda: line.values("board") == [0, 1])
        commands.follow([_step(Phase.UPDATED, "severe")])
        await line.until(lambda: line.values("board") == [0, 1, 3] and line.values("beacon") == [1])
        commands.follow([_step(Phase.UPDATED, "slow")])
        await line.until(lambda: line.values("board") == [0, 1, 3, 1] and line.values("beacon") == [1, 0])
        commands.follow([_step(Phase.CLEARED, "slow")])
        await line.until(lambda: line.values("board") == [0, 1, 3, 1, 0])

    _play(scene, BOARD, BEACON)


def test_what_stood_before_a_restart_is_shown_after_it() -> None:
    async def scene(commands: Commands, line: Line) -> None:
        commands.begin([(WATER, "close", "gauge"), (WATER, "severe", "far-gauge")])
        await line.until(lambda: line.values("board") == [2])

    _play(scene, BOARD)


def test_an_act_may_look_at_devices_of_its_own_choice() -> None:
    async def scene(commands: Commands, line: Line) -> None:
        commands.begin([(WATER, "close", "gauge"), (WATER, "severe", "far-gauge")])
        await line.until(lambda: line.values("board") == [3])

    _play(scene, msgspec.structs.replace(BOARD, of=("far-gauge",)))


def test_of_two_acts_on_one_device_the_last_that_has_something_to_say_counts() -> None:
    gas = Act("board", "gas.toxic", {"danger": "show 2"}, otherwise="show 0")

    async def scene(commands: Commands, line: Line) -> None:
        line.shown["board"] = 0
        commands.begin([(WATER, "slow", "gauge")])
        await line.until(lambda: line.values("board") == [1])
        commands.follow([_step(Phase.RAISED, "danger", rule="gas.toxic")])
        await line.until(lambda: line.values("board") == [1, 2])
        commands.follow([_step(Phase.CLEARED, "danger", rule="gas.toxic")])
        await line.until(lambda: line.values("board") == [1, 2, 1])

    _play(scene, BOARD, gas)


def test_a_board_that_was_dead_or_lost_its_state_is_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_module, "RETRY_S", 0.01)
    monkeypatch.setattr(commands_module, "CHECK_S", 0.02)
    counted = Counted()

    async def scene(commands: Commands, line: Line) -> None:
        line.dead.add("board")
        with capture_logs() as logs:
            commands.begin([(WATER, "close", "gauge")])
            await line.until(lambda: counted["edge_commands_failed_total"] >= 3)
            assert [entry["why"] for entry in logs if entry["log_level"] == "warning"] == ["board: no answer"]
        line.dead.clear()
        await line.until(lambda: line.shown["board"] == 2)
        line.shown["board"] = 0  # its power failed
        await line.until(lambda: line.values("board") == [2, 2])

    _play(scene, BOARD, counted=counted)


def test_the_centre_dims_a_lamp_behind_a_gateway_of_many_and_hears_what_it_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands_module, "LOOK_S", 0.001)

    async def scene(commands: Commands, line: Line) -> None:
        line.fades = 2
        assert await commands.order("lamp", "dim", 40.0) == 40.0
        assert line.written == [("lamp", Write(6, 7115, 40))]
        assert {(request.start, request.count) for _, request in line.asked} == {(7106, 1)}
        assert await commands.order("lamp", "on", None) == 100.0
        line.written.clear()
        assert await commands.order("lamp", "on", None) == 100.0
        assert line.written == [], "it shows that already"

    _play(scene)


@pytest.mark.parametrize(
    ("device", "command", "value", "why"),
    [
        ("gauge", "on", None, "not in this gateway's"),
        ("pump-1", "on", None, "not in this gateway's"),
        ("lamp", "explode", None, "not in this gateway's"),
        ("lamp", "dim", None, "takes a value from 0 to 100 %"),
        ("lamp", "dim", 101.0, "takes a value from 0 to 100 %"),
        ("lamp", "dim", float("nan"), "takes a value from 0 to 100 %"),
        ("lamp", "on", 3.0, "takes no value"),
    ],
)
def test_what_is_not_allowed_is_refused_and_nothing_is_written(
    device: str, command: str, value: float | None, why: str
) -> None:
    counted = Counted()

    async def scene(commands: Commands, line: Line) -> None:
        with pytest.raises(NotAllowed, match=why):
            await commands.order(device, command, value)
        assert (line.written, line.asked) == ([], [])

    _play(scene, counted=counted)
    assert counted.snapshot() == {"edge_commands_refused_total": 1}


def test_an_order_that_cannot_be_carried_out_ends_and_is_not_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_module, "RETRY_S", 0.005)
    monkeypatch.setattr(commands_module, "PATIENCE_S", 0.05)

    async def scene(commands: Commands, line: Line) -> None:
        line.dead.add("lamp")
        with pytest.raises(NotDone, match="within"):
            await commands.order("lamp", "on", None)
        line.dead.clear()
        await commands.order("lamp", "dim", 10.0)
        assert line.values("lamp") == [10]

    _play(scene)


def test_an_order_that_fails_leaves_a_board_to_its_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_module, "RETRY_S", 0.005)
    monkeypatch.setattr(commands_module, "CHECK_S", 0.01)

    async def scene(commands: Commands, line: Line) -> None:
        line.shown["board"] = 3
        commands.begin([])
        await line.until(lambda: line.shown["board"] == 0)
        line.dead.add("board")
        with pytest.raises(NotDone, match="within"):
            await commands.order("board", "show", 1.0, within_s=0.05)
        line.shown["board"] = 2  # and somebody else has set it meanwhile
        line.dead.clear()
        await line.until(lambda: line.shown["board"] == 0)
        commands.follow([_step(Phase.UPDATED, "severe")])
        await line.until(lambda: line.shown["board"] == 3)

    _play(scene, BOARD)


def test_a_standing_rule_has_the_say_and_the_centre_has_it_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_module, "CHECK_S", 0.01)

    async def scene(commands: Commands, line: Line) -> None:
        commands.begin([(WATER, "close", "gauge")])
        await line.until(lambda: line.shown["board"] == 2)
        with pytest.raises(NotAllowed, match="has the say"):
            await commands.order("board", "show", 0.0)
        commands.follow([_step(Phase.CLEARED, "close")])
        await line.until(lambda: line.values("board") == [2, 0])
        assert await commands.order("board", "show", 1.0) == 1.0
        line.shown["board"] = 0
        await line.until(lambda: line.shown["board"] == 1)  # the last word is held
        commands.follow([_step(Phase.RAISED, "severe")])
        await line.until(lambda: line.shown["board"] == 3)

    _play(scene, BOARD)


def test_a_new_box_looks_around_before_it_clears_a_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_module, "LOOK_AROUND_S", 0.05)

    async def scene(commands: Commands, line: Line) -> None:
        line.shown.update(board=2, beacon=1)
        commands.follow([_step(Phase.RAISED, "severe")])
        await line.until(lambda: line.shown["board"] == 3)
        await asyncio.sleep(0.1)
        assert line.shown == {"board": 3, "beacon": 1, "lamp": 0}
        assert line.values("board") == [3], "and never cleared in between"

    _play(scene, BOARD, BEACON)

    async def dry(commands: Commands, line: Line) -> None:
        line.shown["board"] = 2
        assert line.written == []
        await line.until(lambda: line.values("board") == [0])

    _play(dry, BOARD)


def test_the_last_order_counts() -> None:
    async def scene(commands: Commands, line: Line) -> None:
        line.dead.add("lamp")
        first = asyncio.create_task(commands.order("lamp", "on", None), name="first")
        await line.until(lambda: "lamp" in line.dead and line.changed.is_set())
        second = asyncio.create_task(commands.order("lamp", "dim", 5.0), name="second")
        with pytest.raises(NotDone, match="something else"):
            await first
        line.dead.clear()
        assert await second == 5.0
        assert line.values("lamp") == [5]

    _play(scene)


@pytest.mark.parametrize(
    ("allowed", "acts", "place", "why"),
    [
        ({"bord": ("show",)}, (), "allow.bord", "did you mean `board`"),
        ({"board": ("shew",)}, (), "allow.board", "did you mean `show`"),
        ({"gauge": ("on",)}, (), "allow.gauge", "`dfrobot_sen0492` has no command `on`"),
        ({}, (BOARD,), "act board", "`show` is not allowed"),
        (ALLOWED, (Act("board", WATER, {"slow": "show 4"}, "show 0"),), "act board", "from 0 to 3"),
        (ALLOWED, (Act("beacon", WATER, {"slow": "on"}, "dark"),), "act beacon", "`dark` is not allowed"),
        (
            ALLOWED,
            (Act("beacon", WATER, {"slow": "on"}, "off", of=("gage",)),),
            "act beacon.of",
            "did you mean `gauge`",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    allowed: dict[str, tuple[str, ...]], acts: tuple[Act, ...], place: str, why: str
) -> None:
    with pytest.raises(Refused, match=why) as refused:
        Commands(_places(), {"bus": Line()}, allowed, acts, Clock())
    assert refused.value.place == place
