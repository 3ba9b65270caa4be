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

import firmware_sim
from edge.poller import ModbusBus
from firmware_sim.cable import Cable
from gateway import process
from gateway.config import declared_of, load_config
from rules.alert import Phase
from rules.declared import Refused
from tests.servers import Server, free_port, mosquitto
from wire.batch import Batch, Status, decode
from wire.clock import NANOSECONDS, iso
from wire.session import Broker, Delivery, Session
from wire.topics import Lane, up

GATEWAY = "gw-north"
LIMIT_S = 20.0
DISTRICT = Path(firmware_sim.__file__).parent / "districts" / "bluestone.toml"


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


@pytest.mark.parametrize("outage", ["gateway", "broker"])
def test_what_waited_at_the_broker_is_judged_in_its_time_and_stored_once(tmp_path: Path, outage: str) -> None:
    """A truck over a cover while the gateway or its way to the sensors is down: the recovery waits for longer."""
    lid = "application/17c82e96-be03-4f38-aef3-f83d48582d97/device/24e124136b000042/event/up"
    water = "camera-n1/onvif-ej/RuleEngine/FieldDetector/ObjectsInside/&1/2/StandingWater"

    def uplink(at: int, angle: float) -> bytes:
        return json.dumps({"time": iso(at), "object": {"angle_x": angle, "angle_y": -0.8, "angle_z": 0.0}}).encode()

    def event(at: int) -> bytes:
        source = {"VideoSource": "1", "Rule": "StandingWater"}
        return json.dumps({"UtcTime": iso(at), "Source": source, "Data": {"IsInside": False}}).encode()

    async def scenario(server: Server) -> None:
        broker = Broker("127.0.0.1", server.port)
        cable = Cable(GATEWAY, "127.0.0.1", server.port)
        async with cable.door.open():
            sensors = f'sensors = {{ host = "127.0.0.1", port = {cable.door.port} }}'
            configuration = configured(tmp_path, server.port, sensors)
            config = load_config(configuration)
            clock, points = config.clock, declared_of(config).table.points
            heard: dict[int, Batch] = {}

            def is_of_camera(batch: Batch) -> bool:
                return batch.samples is not None and any(
                    points[point].device == "camera-n1" for point in batch.block().point
                )

            def tells(phase: Phase) -> Callable[[Batch], bool]:
                return lambda batch: any(
                    step.device == "cover-n1" and step.phase is phase for step in batch.transitions
                )

            async def until_heard(watcher: Session, holds: Callable[[Batch], bool]) -> None:
                def is_it(delivery: Delivery) -> bool:
                    if not delivery.topic.endswith(("/alert", "/live", "/backfill")):
                        return False
                    batch = decode(delivery.payload, Batch)
                    return holds(heard.setdefault(batch.seq, batch))

                await until(watcher, is_it)

            async with (
                Session(broker, "watcher", [f"streetwarden/v1/{GATEWAY}/up/#"]) as watcher,
                Session(broker, "street", []) as street,
            ):
                await watcher.wait_connected()
                await street.wait_connected()
                running = await asyncio.to_thread(start, configuration)
                try:
                    await until(watcher, lambda d: is_status(d, online=True))
                    await street.publish(water, event(clock.now()), retain=True)
                    await until_heard(watcher, is_of_camera)  # it has subscribed
                    opened_at = clock.now()
                    await street.publish(lid, uplink(opened_at, 72.0))
                    await until_heard(watcher, tells(Phase.PENDING))
                    if outage == "gateway":
                        running.kill()
                        await asyncio.to_thread(ended, running)
                    else:
                        cable.cut()
                    await clock.sleep_until(opened_at + 25 * NANOSECONDS)
                    await street.publish(lid, uplink(opened_at + 25 * NANOSECONDS, 0.6))
                    await clock.sleep_until(opened_at + 90 * NANOSECONDS)
                    if outage == "gateway":
                        running = await asyncio.to_thread(start, configuration)
                    else:
                        cable.restore()
                    await until_heard(watcher, tells(Phase.LAPSED))
                    # And what is said from now on counts on again, by time alone.
                    await street.publish(lid, uplink(clock.now(), 72.0))
                    await until_heard(watcher, tells(Phase.RAISED))
                finally:
                    running.kill()
                    await asyncio.to_thread(ended, running)

        told = [step for batch in heard.values() for step in batch.transitions if step.device == "cover-n1"]
        told.sort(key=lambda step: (step.since, step.revision))
        assert [step.phase for step in told] == [Phase.PENDING, Phase.LAPSED, Phase.PENDING, Phase.RAISED]
        assert abs(told[1].decided_at - opened_at - 25 * NANOSECONDS) < NANOSECONDS
        blocks = [batch.block() for batch in heard.values() if batch.samples is not None]
        stored = [key for block in blocks for key in zip(block.point.tolist(), block.taken_at.tolist(), strict=True)]
        assert len(stored) == len(set(stored))
        of = [(points[point].device, points[point].metric) for point, _ in stored]
        assert of.count(("camera-n1", "standing_water")) == 1

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
        ("bluestone.toml", "nowhere.toml", "cannot be read"),
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


def test_two_buses_at_one_endpoint_are_refused(tmp_path: Path) -> None:
    file = configured(tmp_path, 1883)
    first, second = (line for line in file.read_text().splitlines() if line.startswith("buses."))
    port = second.partition("port = ")[2].partition(" ")[0]
    file.write_text(file.read_text().replace(first, second.replace("north-2", "north-1")))
    with pytest.raises(Refused, match=f"is at 127.0.0.1:{port}, and so is `north-1`; declare one bus") as refused:
        load_config(file)
    assert refused.value.place.endswith("buses.north-2")


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
