"""A run without a person: the scenario runs, its orders are closed by the truth, every reading is counted."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from streetwarden.assembly import Assembly, City
from streetwarden.centre import Centre
from streetwarden.crew import Crew
from streetwarden.report import Report, Run
from streetwarden.score import TruthFile, compile_report, missing_by_device, read_truth
from wire.clock import NANOSECONDS, from_iso

DRAIN_S = 20.0  # wall: how long the last samples may take to the store
STATUS_S = 0.5  # wall: the gateways tell their account every two seconds
COUNTER = "poll_counter"


@dataclass(frozen=True, slots=True)
class Told:
    """What the district centre's API told while the street was still alive.

    By gateway: ``unanswered`` polls as it counted them, and the ``missing`` readings, which can be those only whose
    instrument answered too late.
    """

    orders: list[Any]
    alerts: list[Any]
    devices: list[Any]
    unanswered: dict[str, int]
    missing: dict[str, int] = field(default_factory=dict)


async def run_headless(
    assembly: Assembly, centre: Centre, city: City, length_s: float, stop: asyncio.Event
) -> tuple[Report, Told]:
    """Let the scenario run for ``length_s`` wall seconds, then let the street fall silent and count."""

    def truth() -> TruthFile:
        return read_truth(assembly.truth)

    crew = Crew(centre, city.clock, truth)
    working = asyncio.create_task(crew.run(), name="crew")
    try:
        await until(stop, length_s)
        told = await _listen(centre)
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
    await hush(assembly)
    balance = await drained(centre, city.clock.now() + int(NANOSECONDS * city.clock.speed))
    happened = truth()
    counters = await poll_counters(centre, happened)
    gateways = {device["id"]: device["gateway"] for device in told.devices}
    for device, missing in missing_by_device(happened.emitted, counters).items():
        told.missing[gateways[device]] = told.missing.get(gateways[device], 0) + missing
    latencies = [
        (crew.first_seen[order["id"]] - city.clock.wall_at(from_iso(order["decided_at"]))) / NANOSECONDS
        for order in told.orders
        if order["id"] in crew.first_seen  # not one that opened after the crew's last look
    ]
    run = Run(city.scenario, city.seed, city.clock.speed, length_s)
    return compile_report(run, happened, told.orders, told.alerts, told.devices, balance, counters, latencies), told


async def _listen(centre: Centre) -> Told:
    orders, alerts, devices = [await centre.items(f"/api/v1/{each}") for each in ("work-orders", "alerts", "devices")]
    gateways = (await centre.get("/api/v1/balance"))["gateways"]
    unanswered = {gateway["id"]: gateway["counters"].get("edge_poll_no_answer_total", 0) for gateway in gateways}
    return Told(orders, alerts, devices, unanswered)


async def until(stop: asyncio.Event, length_s: float | None) -> None:
    """Wait for ``stop``, for at most ``length_s`` wall seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(length_s):
            await stop.wait()


async def hush(assembly: Assembly) -> None:
    """Let the simulated street fall silent; the gateways' cables stay, so what was read can reach the store."""
    async with httpx.AsyncClient(trust_env=False) as street:
        (await street.post(f"{assembly.control}/hush")).raise_for_status()


async def drained(centre: Centre, since: int) -> dict[str, Any]:
    """The balance once every gateway's own account of after ``since`` (city UTC ns) closes, or as it is at the end."""
    ends = time.monotonic() + DRAIN_S
    while True:
        balance: dict[str, Any] = await centre.get("/api/v1/balance")
        seen = [gateway["last_seen_at"] for gateway in balance["gateways"]]
        told = all(at is not None and from_iso(at) > since for at in seen)
        if (told and balance["closes"] and not balance["total"]["in_flight"]) or time.monotonic() > ends:
            return balance
        await asyncio.sleep(STATUS_S)


async def poll_counters(centre: Centre, truth: TruthFile) -> dict[str, list[float]]:
    """Read back the poll counter of every device that has one: its good values, by time."""
    return {
        device: [value for _, value, quality in await readings(centre, device) if quality == 0]
        for device, emitted in truth.emitted.items()
        if emitted.get("polls")
    }


async def readings(centre: Centre, device: str) -> list[Any]:
    """Every stored sample of a device's poll counter: (time in ms, value, quality)."""
    return await centre.items(f"/api/v1/devices/{device}/samples", metric=COUNTER)
