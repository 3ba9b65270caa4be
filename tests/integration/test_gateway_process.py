"""The gateway as an OS process: it starts without its buses, keeps what it reads, and stops when it is told to."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

import streetwarden
from edge.poller import ModbusBus
from gateway import process
from gateway.config import load_config
from rules.declared import Refused
from tests.servers import Server, free_port, mosquitto
from wire.batch import Batch, Status, decode
from wire.session import Broker, Delivery, Session
from wire.topics import Lane, up

GATEWAY = "gw-north"
LIMIT_S = 20.0
DISTRICT = Path(streetwarden.__file__).parent / "district" / "district.toml"


def configured(folder: Path, broker_port: int, extra: str = "") -> Path:
    file = folder / "gateway.toml"
    file.write_text(f"""\
gateway = "{GATEWAY}"
district = "{DISTRICT}"
data = "data"
broker = {{ host = "127.0.0.1", port = {broker_port} }}
buses.north-1 = {{ host = "127.0.0.1", port = {free_port()} }}
buses.north-2 = {{ host = "127.0.0.1", port = {free_port()} }}
{extra}
[clock]
wall = {time.time_ns()}
city = 1781782200000000000
speed = 30.0
""")
    return file


def start(configuration: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "gateway.process", str(configuration)],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


async def until(session: Session, holds: Callable[[Delivery], bool]) -> Delivery:
    async with asyncio.timeout(LIMIT_S):
        while True:
            delivery = await session.receive()
            session.acknowledge(delivery)
            if holds(delivery):
                return delivery


def is_status(delivery: Delivery, *, online: bool) -> bool:
    return delivery.topic == up(GATEWAY, Lane.STATUS) and decode(delivery.payload, Status).online is online


def seqs(deliveries: list[Delivery]) -> set[int]:
    return {decode(delivery.payload, Batch).seq for delivery in deliveries}


def ended(process: "subprocess.Popen[str]") -> str:
    """Wait for the end; what it wrote to standard error."""
    _, text = process.communicate(timeout=LIMIT_S)
    return text


def test_it_tells_its_status_survives_a_kill_and_stops_within_two_seconds(tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        broker = Broker("127.0.0.1", server.port)
        configuration = configured(tmp_path, server.port)
        async with Session(broker, "watcher", [f"streetwarden/v1/{GATEWAY}/up/#"]) as watcher:
            await watcher.wait_connected()
            first = await asyncio.to_thread(start, configuration)
            await until(watcher, lambda d: d.topic == up(GATEWAY, Lane.POINTS))
            one = decode((await until(watcher, lambda d: is_status(d, online=True))).payload, Status)
            # The dead buses are told as samples of bad quality; nobody sends receipts, so they wait.
            before = await until(watcher, lambda d: d.topic.endswith(("/live", "/backfill")))
            first.kill()
            await asyncio.to_thread(ended, first)
            await until(watcher, lambda d: is_status(d, online=False))  # the will

            second = await asyncio.to_thread(start, configuration)
            two = decode((await until(watcher, lambda d: is_status(d, online=True))).payload, Status)
            assert two.boot != one.boot
            await until(watcher, lambda d: d.payload == before.payload)  # byte for byte, by another process
            began = time.monotonic()
            second.send_signal(signal.SIGTERM)
            text = await asyncio.to_thread(ended, second)
            assert time.monotonic() - began < 2.0
            assert second.returncode == 0, text
            await until(watcher, lambda d: is_status(d, online=False))  # the goodbye

    with mosquitto(tmp_path) as server:
        asyncio.run(scenario(server))


def test_a_camera_event_is_acknowledged_only_when_it_is_safe_and_reaches_the_cloud(tmp_path: Path) -> None:
    event = {
        "UtcTime": "2026-06-18T11:30:01Z",
        "Source": {"VideoSource": "1", "Rule": "StandingWater"},
        "Data": {"IsInside": True},
    }

    async def scenario(server: Server) -> None:
        broker = Broker("127.0.0.1", server.port)
        async with (
            Session(broker, "watcher", [up(GATEWAY, Lane.LIVE)]) as watcher,
            Session(broker, "camera", []) as camera,
        ):
            await watcher.wait_connected()
            await camera.wait_connected()
            running = await asyncio.to_thread(start, configured(tmp_path, server.port))
            try:
                topic = "camera-n1/onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&1/2/StandingWater"
                await camera.publish(topic, json.dumps(event).encode(), retain=True)
                batch = await until(watcher, lambda d: 1.0 in decode(d.payload, Batch).block().value)
                assert decode(batch.payload, Batch).gateway == GATEWAY
            finally:
                running.terminate()
                await asyncio.to_thread(ended, running)

    with mosquitto(tmp_path) as server:
        asyncio.run(scenario(server))


def test_without_any_broker_it_runs_and_stops_cleanly(tmp_path: Path) -> None:
    running = start(configured(tmp_path, free_port()))
    assert running.stderr is not None
    for line in running.stderr:
        if "gateway runs" in line:
            break
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    text = ended(running)
    assert time.monotonic() - began < 2.0
    assert running.returncode == 0, text


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ('gateway = "gw-north"', 'gateway = "gw-nort"', "did you mean `gw-north`"),
        ("buses.north-1", "buses.north-3", "did you mean `north-"),
        ("buses.north-1 = ", "# ", "buses.north-1: is missing"),
        ("data = ", "dta = ", "did you mean `data`"),
        ("speed = 30.0", "speed = 0.0", "above 0"),
        ("district.toml", "nowhere.toml", "cannot be read"),
        ('gateway = "gw-north"', 'gateway = "gw-north', "not TOML"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_place_and_cure(
    tmp_path: Path, written: str, instead: str, said: str
) -> None:
    file = configured(tmp_path, 1883)
    file.write_text(file.read_text().replace(written, instead))
    with pytest.raises(Refused, match=said) as refused:
        load_config(file)
    assert refused.value.place


def test_a_refused_configuration_ends_the_process_with_two(tmp_path: Path) -> None:
    running = start(configured(tmp_path, 1883, "tick = 1"))
    assert "did you mean `tick_s`" in ended(running)
    assert running.returncode == 2


def test_a_part_that_fails_takes_the_process_down_with_one_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(ModbusBus, "run", fail)
    try:
        with pytest.raises(SystemExit) as ended_with:
            process.main([str(configured(tmp_path, free_port()))])
    finally:
        structlog.reset_defaults()
    assert ended_with.value.code == 1
    said = capsys.readouterr().err
    assert "gateway failed" in said
    assert "planted" in said
