"""Which store of samples an address means."""

from pathlib import Path
from urllib.parse import urlsplit

# Declared here, before the relational store is opened, so that its table is made with the others.
import cloud.timeseries.ledger  # noqa: F401
from cloud.store import Store
from cloud.timeseries.memory import MemoryTimeSeries
from cloud.timeseries.port import TimeSeries
from rules.declared import Refused


async def open_timeseries(url: str, store: Store) -> TimeSeries:
    """Open ``duckdb:///path``, ``influx://[user:token@]host:port/database?org=`` or ``memory://``.

    The store's own library is imported only here. ``Refused`` names an address that means nothing; ``Retry`` says that
    another process has the DuckDB file.
    """
    match urlsplit(url).scheme:
        case "memory":
            return MemoryTimeSeries()
        case "duckdb":
            from cloud.timeseries.embedded import EmbeddedTimeSeries

            return await EmbeddedTimeSeries.open(Path(url.removeprefix("duckdb://")))
        case "influx":
            from cloud.timeseries.influx import InfluxTimeSeries
            from cloud.timeseries.influx_server import read_address

            return InfluxTimeSeries(read_address(url), store)
    raise Refused(
        "time-series store", f"`{url}` is no address; write duckdb:///PATH, influx://HOST:PORT/DATABASE or memory://"
    )
