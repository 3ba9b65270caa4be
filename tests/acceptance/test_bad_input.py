"""Bad input anywhere names its place, raises its own counter by one and no other, and the next good input passes.

Every case goes to real processes (``tests/small_city.py``). What a gateway counts is read where an operator reads it:
in the cloud's ``/metrics``, under the label ``gateway``. Configurations are in ``test_bad_configuration.py``.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import zstandard

from rules.alert import Phase, Reason, Severity, Transition, alert_id
from rules.samples import POINT, QUALITY, TIME, VALUE, Block, Point, PointTable, Quality
from tests.modbus_server import exception, reply
from tests.small_city import APPLICATION, CAMERA, COVER, LAB, TABLE, Answer, SmallCity, small_city, until
from wire.batch import CONTENT_TYPE, MAX_BYTES, Batch, Columns, Receipt, Status, Tally, columns, decode, encode
from wire.clock import HOUR, NANOSECONDS, iso
from wire.session import Session
from wire.topics import Lane, receipt, up

Counters = dict[tuple[str, str], int]
BATCHES = "ingest_malformed_batches_total"
NOBODY = "gw-nobody"
ZONE = f"{CAMERA}/&1/2/Zone"


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCity]:
    with small_city(tmp_path_factory.mktemp("small")) as made:
        yield made


class Lab:
    """A client that speaks for the gateway of the lab, and for any sensor."""

    def __init__(self, city: SmallCity, session: Session) -> None:
        self.city = city
        self._session = session

    async def say(self, topic: str, payload: bytes, content_type: str = CONTENT_TYPE) -> None:
        await self._session.publish(topic, payload, content_type=content_type)

    async def up(self, lane: Lane, message: Batch | Status | PointTable | bytes, gateway: str = LAB) -> None:
        await self.say(up(gateway, lane), message if isinstance(message, bytes) else encode(message))

    async def receipted(self, seq: int) -> str:
        """Wait for the receipt of a batch: empty when it was accepted, else why it was rejected."""
        async with asyncio.timeout(10):
            while True:
                delivery = await self._session.receive()
                self._session.acknowledge(delivery)
                said = decode(delivery.payload, Receipt)
                if seq in said.accepted:
                    return ""
                if seq in dict(said.rejected):
                    return dict(said.rejected)[seq]


def batch(lab: Lab, *, gateway: str = LAB, point: int = 0, table: PointTable = TABLE, **fields: Any) -> Batch:
    """One sample of the lab, of now."""
    now = lab.city.clock.now()
    one = Block(np.array([point], POINT), np.array([now], TIME), np.array([0.1], VALUE), np.zeros(1, QUALITY))
    made = Batch(gateway, "boot", lab.city.seq(), 0, now // HOUR * HOUR, table.digest(), True, columns(one))
    return msgspec.structs.replace(made, **fields)


def alert(lab: Lab, rule: str = "flood.depth", device: str = "lab-1") -> Batch:
    """A near miss of the lab's level sensor."""
    now = lab.city.clock.now()
    reason = Reason("above", "level", {"value": 0.2, "limit": 0.15, "for_s": 10.0})
    step = Transition(
        alert_id(LAB, rule, device, now), 1, Phase.LAPSED, rule, "slow", Severity.III, device, now, now, reason, {}
    )
    return batch(lab, samples=None, transitions=(step,))


def changed(message: Batch | Status, **fields: object) -> bytes:
    """A message with fields that its type would not allow."""
    return zstandard.compress(msgspec.msgpack.encode(msgspec.to_builtins(message, builtin_types=(bytes,)) | fields))


def status(lab: Lab, gateway: str = LAB) -> Status:
    return Status(gateway, "boot", lab.city.clock.now(), True, 0, 0, ())


# What follows a bad input of each kind, and must pass.


async def a_batch_is_stored(lab: Lab) -> None:
    await lab.up(Lane.POINTS, TABLE)
    good = batch(lab)
    await lab.up(Lane.LIVE, good)
    assert await lab.receipted(good.seq) == ""
    taken_at = int(good.block().taken_at[0]) // 1_000_000
    stored = await lab.city.get("/api/v1/devices/lab-1/samples", metric="level")
    assert [taken_at, 0.1, 0] in stored["items"]


async def an_alert_is_taken(lab: Lab) -> None:
    good = alert(lab)
    await lab.up(Lane.ALERT, good)
    assert await lab.receipted(good.seq) == ""
    known = await lab.city.get("/api/v1/alerts", device="lab-1")
    assert good.transitions[0].alert in [each["id"] for each in known["items"]]


async def a_status_is_heard(lab: Lab) -> None:
    good = status(lab)
    await lab.up(Lane.STATUS, msgspec.structs.replace(good, counters={"lab_heard_total": good.at // NANOSECONDS}))

    async def heard() -> bool:
        counters: dict[str, int] = (await lab.city.line(LAB))["counters"]
        return counters.get("lab_heard_total") == good.at // NANOSECONDS

    await until(heard)


def uplink(lab: Lab, at: str = "", **measured: object) -> bytes:
    return json.dumps({"time": at or iso(lab.city.clock.now()), "object": measured or {"battery": 77}}).encode()


def event(at: str, *, inside: bool = False) -> bytes:
    return json.dumps({"UtcTime": at, "Source": {"Rule": "Zone"}, "Data": {"IsInside": inside}}).encode()


async def an_uplink_becomes_a_sample(lab: Lab) -> None:
    at = lab.city.clock.now() // 1_000_000 * 1_000_000
    battery = 20 + lab.city.seq() % 50  # another than before, or the filter keeps it back
    await lab.say(COVER, uplink(lab, iso(at), battery=battery, angle_x=1.5, angle_y=0.0, angle_z=88.0))

    async def stored() -> bool:
        # Looked for among all: the simulated cover tells of itself too.
        samples = await lab.city.get("/api/v1/devices/cover-1/samples", metric="battery", since=iso(at))
        return [at // 1_000_000, battery, 0] in samples["items"]

    await until(stored)
    await lab.city.told("gw-1")


async def an_event_becomes_a_sample(lab: Lab) -> None:
    # A little ahead, as a camera's clock may be: newer than a bad one that was given the time of its arrival.
    at = lab.city.clock.now() // 1_000_000 * 1_000_000 + 20 * NANOSECONDS
    inside = not (await lab.city.newest("camera-1", "object_inside")).get("value")
    await lab.say(ZONE, event(iso(at), inside=inside))
    await until(lambda: _is_newest(lab, "camera-1", "object_inside", at, float(inside)))
    await lab.city.told("gw-1")


async def _is_newest(lab: Lab, device: str, metric: str, at: int, value: float) -> bool:
    newest = await lab.city.newest(device, metric)
    return bool(newest) and (newest["taken_at"], newest["value"], newest["quality"]) == (iso(at), value, 0)


async def the_next_poll_is_good(lab: Lab) -> None:
    await until(lambda: _is_good_since(lab.city, "level-1", lab.city.clock.now()))
    await lab.city.told("gw-2")


async def _is_good_since(city: SmallCity, device: str, since: int, metric: str = "level") -> bool:
    """Whether a device's newest sample is good and was taken after ``since`` (looked at again and again)."""
    async with asyncio.timeout(10):
        while True:
            newest = await city.newest(device, metric)
            if newest and newest["taken_at"] > iso(since) and newest["quality"] == 0:
                return True
            await asyncio.sleep(0.1)


async def a_receipt_settles(lab: Lab) -> None:
    await an_uplink_becomes_a_sample(lab)

    async def settled() -> bool:
        return int((await lab.city.line("gw-1"))["in_flight"]) == 0

    await until(settled)


# The bad inputs.


@dataclass(frozen=True)
class Case:
    """``bad`` is done; then ``counter`` of ``where`` is one more, ``named`` stands in its log, and ``good`` passes."""

    id: str
    where: str
    counter: str
    named: tuple[str, ...]
    bad: Callable[[Lab], Awaitable[None]]
    good: Callable[[Lab], Awaitable[None]]


def ingest(id: str, counter: str, lane: Lane, message: Callable[[Lab], Batch | Status | PointTable | bytes],  # noqa: A002
           *named: str, gateway: str = LAB) -> Case:  # fmt: skip
    """A message to the cloud that is turned away without an answer."""
    goods = {Lane.ALERT: an_alert_is_taken, Lane.STATUS: a_status_is_heard}
    place = (f"gateway={gateway}",) if counter.startswith("desk") else (up(gateway, lane), counter)
    bad = lambda lab: lab.up(lane, message(lab), gateway)  # noqa: E731
    return Case(id, "cloud", counter, (*place, *named), bad, goods.get(lane, a_batch_is_stored))


def rejected(id: str, counter: str, lane: Lane, message: Callable[[Lab], Batch], code: str, *named: str,  # noqa: A002
             spoil: Callable[[Batch], bytes] = encode) -> Case:  # fmt: skip
    """A batch to the cloud that its gateway is told to drop, in a receipt that says why."""

    async def bad(lab: Lab) -> None:
        made = message(lab)
        await lab.up(lane, spoil(made))
        assert await lab.receipted(made.seq) == code

    good = an_alert_is_taken if lane is Lane.ALERT else a_batch_is_stored
    return Case(id, "cloud", counter, (up(LAB, lane), counter, *named), bad, good)


def sensor(id: str, counter: str, topic: str, payload: Callable[[Lab], bytes], *named: str) -> Case:  # noqa: A002
    """A message of a LoRaWAN sensor or a camera."""
    good = an_event_becomes_a_sample if topic.startswith("camera") else an_uplink_becomes_a_sample
    bad = lambda lab: lab.say(topic, payload(lab), "application/json")  # noqa: E731
    return Case(id, "gw-1", counter, (topic, counter, *named), bad, good)


def modbus(id: str, counter: str, answer: Answer, *named: str) -> Case:  # noqa: A002
    """One wrong answer of a device on a bus."""

    async def bad(lab: Lab) -> None:
        lab.city.bus.spoilt.append(answer)

    place = ("bus=bus-2", "device=level-1", "profile=dfrobot_sen0492", counter)
    return Case(id, "gw-2", counter, (*place, *named), bad, the_next_poll_is_good)


SHORT = Columns(b"\0\0\0\0", b"", b"", b"")
OTHER = PointTable(LAB, (Point("lab-2", "level_sensor", "level", "m", 10.0),))
SENML = b'[{"bn":"urn:dev:lab-1:","n":"level","u":"m","v":0.2}]'
FUTURE, YEAR_1 = "2036-01-01T00:00:00Z", "0001-01-01T00:00:00Z"

CASES = [
    # A batch of garbage, on every lane and in every way.
    ingest("garbage", BATCHES, Lane.LIVE, lambda _: b"garbage", "not a Batch"),
    ingest("nothing", BATCHES, Lane.BACKFILL, lambda _: b"", "not a Batch"),
    ingest("truncated", BATCHES, Lane.LIVE, lambda lab: encode(batch(lab))[:-9], "not a Batch"),
    ingest("a bomb", BATCHES, Lane.LIVE, lambda _: zstandard.compress(bytes(MAX_BYTES + 1)), "unpacks to more than"),
    ingest("a deep nest", BATCHES, Lane.LIVE, lambda _: zstandard.compress(b"\x81\xa1x" + b"\x91" * 100_000), "not a"),
    ingest("no such number", BATCHES, Lane.LIVE, lambda lab: changed(batch(lab), seq=2**64 - 1), "$.seq"),
    rejected("a wrong type", BATCHES, Lane.LIVE, batch, "malformed", "$.boot", spoil=lambda b: changed(b, boot=3)),
    rejected("short columns", BATCHES, Lane.LIVE, lambda lab: batch(lab, samples=SHORT), "malformed", "one length"),
    ingest("garbage alerts", BATCHES, Lane.ALERT, lambda _: b"garbage", "not a Batch"),
    rejected("an alert of no time", BATCHES, Lane.ALERT, alert, "malformed", "since",
             spoil=lambda b: changed(b, transitions=[msgspec.to_builtins(b.transitions[0]) | {"since": 2**64 - 1}])),
    Case("SenML on the alert lane", "cloud", "ingest_wrong_content_messages_total",
         (up(LAB, Lane.ALERT), "application/senml+json"),
         lambda lab: lab.say(up(LAB, Lane.ALERT), SENML, "application/senml+json"), an_alert_is_taken),
    # The right form and the wrong thing.
    rejected("samples on the alert lane", "ingest_wrong_lane_batches_total", Lane.ALERT, batch, "wrong_lane"),
    rejected("alerts on a sample lane", "ingest_wrong_lane_batches_total", Lane.LIVE, alert, "wrong_lane"),
    rejected("a point outside its table", "ingest_outside_table_batches_total", Lane.LIVE,
             lambda lab: batch(lab, point=7), "outside_point_table", TABLE.digest()),
    rejected("a point before its table", "ingest_outside_table_batches_total", Lane.LIVE,
             lambda lab: batch(lab, point=-1), "outside_point_table", TABLE.digest()),
    rejected("another gateway's batch", "ingest_foreign_batches_total", Lane.LIVE,
             lambda lab: batch(lab, gateway="gw-1"), "foreign_gateway", "names gateway gw-1"),
    ingest("a table that never came", "ingest_unknown_points_batches_total", Lane.LIVE,
           lambda lab: batch(lab, table=OTHER), OTHER.digest()),
    ingest("an unknown rule", "desk_unknown_transitions_total", Lane.ALERT, lambda lab: alert(lab, rule="flood.dpth"),
           "rule=flood.dpth", "device=lab-1"),
    ingest("an unknown device", "desk_unknown_transitions_total", Lane.ALERT, lambda lab: alert(lab, device="lab-9"),
           "rule=flood.depth", "device=lab-9"),
    # An unknown gateway, on every lane; a topic that is no lane.
    ingest("an unknown gateway's batch", "ingest_unknown_gateway_batches_total", Lane.LIVE,
           lambda lab: batch(lab, gateway=NOBODY), "gw-nobody is not onboarded", gateway=NOBODY),
    ingest("an unknown gateway's alert", "ingest_unknown_gateway_batches_total", Lane.ALERT,
           lambda lab: batch(lab, gateway=NOBODY, samples=None), "gw-nobody is not onboarded", gateway=NOBODY),
    ingest("an unknown gateway's status", "ingest_unknown_gateway_statuses_total", Lane.STATUS,
           lambda lab: status(lab, NOBODY), "gw-nobody is not onboarded", gateway=NOBODY),
    ingest("an unknown gateway's table", "ingest_unknown_gateway_tables_total", Lane.POINTS,
           lambda _: TABLE, "gw-nobody is not onboarded", gateway=NOBODY),
    Case("a wrong topic", "cloud", "ingest_unknown_topics_total", (f"streetwarden/v1/{LAB}/up/lvie",),
         lambda lab: lab.say(f"streetwarden/v1/{LAB}/up/lvie", encode(batch(lab))), a_batch_is_stored),
    # Statuses and tables.
    ingest("a garbage status", "ingest_malformed_statuses_total", Lane.STATUS, lambda _: b"garbage", "not a Status"),
    ingest("an hour no ledger holds", "ingest_malformed_statuses_total", Lane.STATUS,
           lambda lab: changed(status(lab), tallies=[msgspec.to_builtins(Tally(0, 1, 0, 0)) | {"hour": 2**64 - 1}]),
           "$.tallies"),
    ingest("another gateway's status", "ingest_foreign_statuses_total", Lane.STATUS, lambda lab: status(lab, "gw-1"),
           "names gateway gw-1"),
    ingest("a garbage table", "ingest_malformed_tables_total", Lane.POINTS, lambda _: b"garbage", "not a PointTable"),
    ingest("another gateway's table", "ingest_foreign_tables_total", Lane.POINTS,
           lambda _: PointTable("gw-1", TABLE.points), "names gateway gw-1"),
    # Sensors over MQTT.
    sensor("an unknown LoRaWAN device", "edge_unknown_device_messages_total", f"{APPLICATION}/00ff/event/up", uplink),
    sensor("an uplink that is no JSON", "edge_malformed_messages_total", COVER, lambda _: b"\xff{", "device=cover-1"),
    sensor("an uplink of the year 1", "edge_malformed_messages_total", COVER, lambda lab: uplink(lab, YEAR_1), YEAR_1),
    sensor("an event without UtcTime", "edge_malformed_messages_total", ZONE,
           lambda _: b'{"Source":{"Rule":"Zone"},"Data":{"IsInside":true}}', "UtcTime", "device=camera-1"),
    sensor("an event from the future", "edge_clock_fault_messages_total", ZONE, lambda _: event(FUTURE), "2036"),
    Case("a garbage receipt", "gw-1", "uplink_malformed_receipts_total", (receipt("gw-1"),),
         lambda lab: lab.say(receipt("gw-1"), b"garbage"), a_receipt_settles),
    # Devices on a bus: one wrong answer each.
    modbus("exception 02", "edge_poll_exception_02_total", lambda asked: exception(asked, 2),
           "no such address", "unit 1 function 3 addresses 52 to 52"),
    modbus("fewer registers", "edge_poll_misfit_total", lambda asked: reply(asked, b"\x0b"), "4 bytes wanted"),
    modbus("another unit's answer", "edge_poll_misfit_total", lambda asked: reply(asked, unit=9), "got unit 9"),
    modbus("garbage on the bus", "edge_poll_garbled_total", lambda _: b"\xff" * 40, "not a Modbus header"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_it_is_named_and_counted_once_and_the_next_good_one_passes(city: SmallCity, case: Case) -> None:
    asyncio.run(_play(city, case))


async def _play(city: SmallCity, case: Case) -> None:
    before, said = await city.errors(), len(city.log(case.where))
    key = (case.where, case.counter)
    async with Session(city.broker, "lab", [receipt(LAB)], clean=True) as session:
        await session.wait_connected()
        lab = Lab(city, session)
        await case.bad(lab)
        if case.where == "cloud":  # else the good one must not overtake it on another lane

            async def counted() -> bool:
                return (await city.errors()).get(key, 0) > before.get(key, 0)

            await until(counted)
        await case.good(lab)
    assert moved(before, await city.errors()) == {key: 1}
    lines = [line for line in city.log(case.where)[said:].splitlines() if case.named[0] in line]
    assert any(all(name in line for name in case.named) for line in lines), city.log(case.where)[said:]


def moved(before: Counters, after: Counters) -> Counters:
    """What was counted in between."""
    return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}


CALLS = [
    # method, path, body, status, counter, what the answer names
    ("GET", "/api/v1/work-orders?stat=closed", None, 422, "bad_query", "query.stat: no such parameter; did you mean"),
    ("GET", "/api/v1/work-orders?state=open", None, 422, "malformed", "query.state"),
    ("GET", "/api/v1/alerts?updated_since=yesterday", None, 422, "bad_query", "yesterday"),
    ("GET", "/api/v1/alerts?updated_since=9999-01-01T00:00:00Z", None, 422, "bad_query", "64 bits"),
    ("GET", "/api/v1/alerts?cursor=nonsense", None, 422, "bad_query", "cursor"),
    ("GET", "/api/v1/work-orders/nobody", None, 404, "unknown_id", "nobody"),
    ("GET", "/api/v1/work-order", None, 404, "status_404", ""),
    ("POST", "/api/v1/work-orders", {}, 405, "status_405", ""),
    ("POST", "/api/v1/work-orders/x/actions", {"action": "explode", "by": "a", "role": "crew"}, 422, "malformed",
     "body.action"),
    ("POST", "/api/v1/work-orders/x/actions", {"action": "accept", "by": "a", "role": "crew", "wy": "?"}, 422,
     "malformed", "body.wy"),
    ("POST", "/api/v1/work-orders/x/actions", "not an object", 422, "malformed", "body"),
    ("POST", "/api/v1/work-orders/x/actions", {"action": "accept", "by": "a", "role": "crew"}, 404, "unknown_id",
     "`x`"),
    ("POST", "/demo/actions/earthquake", {}, 404, "status_404", "earthquake"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "counter", "named"), CALLS)
def test_a_wrong_call_is_answered_with_its_place(
    city: SmallCity, method: str, path: str, body: object, status: int, counter: str, named: str
) -> None:
    async def play() -> None:
        before = await city.errors()
        async with httpx.AsyncClient(base_url=city.url, trust_env=False) as client:
            answer = await client.request(method, path, json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert named in answer.json()["detail"]
        assert (await city.get("/api/v1/work-orders", limit=5))["items"] == []
        assert moved(before, await city.errors()) == {("cloud", f"api_{counter}_requests_total"): 1}

    asyncio.run(play())


def test_a_wrong_register_map_is_told_with_its_place_and_leaves_the_neighbours_alone(city: SmallCity) -> None:
    """A manhole monitor is declared as a power meter: each poll is one exception 02, and no value is ever shown."""
    right = (city.folder / "district.toml").read_text("utf-8")
    head, tail = right.split('id = "monitor-1"')
    monitor, meter = ("manhole_monitor", "reference_manhole_monitor"), ("power_meter", "eastron_sdm120")
    wrong = tail
    for was, instead in zip(monitor, meter, strict=True):
        wrong = wrong.replace(f'"{was}"', f'"{instead}"', 1)
    (city.folder / "wrong.toml").write_text(f'{head}id = "monitor-1"{wrong}', "utf-8")
    with city.process("gw-3", "gateway.process", str(city.edit("gw-3", district="wrong.toml"))):
        asyncio.run(_one_is_down(city))
    with city.process("gw-3", "gateway.process", str(city.edit("gw-3", district="district.toml"))):
        asyncio.run(_both_are_good(city))


async def _one_is_down(city: SmallCity) -> None:
    async def is_told() -> bool:
        down: list[str] = (await city.line("gw-3"))["devices_down"]
        return down == ["monitor-1"]

    await until(is_told)
    assert await _is_good_since(city, "monitor-2", city.clock.now())
    counted = {name: count for name, count in (await city.errors()).items() if name[0] == "gw-3"}
    # One for each poll that failed, and nothing else: not its neighbour, not another name.
    assert set(counted) == {("gw-3", "edge_poll_exception_02_total")}
    assert min(counted.values()) >= 2
    (down,) = [line for line in city.log("gw-3").splitlines() if "device is down" in line]
    for named in ("bus=bus-3", "device=monitor-1", "profile=eastron_sdm120", "no such address", "addresses 0 to"):
        assert named in down
    for metric in ("voltage", "power"):
        newest = await city.newest("monitor-1", metric)
        assert (newest["value"], newest["quality"]) == (None, Quality.BAD_COMMS)


async def _both_are_good(city: SmallCity) -> None:
    now = city.clock.now()
    assert await _is_good_since(city, "monitor-1", now)
    assert await _is_good_since(city, "monitor-2", now)
    await city.told("gw-3")
    line = await city.line("gw-3")
    assert line["devices_down"] == []
    assert "edge_poll_exception_02_total" not in line["counters"]  # a new process counts from nothing


def test_a_map_that_does_not_fit_counts_one_for_each_poll(city: SmallCity) -> None:
    """Two polls declined: two on the counter, the device told down once and back once."""

    async def play() -> None:
        before, said = await city.errors(), len(city.log("gw-2"))
        city.bus.spoilt.extend([lambda asked: exception(asked, 2)] * 2)

        async def over() -> bool:
            return not city.bus.spoilt and "device is back" in city.log("gw-2")[said:]

        await until(over)
        assert await _is_good_since(city, "level-1", city.clock.now())
        await city.told("gw-2")
        assert moved(before, await city.errors()) == {("gw-2", "edge_poll_exception_02_total"): 2}
        log = city.log("gw-2")[said:]
        assert [log.count(event) for event in ("bad answer", "device is down", "device is back")] == [1, 1, 1]

    asyncio.run(play())
