"""Counting meters against whole numbers: whatever wraps, restarts and gets lost, the total is what was counted."""

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge.profile import Register
from rules.samples import BAD, Quality
from tests.meters import Meters

SPAN = {"u16": 2**16, "u32": 2**32, "u64": 2**64}
DEVICES = ("a", "b", "c")

Shown = tuple[str, list[float], Quality]


@st.composite
def histories(draw: st.DrawFn, kind: str, wraps_from: float = 0.9) -> tuple[list[Shown], list[int | None]]:
    """What meters show in the order of arrival, and the whole number that each had truly counted; None where lost.

    Between two readings a meter counts less than a tenth of its register, so that a wrap shows as one; it restarts
    and glitches to near 0 only from where that would be no wrap.
    """
    span = SPAN[kind]
    raw: dict[str, int | None] = dict.fromkeys(DEVICES)
    truth = dict.fromkeys(DEVICES, 0)
    shown: list[Shown] = []
    counted: list[int | None] = []
    events = st.tuples(
        st.sampled_from(DEVICES),
        st.sampled_from(["grows", "grows", "restarts", "zeroed", "steps back", "bad", "untold"]),
        st.integers(0, 999),
    )
    for device, what, share in draw(st.lists(events, min_size=1, max_size=40)):
        now, much = raw[device], share * span // 10_000
        if what in ("bad", "untold"):
            bad = what == "bad"
            shown.append((device, [0.0 if bad else math.nan], Quality.BAD_COMMS if bad else Quality.GOOD))
            counted.append(None)
            continue
        if now is None:
            raw[device] = truth[device] = share * span // 1000
        elif what in ("zeroed", "steps back"):  # once, and the next reading goes on as if nothing had been
            wrong = much // 2 if what == "zeroed" else now - 1 - much
            if 0 <= wrong < now and (wrong > now / 2 or now <= wraps_from * span):
                shown.append((device, [float(wrong)], Quality.GOOD))
                counted.append(None)
        elif what == "restarts" and much <= now / 2 and 0 < now <= wraps_from * span:
            shown.append((device, [float(much // 2)], Quality.GOOD))
            counted.append(None)
            raw[device] = much
            truth[device] += much
        else:
            raw[device] = (now + much) % span
            truth[device] += much
        shown.append((device, [float(raw[device] or 0)], Quality.GOOD))
        counted.append(truth[device])
    return shown, counted


@given(st.data(), st.sampled_from(["u16", "u32"]))
def test_the_total_is_what_was_counted(data: st.DataObject, kind: Any) -> None:
    shown, counted = data.draw(histories(kind))
    meters = Meters([Register("m", "1", 3, 0, kind, counter="wraps")], DEVICES)
    for (_, (raw,), _), (total,), truth in zip(shown, meters.advance(*shown), counted, strict=True):
        assert total == truth or (truth is None and (total in (raw, 0.0) or math.isnan(total)))


@given(st.data(), st.sampled_from(["u16", "u32", "u64"]), st.sampled_from(["wraps", "clears"]))
def test_how_readings_are_gathered_and_where_the_box_restarts_changes_nothing(
    data: st.DataObject, kind: Any, counter: Any
) -> None:
    shown, _ = data.draw(histories(kind, wraps_from=0.5))
    points = [Register("m", "1", 3, 0, kind, scale=0.1, counter=counter)]
    at_once = Meters(points, DEVICES).advance(*shown)
    meters, told = Meters(points, DEVICES), []
    while shown:
        size = data.draw(st.integers(1, len(shown)))
        told += meters.advance(*shown[:size])
        shown = shown[size:]
        if data.draw(st.booleans()):
            saved = meters.counters.save()
            meters = Meters(points, DEVICES)
            meters.counters.restore(saved)
            assert not meters.counted.snapshot()
    assert [str(total) for total in told] == [str(total) for total in at_once]


@given(st.data())
def test_totals_never_fall(data: st.DataObject) -> None:
    readings = data.draw(st.lists(st.integers(0, 2**16 - 1).map(float), min_size=1, max_size=30))
    meters = Meters([Register("m", "1", 3, 0, "u16", counter="wraps")])
    totals = [total for total, judged in zip(meters.shows(*readings), meters.judged, strict=True) if judged < BAD]
    assert totals == sorted(totals)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x91\x93\xa1a\xa1m", b"\x91\x93\xa1a\xa1m\x93"]))
def test_any_saved_bytes_are_borne(tail: bytes, head: bytes) -> None:
    meters = Meters([Register("m", "1", 3, 0, "u16", counter="wraps")])
    meters.counters.restore(head + tail)
    assert meters.counted["edge_counters_fresh_starts_total"] in (0, 1)
    assert all(math.isfinite(total) for total in meters.shows(5.0, 3.0))
