"""Operators' platforms push by real HTTPS to a real gateway process, which dies and stops at the worst moments."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge.drivers.push import BODY_S, HEADER_S
from gateway.config import load_config
from rules.declared import Refused
from tests.servers import Server, free_port
from wire.batch import Batch, decode

TOKEN = "p-Zq8cW2r0"
ROOT = Path(__file__).parents[2]
DISTRICT = """\
id = "small"
name = { zh = "小区", en = "Small" }
gateway = [{ id = "gw-centre", name = { zh = "中心", en = "Centre" } }]
bus = []
[[unit]]
id = "everything"
name = { zh = "综合养护组", en = "Everything" }
functions = ["covers"]
[[site]]
id = "road"
name = { zh = "路", en = "Road" }
kind = "road"
territory = "all"
outline = [[121.38, 31.24], [121.41, 31.24], [121.41, 31.26], [121.38, 31.24]]
[[device]]
id = "cover-1"
kind = "manhole_cover"
profile = "ctwing_cover"
gateway = "gw-centre"
site = "road"
asset = "1"
component = "0102"
lon = 121.39
lat = 31.25
wire = { by = "push", platform = "ctwing", device = "0001" }
install = { background_tilt_deg = 0.0 }
"""
PLATFORM = '[push.platforms.ctwing]\nhow = "query"\nsecret_env = "CTWING_TOKEN"\n'
TLS = 'certificate = "push.crt"\nkey = "push.key"\n'
EVERYWHERE = f'host = "0.0.0.0"\n{TLS}{PLATFORM}'
LOOPBACK = f'host = "127.0.0.1"\n{PLATFORM}'


class Centre:
    """A gateway without any broker, whose outbox keeps what it took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}/push/ctwing"
        (folder / "district.toml").write_text(DISTRICT, "utf-8")
        self._certify()
        self.trust = ssl.create_default_context(cafile=str(folder / "push.crt"))

    def _certify(self) -> None:
        asked = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
        asked += ["-days", "2", "-subj", "/CN=push", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", str(self.folder / "push.key"), "-out", str(self.folder / "push.crt")]
        subprocess.run([*asked, *files], check=True, capture_output=True)

    def configured(self, tick_s: float = 0.05, push: str = EVERYWHERE) -> Path:
        file = self.folder / "gateway.toml"
        broker = f'broker = {{ host = "127.0.0.1", port = {free_port()} }}'
        head = f'gateway = "gw-centre"\ndistrict = "district.toml"\ndata = "data"\ntick_s = {tick_s}\n{broker}\n'
        file.write_text(f"{head}[push]\nport = {self.port}\n{push}" if push else head)
        return file

    @contextlib.contextmanager
    def running(self, tick_s: float = 0.05, push: str = EVERYWHERE) -> Iterator[Server]:
        log = self.folder / "gateway.log"
        log.unlink(missing_ok=True)
        command = ["/usr/bin/env", f"PYTHONPATH={ROOT}", f"CTWING_TOKEN={TOKEN}", sys.executable, "-m"]
        command += ["gateway.process", str(self.configured(tick_s, push))]
        ready = lambda _: "push listens" in log.read_text()  # noqa: E731 - it is one
        with Server("gateway", command, self.port, self.folder, ready) as server:
            yield server

    def platform(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=self.trust, params={"token": TOKEN}, trust_env=False, timeout=20.0)

    def stored(self) -> list[tuple[int, float]]:
        """The times (ms) and angles of every sample in the outbox."""
        file = self.folder / "data" / "outbox.sqlite"
        if not file.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT payload FROM batch WHERE lane = 'live'").fetchall()
        blocks = [decode(payload, Batch).block() for (payload,) in rows]
        return [
            (int(at) // 10**6, float(value))
            for block in blocks
            for point, at, value in zip(block.point, block.taken_at, block.value, strict=True)
            if point == 0
        ]


@pytest.fixture
def centre(tmp_path: Path) -> Centre:
    return Centre(tmp_path)


def message(at_ms: int, angle: float) -> dict[str, object]:
    return {"deviceId": "0001", "timestamp": at_ms, "messageType": "dataReport", "payload": {"lean_angle": angle}}


def now_ms() -> int:
    return time.time_ns() // 10**6


def test_a_gateway_killed_between_a_push_and_its_answer_has_it_exactly_once(centre: Centre) -> None:
    before, after, alone = now_ms() - 3000, now_ms() - 2000, now_ms() - 1000

    async def dies_before_it_is_safe(server: Server) -> None:
        """Its next tick is a minute off: nothing can be safe, and the platform gets no answer."""
        async with centre.platform() as platform:
            waiting = asyncio.create_task(platform.post(centre.url, json=message(before, 1.0)))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.kill)
            try:
                answer = await waiting
            except httpx.TransportError:
                return
            assert answer.status_code == 503  # on a machine so slow that the platform was put off by then

    async def dies_when_it_is_safe() -> None:
        """The platform goes away without an answer, which is as if it had been lost."""
        async with centre.platform() as platform:
            assert (await platform.post(centre.url, json=message(before, 1.0))).status_code == 200  # its second try
            body = json.dumps(message(after, 2.0)).encode()
            _, writer = await asyncio.open_connection("127.0.0.1", centre.port, ssl=centre.trust)
            head = f"POST /push/ctwing?token={TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            async with asyncio.timeout(20):
                while (after, 2.0) not in await asyncio.to_thread(centre.stored):  # noqa: ASYNC110 - from outside
                    await asyncio.sleep(0.01)
            writer.transport.abort()

    async def repeats() -> None:
        async with centre.platform() as platform:
            assert (await platform.post(centre.url, json=message(before, 1.0))).status_code == 200
            both = [message(after, 2.0), message(alone, 3.0)]
            assert (await platform.post(centre.url, json=both)).status_code == 200
            assert (await platform.post(centre.url, json=both)).status_code == 200

    with centre.running(tick_s=60.0) as server:
        asyncio.run(dies_before_it_is_safe(server))
    with centre.running() as server:
        asyncio.run(dies_when_it_is_safe())
        server.kill()
    with centre.running():
        asyncio.run(repeats())
    assert sorted(centre.stored()) == [(before, 1.0), (after, 2.0), (alone, 3.0)]


def test_it_answers_only_over_tls_and_only_to_who_shows_the_secret(centre: Centre) -> None:
    async def scenario() -> None:
        async with httpx.AsyncClient(trust_env=False) as plain:
            with pytest.raises(httpx.TransportError):
                await plain.post(f"http://127.0.0.1:{centre.port}/push/ctwing?token={TOKEN}", json=message(1, 1.0))
        async with httpx.AsyncClient(verify=centre.trust, trust_env=False) as stranger:
            assert (await stranger.post(centre.url, json=message(1, 1.0))).status_code == 401

    with centre.running() as server:
        asyncio.run(scenario())
        log = server.output()
    assert "edge_unauthorised_pushes_total" in log
    assert TOKEN not in log
    assert centre.stored() == []


def test_it_stops_in_bounded_time_and_what_was_under_way_is_answered_or_cut(centre: Centre) -> None:
    """One connection only waits, one has sent half a message: neither holds the process up."""

    async def scenario(server: Server) -> float:
        process = server.process
        assert process is not None
        async with centre.platform() as platform:
            assert (await platform.post(centre.url, json=message(now_ms(), 1.0))).status_code == 200
            _, writer = await asyncio.open_connection("127.0.0.1", centre.port, ssl=centre.trust)
            writer.write(f"POST /push/ctwing?token={TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
            await writer.drain()
            await asyncio.sleep(0.2)  # it has arrived
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 20)
            took = time.monotonic() - began
            writer.transport.abort()
        assert process.returncode == 0, server.output()
        return took

    with centre.running() as server:
        assert asyncio.run(scenario(server)) < BODY_S - 2.0  # so it did not wait for the other half


def test_silent_connections_keep_a_push_out_for_no_longer_than_their_deadline(centre: Centre) -> None:
    async def scenario() -> float:
        silent = [await asyncio.open_connection("127.0.0.1", centre.port) for _ in range(300)]
        began = time.monotonic()
        async with centre.platform() as platform:
            url = centre.url.replace("https", "http")
            assert (await platform.post(url, json=message(1, 1.0))).status_code == 503
            async with asyncio.timeout(HEADER_S + 30.0):
                await asyncio.gather(*(reader.read() for reader, _ in silent), return_exceptions=True)
            took = time.monotonic() - began
            assert (await platform.post(url, json=message(1, 1.0))).status_code == 200
        for _, writer in silent:
            writer.transport.abort()
        return took

    with centre.running(push=LOOPBACK) as server:
        assert asyncio.run(scenario()) < HEADER_S + 10.0
        assert "edge_push_idle_connections_total" in server.output()


@pytest.mark.parametrize(
    ("push", "why"),
    [
        ("", "push: is missing, but cover-1 is pushed"),
        (f'host = "0.0.0.0"\n{PLATFORM}', "`certificate` and `key` are needed"),
        (f'host = "127.0.0.1"\n{PLATFORM.replace("ctwing", "onenet")}', "push.platforms.ctwing: is missing"),
        (f'host = "127.0.0.1"\n{PLATFORM.replace("query", "secret")}', "how"),
        (f'host = "127.0.0.1"\n{PLATFORM}token = "x"\n', "unknown key `push.platforms.*token`"),
        (f'host = "127.0.0.1"\n{PLATFORM.replace("CTWING", "NO")}', "the environment variable NO_TOKEN is empty"),
        (f'host = "127.0.0.1"\n{TLS.replace("push.key", "push.crt")}{PLATFORM}', "push.certificate: is not in order"),
        (f'host = "127.0.0.1"\n{TLS.replace("push.crt", "none")}{PLATFORM}', "push.certificate: is not in order"),
    ],
)
def test_a_wrong_configuration_is_refused(centre: Centre, push: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "CTWING_TOKEN", TOKEN)
    assert load_config(centre.configured()).push is not None
    with pytest.raises(Refused, match=why) as refused:
        load_config(centre.configured(push=push))
    assert TOKEN not in str(refused.value)
