"""The API over a real store, without a socket: every route, its errors, its stream."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from cloud.api.app import create_app, create_crew_app
from cloud.api.stream import told as streamed
from cloud.balance import Balance
from cloud.points import PointTables
from cloud.store import Store
from cloud.timeseries.memory import MemoryTimeSeries
from cloud.timeseries.port import SampleBatch
from rules.alert import Phase
from rules.samples import Block, Point, PointTable
from tests.desk_city import START, City, at, registry, told
from wire.batch import Status
from wire.clock import NANOSECONDS, Clock

HOST = "192.0.2.7"  # an address set aside for examples
TOKEN = "a-token-shown-once-as-a-code"
TABLE = PointTable("gw-north", (Point("level-n1", "level_sensor", "level", "m", 10.0),))

ROUTES = {
    ("GET", "/api/v1/clock"),
    ("GET", "/api/v1/district"),
    ("GET", "/api/v1/devices"),
    ("GET", "/api/v1/alerts"),
    ("GET", "/api/v1/held-back"),
    ("POST", "/api/v1/held-back/{alert}/dispatch"),
    ("GET", "/api/v1/work-orders"),
    ("GET", "/api/v1/work-orders/{order}"),
    ("POST", "/api/v1/work-orders/{order}/actions"),
    ("GET", "/api/v1/work-orders/{order}/trail"),
    ("GET", "/api/v1/work-orders/{order}/evidence"),
    ("GET", "/api/v1/balance"),
    ("GET", "/api/v1/stream"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
}


class Centre:
    """A city with its API."""

    def __init__(self, city: City, app: FastAPI, client: httpx.AsyncClient, troubles: dict[str, str]) -> None:
        self.city = city
        self.app = app
        self.client = client
        self.troubles = troubles

    async def get(self, path: str, status: int = 200, **query: str | int) -> Any:
        answer = await self.client.get(path, params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def post(self, path: str, body: object, status: int = 200) -> Any:
        answer = await self.client.post(path, json=body)
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status
        return answer.json()

    async def flood(self) -> str:
        """A confirmed flood on level-n1; the id of its order."""
        await self.city.tell(31, told("rain.heavy", "rain-n1", Phase.RAISED, "heavy", 30, 1))
        await self.city.tell(61, told("flood.depth", "level-n1", Phase.RAISED, "slow", 60, 1, since=30))
        return (await self.city.order()).id


def visit(folder: Path, story: Callable[[Centre], Awaitable[None]], *, door: bool = False) -> None:
    async def run() -> None:
        async with Store(folder / "cloud.sqlite") as store:
            city = City(store, registry())
            points, timeseries, troubles = PointTables(store), MemoryTimeSeries(), dict[str, str]()
            await points.keep([TABLE], START)
            await timeseries.write([SampleBatch("gw-north", 1, START, TABLE, _rising())])
            clock = Clock(wall=time.time_ns(), city=at(100))
            balance = Balance(store, city.events, ["gw-north", "gw-south"], clock)
            app = create_app(
                *(city.desk, store, city.events, balance, timeseries, points, city.registry, clock, city.counted),
                troubles,
                HOST,
            )
            served = create_crew_app(app.state.context, HOST, TOKEN) if door else app
            transport = httpx.ASGITransport(served)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}:8080") as client:
                await story(Centre(city, app, client, troubles))

    asyncio.run(run())


def _rising() -> Block:
    taken_at = START + np.arange(10, dtype=np.int64) * 10 * NANOSECONDS
    value = np.linspace(0.0, 0.3, 10)
    value[5] = np.nan
    return Block(np.zeros(10, np.int32), taken_at, value, np.zeros(10, np.uint8))


def test_every_route_of_the_brief_exists_and_is_described(tmp_path: Path) -> None:
    async def story(centre: Centre) -> None:
        described = await centre.get("/api/v1/openapi.json")
        found = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
        assert found >= ROUTES
        order = described["components"]["schemas"]["WorkOrderView"]["properties"]
        assert order["opened_at"]["format"] == "date-time"

    visit(tmp_path, story)


def test_the_district_its_clock_and_its_balance(tmp_path: Path) -> None:
    async def story(centre: Centre) -> None:
        assert (await centre.get("/api/v1/clock"))["now"].startswith("2026-06-18T11:31:4")
        district = await centre.get("/api/v1/district")
        assert district["name"] == {"zh": "青石区", "en": "Bluestone District"}
        assert district["sites"][0]["outline"][0] == [121.3974, 31.2555]
        balance = await centre.get("/api/v1/balance")
        assert [gateway["id"] for gateway in balance["gateways"]] == ["gw-north", "gw-south"]
        assert set(balance["total"]) == {"acquired", "filtered", "dropped", "committed", "in_flight", "missing"}
        assert await centre.get("/healthz") == {"status": "ok"}
        assert await centre.get("/readyz") == {"status": "ready"}
        centre.city.counted.add("desk_unknown_transitions_total", 3)
        strange = {"edge_malformed_messages_total": 2, "no name\n": 1}
        centre.app.state.context.balance.heard(Status("gw-north", "b", 1, True, 0, 0, (), (), strange), retained=False)
        metrics = (await centre.client.get("/metrics")).text
        assert "streetwarden_desk_unknown_transitions_total 3.0" in metrics
        assert 'streetwarden_edge_malformed_messages_total{gateway="gw-north"} 2.0' in metrics
        assert "no name" not in metrics

    visit(tmp_path, story)


def test_devices_tell_state_newest_value_and_misfire_rate(tmp_path: Path) -> None:
    async def story(centre: Centre) -> None:
        order = await centre.flood()
        await centre.city.tell(71, told("device.stuck.level", "level-s1", Phase.RAISED, "stuck", 70, 1))
        for action in ("accept", "arrive"):
            await centre.city.act(100, order, action)
        await centre.city.act(100, order, "handle", finding="nothing_there")
        await centre.city.act(100, order, "verify", by="v", role="verifier", outcome="misfire", cause="sensor")
        devices = {device["id"]: device for device in (await centre.get("/api/v1/devices"))["items"]}
        assert len(devices) == 29
        level = devices["level-n1"]
        assert level["latest"]["level"]["unit"] == "m"
        assert abs(level["latest"]["level"]["value"] - 0.3) < 1e-9
        assert (level["state"], level["alerts"], level["outcomes"]["misfire"]) == ("alert", 1, 1)
        assert level["misfire_rate"] == {"n": 1, "mean": None, "low": None, "high": None}
        assert devices["level-s1"]["state"] == "fault"
        assert devices["rain-n1"]["state"] == "ok", "rain is information, not an alert on its gauge"

    visit(tmp_path, story)


def test_alerts_are_filtered_and_come_in_parts(tmp_path: Path) -> None:
    async def story(centre: Centre) -> None:
        for n, cover in enumerate(["cover-n1", "cover-n2", "cover-n3"]):
            await centre.city.tell(10 * n + 1, told("cover.open", cover, Phase.RAISED, "open", 10 * n, 1))
        await centre.city.tell(41, told("cover.open", "cover-s1", Phase.LAPSED, "open", 40, 1))
        first = await centre.get("/api/v1/alerts", limit=3)
        second = await centre.get("/api/v1/alerts", limit=3, cursor=first["next_cursor"])
        assert second["next_cursor"] is None
        found = [alert["device"] for alert in first["items"] + second["items"]]
        assert found == ["cover-s1", "cover-n3", "cover-n2", "cover-n1"]
        assert first["items"][1]["decision"]["code"] == "auto"
        assert first["items"][1]["work_order"]
        only = await centre.get("/api/v1/alerts", phase="lapsed")
        assert [alert["device"] for alert in only["items"]] == ["cover-s1"]
        newer = await centre.get("/api/v1/alerts", updated_since="2026-06-18T11:30:20+00:00")
        assert [alert["device"] for alert in newer["items"]] == ["cover-s1", "cover-n3"]
        for bad in ({"cursor": "nonsense"}, {"updated_since": "2026-06-18T11:30:20"}, {"limit": 0}, {"phase": "x"}):
            await centre.get("/api/v1/alerts", 422, **bad)

    visit(tmp_path, story)


def test_a_held_back_alert_can_be_dispatched_by_a_person_once(tmp_path: Path) -> None:
    async def story(centre: Centre) -> None:
        await centre.city.tell(9, told("cover.open", "cover-n1", Phase.LAPSED, "open", 8, 1))
        held = (await centre.get("/api/v1/held-back"))["items"]
        assert [(alert["decision"]["code"], alert["work_order"]) for alert in held] == [("lapsed", None)]
        path = f"/api/v1/held-back/{held[0]['id']}/dispatch"
        await centre.post(path, {"by": "duty-1"}, 422)
        order = await centre.post(path, {"by": "duty-1", "why": "a neighbour called"})
        assert order["confirmation"]["code"] == "dispatched_by_person"
        assert order["alerts"] == [held[0]["id"]]
        await centre.post(path, {"by": "duty-1", "why": "again"}, 409)
        await centre.post("/api/v1/held-back/nobody/dispatch", {"by": "duty-1", "why": "x"}, 404)
        assert (await centre.get("/api/v1/held-back"))["items"] == []

    visit(tmp_path, story)


def test_an_order_is_driven_to_its_close(tmp_path: Path) -> None:
    async def story(centre: Centre) -> None:
        path = f"/api/v1/work-orders/{await centre.flood()}"
        order = await centre.get(path)
        assert order["unit"]["id"] == "drainage-north"
        assert order["actions"] == ["accept", "return", "cancel"]
        assert order["clock"]["limit_s"] == 7200
        assert order["reason"]["unit"] == "m"
        actions = f"{path}/actions"
        crew = {"by": "crew-1", "role": "crew"}
        refused = await centre.post(actions, {"action": "close", **crew}, 409)
        assert refused["allowed"] == ["accept", "return", "cancel"]
        await centre.post(actions, {"action": "accept", **crew, "version": order["version"] - 1}, 409)
        await centre.post(actions, {"action": "return", **crew}, 422)
        await centre.post(actions, {"action": "explode", **crew}, 422)
        await centre.post(actions, {"action": "accept", **crew, "version": order["version"]})
        await centre.post(actions, {"action": "arrive", **crew})
        order = await centre.post(actions, {"action": "handle", **crew, "finding": "handled", "why": "pumped out"})
        assert (order["state"], order["finding"]) == ("feedback", "handled")
        verify = {"action": "verify", "role": "verifier", "outcome": "confirmed"}
        await centre.post(actions, {**verify, "by": "crew-1"}, 409)
        order = await centre.post(actions, {**verify, "by": "verifier-1"})
        assert order["sensor_abnormal"] is True
        order = await centre.post(actions, {"action": "close", "by": "duty-1", "role": "duty_officer"})
        assert (order["state"], order["actions"]) == ("closed", [])
        trail = await centre.get(f"{path}/trail")
        assert trail["valid"] is True
        wanted = ["register", "dispatch", "accept", "arrive", "handle", "feedback", "verify", "close"]
        assert [entry["action"] for entry in trail["entries"]] == wanted
        assert [each["id"] for each in (await centre.get("/api/v1/work-orders", state="closed"))["items"]] == [
            order["id"]
        ]

    visit(tmp_path, story)


def test_evidence_shows_the_samples_with_the_limits_they_crossed(tmp_path: Path) -> None:
    async def story(centre: Centre) -> None:
        evidence = await centre.get(f"/api/v1/work-orders/{await centre.flood()}/evidence")
        (series,) = [each for each in evidence["series"] if each["device"] == "level-n1"]
        assert (series["metric"], series["unit"], len(series["points"])) == ("level", "m", 10)
        assert series["points"][0] == [START // 1_000_000, 0.0, 0]
        assert series["points"][5][1] is None
        assert [limit["level"] for limit in series["limits"]] == ["slow", "close", "severe"]

    visit(tmp_path, story)


def test_unknown_ids_and_paths_are_problems(tmp_path: Path) -> None:
    async def story(centre: Centre) -> None:
        for path in ("", "/trail", "/evidence"):
            problem = await centre.get(f"/api/v1/work-orders/nobody{path}", 404)
            assert problem["detail"] == "there is no work order `nobody`"
        act = {"action": "accept", "by": "c", "role": "crew"}
        await centre.post("/api/v1/work-orders/nobody/actions", act, 404)
        await centre.get("/nothing/here", 404)
        answer = await centre.client.get("/api/v1/stream", headers={"Last-Event-ID": "x"})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")

    visit(tmp_path, story)


def test_the_stream_resumes_after_the_last_event_seen_and_ends_when_told(tmp_path: Path) -> None:
    async def story(centre: Centre) -> None:
        closing = asyncio.Event()

        async def some(last: int, wanted: int) -> list[str]:
            lines = streamed(centre.city.events, last, closing)
            found = []
            async for line in lines:
                if line.startswith("id:"):
                    found.append(line)
                if len(found) == wanted:
                    break
            await lines.aclose()  # type: ignore[attr-defined]
            return found

        order = await centre.flood()
        everything = await some(0, 4)
        assert f'event: work_order\ndata: {{"subject":"{order}"}}' in "".join(everything)
        assert await some(1, 3) == everything[1:], "a client that reconnects misses nothing"
        waiting = asyncio.create_task(some(10_000, 1), name="waits for an end")
        await asyncio.sleep(0)
        closing.set()
        assert await waiting == []

    visit(tmp_path, story)


def test_it_is_not_ready_while_something_cannot_be_stored(tmp_path: Path) -> None:
    async def story(centre: Centre) -> None:
        centre.troubles |= {"samples": "no answer from the server", "alerts": "the disk is full"}
        problem = await centre.get("/readyz", 503)
        told = "samples cannot be stored: no answer from the server; alerts cannot be stored: the disk is full"
        assert (problem["status"], problem["detail"]) == (503, told)
        assert await centre.get("/healthz") == {"status": "ok"}
        centre.troubles.clear()
        assert await centre.get("/readyz") == {"status": "ready"}

    visit(tmp_path, story)


@pytest.mark.parametrize("door", [False, True])
def test_only_its_own_names_reach_it(tmp_path: Path, *, door: bool) -> None:
    async def story(centre: Centre) -> None:
        for name in (HOST, f"{HOST}:8080", "127.0.0.1:8080", "localhost", "[::1]:8080"):
            assert (await centre.client.get("/crew", headers={"host": name})).status_code == 200
        for name in ("rebound.example", "rebound.example:8080", f"{HOST}.rebound.example", "localhost.rebound.example"):
            assert (await centre.client.get("/crew", headers={"host": name})).status_code == 400

    visit(tmp_path, story, door=door)


def test_the_page_is_served_and_nothing_else_of_the_disk(tmp_path: Path) -> None:
    async def story(centre: Centre) -> None:
        assert "text/html" in (await centre.client.get("/")).headers["content-type"]
        assert "text/html" in (await centre.client.get("/crew")).headers["content-type"]
        assert (await centre.client.get("/app.js")).status_code == 200
        assert (await centre.client.get("/..%2fapi%2fapp.py")).status_code == 404

    visit(tmp_path, story)


def test_the_crew_enters_once_with_the_token_and_reaches_only_its_own(tmp_path: Path) -> None:
    async def story(centre: Centre) -> None:
        order = await centre.flood()
        orders = "/crew/api/work-orders"
        await centre.get(orders, 401)
        await centre.post("/crew/session", {"token": "wrong"}, 403)
        entered = await centre.client.post("/crew/session", json={"token": TOKEN})
        assert entered.status_code == 204
        assert "HttpOnly" in entered.headers["set-cookie"]
        assert [each["id"] for each in (await centre.get(orders))["items"]] == [order]
        body = {"action": "accept", "by": "crew-7", "role": "crew"}
        assert (await centre.post(f"{orders}/{order}/actions", body))["state"] == "accepted"
        await centre.post(f"{orders}/{order}/actions", {**body, "action": "cancel", "why": "no"}, 422)
        for path in ("/", "/api/v1/work-orders", "/api/v1/openapi.json", "/metrics", "/app.js", "/demo/actions"):
            await centre.get(path, 404)
        assert (await centre.client.get("/crew")).status_code == 200
        assert (await centre.client.get("/crew.js")).status_code == 200
        cookies.update(centre.client.cookies)
        centre.client.cookies.clear()
        await centre.post("/crew/session", {"token": TOKEN}, 403)
        await centre.get(orders, 401)

    async def after_a_restart(centre: Centre) -> None:
        await centre.post("/crew/session", {"token": TOKEN}, 403)
        centre.client.cookies.update(cookies)
        await centre.get("/crew/api/work-orders")

    cookies = httpx.Cookies()
    visit(tmp_path, story, door=True)
    visit(tmp_path, after_a_restart, door=True)
