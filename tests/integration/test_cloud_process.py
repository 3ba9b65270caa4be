"""The cloud as a process, with a real broker: an alert batch in, an order out, a stop in time."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from rules.alert import Phase
from tests.desk_city import CATALOG, DISTRICT, START, told
from tests.servers import Server, free_port, mosquitto
from wire.batch import CONTENT_TYPE, Batch, encode
from wire.session import Broker, Session
from wire.topics import Lane, up

ROOT = Path(__file__).parents[2]


def _cloud(folder: Path, broker: int, more: str = "") -> Server:
    port = free_port()
    (folder / "rules").mkdir(exist_ok=True)
    (folder / "rules" / "test.toml").write_text(CATALOG, encoding="utf-8")
    configuration = folder / "cloud.toml"
    configuration.write_text(f"""
district = "{DISTRICT}"
data = "data"
rules = "rules"
broker = {{ host = "127.0.0.1", port = {broker} }}
http = {{ port = {port} }}
clock = {{ wall = {time.time_ns()}, city = {START}, speed = 1.0 }}
{more}
""")
    os.environ["PYTHONPATH"] = str(ROOT)
    return Server("cloud", [sys.executable, "-m", "cloud.process", str(configuration)], port, folder)


def test_an_alert_becomes_an_order_and_the_process_stops_in_time(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker, _cloud(tmp_path, broker.port) as cloud:

        async def story() -> None:
            step = told("cover.open", "cover-n1", Phase.RAISED, "open", 0, 1)
            batch = Batch("gw-north", "boot", 1, 1, 0, "", True, transitions=(step,))
            async with (
                Session(Broker("127.0.0.1", broker.port, None, None), "gw-north", []) as gateway,
                httpx.AsyncClient(base_url=cloud.url, trust_env=False) as client,
                client.stream("GET", "/api/v1/stream", headers={"Last-Event-ID": "0"}) as stream,
            ):
                await gateway.wait_connected()
                await gateway.publish(up("gw-north", Lane.ALERT), encode(batch), content_type=CONTENT_TYPE)
                async with asyncio.timeout(5):
                    async for line in stream.aiter_lines():
                        if line == "event: work_order":
                            break
                (order,) = (await client.get("/api/v1/work-orders")).json()["items"]
                assert (order["device"], order["state"]) == ("cover-n1", "dispatched")
                # The stream is still open: it must not keep the process from stopping.
                assert cloud.process is not None
                began = time.monotonic()
                cloud.process.terminate()
                status = await asyncio.to_thread(cloud.process.wait, 5.0)
                assert (status, time.monotonic() - began < 2.0) == (0, True)

        asyncio.run(story())


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("distrct = 'x'", "unknown key `distrct`; did you mean `district`?"),
        ("district = 'nowhere.toml'\ndata = 'd'\nbroker = { host = 'h', port = 1 }", "nowhere.toml: cannot be read"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_place(tmp_path: Path, written: str, said: str) -> None:
    configuration = tmp_path / "cloud.toml"
    configuration.write_text(written)
    command = [sys.executable, "-m", "cloud.process", str(configuration)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("refused: ")
    assert said in ended.stderr
