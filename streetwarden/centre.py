"""An outside client of the district centre: reads the API as any browser would."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import httpx
from fastapi import FastAPI


class Centre:
    """The cloud's API over HTTP; use ``async with``. Errors are httpx's."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = httpx.AsyncClient(base_url=url, transport=transport, timeout=10.0, trust_env=False)

    @classmethod
    def within(cls, app: FastAPI) -> Self:
        """Speak to an application in this process, without a socket."""
        return cls("http://127.0.0.1", httpx.ASGITransport(app))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, path: str, **parameters: str | int) -> Any:
        answer = await self._client.get(path, params=parameters)
        answer.raise_for_status()
        return answer.json()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = await self._client.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    async def items(self, path: str, **parameters: str | int) -> list[Any]:
        """A whole list, following its cursor."""
        found: list[Any] = []
        cursor: str | None = None
        while True:
            page = await self.get(path, **parameters, **({"cursor": cursor} if cursor else {}))
            found += page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return found

    async def events(self) -> AsyncIterator[str]:
        """Kinds of what happens, as it happens, over server-sent events; ends when the server closes the stream."""
        async with self._client.stream("GET", "/api/v1/stream", timeout=None) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith("event:"):
                    yield line.removeprefix("event:").strip()

    async def until_ready(self, within_s: float) -> None:
        """Wait until the API answers; ``TimeoutError`` when it does not in time."""
        ends = time.monotonic() + within_s
        while True:
            with contextlib.suppress(httpx.HTTPError):
                await self.get("/readyz")
                return
            if time.monotonic() > ends:
                raise TimeoutError(f"{self._client.base_url} did not answer within {within_s:.0f} s")
            await asyncio.sleep(0.1)  # a port that nobody listens on yet offers nothing else to wait for
