"""HTTP push: operators' platforms post what their devices say, and are answered when it is safe.

``POST /push/NAME`` takes one JSON message or a list of them. Platforms repeat what is not answered with 200 in time, at
most a few seconds, and slow down or drop what is new meanwhile. So the answer is

- 200 when everything in it is safe in the outbox, or was before, or can never be: a device that nobody declared, or a
  message that cannot be read, is counted and told, and must not hold up the others;
- 503 with ``Retry-After`` when too many wait for room, or the outbox does not get it in time: what was taken is known
  when it comes again;
- 400 for what is no JSON, 401, 404 for an unknown platform, 408 and 413 for a body too slow or too large.

``GET /push/NAME`` answers the question by which OneNET verifies the address. The server reads its certificate when it
starts.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from edge.drivers.platforms import Door, Push, Unauthorised, doors
from edge.hearing import Hearing
from edge.installed import Installed
from edge.reading import Reading
from wire.batch import Malformed
from wire.clock import Clock
from wire.counted import Counted

BODY_MOST = 1024 * 1024  # bytes
BODY_S = 10.0  # for all of them
ANSWER_S = 4.0  # OneNET waits five
RETRY_AFTER_S = 5
WAITING_MOST = 64  # messages that wait for room
CONNECTIONS_MOST = 256  # at once, those that only wait included
HEADER_S = 10.0  # for a request's header; else a few silent connections would keep everybody out
STOP_S = 1  # for answers under way

log = structlog.get_logger(__name__)


class PushServer:
    """The platforms' way in; ``run`` serves until cancelled, and ``app`` is what it serves.

    Readings go into ``intake`` as everybody's do. ``Refused`` when a platform or a device of it is not in order.
    """

    def __init__(
        self,
        push: Push,
        places: Iterable[Installed],
        intake: asyncio.Queue[Reading],
        hearing: Hearing,
        clock: Clock,
        counted: Counted,
    ) -> None:
        self._doors = doors(push, places)
        self._intake = intake
        self._hearing = hearing
        self._clock = clock
        self._counted = counted
        self._push = push
        self._turn = asyncio.Lock()
        self._putting: set[asyncio.Task[None]] = set()
        routes = [
            Route("/push/{platform}", self._post, methods=["POST"]),
            Route("/push/{platform}", self._get, methods=["GET"]),
        ]
        self.app = Starlette(routes=routes, exception_handlers={Exception: self._failed})
        self._server = _Server(
            uvicorn.Config(
                self.app,
                http=_impatient(self._idle),
                lifespan="off",
                log_config=None,
                access_log=False,  # addresses may hold a secret
                server_header=False,
                limit_concurrency=CONNECTIONS_MOST,
                timeout_graceful_shutdown=STOP_S,
                ssl_certfile=push.certificate or None,
                ssl_keyfile=push.key or None,
            )
        )

    async def run(self) -> None:
        """Serve until cancelled, then end within ``STOP_S``; ``OSError`` when the port is not to be had."""
        family = socket.AF_INET6 if ":" in self._push.host else socket.AF_INET
        with socket.create_server((self._push.host, self._push.port), family=family) as listening:
            log.info("push listens", host=self._push.host, port=listening.getsockname()[1], tls=bool(self._push.key))
            serving = asyncio.create_task(self._server.serve([listening]), name="push server")
            try:
                await asyncio.shield(serving)
                raise RuntimeError("the push server ended by itself")
            except asyncio.CancelledError:
                self._server.should_exit = True
                await serving
                raise
            finally:
                for putting in self._putting:  # nobody was told that these are safe
                    putting.cancel()

    async def _post(self, request: Request) -> Response:
        name = request.path_params["platform"]
        door, where = self._doors.get(name), f"push/{name}"
        if door is None:
            return _answer(404, "no such platform is configured")
        try:
            door.admit(request.headers.get("authorization", ""), request.query_params.get("token", ""))
            async with asyncio.timeout(BODY_S):
                body = await _body(request)
            if body is None:
                self._hearing.note("oversized_pushes", where, f"a body of more than {BODY_MOST} bytes")
                return _answer(413, f"at most {BODY_MOST} bytes are taken")
            return await self._take(door, door.open(body), where)
        except TimeoutError:
            return _answer(408, f"the body took more than {BODY_S:g} s")
        except ClientDisconnect:
            self._counted.add("edge_broken_pushes_total")
            return _answer(400, "the body broke off")  # nobody reads that
        except Unauthorised as error:
            self._hearing.note("unauthorised_pushes", where, str(error))
            return _answer(401, str(error))
        except Malformed as error:
            self._hearing.refuse(error, where)
            return _answer(400, str(error))

    async def _take(self, door: Door, message: bytes, where: str) -> Response:
        """Put what a message says into the intake and wait until it is safe."""
        if len(self._putting) >= WAITING_MOST:
            return self._later("there is no room now")
        safe = asyncio.Event()
        readings = self._hearing.readings(door.named.heard(message, self._clock.now()), where, safe.set)
        if not readings:
            return _answer(200, "taken")
        # From here on they are known, so whatever becomes of the request, they must come into the intake.
        putting = asyncio.create_task(self._put(readings), name=where)
        self._putting.add(putting)
        putting.add_done_callback(self._putting.discard)
        try:
            async with asyncio.timeout(ANSWER_S):
                await safe.wait()
        except TimeoutError:
            return self._later("it is not safe yet")
        return _answer(200, "taken")

    async def _put(self, readings: Iterable[Reading]) -> None:
        """Put a message's readings into the intake, one message after the other, as there is room."""
        async with self._turn:
            for reading in readings:
                await self._intake.put(reading)

    async def _get(self, request: Request) -> Response:
        name, asked = request.path_params["platform"], request.query_params
        door = self._doors.get(name)
        if door is None:
            return _answer(404, "no such platform is configured")
        if not door.signs:
            return _answer(405, "this platform posts")
        message = asked.get("msg", "")
        try:
            door.check(message.encode("utf-8", "surrogatepass"), asked.get("nonce", ""), asked.get("signature", ""))
        except Unauthorised as error:
            self._hearing.note("unauthorised_pushes", f"push/{name}", str(error))
            return _answer(401, str(error))
        return _answer(200, message)

    def _later(self, why: str) -> Response:
        self._counted.add("edge_deferred_pushes_total")
        response = _answer(503, why)
        response.headers["retry-after"] = str(RETRY_AFTER_S)
        return response

    def _idle(self) -> None:
        self._hearing.note("push_idle_connections", "push", f"no request's header within {HEADER_S:g} s")

    async def _failed(self, request: Request, error: Exception) -> Response:
        """Answer what is our own fault: the supervisor of a request."""
        self._counted.add("edge_failed_pushes_total")
        log.error("push failed", path=request.url.path, error=repr(error))
        return _answer(500, "a fault of this server")


class _Server(uvicorn.Server):
    """uvicorn inside a task group: signals are the process's business, not the server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _impatient(idle: Callable[[], None]) -> type[H11Protocol]:
    """Make connections that are cut, and told to ``idle``, ``HEADER_S`` after they began or the last answer."""

    class Impatient(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
            super().connection_made(transport)
            self._await_header()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._await_header()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            super().connection_lost(exc)

        def _await_header(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = self.loop.call_later(HEADER_S, self._overdue)

        def _overdue(self) -> None:
            cycle: RequestResponseCycle | None = self.cycle  # none before the first request
            if cycle is None or cycle.response_complete:
                idle()
                self.transport.abort()  # who is silent answers no goodbye of TLS either

    return Impatient


async def _body(request: Request) -> bytes | None:
    """Read a body; None when it is too large, whatever its length is said to be."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_MOST:
            return None
        parts.append(part)
    return b"".join(parts)


def _answer(status: int, text: str) -> Response:
    return PlainTextResponse(text, status, {"x-content-type-options": "nosniff"})
