"""A stand-in for the district centre: serves the console with recorded JSON of the API's shapes, so the page can be
tested and looked at alone. ``python -m tests.page_stub`` serves it on a free loopback port; a test moves ``Street``."""

import asyncio
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from tests.page_street import Refused, Street

CONSOLE = Path(__file__).parents[1] / "cloud" / "console"
Fields = Annotated[dict[str, Any], Body()]
QR = '<svg width="40" height="40" viewBox="0 0 4 4"><path d="M0 0h2v2H0zM3 3h1v1H3z"/></svg>'


class Stream:
    """Events in order, told to whoever listens; a reconnecting listener gets what it missed."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.events: list[tuple[str, str]] = []
        self._changed = asyncio.Event()
        self._ended = False
        self._turn = 0

    def tell(self, *events: tuple[str, str]) -> None:
        """Add events; callable from any thread."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._add, events)

    def end(self) -> None:
        """Let every listener go, for good."""
        self._ended = True
        self.break_off()

    def break_off(self) -> None:
        """Let every listener go; it may come back."""
        self._turn += 1
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _add(self, events: tuple[tuple[str, str], ...]) -> None:
        self.events.extend(events)
        self._wake()

    async def listen(self, after: int) -> AsyncIterator[str]:
        yield ": hello\n\n"
        turn = self._turn
        while turn == self._turn and not self._ended:
            changed = self._changed
            for number, (kind, subject) in enumerate(self.events[after:], after + 1):
                yield f"id: {number}\nevent: {kind}\ndata: {json.dumps({'subject': subject})}\n\n"
                after = number
            await changed.wait()


def problem(status: int, title: str, detail: str) -> JSONResponse:
    told = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(told, status, media_type="application/problem+json")


def build(street: Street, stream: Stream, *, demo: bool = True, lan: bool = True) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stream.loop = asyncio.get_running_loop()
        yield

    app = FastAPI(lifespan=lifespan)
    session: set[str] = set()

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return problem(409, "Not allowed", str(error))

    def items(found: list[dict[str, Any]]) -> dict[str, Any]:
        return {"items": found, "next_cursor": None}

    @app.get("/api/v1/clock")
    async def clock() -> dict[str, Any]:
        return street.clock()

    @app.get("/api/v1/district")
    async def district() -> dict[str, Any]:
        return street.district

    @app.get("/api/v1/devices")
    async def devices() -> dict[str, Any]:
        return items(street.devices)

    @app.get("/api/v1/alerts")
    async def alerts() -> dict[str, Any]:
        return items(list(street.alerts.values()))

    @app.get("/api/v1/held-back")
    async def held_back() -> dict[str, Any]:
        return items(street.held())

    @app.post("/api/v1/held-back/{alert}/dispatch")
    async def dispatch(alert: str, fields: Fields) -> dict[str, Any]:
        order = street.dispatch(alert, **fields)
        stream.tell(("work_order", order["id"]), ("alert", alert))
        return order

    @app.get("/api/v1/work-orders")
    @app.get("/crew/api/work-orders")
    async def work_orders(request: Request) -> dict[str, Any]:
        if request.url.path.startswith("/crew") and request.cookies.get("crew") not in session:
            raise HTTPException(401)
        return items([street.shown(order) for order in street.orders.values()])

    @app.get("/api/v1/work-orders/{order}")
    async def work_order(order: str) -> dict[str, Any]:
        return street.shown(street.orders[order])

    @app.get("/api/v1/work-orders/{order}/trail")
    async def trail(order: str) -> dict[str, Any]:
        return {"valid": True, "entries": street.trails[order]}

    @app.get("/api/v1/work-orders/{order}/evidence")
    async def evidence(order: str) -> dict[str, Any]:
        return {**street.evidence, "order": order}

    @app.post("/api/v1/work-orders/{order}/actions")
    @app.post("/crew/api/work-orders/{order}/actions")
    async def act(order: str, fields: Fields) -> dict[str, Any]:
        changed = street.act(order, fields)
        stream.tell(("work_order", order))
        return changed

    @app.get("/api/v1/balance")
    async def balance() -> dict[str, Any]:
        return street.balance

    @app.get("/api/v1/stream")
    async def follow(request: Request) -> StreamingResponse:
        after = int(request.headers.get("last-event-id", len(stream.events)))
        return StreamingResponse(stream.listen(after), media_type="text/event-stream")

    @app.post("/crew/session")
    async def enter(fields: Fields) -> Response:
        if fields.get("token") != "once" or session:
            raise HTTPException(403)
        session.add("cookie")
        response = Response(status_code=204)
        response.set_cookie("crew", "cookie", httponly=True, samesite="strict")
        return response

    @app.get("/crew/api/clock")
    async def crew_clock() -> dict[str, Any]:
        return street.clock()

    @app.get("/crew/api/district")
    async def crew_district() -> dict[str, Any]:
        return street.district

    @app.get("/crew")
    async def crew() -> FileResponse:
        return FileResponse(CONSOLE / "crew.html")

    if demo:

        @app.get("/demo/actions")
        async def actions() -> dict[str, Any]:
            return {"items": street.demo, "crew": lan}

        @app.post("/demo/actions/{action}")
        async def start(action: str) -> dict[str, Any]:
            street.started.append(action)
            return {"started": True, "note": {"zh": f"{action} 持续 20 秒", "en": f"{action} lasts 20 s"}}

    if demo and lan:

        @app.get("/demo/crew")
        async def code() -> dict[str, str]:
            return {"url": "http://127.0.0.1/crew?token=once", "qr_svg": QR}

    app.mount("/", StaticFiles(directory=CONSOLE, html=True))
    return app


@contextmanager
def served(street: Street, *, demo: bool = True, lan: bool = True, port: int = 0) -> Iterator[tuple[str, Stream]]:
    """Serve on a loopback port (0: a free one) from a thread of its own; gives the address and the stream."""
    stream = Stream()
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(build(street, stream, demo=demo, lan=lan), log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="page stub")
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", stream
    finally:
        stream.end()
        server.should_exit = True
        thread.join(10)
        listener.close()


if __name__ == "__main__":
    with served(Street()) as (address, _):
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        threading.Event().wait()
