"""The demo's own routes: a strange web page cannot press the buttons."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from cloud.api.problems import add_problems
from streetwarden import street
from wire.counted import Counted


@pytest.mark.parametrize(
    ("kind", "status"),
    [(None, 415), ("text/plain", 415), ("application/json", 200), ("Application/JSON; charset=utf-8", 200)],
)
def test_a_button_is_pressed_with_json_only(monkeypatch: pytest.MonkeyPatch, kind: str | None, status: int) -> None:
    pressed: list[str] = []

    async def ask(method: str, url: str) -> Any:
        pressed.append(f"{method} {url}")
        return {"started": True}

    monkeypatch.setattr(street, "_ask", ask)
    app = FastAPI()
    add_problems(app, Counted())
    street.mount("http://street", None)(app)

    async def press() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://centre") as client:
            headers = {} if kind is None else {"content-type": kind}
            return await client.post("/demo/actions/theft", content=b"{}" if kind else b"", headers=headers)

    answer = asyncio.run(press())
    assert answer.status_code == status
    assert pressed == (["POST http://street/actions/theft"] if status == 200 else [])
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
