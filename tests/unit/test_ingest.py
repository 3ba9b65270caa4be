"""Ingest over memory links: what it takes, what it turns away, and the order of commit, receipt and acknowledgement."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import zstandard
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from cloud import ingest
from cloud.points import PointTables
from cloud.timeseries.port import Misconfigured, Retry
from rules.samples import Point, PointTable
from tests.ingesting import HOUR_0, TABLE, World, alert_batch, sample_batch, until, world
from wire.batch import CONTENT_TYPE, Batch, Columns, Receipt, Status, encode
from wire.clock import HOUR
from wire.topics import Lane, receipt, up

Test = Callable[[World], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Test], None]:
    monkeypatch.setattr(ingest, "RETRY_S", 0.01)

    def run_in_world(test: Test) -> None:
        async def main() -> None:
            async with world(tmp_path) as made:
                await test(made)

        asyncio.run(main())

    return run_in_world


Run = Callable[[Test], None]


def test_samples_are_stored_and_receipted(run: Run) -> None:
    async def test(city: World) -> None:
        await city.send(Lane.POINTS, TABLE)
        await city.send(Lane.LIVE, sample_batch(1, 0.1, 0.2))
        await city.send(Lane.BACKFILL, sample_batch(2, 0.3))
        await city.quiet()
        assert await city.values() == [0.1, 0.2, 0.3]
        assert city.samples.accepted == [1, 2]
        assert city.counted.snapshot() == {"ingest_duplicate_batches_total": 0} | {
            "ingest_sample_batches_total": 2,
            "ingest_samples_total": 3,
        }

    run(test)


def test_alerts_reach_the_sink_in_order(run: Run) -> None:
    async def test(city: World) -> None:
        await city.send(Lane.ALERT, alert_batch(1, "a", 1))
        await city.send(Lane.ALERT, alert_batch(2, "a", 2))
        await city.quiet()
        assert city.sink.taken == [("gw-north", "a", 1), ("gw-north", "a", 2)]
        assert city.sink.commits >= 1
        assert city.alerts.accepted == [1, 2]

    run(test)


def test_a_repeat_is_receipted_again_and_taken_once(run: Run) -> None:
    async def test(city: World) -> None:
        await city.send(Lane.POINTS, TABLE)
        for _ in range(3):
            await city.send(Lane.LIVE, sample_batch(1, 0.1))
            await city.send(Lane.ALERT, alert_batch(2, "a"))
            await city.quiet()
        assert await city.values() == [0.1]
        assert city.sink.taken == [("gw-north", "a", 1)]
        assert city.samples.accepted == [1, 1, 1]
        assert city.alerts.accepted == [2, 2, 2]
        assert city.counted["ingest_duplicate_batches_total"] == 4
        assert city.balance.view().total.committed == 1

    run(test)


def _changed(batch: Batch, **fields: object) -> bytes:
    """A batch with fields that its type would not allow."""
    whole = msgspec.to_builtins(batch, builtin_types=(bytes,)) | fields
    return zstandard.compress(msgspec.msgpack.encode(whole))


SHORT = Columns(b"\0\0\0\0", b"", b"", b"")
OTHER = PointTable("gw-south", TABLE.points)

BAD_SAMPLES = {
    "garbage": (b"garbage", "ingest_malformed_batches_total", None),
    "empty": (b"", "ingest_malformed_batches_total", None),
    "truncated": (encode(sample_batch(7, 1.0))[:-9], "ingest_malformed_batches_total", None),
    "a field of another type": (_changed(sample_batch(7, 1.0), boot=3), "ingest_malformed_batches_total", "malformed"),
    "columns that do not fit": (
        encode(msgspec.structs.replace(sample_batch(7, 1.0), samples=SHORT)),
        "ingest_malformed_batches_total",
        "malformed",
    ),
    "a number no store can hold": (_changed(sample_batch(7), seq=2**64 - 1), "ingest_malformed_batches_total", None),
    "an hour that is none": (
        encode(sample_batch(7, 1.0, hour=HOUR_0 + 1)),
        "ingest_malformed_batches_total",
        "malformed",
    ),
    "an hour no store can hold": (
        _changed(sample_batch(7), hour=HOUR * (2**63 // HOUR + 1)),
        "ingest_malformed_batches_total",
        "malformed",
    ),
    "a negative number": (encode(sample_batch(-7, 1.0)), "ingest_malformed_batches_total", None),
    "another gateway's": (
        encode(sample_batch(7, 1.0, gateway="gw-south")),
        "ingest_foreign_batches_total",
        "foreign_gateway",
    ),
    "an index outside the table": (
        encode(sample_batch(7, 1.0, point=2)),
        "ingest_outside_table_batches_total",
        "outside_point_table",
    ),
    "a negative index": (
        encode(sample_batch(7, 1.0, point=-1)),
        "ingest_outside_table_batches_total",
        "outside_point_table",
    ),
    "alerts on the samples' lane": (encode(alert_batch(7, "a")), "ingest_wrong_lane_batches_total", "wrong_lane"),
    "a table that has not come": (
        encode(sample_batch(7, 1.0, table=OTHER)),
        "ingest_unknown_points_batches_total",
        None,
    ),
}


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_a_bad_batch_is_counted_once_and_the_next_good_one_passes(run: Run, name: str) -> None:
    payload, counter, code = BAD_SAMPLES[name]

    async def test(city: World) -> None:
        await city.send(Lane.POINTS, TABLE)
        await city.send(Lane.LIVE, payload)
        await city.send(Lane.LIVE, sample_batch(8, 0.5))
        await city.quiet()
        assert city.counted[counter] == 1
        assert city.samples.rejected == ([(7, code)] if code else [])
        assert city.samples.accepted == [8]
        assert await city.values() == [0.5]

    run(test)


def test_samples_on_the_alert_lane_are_rejected(run: Run) -> None:
    async def test(city: World) -> None:
        await city.send(Lane.ALERT, sample_batch(7, 1.0))
        await city.send(Lane.ALERT, alert_batch(8, "a"))
        await city.quiet()
        assert city.alerts.rejected == [(7, "wrong_lane")]
        assert city.alerts.accepted == [8]

    run(test)


@pytest.mark.parametrize(
    ("lane", "counter"),
    [
        (Lane.ALERT, "ingest_unknown_gateway_batches_total"),
        (Lane.LIVE, "ingest_unknown_gateway_batches_total"),
        (Lane.STATUS, "ingest_unknown_gateway_statuses_total"),
        (Lane.POINTS, "ingest_unknown_gateway_tables_total"),
    ],
)
def test_an_unknown_gateway_gets_no_receipt(run: Run, lane: Lane, counter: str) -> None:
    async def test(city: World) -> None:
        await city.send(lane, alert_batch(1, "a"), gateway="gw-nobody")
        await city.quiet()
        assert city.counted.snapshot() == {counter: 1}
        assert city.alerts.receipts == city.samples.receipts == []
        assert city.sink.taken == []

    run(test)


@pytest.mark.parametrize(
    ("lane", "message", "counter"),
    [
        (Lane.STATUS, b"garbage", "ingest_malformed_statuses_total"),
        (Lane.STATUS, Status("gw-south", "boot", 0, True, 0, 0, ()), "ingest_foreign_statuses_total"),
        (Lane.POINTS, b"garbage", "ingest_malformed_tables_total"),
        (Lane.POINTS, OTHER, "ingest_foreign_tables_total"),
    ],
)
def test_a_bad_message_is_counted_under_its_own_name(
    run: Run, lane: Lane, message: bytes | Status | PointTable, counter: str
) -> None:
    async def test(city: World) -> None:
        await city.send(lane, message)
        await city.quiet()
        assert city.counted.snapshot() == {counter: 1}

    run(test)


def test_a_strange_topic_is_counted(run: Run) -> None:
    async def test(city: World) -> None:
        await city.samples.put("streetwarden/v1/gw-north/up/nonsense", b"")
        await city.quiet()
        assert city.counted.snapshot() == {"ingest_unknown_topics_total": 1}

    run(test)


def test_another_content_is_turned_away_by_what_it_says_it_is(run: Run) -> None:
    async def test(city: World) -> None:
        topic = up("gw-north", Lane.ALERT)
        await city.alerts.put(topic, b"[]", content_type="application/senml+json")
        await city.alerts.put(topic, encode(alert_batch(8, "a")), content_type=CONTENT_TYPE)
        await city.quiet()
        assert city.counted["ingest_wrong_content_messages_total"] == 1
        assert city.counted["ingest_malformed_batches_total"] == 0
        assert city.alerts.accepted == [8]

    run(test)


def test_what_the_alerts_session_has_is_passed_over_by_the_samples_session(run: Run) -> None:
    """It hears every topic, so that a wrong one is noticed: nothing may be counted twice for that."""

    async def test(city: World) -> None:
        for lane in (Lane.ALERT, Lane.STATUS):
            for gateway in ("gw-north", "gw-nobody"):
                await city.samples.put(up(gateway, lane), b"garbage")
        await city.quiet()
        assert city.counted.snapshot() == {}

    run(test)


def test_a_tally_that_no_ledger_can_hold_is_malformed(run: Run) -> None:
    whole = msgspec.to_builtins(Status("gw-north", "boot", 0, True, 0, 0, ()))
    whole["tallies"] = [{"hour": 2**64 - 1, "acquired": 1, "filtered": 0, "sent": 0, "dropped": {}}]

    async def test(city: World) -> None:
        await city.send(Lane.STATUS, zstandard.compress(msgspec.msgpack.encode(whole)))
        await city.quiet()
        assert city.counted.snapshot() == {"ingest_malformed_statuses_total": 1}

    run(test)


def test_a_batch_whose_table_comes_later_is_taken_when_it_is_sent_again(run: Run) -> None:
    async def test(city: World) -> None:
        await city.send(Lane.LIVE, sample_batch(1, 0.1))
        await city.quiet()
        assert city.samples.receipts == []
        await city.send(Lane.POINTS, TABLE)
        await city.send(Lane.LIVE, sample_batch(1, 0.1))
        await city.quiet()
        assert city.samples.accepted == [1]

    run(test)


def test_tables_are_remembered_over_a_restart(tmp_path: Path) -> None:
    later = PointTable("gw-north", (*TABLE.points, Point("lamp-2", "lamp_controller", "power", "W", 30)))

    async def main() -> None:
        async with world(tmp_path) as city:
            await city.send(Lane.POINTS, TABLE)
            await city.quiet()
            await city.send(Lane.POINTS, later)
            await city.quiet()
            again = PointTables(city.store)
            await again.load()
            assert [again.get(table.digest()) for table in (TABLE, later)] == [TABLE, later]
            assert again.units().of_metric("lamp-2", "power") == "W"

    asyncio.run(main())


def test_the_order_is_commit_receipt_acknowledgement(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, run=False) as city:
            await city.points.keep([TABLE], 0)
            await city.send(Lane.LIVE, sample_batch(1, 0.1))
            group = city.samples.receive_waiting(1)
            answers = await city.ingest.commit_samples(group)
            assert await city.values() == [0.1]
            assert city.samples.told == []
            await city.ingest.send_receipts(city.samples, answers)
            assert city.samples.told == [("receipt", (receipt("gw-north"), Receipt((1,))))]
            city.ingest.acknowledge(city.samples, group)
            assert city.samples.told[1:] == [("acknowledged", group[0])]

    asyncio.run(main())


def test_an_outage_of_the_samples_store_delays_no_alert(run: Run) -> None:
    async def test(city: World) -> None:
        await city.send(Lane.POINTS, TABLE)
        city.timeseries.failure = Retry("down")
        await city.send(Lane.LIVE, sample_batch(1, 0.1))
        await until(lambda: city.timeseries.tried > 1)
        await city.send(Lane.ALERT, alert_batch(2, "a"))
        await city.alerts.all_acknowledged()
        assert city.alerts.accepted == [2]
        assert city.samples.receipts == []
        assert city.ingest.troubles == {"samples": "down"}
        city.timeseries.failure = None
        await city.quiet()
        assert city.samples.accepted == [1]
        assert await city.values() == [0.1]
        assert city.ingest.troubles == {}

    run(test)


def test_in_an_outage_no_queue_grows_and_tables_are_kept(run: Run) -> None:
    new = PointTable("gw-north", TABLE.points[:1])

    async def test(city: World) -> None:
        await city.send(Lane.POINTS, TABLE)
        await city.quiet()
        city.timeseries.failure = Retry("down")
        await city.send(Lane.LIVE, sample_batch(1, 0.1))
        await until(lambda: city.timeseries.tried > 0)
        for seq in range(2, 200):
            await city.send(Lane.LIVE, sample_batch(seq, 0.1))
        await city.send(Lane.POINTS, new)
        await until(lambda: city.counted["ingest_let_go_batches_total"] == 198)
        await until(lambda: city.points.get(new.digest()) is not None)
        assert city.samples.receipts == []
        city.timeseries.failure = None
        await city.quiet()
        assert city.samples.accepted == [1]  # the others come again: nobody told their gateway to let go

    run(test)


def test_a_misconfigured_store_keeps_the_data_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MISCONFIGURED_S", 0.01)

    async def test(city: World) -> None:
        await city.send(Lane.POINTS, TABLE)
        city.timeseries.failure = Misconfigured("no such token")
        await city.send(Lane.LIVE, sample_batch(1, 0.1))
        await until(lambda: city.counted["ingest_misconfigured_stores_total"] > 1)
        assert city.ingest.troubles == {"samples": "no such token"}
        assert city.samples.receipts == []
        city.timeseries.failure = None
        await city.quiet()
        assert city.samples.accepted == [1]

    run(test)


def test_a_full_disk_of_the_relational_store_is_waited_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(city: World) -> None:
        take = city.sink.take
        failures = iter([OperationalError("insert", {}, Exception("database or disk is full"))])

        def failing(*arguments: object) -> None:
            for failure in failures:
                raise failure
            take(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(city.sink, "take", failing)
        await city.send(Lane.ALERT, alert_batch(1, "a"))
        await city.quiet()
        assert city.alerts.accepted == [1]
        assert city.sink.taken == [("gw-north", "a", 1)]
        assert city.counted["ingest_alerts_retries_total"] == 1

    run(test)


def test_a_transaction_that_is_tried_again_counts_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(city: World) -> None:
        failures = iter([OperationalError("commit", {}, Exception("database or disk is full"))])
        write = city.store.write

        async def failing(do: Callable[[Connection], object]) -> object:
            def undone(connection: Connection) -> object:
                done = do(connection)
                for failure in failures:
                    raise failure
                return done

            return await write(undone)

        monkeypatch.setattr(city.store, "write", failing)
        await city.send(Lane.ALERT, alert_batch(1, "a"))
        await city.quiet()
        assert city.counted["ingest_alerts_retries_total"] == 1
        assert city.counted["ingest_alert_batches_total"] == 1
        assert city.alerts.accepted == [1]

    run(test)


def test_one_batch_the_desk_stumbles_over_stops_no_other(run: Run) -> None:
    async def test(city: World) -> None:
        city.sink.stumbles_over = {"b"}
        for seq, alert in enumerate("abc", start=1):
            await city.send(Lane.ALERT, alert_batch(seq, alert))
        await city.quiet()
        assert city.alerts.accepted == [1, 3]
        assert city.alerts.rejected == []
        assert city.counted["ingest_failed_alert_batches_total"] == 1
        city.sink.stumbles_over = set()
        await city.send(Lane.ALERT, alert_batch(2, "b"))
        await city.quiet()
        assert city.sink.taken[-1] == ("gw-north", "b", 1)

    run(test)


def test_a_receipt_that_cannot_be_sent_is_sent_when_the_batch_comes_again(run: Run) -> None:
    async def test(city: World) -> None:
        city.alerts.connected = False
        await city.send(Lane.ALERT, alert_batch(1, "a"))
        await city.quiet()
        assert city.counted["ingest_unsent_receipts_total"] == 1
        city.alerts.connected = True
        await city.send(Lane.ALERT, alert_batch(1, "a"))
        await city.quiet()
        assert city.alerts.accepted == [1]
        assert len(city.sink.taken) == 1

    run(test)
