"""Commissioning over real sockets and terminals: what an installer is shown, and what the gateway does not notice."""

import asyncio
import dataclasses
import os
import signal
import sys
import termios
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import numpy as np
import pytest
import uvloop
from typer.testing import CliRunner, Result

from edge import probing
from edge.drivers.address import Address
from edge.drivers.modbus import NoAnswer
from edge.installed import installed
from edge.poller import ModbusBus
from edge.probed import Probed, Row
from edge.probing import probe
from edge.profile import Profile, load_profiles
from edge.reading import Reading
from edge.scanning import Scan, settings
from firmware_sim.instruments import Instruments
from firmware_sim.line import Line
from firmware_sim.modbus import Bus as SimulatedBus
from firmware_sim.modbus import Port, Transport, buses_of
from firmware_sim.scenario import Event
from rules.declared import Refused
from rules.district import Modbus
from rules.samples import Quality
from streetwarden.cli import app
from streetwarden.commissioning import probe_device
from tests.city import START, district, storm
from tests.modbus_server import Asked, Behaviour, Bus, Framing, bus, exception, line, reply
from tests.readings import block_of
from wire.clock import NANOSECONDS, Clock
from wire.counted import Counted

PROFILES = load_profiles()
# What an SDM120 in a lamp feeder shows: 230.2 V, 0.65 A, 142.3 W, 0.95, 50.01 Hz, 1234.56 kWh as IEEE 754, ABCD.
SDM120 = {
    0x0000: "4366 3333",
    0x0006: "3F26 6666",
    0x000C: "430E 4CCD",
    0x001E: "3F73 3333",
    0x0046: "4248 0A3D",
    0x0156: "449A 51EC",
}
SHORT_S = 0.4  # where something stays silent
Words = dict[int, int]
T = TypeVar("T")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "AGAIN_S", 0.01)


def words_of(*maps: dict[int, str]) -> Words:
    words: Words = {}
    for start, text in ((start, text) for each in maps for start, text in each.items()):
        words |= {start + n: int(word, 16) for n, word in enumerate(text.split())}
    return words


def swapped(texts: dict[int, str]) -> dict[int, str]:
    return {start: " ".join(reversed(text.split())) for start, text in texts.items()}


def device(words: Words, function: int = 4, unit: int = 1, *, strict: bool = False) -> Behaviour:
    """A device with some words: others are 0, or if ``strict`` not there. Unit 0: with any unit id."""

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        wanted = range(asked.start, asked.start + asked.count)
        if unit not in (0, asked.unit):
            return
        if asked.function != function:
            writer.write(exception(asked, 1))
        elif strict and not words.keys() >= set(wanted):
            writer.write(exception(asked, 2))
        else:
            writer.write(reply(asked, b"".join(words.get(n, 0).to_bytes(2, "big") for n in wanted)))

    return behave


def served(behave: Behaviour, what: Callable[[Bus], Awaitable[Any]], framing: Framing = "tcp") -> Any:
    async def play() -> Any:
        async with bus(behave, framing) as server:
            return await what(server)

    return on_uvloop(play())


def on_uvloop(play: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(play)


class StandingClock(Clock, frozen=True):
    """City time that stands at one instant, so that instruments show the same for ever."""

    def now(self) -> int:
        return self.city


STANDING = StandingClock(city=START + 60 * NANOSECONDS)


def simulated(*happening: Event) -> SimulatedBus:
    """The shipped district's bus north-1: levels 1 and 2, rain 3, manholes 4 to 6."""
    world = storm()
    for event in happening:
        world.add(event)
    return next(bus for bus in buses_of(district(), Instruments(world), STANDING) if bus.name == "north-1")


def told(behave: Behaviour, *command: str, message: bytes = b"") -> Result:
    """Run a command against a server; ``PORT`` in it is the server's port."""

    async def run(server: Bus) -> Result:
        arguments = [each.replace("PORT", str(server.port)) for each in command]
        return await invoked(arguments, message)

    result = cast("Result", served(behave, run))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


async def invoked(arguments: Sequence[str], message: bytes = b"") -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, arguments, input=message))


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def probed(
    behave: Behaviour, profile: Profile, base: int = 0, *, clearing: bool = False, timeout_s: float = 10.0
) -> tuple[Probed, list[Asked]]:
    """Probe a model, with a short time-out only where something stays silent; what came of it and what was asked."""

    async def run(server: Bus) -> Probed:
        address = Address("127.0.0.1", server.port, timeout_s=timeout_s)
        asked.append(server.asked)
        return await probe(address, 1, profile, base, {}, clearing=clearing, tell=lambda *_: None)

    asked: list[list[Asked]] = []
    return served(behave, run), asked[0]


def the(row: str, of: Probed) -> Row:
    return next(each for each in of.rows if each.name == row)


def test_a_right_meter_is_shown_with_words_values_and_no_doubts() -> None:
    result = told(device(words_of(SDM120)), "profile", "probe", "127.0.0.1", "eastron_sdm120", "--port", "PORT")
    assert result.exit_code == 0, result.output
    shown = lines(result.stdout)
    assert ["voltage", "4", "0", "=", "30001", "4366", "3333", "230.2", "V", "same", "good"] in shown
    assert ["energy", "4", "342", "=", "30343", "449A", "51EC", "1234.56", "kW.h", "same", "good"] in shown
    assert result.stdout.rstrip().endswith("no doubts")


def test_a_meter_whose_words_are_swapped_says_so() -> None:
    words = words_of(swapped(SDM120))
    result = told(device(words), "profile", "probe", "127.0.0.1", "eastron_sdm120", "--port", "PORT")
    assert result.exit_code == 1
    for value in ("230.2 V", "0.65 A", "142.3 W", "50.01 Hz", "1234.56 kW.h"):
        assert f'with `order = "CDAB"` it would be {value}' in result.stdout


def test_a_unit_that_is_not_there_cannot_be_read(capfd: pytest.CaptureFixture[str]) -> None:
    async def play() -> int:
        port = Port(simulated(), "modbus_tcp")
        async with port.door.open():
            address = Address("127.0.0.1", port.door.port, timeout_s=0.1)
            level = PROFILES["dfrobot_sen0492"]
            return await asyncio.to_thread(partial(probe_device, address, 9, level, 0, {}, clearing=False))

    assert on_uvloop(play()) == 2
    told = capfd.readouterr()
    assert told.out == ""
    assert "cannot be read: unit 9 function 3 addresses 52 to 52: no answer within 0.1 s" in told.err
    assert "streetwarden bus scan 127.0.0.1:" in told.err


def test_a_number_of_the_installation_gives_what_is_derived() -> None:
    result = told(
        device({0x34: 1803}, 3),
        *("profile", "probe", "127.0.0.1", "dfrobot_sen0492", "--port", "PORT", "--install", "mounting_height_m=3.5"),
    )
    assert result.exit_code == 0, result.output
    assert ["distance", "3", "52", "=", "40053", "070B", "1.803", "m", "same", "good"] in lines(result.stdout)
    assert ["level", "minus", "1.697", "m", "same", "good"] in lines(result.stdout)


def test_what_moves_is_seen() -> None:
    steps = iter(range(1800, 1900))

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(asked, next(steps).to_bytes(2, "big")))

    shown, _ = probed(behave, PROFILES["dfrobot_sen0492"])
    assert (the("distance", shown).value, the("distance", shown).again) == (1.8, 1.801)


def test_a_refused_read_is_cut_until_each_point_has_its_verdict() -> None:
    words = words_of(SDM120)
    del words[0x06], words[0x07]
    shown, _ = probed(device(words, strict=True), PROFILES["eastron_sdm120"])
    current = the("current", shown)
    assert (current.quality, current.raw) == ("refused", "")
    assert current.doubts == ("exception 02 (no such address): unit 1 function 4 addresses 6 to 7",)
    assert [row.name for row in shown.rows if row.quality == "good"] == [
        *("voltage", "power", "power_factor", "frequency", "energy")
    ]
    assert [note for note in shown.notes if "does not take the whole read" in note]


def test_who_refuses_everything_cannot_be_read_and_each_point_says_why() -> None:
    result = told(device({}, 3), "profile", "probe", "127.0.0.1", "eastron_sdm120", "--port", "PORT")
    assert result.exit_code == 2
    assert result.stdout.count("exception 01 (no such function): unit 1 function 4") >= 6


def test_zeros_everywhere_are_doubtful() -> None:
    shown, _ = probed(device({}), PROFILES["eastron_sdm120"])
    assert shown.doubts == ("all of it is 0: is this the right unit, and is the sensor connected to it?",)


def test_base_moves_the_addresses() -> None:
    words = words_of({start + 100: text for start, text in SDM120.items()})
    shown, asked = probed(device(words, strict=True), PROFILES["eastron_sdm120"], base=100)
    assert the("voltage", shown).address == "100 = 30101"
    assert the("voltage", shown).value == pytest.approx(230.2)
    assert min(each.start for each in asked) == 100


RAIN = {2: "0000 01F4", 4: "0001 E240", 8: "0000 0000", 10: "0000 2710"}


def test_what_reading_clears_is_not_read_unless_it_is_wanted() -> None:
    gauge = PROFILES["deltaohm_hd2016"]
    shown, asked = probed(device(words_of(RAIN)), gauge)
    assert not [each for each in asked if {2, 3} & set(range(each.start, each.start + each.count))]
    assert the("rain_collected", shown).quality == "not read"
    assert the("rain_total", shown).value == pytest.approx(123.456)
    assert not shown.any_doubt
    assert any("--clearing" in note for note in shown.notes)

    shown, asked = probed(device(words_of(RAIN)), gauge, clearing=True)
    assert len([each for each in asked if {2, 3} & set(range(each.start, each.start + each.count))]) == 1
    assert the("rain_collected", shown).value == pytest.approx(0.5)


def test_a_total_that_falls_is_doubtful() -> None:
    totals = iter((1000, 10))

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(asked, next(totals).to_bytes(4, "big") + bytes(2 * asked.count - 4)))

    shown, _ = probed(behave, PROFILES["deltaohm_hd2016"])
    assert the("rain_total", shown).doubts == ("it fell from 1 to 0.01: this is no growing total",)


@pytest.mark.parametrize(("signature", "exit_code"), [("WB-DALI", 0), ("WB-MDM", 1)])
def test_texts_tell_another_model(signature: str, exit_code: int) -> None:
    text = {200 + n: ord(letter) for n, letter in enumerate(signature)}

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        wanted = range(asked.start, asked.start + asked.count)
        bits = asked.function == 2
        writer.write(
            reply(
                asked,
                b"\1" if bits else b"".join((text.get(n, 0) or 250 * (n == 4020)).to_bytes(2, "big") for n in wanted),
            )
        )

    result = told(behave, "profile", "probe", "127.0.0.1", "wirenboard_dali", "--port", "PORT")
    assert result.exit_code == exit_code, result.output
    assert f"“{signature}”" in result.stdout
    assert ("this model says `WB-DALI` here: is it another one?" in result.stdout) == bool(exit_code)


def test_one_lost_answer_and_a_busy_device_are_asked_again() -> None:
    count = 0

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        if count == 2:
            writer.write(exception(asked, 6))
        elif count > 2:
            writer.write(reply(asked, b"\x07\x0b"))

    shown, asked = probed(behave, PROFILES["dfrobot_sen0492"], timeout_s=SHORT_S)
    assert the("distance", shown).value == 1.803
    assert len(asked) == 4
    assert [doubt for doubt in shown.doubts if "answered only when it was asked again" in doubt]


def test_a_device_that_falls_silent_is_told_with_what_it_said_before() -> None:
    count = 0

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        if count == 1:
            writer.write(reply(asked, b"\x07\x0b"))

    shown, _ = probed(behave, PROFILES["dfrobot_sen0492"], timeout_s=SHORT_S)
    assert the("distance", shown).value == 1.803
    assert [doubt for doubt in shown.doubts if doubt.startswith("it answered once and not again: unit 1")]


@pytest.mark.parametrize(
    ("transport", "happening", "cure"),
    [
        ("rtu_over_tcp", (), 'framing = "rtu"'),
        ("modbus_tcp", (Event("fault", "wrong_transaction", "level-n1", START),), "echoes_transaction = false"),
    ],
)
def test_an_endpoint_that_speaks_in_another_way_is_recognised(
    transport: Transport, happening: tuple[Event, ...], cure: str
) -> None:
    async def play() -> Probed:
        port = Port(simulated(*happening), transport)
        async with port.door.open():
            address = Address("127.0.0.1", port.door.port, timeout_s=SHORT_S)
            level = PROFILES["dfrobot_sen0492"]
            return await probe(address, 1, level, 0, {}, clearing=False, tell=lambda *_: None)

    shown = on_uvloop(play())
    assert the("distance", shown).quality == "good"
    assert f"it answers only with {cure}: write that into its bus" in shown.doubts


def test_who_is_silent_in_every_way_is_given_up_soon() -> None:
    async def silent(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
        pass

    with pytest.raises(NoAnswer, match="unit 1 function 4"):
        probed(silent, PROFILES["eastron_sdm120"], timeout_s=0.1)


def test_a_model_with_one_session_warns_of_its_gateway(tmp_path: Path) -> None:
    shipped = resources.files("edge").joinpath("profiles/dfrobot_sen0492.toml").read_text("utf-8")
    shy = tmp_path / "shy.toml"
    shy.write_text(
        shipped.replace('id = "dfrobot_sen0492"', 'id = "shy"') + "\n[limits]\nsingle_session = true\n", "utf-8"
    )
    result = told(device({0x34: 1803}, 3), "profile", "probe", "127.0.0.1", str(shy), "--port", "PORT")
    assert result.exit_code == 0, result.output
    assert "serves one master at a time" in result.stderr


def test_a_serial_device_is_probed_at_its_speed() -> None:
    async def run(server: Bus) -> Result:
        async with line(server.port) as wire:
            command = ["profile", "probe", wire.path, "dfrobot_sen0492", "--baud", "19200", "--stop-bits", "2"]
            result = await invoked(command)
            speeds.update(wire.speeds)
            return result

    speeds: set[int] = set()
    result = cast("Result", served(device({0x34: 1803}, 3), run, "rtu"))
    assert result.exit_code == 0, result.output
    assert "1.803" in result.stdout
    assert speeds == {termios.B19200}


def test_a_model_of_messages_is_probed_with_one() -> None:
    uplink = b'{"time": "2026-06-18T03:12:45Z", "object": {"battery": 99, "depth": 125}}'
    probe_one = ("profile", "probe", "-", "milesight_em500_swl", "--install", "probe_height_m=0.1")
    result = told(device({}), *probe_one, message=uplink)
    assert result.exit_code == 0, result.output
    assert ["depth", "depth", "125", "1.25", "m", "good"] in lines(result.stdout)
    assert ["level", "sum", "1.35", "m", "good"] in lines(result.stdout)

    result = told(device({}), *probe_one, message=uplink.replace(b"99", b"199"))
    assert result.exit_code == 1
    assert "199 % is not within 0 to 100" in result.stdout

    result = told(device({}), *probe_one, message=b"{")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot be read: not JSON" in result.stderr


def test_a_model_of_messages_has_no_host_and_says_what_to_do() -> None:
    with pytest.raises(Refused, match="streetwarden profile probe - milesight_em500_swl < message"):
        told(device({}), "profile", "probe", "10.0.0.7", "milesight_em500_swl")
    with pytest.raises(Refused, match="name a host, or the terminal of a line"):
        told(device({}), "profile", "probe", "-", "eastron_sdm120")


def test_a_base_beyond_the_registers_is_refused() -> None:
    with pytest.raises(Refused, match="--base 65500: lies beyond the last register"):
        probed(device({}), PROFILES["eastron_sdm120"], base=65500)


# --- scans


FEW = [
    PROFILES[name]
    for name in (
        *("dfrobot_sen0492", "xunchip_xm9505", "hydrostatic_probe"),
        *("reference_manhole_monitor", "reference_lamp_controller"),
    )
]


def scan_of(addresses: Sequence[Address], units: Sequence[int]) -> Scan:
    return Scan(addresses, units, FEW, lambda _: None)


class Tuned(Line):
    """A line whose units hear nothing at any other speed than 9600 baud."""

    def _hear(self, near: int) -> None:
        if termios.tcgetattr(near)[5] == termios.B9600:
            super()._hear(near)
        else:
            os.read(near, 4096)


def test_a_scan_beside_a_gateway_finds_all_and_the_gateway_loses_nothing() -> None:
    """On one terminal: polls of all devices each second, and two scans, one of them at another speed."""
    places = [
        dataclasses.replace(place, device=msgspec.structs.replace(place.device, interval_s=1.0))
        for place in installed(district(), "gw-north", PROFILES)
        if isinstance(place.device.wire, Modbus) and place.device.wire.bus == "north-1"
    ]
    readings: list[Reading] = []
    counted = Counted()

    async def put(reading: Reading) -> None:
        readings.append(reading)

    async def play() -> tuple[Scan, float]:
        async with Tuned(simulated()).open() as wire:
            poller = ModbusBus("north-1", Address(serial=wire.path), places, Clock(), counted)
            polling = asyncio.create_task(poller.run(put), name="poller")
            scan = scan_of(settings(wire.path, (9600,), ("N",), SHORT_S), range(1, 8))
            other = scan_of(settings(wire.path, (19200,), ("N",), SHORT_S), range(1, 4))
            began = time.monotonic()
            await scan.run()
            await other.run()
            took_s = time.monotonic() - began
            polling.cancel()
            with suppress(asyncio.CancelledError):
                await polling
            assert (poller.skipped, poller.down, other.found) == (0, (), [])
            return scan, took_s

    scan, took_s = on_uvloop(play())
    likely = {(found.address.baud, found.unit): [each.profile for each in found.likely or ()] for found in scan.found}
    assert likely.keys() == {(9600, unit) for unit in range(1, 7)}
    for place in places:
        wire = place.device.wire
        assert isinstance(wire, Modbus)
        assert place.profile.id == likely[9600, wire.unit][0]
        polls = [reading for reading in readings if reading.place is place]
        assert len(polls) >= took_s - 1
        assert [poll.quality for poll in polls] == [Quality.GOOD] * len(polls)
        truth = Instruments(storm()).show(place.device, np.array([STANDING.now()]))
        for number, point in enumerate(place.profile.measured):
            values = block_of(*polls).value.reshape(len(polls), -1)[:, number]
            if point.metric in truth:
                assert values == pytest.approx(float(truth[point.metric][0]), abs=abs(point.scale)), point.metric
            else:
                assert (np.diff(values) > 0).all(), point.metric  # the counter of polls
    failed = {name: count for name, count in counted.snapshot().items() if count}
    assert failed == {}


def test_units_are_found_at_the_speed_they_have() -> None:
    async def play() -> tuple[Scan, set[int]]:
        async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
            if wire.speeds[-1] == {1: termios.B19200, 2: termios.B2400}.get(asked.unit):
                await level(asked, writer)

        level = device({0x34: 1803}, 3, 0, strict=True)
        async with bus(behave, "rtu") as server, line(server.port) as wire:
            scan = scan_of(settings(wire.path, (19200, 2400), timeout_s=SHORT_S), (1, 2))
            await scan.run()
            return scan, set(wire.speeds)

    scan, speeds = on_uvloop(play())
    assert [(found.address.baud, found.address.parity, found.unit) for found in scan.found] == [
        (19200, "N", 1),
        (2400, "N", 2),
    ]
    assert speeds == {termios.B19200, termios.B2400}
    assert {address.parity for address in scan.unable} == {"E", "O"}  # which no pty does


def test_a_scan_leaves_half_of_the_time_to_others() -> None:
    async def play() -> list[tuple[float, float]]:
        spans: list[tuple[float, float]] = []

        async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
            came = time.monotonic()
            await asyncio.sleep(0.02)
            spans.append((came, time.monotonic()))
            writer.write(reply(asked))

        async with bus(behave) as server:
            await scan_of([Address("127.0.0.1", server.port)], (1, 2, 3)).run()
        return spans

    spans = on_uvloop(play())
    assert len(spans) > 10
    for (came, left), (next_came, _) in pairwise(spans):
        assert next_came - left >= left - came - 0.001  # the loop's timers end in whole milliseconds


def test_a_scan_that_is_cancelled_keeps_what_it_found() -> None:
    async def play() -> Scan:
        port = Port(simulated(), "modbus_tcp")
        async with port.door.open():
            enough = asyncio.Event()

            def tell(scan: Scan) -> None:
                if len(scan.found) == 3:
                    enough.set()

            scan = Scan([Address("127.0.0.1", port.door.port)], range(1, 248), FEW, tell)
            scanning = asyncio.create_task(scan.run())
            await enough.wait()
            scanning.cancel()
            with pytest.raises(asyncio.CancelledError):
                await scanning
            return scan

    scan = on_uvloop(play())
    assert [found.unit for found in scan.found] == [1, 2, 3]
    assert scan.asked < 10


def test_a_scan_shows_who_answers_and_what_it_may_be() -> None:
    level = device({0x34: 1803}, 3, 2, strict=True)
    scan = ("bus", "scan", "127.0.0.1:PORT", "--timeout", "0.4", "--units")
    result = told(level, *scan, "2-3")
    assert result.exit_code == 0, result.output
    assert "found: unit 2 answers exception 02" in result.stderr
    (row,) = (row for row in lines(result.stdout) if "dfrobot_sen0492" in row)
    assert row[1:] == ["2", "exception", "02", "dfrobot_sen0492", "0.9", "1", "of", "1", "points", "in", "range"]

    result = told(level, *scan, "3")
    assert result.exit_code == 1
    assert "nobody answers" in result.stdout


def test_where_nobody_listens_nothing_can_be_searched(tmp_path: Path) -> None:
    result = told(device({}), "bus", "scan", str(tmp_path / "tty"), "--units", "1")
    assert result.exit_code == 2
    assert "No such file or directory" in result.stdout
    assert "not searched: 9600 N, 19200 N" in result.stdout


def test_ctrl_c_ends_a_scan_with_what_was_found() -> None:
    """The real process, as a person stops it."""

    async def play() -> tuple[int | None, str]:
        port = Port(simulated(), "modbus_tcp")
        async with port.door.open():
            scan = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "streetwarden", "bus", "scan", f"127.0.0.1:{port.door.port}"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert scan.stderr is not None
            while b"unit 6" not in (line := await scan.stderr.readline()):
                assert line, "it ended by itself"
            scan.send_signal(signal.SIGINT)
            shown, said = await scan.communicate()
            assert b"Traceback" not in said
            return scan.returncode, shown.decode()

    code, shown = on_uvloop(play())
    assert code == 130
    assert [row[1] for row in lines(shown) if row and row[0].startswith("127.0.0.1:")] == list("123456")
    assert "stopped after" in shown
