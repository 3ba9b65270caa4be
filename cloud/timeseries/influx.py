"""InfluxDB as the store of samples: points first, then their ledger row in the relational store, then the receipt.

A crash between the two writes the same points again, which changes nothing: one device at one instant is one point.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import structlog

from cloud.store import Store
from cloud.timeseries import ledger
from cloud.timeseries.influx_server import Address, Found, InfluxServer, Poison
from cloud.timeseries.lines import MEASUREMENT, QUALITY_OF, lines, stored, told
from cloud.timeseries.port import Sample, SampleBatch, Series
from rules.samples import QUALITY, TIME, VALUE

T = TypeVar("T")

LINES_A_WRITE = 5000
NAMED_DEVICES = 50  # a question about more devices than this asks about all, and picks

_EARLIEST, _LATEST = -(2**63) + 2, 2**63 - 2  # the instants InfluxDB knows, nanoseconds

log = structlog.get_logger(__name__)


class InfluxTimeSeries:
    """One database of an InfluxDB server. It is connected at the first use, so the cloud starts without it."""

    def __init__(self, address: Address, store: Store) -> None:
        self._address = address
        self._store = store
        self._server: InfluxServer | None = None
        self._connecting = threading.Lock()
        self._writer = ThreadPoolExecutor(1, "samples-writer")
        self._reader = ThreadPoolExecutor(2, "samples-reader")

    async def write(self, batches: Sequence[SampleBatch]) -> set[tuple[str, int]]:
        known = await self._store.read(lambda connection: ledger.known(connection, batches))
        new = list({batch.key: batch for batch in reversed(batches) if batch.key not in known}.values())[::-1]
        dead = await self._on(self._writer, self._post, new)
        return await self._store.write(lambda connection: ledger.enter(connection, new, dead))

    async def read(self, device: str, metric: str, start: int, stop: int) -> Series:
        value, quality = _identifier(metric), _identifier(metric + QUALITY_OF)
        question = (  # names are quoted by _identifier and _text
            f'SELECT {value} AS "value", {quality} AS "quality" FROM "{MEASUREMENT}" WHERE "device" = {_text(device)} '  # noqa: S608 - quoted
            f"AND time >= {max(start, _EARLIEST)} AND time < {min(stop, _LATEST)}"
        )
        (found,) = await self._on(self._reader, self._ask, [question])
        return _series(found[0].values) if found else Series.empty()

    async def latest(self, devices: Sequence[str]) -> dict[tuple[str, str], Sample]:
        return await self._on(self._reader, self._latest, list(devices))

    async def committed(self, gateway: str) -> dict[int, int]:
        return await self._store.read(lambda connection: ledger.committed(connection, gateway))

    async def close(self) -> None:
        self._writer.shutdown(wait=False, cancel_futures=True)
        self._reader.shutdown(wait=False, cancel_futures=True)
        if self._server is not None:
            self._server.close()

    async def _on(self, threads: ThreadPoolExecutor, do: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, do, *arguments)

    def _connected(self) -> InfluxServer:
        with self._connecting:
            if self._server is None:
                self._server = InfluxServer(self._address)
                log.info("influxdb connected", url=self._address.url, version=self._server.version)
            return self._server

    def _post(self, batches: list[SampleBatch]) -> list[tuple[str, str]]:
        """Write batches as lines; those the server will never take, with its words."""
        server = self._connected()
        body = [line for batch in batches for line in lines(batch)]
        dead: list[tuple[str, str]] = []
        for first in range(0, len(body), LINES_A_WRITE):
            dead += _write(server, body[first : first + LINES_A_WRITE])
        for line, why in dead:
            log.error("influxdb refused a line; it is kept in the table dead_letter", line=line, why=why)
        return dead

    def _ask(self, statements: list[str]) -> list[list[Found]]:
        return self._connected().query(";".join(statements)) if statements else []

    def _latest(self, devices: list[str]) -> dict[tuple[str, str], Sample]:
        (keys,) = self._ask([f'SHOW FIELD KEYS FROM "{MEASUREMENT}"'])
        fields = [row[0] for found in keys for row in found.values]
        asked = " OR ".join(f'"device" = {_text(device)}' for device in devices)
        where = f"WHERE {asked} " if 0 < len(devices) <= NAMED_DEVICES else ""
        last_of = 'SELECT last({}) AS "last" FROM "{}" {}GROUP BY "device"'
        answers = self._ask([last_of.format(_quoted(field), MEASUREMENT, where) for field in fields])
        last = {
            (told(found.tags["device"]), told(field)): (int(found.values[0][0]), found.values[0][1])
            for field, answer in zip(fields, answers, strict=True)
            for found in answer
        }
        return _samples(last, set(devices))


def _write(server: InfluxServer, body: list[str]) -> list[tuple[str, str]]:
    """Write lines, halving what is refused until each line that is to blame stands alone; writing one twice is safe."""
    if not body:
        return []
    try:
        server.write(body)
    except Poison as error:
        if len(body) == 1:
            return [(body[0], str(error))]
        middle = len(body) // 2
        return _write(server, body[:middle]) + _write(server, body[middle:])
    return []


def _series(rows: list[list[Any]]) -> Series:
    return Series(
        np.array([row[0] for row in rows], TIME),
        np.array([row[1] for row in rows], VALUE),  # an absent value becomes NaN
        np.array([row[2] or 0 for row in rows], QUALITY),
    )


def _samples(last: dict[tuple[str, str], tuple[int, float]], devices: set[str]) -> dict[tuple[str, str], Sample]:
    """Join the newest value and the newest quality of each point: the later of the two is the point's newest sample."""
    found: dict[tuple[str, str], Sample] = {}
    for device, metric in {(device, field.removesuffix(QUALITY_OF)) for device, field in last if device in devices}:
        valued_at, value = last.get((device, metric), (_EARLIEST, np.nan))
        doubted_at, quality = last.get((device, metric + QUALITY_OF), (_EARLIEST, 0))
        found[device, metric] = Sample(
            max(valued_at, doubted_at),
            float(value) if valued_at >= doubted_at else np.nan,
            int(quality) if doubted_at >= valued_at else 0,
        )
    return found


def _identifier(name: str) -> str:
    return _quoted(stored(name))


def _quoted(field: str) -> str:
    return '"' + field.replace('"', r"\"") + '"'


def _text(device: str) -> str:
    return "'" + stored(device).replace("'", r"\'") + "'"
