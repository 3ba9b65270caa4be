"""The servers that the tests and the demo start are what everything else assumes of them."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import aiomqtt
import pytest
from paho.mqtt import MQTTException
from paho.mqtt import publish as paho_publish
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests import servers
from tests.servers import Server, free_port, influx, iotcore_broker, mosquitto

ROOT = Path(__file__).parents[2]
Broker = Callable[[Path], Server]
brokers = pytest.mark.parametrize("broker", [mosquitto, iotcore_broker], ids=lambda broker: broker.__name__)


def client(server: Server, identifier: str, *, clean: bool = True) -> aiomqtt.Client:
    lasting = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    lasting.SessionExpiryInterval = 0 if clean else 3600
    return aiomqtt.Client(
        "127.0.0.1",
        server.port,
        identifier=identifier,
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=clean,
        properties=lasting,
    )


async def sizes(subscriber: aiomqtt.Client, wanted: int) -> list[tuple[int, bool]]:
    """The payload sizes of the next messages, and whether they were retained."""
    found: list[tuple[int, bool]] = []
    async with asyncio.timeout(10):
        async for message in subscriber.messages:
            assert isinstance(message.payload, bytes)
            found.append((len(message.payload), message.retain))
            if len(found) == wanted:
                break
    return found


@brokers
def test_a_broker_carries_large_retained_and_offline_messages(broker: Broker, tmp_path: Path) -> None:
    async def main(server: Server) -> None:
        async with client(server, "publisher") as publisher:
            async with client(server, "keeper", clean=False) as keeper:
                await keeper.subscribe("street/#", qos=1)
                await publisher.publish("street/large", bytes(8 << 20), qos=1)
                assert await sizes(keeper, 1) == [(8 << 20, False)]
            for _ in range(300):
                await publisher.publish("street/offline", bytes(200), qos=1)
            async with client(server, "keeper", clean=False) as keeper:
                assert await sizes(keeper, 300) == [(200, False)] * 300
            await publisher.publish("street/state", b"now", qos=1, retain=True)
        async with client(server, "late") as late:
            await late.subscribe("street/state", qos=1)
            assert await sizes(late, 1) == [(3, True)]

    with broker(tmp_path) as server:
        asyncio.run(main(server))


@brokers
def test_a_killed_broker_comes_back_on_its_port(broker: Broker, tmp_path: Path) -> None:
    async def connect(server: Server) -> None:
        async with client(server, "someone"):
            pass

    with broker(tmp_path) as server:
        asyncio.run(connect(server))
        server.kill()
        with pytest.raises(aiomqtt.MqttError):
            asyncio.run(connect(server))
        server.restart()
        asyncio.run(connect(server))


def test_a_persistent_mosquitto_keeps_messages_over_a_kill_and_knows_its_users(tmp_path: Path) -> None:
    async def publish(server: Server) -> None:
        async with aiomqtt.Client("127.0.0.1", server.port, username="crew", password="secret") as publisher:
            await publisher.publish("street/state", b"kept", qos=1, retain=True)

    async def read(server: Server) -> list[tuple[int, bool]]:
        async with aiomqtt.Client("127.0.0.1", server.port, username="crew", password="secret") as reader:
            await reader.subscribe("street/state", qos=1)
            return await sizes(reader, 1)

    with mosquitto(tmp_path, persistent=True, users={"crew": "secret"}) as server:
        with pytest.raises(MQTTException, match=r"(?i)not authori"):
            paho_publish.single("street/state", b"", hostname="127.0.0.1", port=server.port)
        asyncio.run(publish(server))
        wait_until((tmp_path / "mosquitto.db").exists)  # a PUBACK does not say that it is on the disk
        server.kill()
        server.restart()
        assert asyncio.run(read(server)) == [(4, True)]


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_influx_is_a_1_6_and_keeps_what_it_took_over_a_kill(tmp_path: Path) -> None:
    def call(path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, data=body), timeout=5) as answer:
            content: bytes = answer.read()
            return content

    with influx(tmp_path) as server:
        call("/query?q=CREATE+DATABASE+street", b"")
        call("/write?db=street&precision=ns", b"level,device=a value=1.5 1")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            call("/api/v2/write?bucket=street", b"level value=1 1")
        server.kill()
        server.restart()
        assert b"[[1,1.5]]" in call("/query?db=street&epoch=ns&q=SELECT+value+FROM+level")


def test_the_embedded_broker_ends_with_its_parent(tmp_path: Path) -> None:
    port = free_port()
    parent = (
        "import subprocess, sys, time;"
        f"p = subprocess.Popen([sys.executable, '-m', 'streetwarden.broker', '--port', '{port}']);"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        broker = int(process.stdout.readline())
        watch = os.pidfd_open(broker)
        try:
            wait_until(lambda: servers.accepts(port))
            process.send_signal(signal.SIGKILL)
            ended, _, _ = select.select([watch], [], [], 5.0)
            assert ended
        finally:
            os.close(watch)


def test_a_missing_server_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(servers.Missing, match=r"apt-get install --no-install-recommends influxdb"):
        influx(tmp_path)


def test_a_server_that_does_not_start_shows_its_output(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as first:
        second_folder = tmp_path / "second"
        second_folder.mkdir()
        with (
            pytest.raises(RuntimeError, match="did not start"),
            Server("false", ["/bin/sh", "-c", "echo no luck; exit 3"], free_port(), second_folder),
        ):
            pass
        assert first.process is not None
        assert first.process.poll() is None
