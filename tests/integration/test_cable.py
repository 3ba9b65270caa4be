"""The cable between a gateway and its broker: relays, breaks, hangs, mends; and the simulator's other doors."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firmware_sim.cable import Cable
from firmware_sim.door import Door
from tests.city import DISTRICT
from tests.servers import free_port, mosquitto
from wire.session import Broker, Session

LIMIT_S = 10.0


@asynccontextmanager
async def echoing() -> AsyncIterator[Cable]:
    """A cable to a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)

    async with asyncio.timeout(LIMIT_S), Door(echo).open() as far:
        cable = Cable("gw-north", "127.0.0.1", far.port)
        async with cable.door.open():
            yield cable


class Call:
    """One connection through a cable."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def says(self, word: bytes) -> bytes:
        self.writer.write(word)
        return await self.reader.readexactly(len(word))


@asynccontextmanager
async def dial(cable: Cable) -> AsyncIterator[Call]:
    call = Call(*await asyncio.open_connection("127.0.0.1", cable.door.port))
    try:
        yield call
    finally:
        call.writer.transport.abort()


BROKEN = (OSError, asyncio.IncompleteReadError)  # a reset or the end of the stream, as the system has it


def test_bytes_go_both_ways() -> None:
    async def scenario() -> None:
        async with echoing() as cable, dial(cable) as call:
            assert await call.says(b"hello") == b"hello"
            big = bytes(range(256)) * 8000
            assert await call.says(big) == big

    asyncio.run(scenario())


def test_a_cut_cable_drops_and_refuses_until_it_is_put_back() -> None:
    async def scenario() -> None:
        async with echoing() as cable:
            async with dial(cable) as call:
                assert await call.says(b"one") == b"one"
                cable.cut()
                with pytest.raises(BROKEN):
                    await call.reader.readexactly(1)
            async with dial(cable) as call:
                with pytest.raises(BROKEN):
                    await call.says(b"two")
            cable.restore()
            async with dial(cable) as call:
                assert await call.says(b"three") == b"three"

    asyncio.run(scenario())


def test_a_hanging_cable_carries_nothing_and_breaks_what_hung_when_it_is_put_back() -> None:
    async def scenario() -> None:
        async with echoing() as cable, dial(cable) as old:
            assert await old.says(b"one") == b"one"
            cable.cut("hang")
            async with dial(cable) as new:
                for call in (old, new):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await call.says(b"anybody?")
            cable.restore()
            with pytest.raises(BROKEN):
                await old.says(b"two")
            async with dial(cable) as call:
                assert await call.says(b"three") == b"three"

    asyncio.run(scenario())


def test_a_dialler_learns_when_nobody_listens_at_the_far_end() -> None:
    async def scenario() -> None:
        cable = Cable("gw-north", "127.0.0.1", free_port())
        async with asyncio.timeout(LIMIT_S), cable.door.open(), dial(cable) as call:
            with pytest.raises(BROKEN):
                await call.says(b"one")

    asyncio.run(scenario())


def test_an_mqtt_session_comes_back_over_a_mended_cable(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker:

        async def scenario() -> None:
            cable = Cable("gw-north", "127.0.0.1", broker.port)
            async with asyncio.timeout(LIMIT_S), cable.door.open():
                broker_as_seen = Broker("127.0.0.1", cable.door.port)
                async with Session(broker_as_seen, "gw-north", ["down"]) as session:
                    first = await session.wait_connected()
                    cable.cut()
                    await asyncio.sleep(0.3)
                    assert not session.connected
                    cable.restore()
                    await session.wait_connected(after=first)
                    await session.publish("down", b"x")
                    assert (await session.receive()).payload == b"x"

        asyncio.run(scenario())


CONFIG = """
district = "{district}"
seed = 3
truth = "{folder}/truth.json"
control_port = {control}
clock = {{ wall = {wall}, city = 1781782200000000000, speed = 120.0 }}
sensors = {{ host = "127.0.0.1", port = {broker} }}
broker = {{ host = "127.0.0.1", port = {broker} }}
[cable]
gw-north = 0
"""


def ask(port: int, path: str, method: str = "GET") -> dict[str, object]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        told: dict[str, object] = json.load(answer)
        return told


def test_the_process_runs_the_street_and_stops_in_two_seconds(tmp_path: Path) -> None:
    control = free_port()
    with mosquitto(tmp_path) as broker:
        config = tmp_path / "sim.toml"
        config.write_text(
            CONFIG.format(district=DISTRICT, folder=tmp_path, control=control, wall=time.time_ns(), broker=broker.port)
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "firmware_sim.process", str(config)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            assert any("simulator ready" in line for line in process.stdout)
            items = ask(control, "/actions")["items"]
            assert isinstance(items, list)
            assert {item["id"] for item in items} == {"truck", "theft", "headlights", "flood", "freeze", "cable"}
            assert {item["id"]: item["target"] for item in items}["headlights"].startswith("camera-")
            first = ask(control, "/actions/theft", "POST")
            second = ask(control, "/actions/theft", "POST")
            assert first["started"]
            assert second["started"]
            assert first["target"] != second["target"]
            assert ask(control, "/actions/cable", "POST")["target"] == "gw-north"
            assert not ask(control, "/actions/cable", "POST")["started"]
            with pytest.raises(urllib.error.HTTPError) as missing:
                ask(control, "/truth-status")
            assert missing.value.code == 404
            missing.value.close()
            time.sleep(1)
        finally:
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            rest, _ = process.communicate(timeout=LIMIT_S)
        assert time.monotonic() - began < 2
        assert process.returncode == 0, rest
    truth = json.loads((tmp_path / "truth.json").read_text())
    thefts = [one["devices"][0] for one in truth["incidents"] if one["id"].startswith("visitor-theft")]
    assert thefts == [first["target"], second["target"]]
    assert truth["emitted"]["cover-n1"]["uplinks"] >= 1
    assert [file.name for file in tmp_path.glob("truth.json*")] == ["truth.json"]


@pytest.mark.parametrize(
    ("line", "says_"),
    [
        ('scenario = "blizzard"', "scenario blizzard: none of that name is shipped"),
        ("sead = 1", "unknown key `sead`; did you mean `seed`?"),
        ("bus = { north-9 = 0 }", "bus.north-9"),
        ("cable = { gw-north = 0 }", "cable: a cable needs a `broker`"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_place(tmp_path: Path, line: str, says_: str) -> None:
    config = tmp_path / "sim.toml"
    config.write_text(f'district = "{DISTRICT}"\nseed = 1\ntruth = "{tmp_path}/truth.json"\n{line}\n')
    run = subprocess.run(
        [sys.executable, "-m", "firmware_sim.process", str(config)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert says_ in run.stderr
    assert "Traceback" not in run.stderr
