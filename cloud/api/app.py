"""The two applications: the district centre's API with its page, and the crew's few calls for their phones."""

import asyncio
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import text
from starlette.middleware.trustedhost import TrustedHostMiddleware

from cloud.api import alerts, city, crew, evidence, orders, samples, stream
from cloud.api.context import Context, Shared
from cloud.api.crew import Door
from cloud.api.metrics import Totals
from cloud.api.models import Problem
from cloud.api.problems import add_problems, known_query
from cloud.balance import Balance
from cloud.desk import Desk
from cloud.events import Events
from cloud.points import PointTables
from cloud.registry import Registry
from cloud.store import Store
from cloud.timeseries.port import TimeSeries
from wire.clock import Clock
from wire.counted import Counted

CONSOLE = Path(str(resources.files("cloud") / "console"))
# What the crew's page is made of; everything else of the console stays behind the door.
CREW_FILES = ("crew.js", "api.js", "dom.js", "entries.js", "text.js", "locale.json", "style.css")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEALTH = APIRouter(tags=["health"])


@HEALTH.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer as long as the process does."""
    return {"status": "ok"}


@HEALTH.get("/readyz", responses={503: {"model": Problem}})
async def readyz(shared: Shared) -> dict[str, str]:
    """Answer once the store does, and while everything that comes in can be stored."""
    await shared.store.read(lambda connection: connection.execute(text("SELECT 1")).all())
    if shared.troubles:
        told = [f"{what} cannot be stored: {why}" for what, why in shared.troubles.items()]
        raise HTTPException(503, "; ".join(told))
    return {"status": "ready"}


@HEALTH.get("/metrics", response_class=PlainTextResponse)
async def metrics(shared: Shared) -> PlainTextResponse:
    """Every counter, in the Prometheus text format."""
    collectors = CollectorRegistry()
    collectors.register(Totals(shared.counted, shared.balance))
    return PlainTextResponse(generate_latest(collectors).decode(), media_type="text/plain; version=0.0.4")


def create_app(
    desk: Desk,
    store: Store,
    events: Events,
    balance: Balance,
    timeseries: TimeSeries,
    points: PointTables,
    registry: Registry,
    clock: Clock,
    counted: Counted,
    troubles: Mapping[str, str],
    host: str,
) -> FastAPI:
    """Make the district centre's application, served on ``host``. ``state.closing`` ends its event streams."""
    context = Context(desk, store, events, balance, timeseries, points, registry, clock, counted, troubles)
    app = _application("Streetwarden", context, host, None, "/api/v1/openapi.json")
    v1 = APIRouter(prefix="/api/v1", dependencies=[Depends(known_query)])
    for part in (city, alerts, orders, evidence, samples, stream):
        v1.include_router(part.router)
    app.include_router(v1)
    app.include_router(HEALTH)
    app.include_router(crew.router)
    _serve(app, "/", "index.html")
    _serve(app, "/crew", "crew.html")
    for file in sorted(CONSOLE.iterdir()):
        _serve(app, f"/{file.name}", file.name)
    return app


def create_crew_app(context: Context, host: str, token: str) -> FastAPI:
    """Make the application that phones reach: the crew's page and calls, behind a one-time token; nothing else."""
    app = _application("Streetwarden crew", context, host, Door(context.store, token), None)
    app.include_router(crew.router)
    _serve(app, "/crew", "crew.html")
    for name in CREW_FILES:
        _serve(app, f"/{name}", name)
    return app


def _application(title: str, context: Context, host: str, door: Door | None, openapi: str | None) -> FastAPI:
    app = FastAPI(title=title, version="1", openapi_url=openapi, docs_url=None, redoc_url=None)
    app.state.context = context
    app.state.door = door
    app.state.closing = asyncio.Event()
    add_problems(app, context.counted)
    # A strange web page may point its own name at us (DNS rebinding): the browser then tells that name, not ours.
    names = [*LOOPBACK, f"[{host}]" if ":" in host else host]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
    return app


def _serve(app: FastAPI, path: str, name: str) -> None:
    """Serve one file of the page; every file has a route of its own, so no path leads anywhere else."""

    async def page() -> FileResponse:
        return FileResponse(CONSOLE / name, headers={"cache-control": "no-cache"})

    app.add_api_route(path, page, include_in_schema=False)
