"""How InfluxDB is spoken to: ``/api/v2/write`` for 1.8, 2.x and 3, ``/write`` before, and what its answers mean.

No 2.x or 3 server can be had here, so a small HTTP stand-in plays them: it notes every request and answers as those
servers' documentation says. The dead letters and the halving are shown on the real 1.6 too.
"""

import asyncio
import json
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import select

from cloud.store import Store
from cloud.timeseries.influx import InfluxTimeSeries
from cloud.timeseries.influx_server import Address, read_address
from cloud.timeseries.ledger import dead_letter
from cloud.timeseries.port import Misconfigured, Retry, SampleBatch
from tests.ingesting import HOUR_0, T0, TABLE, sample_batch
from tests.servers import influx

Answer = tuple[int, str, dict[str, str]]

LINES = (
    f"reading,device=level-s1,gateway=gw-north level=0.5 {T0 + 60 * 10**9}\n"
    f"reading,device=level-s1,gateway=gw-north level=0.75 {T0 + 61 * 10**9}"
)


class StandIn(ThreadingHTTPServer):
    """Plays an InfluxDB of one version: notes what it is asked, and answers writes as ``on_write`` says."""

    daemon_threads = True

    def __init__(self, version: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.version = version
        self.asked: list[tuple[str, str, dict[str, list[str]], dict[str, str], str]] = []
        self.buckets: list[str] = []
        self.on_write: Callable[[str], Answer] = lambda _body: (204, "", {})

    @property
    def writes(self) -> list[str]:
        return [body for method, path, _, _, body in self.asked if method == "POST" and path.endswith("write")]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: str) -> Answer:
        match method, path:
            case _, "/ping":
                return 204, "", {"X-Influxdb-Version": self.version}
            case "POST", "/query":
                return 200, '{"results":[{"statement_id":0}]}', {"Content-Type": "application/json"}
            case "GET", "/api/v2/buckets":
                found = [{"name": name, "retentionRules": []} for name in self.buckets if [name] == query["name"]]
                return 200, json.dumps({"buckets": found}), {"Content-Type": "application/json"}
            case "GET", "/api/v2/orgs":
                return 200, '{"orgs":[{"id":"0123456789abcdef","name":"city"}]}', {"Content-Type": "application/json"}
            case "POST", "/api/v2/buckets":
                self.buckets.append(json.loads(body)["name"])
                return 201, json.dumps({"name": self.buckets[-1], "retentionRules": []}), {}
            case "POST", "/write" | "/api/v2/write":
                return self.on_write(body)
        return 404, "not found", {}


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        query, told = parse_qs(parts.query), {name.title(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, parts.path, query, told, body))
        status, words, headers = self.server.answer(self.command, parts.path, query, body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(words)))
        self.end_headers()
        self.wfile.write(words.encode())

    do_GET = do_POST = _serve  # noqa: N815 - the parent's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Say nothing."""


@pytest.fixture
def stand_in(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    server = StandIn(getattr(request, "param", "v2.7.11"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@asynccontextmanager
async def opened(address: Address, folder: Path) -> AsyncIterator[tuple[InfluxTimeSeries, Store]]:
    async with Store(folder / "relational.sqlite") as store:
        timeseries = InfluxTimeSeries(address, store)
        try:
            yield timeseries, store
        finally:
            await timeseries.close()


def samples(seq: int, *values: float) -> SampleBatch:
    return SampleBatch("gw-north", seq, HOUR_0, TABLE, sample_batch(seq, *values).block())


def write(stand_in: StandIn, folder: Path, user: str = ":s3cret@", *batches: SampleBatch) -> None:
    async def main() -> None:
        address = read_address(f"influx://{user}127.0.0.1:{stand_in.server_port}/city?org=district")
        async with opened(address, folder) as (timeseries, _):
            await timeseries.write(batches or [samples(1, 0.5, 0.75)])

    asyncio.run(main())


@pytest.mark.parametrize("stand_in", ["v2.7.11", "3.2.1"], indirect=True)
def test_2_and_3_are_written_at_api_v2_with_a_token(stand_in: StandIn, tmp_path: Path) -> None:
    write(stand_in, tmp_path)
    method, path, query, headers, body = stand_in.asked[-1]
    assert (method, path) == ("POST", "/api/v2/write")
    assert query == {"bucket": ["city"], "org": ["district"], "precision": ["ns"]}
    assert headers["Authorization"] == "Token s3cret"
    assert body == LINES


def test_2_makes_its_bucket_once(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.buckets = ["another"]
    for _ in range(2):
        write(stand_in, tmp_path)
    assert stand_in.buckets == ["another", "city"]


@pytest.mark.parametrize("stand_in", ["1.8.10"], indirect=True)
def test_1_8_is_written_at_api_v2_with_name_and_password(stand_in: StandIn, tmp_path: Path) -> None:
    write(stand_in, tmp_path, "writer:s3cret@")
    assert ("POST", "/query") in [(method, path) for method, path, *_ in stand_in.asked]  # CREATE DATABASE
    method, path, query, headers, body = stand_in.asked[-1]
    assert (method, path, query["bucket"]) == ("POST", "/api/v2/write", ["city"])
    assert headers["Authorization"] == "Token writer:s3cret"
    assert body == LINES


@pytest.mark.parametrize("stand_in", ["1.6.7~rc0"], indirect=True)
def test_before_1_8_it_is_written_at_write(stand_in: StandIn, tmp_path: Path) -> None:
    write(stand_in, tmp_path, "writer:s3cret@")
    method, path, query, headers, body = stand_in.asked[-1]
    assert (method, path) == ("POST", "/write")
    assert query == {"db": ["city"], "precision": ["n"]}
    assert headers["Authorization"] == "Basic d3JpdGVyOnMzY3JldA=="
    assert body == LINES


@pytest.mark.parametrize("stand_in", ["9000", ""], indirect=True)
def test_a_server_that_is_no_influxdb_is_a_configuration_error(stand_in: StandIn, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no InfluxDB that we know"):
        write(stand_in, tmp_path)


@pytest.mark.parametrize("stand_in", ["v2.7.11", "1.6.7"], indirect=True)
@pytest.mark.parametrize(
    ("answer", "error", "after_s"),
    [
        ((500, "engine: closed", {}), Retry, None),
        ((503, "busy", {"Retry-After": "7"}), Retry, 7.0),
        ((429, "limit", {"Retry-After": "3"}), Retry, 3.0),
        ((401, "unauthorized", {}), Misconfigured, None),
        ((403, "forbidden", {}), Misconfigured, None),
        ((404, "database not found", {}), Misconfigured, None),
    ],
)
def test_an_answer_says_what_to_do(
    stand_in: StandIn, tmp_path: Path, answer: Answer, error: type[Exception], after_s: float | None
) -> None:
    stand_in.on_write = lambda _body: answer
    with pytest.raises(error, match=answer[1]) as raised:
        write(stand_in, tmp_path)
    assert getattr(raised.value, "after_s", None) == after_s
    assert len(stand_in.writes) == 1  # the caller retries, not the client


@pytest.mark.parametrize("stand_in", ["v2.7.11", "1.6.7"], indirect=True)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_poison_is_found_by_halving_and_parked_with_the_servers_words(
    stand_in: StandIn, tmp_path: Path, status: int
) -> None:
    taken: list[str] = []

    def on_write(body: str) -> Answer:
        if "=13.0 " in body or "=77.0 " in body:
            return status, "it is cursed", {}
        taken.extend(body.split("\n"))
        return 204, "", {}

    stand_in.on_write = on_write
    batch = samples(1, *map(float, range(100)))

    async def main() -> None:
        address = read_address(f"influx://127.0.0.1:{stand_in.server_port}/city")
        async with opened(address, tmp_path) as (timeseries, store):
            assert await timeseries.write([batch]) == {batch.key}
            dead = await store.read(lambda c: c.execute(select(dead_letter.c.line, dead_letter.c.why)).all())
            assert [line.split("=")[3].split()[0] for line, _ in dead] == ["13.0", "77.0"]
            assert all("it is cursed" in why for _, why in dead)
            assert await timeseries.write([batch]) == set()  # it is not tried again

    asyncio.run(main())
    assert len(set(taken)) == 98
    assert len(stand_in.writes) < 40


def test_a_real_server_refuses_a_line_and_keeps_the_others(tmp_path: Path) -> None:
    async def main(port: int) -> None:
        address = read_address(f"influx://127.0.0.1:{port}/city")
        async with opened(address, tmp_path) as (timeseries, store):
            await timeseries.write([samples(1, 1.0)])
            words = f'reading,device=lamp-1,gateway=gw-north power="much" {T0}'
            place = f"http://127.0.0.1:{port}/write?db=city"
            await asyncio.to_thread(lambda: urllib.request.urlopen(place, words.encode()).close())
            block = sample_batch(2, 60.0, point=1).block()  # `power` is a text in this shard now
            batch = SampleBatch("gw-north", 2, HOUR_0, TABLE, block)
            assert await timeseries.write([batch, samples(3, 3.0)]) == {batch.key, ("gw-north", 3)}
            (dead,) = await store.read(lambda c: c.execute(select(dead_letter.c.line, dead_letter.c.why)).all())
            assert dead.line.startswith("reading,device=lamp-1")
            assert "field type conflict" in dead.why
            assert (await timeseries.read("level-s1", "level", 0, 2**63 - 1)).value.tolist() == [1.0, 3.0]

    with influx(tmp_path) as server:
        asyncio.run(main(server.port))


def test_a_password_stays_out_of_errors(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.on_write = lambda _body: (401, "unauthorized", {})
    with pytest.raises(Misconfigured) as raised:
        write(stand_in, tmp_path)
    assert "s3cret" not in str(raised.value)
