"""A run without a person: the scenario runs, its orders are closed by the truth, every reading is counted."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from firmware_sim.scenario import Expected, load_scenario
from rules.declared import seconds
from streetwarden.assembly import Assembly, City
from streetwarden.centre import Centre
from streetwarden.crew import Crew
from streetwarden.matching import TruthFile, read_truth
from streetwarden.score import Score, duplicated, missing_by_device, score
from streetwarden.told import Audit, Flaw, Run, Told, write_told
from wire.clock import NANOSECONDS, from_iso

DRAIN_S = 20.0  # wall: how long the last samples may take to the store
STATUS_S = 0.5  # wall: the gateways tell their account every two seconds
COUNTER = "poll_counter"


async def run_headless(
    assembly: Assembly, centre: Centre, city: City, length_s: float, stop: asyncio.Event
) -> tuple[Score, Told]:
    """Let the scenario run for ``length_s`` wall seconds, then let the street fall silent and count.

    The city's folder holds ``truth.json`` and ``told.json`` then.
    """

    def truth() -> TruthFile:
        return read_truth(assembly.truth)

    crew = Crew(centre, city.clock, truth)
    working = asyncio.create_task(crew.run(), name="crew")
    try:
        await until(stop, length_s)
        ran_s = (city.clock.now() - city.clock.city) / NANOSECONDS
        orders, alerts, devices = [
            await centre.items(f"/api/v1/{each}") for each in ("work-orders", "alerts", "devices")
        ]
        gateways = (await centre.get("/api/v1/balance"))["gateways"]
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
    await hush(assembly)
    balance = await drained(centre, city.clock.now() + int(NANOSECONDS * city.clock.speed))
    happened = truth()
    counters = await poll_counters(centre, happened)
    unanswered = {gateway["id"]: gateway["counters"].get("edge_poll_no_answer_total", 0) for gateway in gateways}
    gateway_of = {device["id"]: device["gateway"] for device in devices}
    told = Told(
        run=Run(city.scenario, city.seed, "real", city.clock.speed, round(ran_s, 1)),
        orders=orders,
        alerts=alerts,
        devices=devices,
        balance=balance,
        expected=_expected(city.scenario, ran_s),
        audit=audit(happened, counters, balance, gateway_of, unanswered),
        unanswered=unanswered,
        latency_s=[
            (crew.first_seen[order["id"]] - city.clock.wall_at(from_iso(order["decided_at"]))) / NANOSECONDS
            for order in orders
            if order["id"] in crew.first_seen  # not one that opened after the crew's last look
        ],
    )
    write_told(city.folder, told)
    return score(happened, told), told


def audit(
    truth: TruthFile,
    counters: Mapping[str, Sequence[float]],
    balance: Mapping[str, Any],
    gateway_of: Mapping[str, str],
    unanswered: Mapping[str, int],
) -> Audit:
    """Hold the poll counters in the store against what the instruments counted; only these samples are audited.

    A value that is missing is the edge's where its gateway counted at least as many polls without an answer: the
    instrument answered too late. Else the store is where it is missing, wherever it was lost.
    """
    total = balance["total"]
    return Audit(
        emitted=sum(truth.emitted[device]["polls"] for device in counters),
        acquired=total["acquired"],
        filtered=total["filtered"],
        dropped=sum(total["dropped"].values()),
        committed=total["committed"],
        audited=sum(len(values) for values in counters.values()),
        flaws=tuple(_flaws(truth, counters, gateway_of, unanswered)),
    )


def _flaws(
    truth: TruthFile,
    counters: Mapping[str, Sequence[float]],
    gateway_of: Mapping[str, str],
    unanswered: Mapping[str, int],
) -> Iterator[Flaw]:
    missing = missing_by_device(truth.emitted, counters)
    of_gateway: Counter[str] = Counter()
    for device, count in missing.items():
        of_gateway[gateway_of[device]] += count
    for device, count in missing.items():
        gateway = gateway_of[device]
        if count and of_gateway[gateway] <= unanswered.get(gateway, 0):
            yield Flaw("lost", device, COUNTER, count, "edge", note="answered too late")
        elif count:
            yield Flaw("lost", device, COUNTER, count, "store", note="not in the store")
    for device, count in duplicated(counters).items():
        if count:
            yield Flaw("doubled", device, COUNTER, count, "store", note="in the store more than once")


def _expected(scenario: str, ran_s: float) -> tuple[Expected, ...]:
    """What a scenario expects to follow, if it ran to its end."""
    declared, _ = load_scenario(scenario)
    return declared.truth if ran_s >= seconds(declared.length) else ()


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
