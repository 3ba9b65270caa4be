"""What changed, as it changes: server-sent events (HTML Living Standard) over the event table."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse
from starlette.requests import Request

from cloud.api.context import Shared
from cloud.api.problems import BadQuery
from cloud.events import Event, Events

router = APIRouter(tags=["stream"])
KEEP_ALIVE_S = 15.0  # wall seconds; a comment tells proxies, and us, that the line still stands


@router.get("/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def stream(
    shared: Shared, request: Request, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """Every event after ``Last-Event-ID`` (without it: from now on), for as long as the client listens.

    ``id`` counts events, ``event`` is its kind (alert, work_order, balance, device), ``data`` names its subject. The
    last 100,000 events are kept: a ``Last-Event-ID`` from before them, or from after the newest, begins at the newest.
    So read the lists again after every reconnection, as the page does.
    """
    if last_event_id is not None and not (
        last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19
    ):
        raise BadQuery("Last-Event-ID: it is the `id` of the last event seen, a number")
    last = await shared.events.resumed(None if last_event_id is None else int(last_event_id))
    lines = told(shared.events, last, request.app.state.closing)
    return StreamingResponse(lines, media_type="text/event-stream", headers={"cache-control": "no-store"})


async def told(events: Events, last: int, closing: asyncio.Event) -> AsyncIterator[str]:
    """Write the stream's text, until ``closing`` is set."""
    yield "retry: 1000\n\n"
    following = events.follow(last)
    ending = asyncio.create_task(closing.wait(), name="stream: closing")
    coming: asyncio.Task[Event | None] | None = None
    try:
        while not closing.is_set():
            coming = coming or asyncio.create_task(_next(following), name="stream: next event")
            await asyncio.wait({coming, ending}, timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                event = coming.result()
                coming = None
                if event is None:
                    return
                subject = msgspec.json.encode({"subject": event.subject}).decode()
                yield f"id: {event.id}\nevent: {event.kind}\ndata: {subject}\n\n"
            elif not ending.done():
                yield ": still here\n\n"
    finally:
        for task in (coming, ending):
            if task is not None:
                task.cancel()
        await asyncio.wait([task for task in (coming, ending) if task is not None])


async def _next(following: AsyncIterator[Event]) -> Event | None:
    return await anext(following, None)
