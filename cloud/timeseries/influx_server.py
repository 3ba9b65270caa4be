"""One InfluxDB server over HTTP. Blocking: it is called from a thread.

Lines go to ``/api/v2/write`` through influxdb-client (1.8, 2.x, 3) or to ``/write`` (1.x before 1.8), chosen when we
connect, by the version that ``/ping`` tells. Reads are InfluxQL at ``/query``, which all of them answer.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import msgspec
import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

from cloud.timeseries.port import Misconfigured, Retry
from rules.declared import Refused

TIMEOUT_S = 10.0
_FIRST_WITH_V2_WRITE = (1, 8)
_MALFORMED = {400, 413, 422}
_CONFIGURATION = {401, 403, 404}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Poison(Exception):  # noqa: N818 - the caller should not send it again
    """The server will not take all of these lines, in its own words; it may have stored the others."""


class Address(msgspec.Struct, frozen=True):
    """Where a server is and what it shall be called with: ``influx://[user:token@]host:port/database?org=``."""

    url: str
    database: str
    user: str = ""
    token: str = ""
    org: str = "-"


class Found(msgspec.Struct):
    """One series of an InfluxQL answer: rows as the columns say; times are nanoseconds."""

    columns: list[str]
    values: list[list[Any]] = []
    tags: dict[str, str] = {}


class _Statement(msgspec.Struct):
    series: list[Found] = []
    error: str | None = None


class _Answer(msgspec.Struct):
    results: list[_Statement] = []


def read_address(url: str) -> Address:
    """Take an ``influx://`` address apart; ``Refused`` says what it looks like."""
    parts = urlsplit(url)
    database = unquote(parts.path.strip("/"))
    if parts.hostname is None or not database:
        raise Refused(
            "time-series store", f"`{url}` lacks something; write influx://user:token@host:port/database?org=name"
        )
    return Address(
        f"http://{parts.hostname}:{parts.port or 8086}",
        database,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        parse_qs(parts.query).get("org", ["-"])[0],
    )


class InfluxServer:
    """A server that answered ``/ping``, with its database in place."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._pool = urllib3.PoolManager(retries=False, timeout=TIMEOUT_S)
        self._authorization = _authorization(address)
        self.version = _version(self._request("GET", "/ping").headers.get("X-Influxdb-Version", ""))
        self._client: InfluxDBClient | None = None
        self._write = self._write_v1
        if self.version >= _FIRST_WITH_V2_WRITE:
            token = f"{address.user}:{address.token}" if self.version[0] < 2 else address.token
            self._client = InfluxDBClient(address.url, token, timeout=int(TIMEOUT_S * 1000), org=address.org)
            self._writing = self._client.write_api(write_options=SYNCHRONOUS)
            self._write = self._write_v2
        self._create_database()

    def write(self, lines: list[str]) -> None:
        """Store lines; when this returns they are on disk. ``Poison``, ``Retry`` or ``Misconfigured`` otherwise."""
        self._write("\n".join(lines))

    def query(self, statements: str) -> list[list[Found]]:
        """Ask InfluxQL; the series of each statement."""
        body = urlencode({"q": statements, "db": self._address.database, "epoch": "ns"})
        answer = self._request("POST", "/query", body.encode(), _FORM)
        results = msgspec.json.decode(answer.data, type=_Answer).results
        for result in results:
            if result.error:
                raise Misconfigured(f"{self._address.url} refused a query: {result.error}")
        return [result.series for result in results]

    def close(self) -> None:
        self._pool.clear()
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]

    def _create_database(self) -> None:
        """Make sure that the database is there; 3 makes its own at the first write."""
        if self.version[0] < 2:
            name = self._address.database.replace('"', r"\"")
            self.query(f'CREATE DATABASE "{name}"')
        elif self.version[0] == 2 and self._client is not None:
            with _judged(self._address.url):
                buckets = self._client.buckets_api()
                known = buckets.find_bucket_by_name(self._address.database)  # type: ignore[no-untyped-call]
                if known is None:
                    buckets.create_bucket(bucket_name=self._address.database, org=self._address.org)

    def _write_v1(self, body: str) -> None:
        place = "/write?" + urlencode({"db": self._address.database, "precision": "n"})
        self._request("POST", place, body.encode())

    def _write_v2(self, body: str) -> None:
        with _judged(self._address.url):
            self._writing.write(self._address.database, self._address.org, body)  # nanoseconds are its default

    def _request(
        self, method: str, place: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        with _judged(self._address.url):
            answer = self._pool.request(
                method, self._address.url + place, body=body, headers={**self._authorization, **(headers or {})}
            )
        _judge(self._address.url, answer.status, answer.data.decode(errors="replace"), answer.headers)
        return answer


@contextmanager
def _judged(url: str) -> Iterator[None]:
    """Turn what the HTTP libraries raise into what the caller should do."""
    try:
        yield
    except ApiException as error:
        _judge(url, error.status or 0, str(error.body or error.reason), error.headers or {})
        raise Retry(f"{url}: {error.reason}") from error
    except urllib3.exceptions.HTTPError as error:  # refused, reset, timed out
        raise Retry(f"{url}: {error}") from error


def _judge(url: str, status: int, words: str, headers: Mapping[str, str]) -> None:
    if status < 300:
        return
    if status in _MALFORMED:
        raise Poison(words.strip() or f"status {status}")
    if status in _CONFIGURATION:
        raise Misconfigured(f"{url} answered {status}: {words.strip()}")
    after = headers.get("Retry-After", "")
    raise Retry(f"{url} answered {status}: {words.strip()}", float(after) if after.isdigit() else None)


def _version(told: str) -> tuple[int, int]:
    match = re.match(r"v?(\d+)\.(\d+)", told)
    if match is None:
        raise Misconfigured(f"this is no InfluxDB that we know: it calls itself {told!r}")
    return int(match[1]), int(match[2])


def _authorization(address: Address) -> dict[str, str]:
    """Name and password where a user is given (1.x), a token alone otherwise (2.x, 3)."""
    if address.user:
        return dict(urllib3.make_headers(basic_auth=f"{address.user}:{address.token}"))
    return {"Authorization": f"Token {address.token}"} if address.token else {}
