"""The broker as ``compose.yaml`` starts it, with the files it mounts, on this machine's Mosquitto."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import pytest
from paho.mqtt import MQTTException, publish
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.servers import Server, free_port, mosquitto

DEPLOY = Path(__file__).parents[2] / "deploy"
ACCOUNTS = {"CLOUD_PASSWORD": "c", "GW_NORTH_PASSWORD": "n", "GW_SOUTH_PASSWORD": "s", "SENSORS_PASSWORD": "x"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The mounted files, with their paths moved into a folder of the test's own."""
    folder, port = tmp_path_factory.mktemp("broker"), free_port()
    mosquitto(folder)  # names the package where it is missing; its files are overwritten
    moved = {
        "/run/mosquitto/": f"{folder}/",
        "/mosquitto/config/": f"{folder}/",
        "/mosquitto/data/": f"{folder}/",
        "listener 1883": f"listener {port} 127.0.0.1" + ("\nuser root" if os.geteuid() == 0 else ""),
    }
    for name, target in {
        "mosquitto.conf": "mosquitto.conf",
        "mosquitto.acl": "acl",
        "mosquitto.sh": "start.sh",
    }.items():
        text = (DEPLOY / name).read_text()
        for here, there in moved.items():
            text = text.replace(here, there)
        (folder / target).write_text(text)
    path = f"{os.environ['PATH']}:/usr/sbin"
    command = ["/usr/bin/env", f"PATH={path}", *(f"{k}={v}" for k, v in ACCOUNTS.items()), "/bin/sh", "start.sh"]
    with Server("deployed-mosquitto", command, port, folder) as server:
        yield server


@pytest.mark.parametrize(
    ("speaker", "hearer", "topic"),
    [
        (("gw-north", "n"), ("cloud", "c"), "streetwarden/v1/gw-north/up/alert"),
        (("cloud", "c"), ("gw-south", "s"), "streetwarden/v1/gw-south/down/receipt"),
        (("sensors", "x"), ("gw-south", "s"), "application/street/device/24e124/event/up"),
        (("sensors", "x"), ("gw-north", "n"), "camera-n1/onvif-ej/RuleEngine/FieldDetector"),
        (("sensors", "x"), ("gw-north", "n"), "v3/covers/devices/cover-1/up"),
        (("sensors", "x"), ("gw-south", "s"), "frigate/reviews"),
        (("sensors", "x"), ("gw-south", "s"), "spBv1.0/street/NBIRTH/node-1"),
        (("gw-south", "s"), ("sensors", "x"), "spBv1.0/street/NCMD/node-1"),
        (("gw-south", "s"), ("sensors", "x"), "spBv1.0/STATE/gw-south"),
        (("cloud", "c"), ("gw-north", "n"), "streetwarden/v1/gw-north/down/command"),
    ],
)
def test_what_must_pass_passes(speaker: tuple[str, str], hearer: tuple[str, str], topic: str, broker: Server) -> None:
    assert asyncio.run(_heard(broker, speaker, hearer, topic))


@pytest.mark.parametrize(
    ("speaker", "hearer", "topic"),
    [
        (("gw-south", "s"), ("cloud", "c"), "streetwarden/v1/gw-north/up/alert"),
        (("sensors", "x"), ("cloud", "c"), "streetwarden/v1/gw-north/up/alert"),
        (("gw-north", "n"), ("gw-south", "s"), "streetwarden/v1/gw-south/down/receipt"),
        (("cloud", "c"), ("gw-north", "n"), "streetwarden/v1/gw-south/down/receipt"),
        (("gw-north", "n"), ("sensors", "x"), "spBv1.0/STATE/gw-south"),
        (("gw-north", "n"), ("gw-south", "s"), "streetwarden/v1/gw-south/down/command"),
    ],
)
def test_nobody_speaks_or_hears_for_another(
    speaker: tuple[str, str], hearer: tuple[str, str], topic: str, broker: Server
) -> None:
    assert not asyncio.run(_heard(broker, speaker, hearer, topic))


@pytest.mark.parametrize("password", [None, "wrong"])
def test_nobody_enters_without_a_password(password: str | None, broker: Server) -> None:
    with pytest.raises(MQTTException, match=r"(?i)not authori"):
        publish.single(
            "street/state",
            b"",
            hostname="127.0.0.1",
            port=broker.port,
            auth={"username": "cloud", "password": password} if password else None,
        )


def test_no_password_stands_in_the_file_in_clear(broker: Server) -> None:
    written = (broker.folder / "passwords").read_text()
    assert all(line.split(":")[1].startswith("$7$") for line in written.splitlines())
    assert (broker.folder / "passwords").stat().st_mode & 0o077 == 0


async def _heard(broker: Server, speaker: tuple[str, str], hearer: tuple[str, str], topic: str) -> bool:
    """Whether what the one publishes reaches the other."""
    async with aiomqtt.Client("127.0.0.1", broker.port, username=hearer[0], password=hearer[1]) as other:
        try:
            await other.subscribe(topic, qos=1)
        except aiomqtt.MqttCodeError:
            return False
        await asyncio.to_thread(_speak, broker, speaker, topic)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                async for message in other.messages:
                    return message.payload == b"word"
    return False


def _speak(broker: Server, speaker: tuple[str, str], topic: str) -> None:
    """Publish once, whatever comes of it: Debian's Mosquitto ends the connection of one who may not."""
    client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
    client.username_pw_set(*speaker)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    client.publish(topic, b"word", qos=1).wait_for_publish(0.5)
    client.disconnect()
    client.loop_stop()
