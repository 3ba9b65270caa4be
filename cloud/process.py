"""The cloud as one process: stores, ingest, the desk's deadlines and the servers, in one task group."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI

from cloud.api.app import create_crew_app
from cloud.config import Config, load_config
from cloud.ingest import ALERT_TOPICS, SAMPLE_TOPICS
from cloud.parts import put_together
from cloud.registry import Registry
from cloud.store import Store
from cloud.timeseries.port import Retry, TimeSeries
from cloud.timeseries.stores import open_timeseries
from wire import logs
from wire.counted import Counted
from wire.refusing import refusing
from wire.session import Session

STOP_WITHIN_S = 1  # wall: how long answers under way may take once we stop
OPEN_WITHIN_S = 10.0  # wall: how long a predecessor may hold the embedded store

log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """uvicorn inside a task group: signals are the process's business, not the server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(config: Config, extend: Callable[[FastAPI], None] | None = None) -> None:
    """Run until SIGTERM or SIGINT. ``extend`` may add routes to the centre's application before it is served."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    registry = Registry(config.load_district(), config.load_rules())
    data = Path(config.data)
    await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)
    counted = Counted()
    async with (
        Store(data / "cloud.sqlite") as store,
        _timeseries(config.timeseries or f"duckdb://{data / 'samples.duckdb'}", store) as timeseries,
        Session(config.broker, "streetwarden-cloud-alerts", ALERT_TOPICS, counted=counted) as alerts,
        Session(config.broker, "streetwarden-cloud-samples", SAMPLE_TOPICS, counted=counted) as samples,
    ):
        parts = await put_together(registry, store, timeseries, (alerts, samples), config.clock, counted)
        app = parts.app(config.http.host)
        if extend is not None:
            extend(app)
        servers = [_server(app, config.http.host, config.http.port)]
        if config.lan is not None:
            crew_app = create_crew_app(app.state.context, config.lan.host, config.lan.token)
            servers.append(_server(crew_app, config.lan.host, config.lan.port))
        async with asyncio.TaskGroup() as group:
            working = [
                group.create_task(parts.ingest.run(), name="ingest"),
                group.create_task(parts.balance.run(), name="balance"),
                group.create_task(parts.desk.run(store), name="deadlines"),
            ]
            for server in servers:
                group.create_task(server.serve(), name=f"server on port {server.config.port}")
            log.info("the cloud is running", host=config.http.host, port=config.http.port)
            await stopping.wait()
            app.state.closing.set()
            for server in servers:
                server.should_exit = True
            for task in working:
                task.cancel()
    log.info("the cloud has stopped")


@contextlib.asynccontextmanager
async def _timeseries(url: str, store: Store) -> AsyncIterator[TimeSeries]:
    timeseries = await _open(url, store)
    try:
        yield timeseries
    finally:
        await timeseries.close()


async def _open(url: str, store: Store) -> TimeSeries:
    """Open the store of samples, waiting a little for a predecessor that is still letting go of it."""
    async with asyncio.timeout(OPEN_WITHIN_S):
        while True:
            try:
                return await open_timeseries(url, store)
            except Retry as error:
                log.warning("the store of samples is not free yet", why=str(error))
                await asyncio.sleep(error.after_s or 0.5)


def _server(app: FastAPI, host: str, port: int) -> Server:
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=STOP_WITHIN_S,
        )
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``python -m cloud.process CONFIG.toml``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 1:
        raise SystemExit("give one configuration file, as in `python -m cloud.process cloud.toml`")
    with refusing(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        config = load_config(Path(given[0]))
        logs.configure()
        runner.run(run(config))


if __name__ == "__main__":
    main()
