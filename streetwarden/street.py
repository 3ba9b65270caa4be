"""The demo's own routes on the cloud's page: *come and fool it*, and the code for a crew's phone."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httpx
import segno
from fastapi import APIRouter, FastAPI, HTTPException, Request


def mount(control: str, crew_url: str | None) -> Callable[[FastAPI], None]:
    """Extend the cloud's application; ``control`` is the simulator's address, ``crew_url`` the one-time link."""

    def extend(app: FastAPI) -> None:
        router = APIRouter(prefix="/demo", include_in_schema=False)

        @router.get("/actions")
        async def actions() -> Any:
            return {**await _ask("GET", f"{control}/actions"), "crew": crew_url is not None}

        @router.post("/actions/{action}")
        async def act(action: str, request: Request) -> Any:
            # A strange web page can make a browser post to us, but not as JSON: for that it would have to ask first.
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise HTTPException(415, "post it as `Content-Type: application/json`, as in `{}`")
            return await _ask("POST", f"{control}/actions/{action}")

        @router.get("/crew")
        async def crew() -> dict[str, str]:
            if crew_url is None:
                raise HTTPException(404, "no crew's page: start the demo with --lan")
            return {"url": crew_url, "qr_svg": segno.make(crew_url).svg_inline(scale=5)}

        app.include_router(router)

    return extend


async def _ask(method: str, url: str) -> Any:
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
        try:
            answer = await client.request(method, url)
            if answer.status_code == HTTPStatus.NOT_FOUND:
                raise HTTPException(404, str(answer.json()["detail"]))
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise HTTPException(502, f"the simulated street does not answer: {error}") from error
        return answer.json()
