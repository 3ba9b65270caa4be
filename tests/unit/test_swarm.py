"""Districts by the number as files, and a gateway without a street: its batches, its window and its ledger."""

import time
from collections import Counter

import numpy as np
import pytest

from firmware_sim import swarm
from firmware_sim.fleet import Fleet, district_of
from firmware_sim.load import Config, point_tables
from firmware_sim.outpost import COUNTER, Kept, Outpost, prepared
from rules.alert import Phase
from rules.declared import Refused, decode
from rules.district import Modbus, load_district
from wire.batch import Batch, Receipt
from wire.batch import decode as decode_message
from wire.topics import Lane

NOW = 1_781_782_200_000_000_000
MINUTE = 60 * 10**9
TABLE = point_tables(district_of(Fleet(gateways=1, manhole_monitors=3, every="2s")))[0]
VALUES = prepared(len(TABLE.points))


def _outpost(window: int = 2) -> Outpost:
    return Outpost(TABLE, "boot", VALUES, window)


def _kept(kept: Kept | None) -> Kept:
    assert kept is not None
    return kept


def test_a_district_is_read_back_as_it_was_written() -> None:
    everything = Fleet(3, level_sensors=2, rain_gauges=1, manhole_monitors=5, lamps=4, covers=3, cameras=2, every="5s")
    for district in (district_of(everything), swarm.swarm(devices=10, buses=4, gateways=2)):
        assert load_district(swarm.district_text(district), "text") == district


def test_a_swarm_is_dealt_out_evenly_and_read_at_the_interval_asked_for() -> None:
    city = swarm.swarm(devices=100, buses=4, gateways=2, interval_s=1.0)
    assert Counter(device.gateway for device in city.device) == {"gw-1": 50, "gw-2": 50}
    places = {(wire.bus, wire.unit) for device in city.device if isinstance(wire := device.wire, Modbus)}
    assert len(places) == 100
    assert {device.interval_s for device in city.device} == {1.0}
    assert {device.interval_s for device in swarm.swarm(devices=10).device} == {None}


def test_a_batch_holds_every_point_once_and_counts_its_readings() -> None:
    outpost = _outpost()
    for number in (1, 2):
        batch = decode_message(_kept(outpost.read(NOW + number * MINUTE)).payload, Batch)
        block = batch.block()
        assert batch.points == TABLE.digest()
        assert block.point.tolist() == list(range(len(TABLE.points)))
        counters = [row for row, point in enumerate(TABLE.points) if point.metric == COUNTER]
        assert block.value[counters].tolist() == [number] * 3
        assert np.all(block.taken_at <= NOW + number * MINUTE)
        assert len(set(block.taken_at.tolist())) == 3  # one instant a device


def test_a_full_window_makes_nothing_new_until_a_receipt_comes() -> None:
    outpost = _outpost(window=2)
    first, second = _kept(outpost.read(NOW)), _kept(outpost.read(NOW + 1))
    assert outpost.read(NOW + 2) is None
    assert outpost.held == 1
    assert outpost.alert(0, NOW) is not None, "alerts have a window of their own"
    assert outpost.settle(Receipt((first.seq,))) == [first]
    assert outpost.settle(Receipt((first.seq,))) == [], "a receipt that comes twice settles once"
    third = decode_message(_kept(outpost.read(NOW + 3)).payload, Batch)
    assert (third.seq, third.settled_below) == (second.seq + 2, second.seq)


def test_the_ledger_tells_what_was_made_sent_and_refused() -> None:
    outpost, points = _outpost(window=3), len(TABLE.points)
    kept = [_kept(outpost.read(NOW + number)) for number in range(3)]
    outpost.settle(Receipt((kept[0].seq,), ((kept[1].seq, "malformed"),)))
    assert outpost.made == {"samples": 3 * points, "sample_batches": 3}
    assert outpost.receipted == {"samples": points, "sample_batches": 1}
    assert outpost.rejected == {"malformed": 1}
    (tally,) = outpost.status(NOW, online=True).tallies
    assert (tally.acquired, tally.sent, tally.dropped) == (3 * points, points, {"rejected": points})
    assert outpost.status(NOW, online=True).outbox_samples == points


def test_an_alert_is_raised_and_then_cleared() -> None:
    outpost = _outpost()
    steps = [decode_message(_kept(outpost.alert(1, NOW + n)).payload, Batch).transitions[0] for n in range(2)]
    assert [(step.phase, step.revision) for step in steps] == [(Phase.RAISED, 1), (Phase.CLEARED, 2)]
    assert len({(step.alert, step.device) for step in steps}) == 1


def test_a_batch_that_waited_long_travels_as_history() -> None:
    kept = _kept(_outpost().read(NOW))
    assert [kept.lane_at(NOW), kept.lane_at(NOW + 2 * MINUTE)] == [Lane.LIVE, Lane.BACKFILL]


def test_numbers_go_on_from_one_run_to_the_next() -> None:
    before = time.time_ns() // 1_000_000
    assert _kept(_outpost().read(NOW)).seq > before


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("connections = 1000", "between 1 and the number of gateways, 300 at most"),
        ("window = 0", "`window` must be above 0"),
        ("fleet = { gateways = 8, lamps = 800 }", "add `manhole_monitors`"),
    ],
)
def test_a_load_that_cannot_be_is_refused(said: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        decode(f'broker = {{ host = "h", port = 1 }}\n{said}', Config, "load.toml")
