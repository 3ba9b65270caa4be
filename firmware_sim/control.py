"""The simulator's own door, on loopback: which buttons there are, and pressing one. The truth is not told here."""

import asyncio
import contextlib
from collections.abc import Callable
from http import HTTPStatus

import msgspec

from firmware_sim.door import Door
from firmware_sim.street import Street

_PATIENCE_S = 5.0


class Control:
    """``GET /actions`` → {"items": [Action]}; ``POST /actions/{id}`` → Outcome, 404 for a button that is not there.

    ``POST /hush`` ends the readings of a run while the gateways' cables stay: what was read can then be counted.
    """

    def __init__(self, street: Street, hush: Callable[[], None]) -> None:
        self.door = Door(self._answer)
        self._street = street
        self._hush = hush

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, body = self.respond(head.split(b"\r\n", 1)[0].decode("latin-1"))
                content = msgspec.json.encode(body)
                lines = (
                    f"HTTP/1.1 {status.value} {status.phrase}",
                    f"Content-Type: application/{'json' if status == HTTPStatus.OK else 'problem+json'}",
                    f"Content-Length: {len(content)}",
                    "Connection: close",
                )
                writer.write("\r\n".join((*lines, "", "")).encode() + content)
                await writer.drain()

    def respond(self, request_line: str) -> tuple[HTTPStatus, object]:
        """Status and body for a request line such as ``POST /actions/truck HTTP/1.1``."""
        match request_line.split():
            case ["GET", "/actions", _]:
                return HTTPStatus.OK, {"items": self._street.actions()}
            case ["POST", path, _] if path.startswith("/actions/"):
                try:
                    return HTTPStatus.OK, self._street.press(path.removeprefix("/actions/"))
                except KeyError as error:
                    return _problem(HTTPStatus.NOT_FOUND, f"no action {error} here; GET /actions lists them")
            case ["POST", "/hush", _]:
                self._hush()
                return HTTPStatus.OK, {"hushed": True}
            case [_, _, _]:
                return _problem(HTTPStatus.NOT_FOUND, "there are GET /actions and POST /actions/{id}")
        return _problem(HTTPStatus.BAD_REQUEST, "not an HTTP request line")


def _problem(status: HTTPStatus, detail: str) -> tuple[HTTPStatus, object]:
    """Problem details as in RFC 9457."""
    return status, {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
