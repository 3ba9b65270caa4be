"""When devices tell, and what becomes of it on the way: each fault does what its name says, and nothing else."""

from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest

from firmware_sim.fleet import Fleet, district_of
from firmware_sim.instruments import Instruments
from firmware_sim.scenario import Event, Scenario
from firmware_sim.telling.telling import Message, Telling
from firmware_sim.world import World
from rules.declared import Refused
from rules.district import Device, District, Frigate, Senml, Text
from wire.clock import NANOSECONDS, from_iso

START = from_iso("2026-06-18T03:00:00Z")
MINUTE = 60
HOUR = 3600
FLEET = district_of(Fleet(covers=2, cameras=1))
COVER, OTHER, CAMERA = "cover-0001", "cover-0002", "camera-0001"
CALM = Scenario("calm", Text("平静", "Calm"), "1d")


def happens(what: str, target: str, at_s: float, until_s: float | None = None, size: float = 0.0) -> Event:
    until = None if until_s is None else START + round(until_s * NANOSECONDS)
    return Event(f"{what}-{target}-{at_s}", what, target, START + round(at_s * NANOSECONDS), until, size)


def telling_of(*happenings: Event, district: District = FLEET) -> Telling:
    world = World(district, CALM, 3, START)
    for event in happenings:
        world.add(event)
    return Telling(district, Instruments(world), START)


def told(*happenings: Event, device: str = COVER, hours: float = 3) -> list[Message]:
    messages = telling_of(*happenings).until(START + round(hours * HOUR) * NANOSECONDS)
    return [message for message in messages if message.device == device]


def second(at: int) -> float:
    return (at - START) / NANOSECONDS


def edited(change: Callable[[Device], Device]) -> District:
    return msgspec.structs.replace(FLEET, device=tuple(change(device) for device in FLEET.device))


def is_alarm(message: Message) -> bool:
    return b'"trigger"' in message.payload


def states(messages: list[Message], rule: str = "Zone") -> list[tuple[float, bool]]:
    return [
        (second(message.at), msgspec.json.decode(message.payload)["Data"]["IsInside"])
        for message in messages
        if message.topic.endswith(rule) and message.payload
    ]


def test_a_cover_tells_when_it_joins_and_then_every_ten_minutes() -> None:
    at = [second(message.at) for message in told(hours=2)]
    assert at[0] == 0
    assert 1 <= at[1] <= 600
    assert at[1:] == [at[1] + 600 * number for number in range(12)]


def test_an_interval_of_its_own_replaces_the_ten_minutes() -> None:
    district = edited(lambda device: msgspec.structs.replace(device, interval_s=120.0))
    messages = telling_of(district=district).until(START + HOUR * NANOSECONDS)
    at = [second(message.at) for message in messages if message.device == COVER]
    assert len(at) == 31
    assert {later - earlier for earlier, later in pairwise(at[1:])} == {120}


def test_a_lid_tells_at_once_when_it_is_lifted_and_five_seconds_after_it_lies_still() -> None:
    messages = told(happens("cover_lifted", COVER, 1000, 1100, size=30.0))
    alarms = [second(message.at) for message in messages if is_alarm(message)]
    assert alarms[0] == 1001  # 10 degrees of 30, which take 3 s
    calm = next(message for message in messages if second(message.at) > 1050 and not is_alarm(message))
    assert second(calm.at) == 1099 + 5  # at 1099 it is lowered to 10 degrees, and trembles


def test_frames_that_settle_twice_under_one_lid_set_off_the_alarm() -> None:
    """Nothing sudden happens here: the heartbeats show that the lid comes near, and then it is watched closely."""
    settling = [happens("frame_settles", COVER, 600, 1800, size=6.5), happens("frame_settles", COVER, 1900, 9000, 6.5)]
    alarms = [second(message.at) for message in told(*settling) if is_alarm(message)]
    assert 1900 + 7100 * 3.0 / 6.5 - 1000 < alarms[0] < 1900 + 7100 * 3.5 / 6.5
    assert alarms[0] % 1 == 0


def test_a_camera_tells_its_state_on_joining_and_every_change() -> None:
    parked = happens("parked_car", CAMERA, 1000.5, 1300.5)
    zone = states(told(parked, device=CAMERA, hours=0.9))
    assert zone[0][1] in (True, False)
    assert (1001.0, True) in zone
    assert (1301.0, False) in zone
    assert states(told(device=CAMERA, hours=0.9), "StandingWater") == [(0.0, False)]


def test_lost_uplinks_are_counted_and_leave_gaps_in_the_count_of_frames() -> None:
    telling = telling_of(happens("uplinks_lost", COVER, 1, size=0.3))
    messages = [message for message in telling.until(START + 24 * HOUR * NANOSECONDS) if message.device == COVER]
    frames = [msgspec.json.decode(message.payload)["fCnt"] for message in messages]
    assert len(messages) == telling.emitted[COVER]
    assert telling.emitted[COVER] + telling.lost_on_air[COVER] == 145
    assert set(frames) < set(range(145))
    assert 20 < telling.lost_on_air[COVER] < 70
    assert telling.lost_on_air[OTHER] == 0


def test_a_doubled_uplink_comes_twice_with_the_same_bytes() -> None:
    telling = telling_of(happens("uplinks_doubled", COVER, 1, HOUR))
    messages = [message for message in telling.until(START + 2 * HOUR * NANOSECONDS) if message.device == COVER]
    assert messages[1] == messages[2]
    assert telling.doubled[COVER] == 6
    assert len(messages) == telling.emitted[COVER] + 6


def test_neighbours_swap_places_and_keep_their_own_time() -> None:
    messages = told(happens("uplinks_reordered", COVER, 1, 2 * HOUR))
    calm = told()
    assert sorted(second(message.at) for message in messages) == [second(message.at) for message in calm]
    swapped = [second(message.at) for message in messages[1:13]]
    assert swapped == [at for pair in zip(swapped[0::2], swapped[1::2], strict=True) for at in pair]
    assert all(first > then for first, then in zip(swapped[0::2], swapped[1::2], strict=True))
    delivered = [message.delivered_at for message in messages]
    assert delivered == sorted(delivered)
    assert all(message.stamp == message.at for message in messages)


def test_what_nothing_overtakes_waits_for_the_end() -> None:
    calm = told()
    event = happens("uplinks_reordered", COVER, second(calm[2].at) - 1, second(calm[2].at) + 300)
    late = next(message for message in told(event) if message.at == calm[2].at)
    assert late.delivered_at == event.until


def test_a_device_keeps_late_uplinks_and_tells_them_with_their_own_times() -> None:
    calm = told()
    event = happens("uplinks_late", COVER, 1000, 5000)
    messages = told(event)
    assert [message.at for message in messages] == [message.at for message in calm]
    kept = [message for message in messages if 1000 <= second(message.at) < 5000]
    assert len(kept) in (6, 7)
    assert {message.delivered_at for message in kept} == {event.until}
    times = [msgspec.json.decode(message.payload)["time"] for message in kept]
    assert [from_iso(time) for time in times] == [message.at for message in kept]


def test_what_is_kept_for_good_is_neither_emitted_nor_lost() -> None:
    telling = telling_of(happens("uplinks_late", COVER, 1000))
    telling.until(START + 3 * HOUR * NANOSECONDS)
    assert telling.emitted[COVER] in (2, 3)
    assert telling.lost_on_air[COVER] == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_clock_that_nobody_set_counts_from_1970_or_2000(seed: int) -> None:
    event = msgspec.structs.replace(happens("clock_unset", COVER, 1000, 5000), id=f"unset-{seed}")
    messages = told(event)
    unset = [message for message in messages if 1000 <= second(message.at) < 5000]
    since = {message.stamp - (message.at - event.at) for message in unset}
    assert since in ({0}, {from_iso("2000-01-01T00:00:00Z")})
    assert all(from_iso(msgspec.json.decode(one.payload)["time"]) == one.stamp for one in messages)
    assert all(one.stamp == one.at for one in messages if one not in unset)


def test_a_clock_jumps_and_jumps_back() -> None:
    messages = told(happens("clock_jumps", COVER, 1000, 5000, size=-700.25))
    jumps = {second(one.at): one.stamp - one.at for one in messages}
    assert {jump for at, jump in jumps.items() if 1000 <= at < 5000} == {-700 * NANOSECONDS}
    assert {jump for at, jump in jumps.items() if not 1000 <= at < 5000} == {0}


def test_an_end_that_is_lost_leaves_what_was_true_standing() -> None:
    parked = happens("parked_car", CAMERA, 1000, 1300)
    lost = happens("event_end_lost", CAMERA, 900, 2000)
    zone = states(told(parked, lost, device=CAMERA, hours=0.5))
    assert (1000.0, True) in zone
    assert [inside for at, inside in zone if 1000 < at < 2000 and not inside] == []


def test_a_dead_device_is_silent_and_joins_anew_when_it_is_back() -> None:
    messages = told(happens("device_dies", COVER, 1000, 5000.5))
    assert [message for message in messages if 1000 <= second(message.at) < 5000.5] == []
    assert 5001 in [second(message.at) for message in messages]
    assert max(second(message.at) for message in told(happens("device_dies", COVER, 1000))) < 1000


def test_a_camera_that_is_back_deletes_what_it_said_and_says_what_is() -> None:
    messages = told(happens("device_dies", CAMERA, 1000, 1500), device=CAMERA, hours=0.5)
    back = [message for message in messages if second(message.at) == 1500]
    assert [(bool(message.payload), message.retain) for message in back] == 2 * [(False, True), (True, True)]
    assert [message for message in messages if 1000 <= second(message.at) < 1500] == []


@pytest.mark.parametrize("now_s", [0, 1234, 6000])
def test_what_is_added_changes_only_what_is_to_come(now_s: int) -> None:
    events = [
        happens("uplinks_reordered", COVER, 1, 2000),
        happens("cover_lifted", COVER, now_s + 60, now_s + 200, size=30.0),
        happens("uplinks_late", OTHER, now_s + 1, now_s + 4000),
        happens("object_in_zone", CAMERA, now_s + 5, now_s + 100),
    ]
    world = World(FLEET, CALM, 3, START)
    world.add(events[0])
    telling = Telling(FLEET, Instruments(world), START)
    messages = telling.until(START + now_s * NANOSECONDS)
    for later, event in enumerate(events[1:]):
        world.add(event)
        messages += telling.until(START + (now_s + later) * NANOSECONDS)
    messages += telling.until(START + 3 * HOUR * NANOSECONDS)
    knowing = telling_of(*events)
    assert messages == knowing.until(START + 3 * HOUR * NANOSECONDS)
    assert telling.emitted == knowing.emitted


@pytest.mark.parametrize(
    ("device", "wire", "words"),
    [
        (COVER, Frigate("a"), "no manhole_cover here speaks Frigate"),
        (CAMERA, Senml("a"), "no camera here speaks Senml"),
    ],
)
def test_what_a_device_cannot_speak_is_refused(device: str, wire: Frigate | Senml, words: str) -> None:
    district = edited(lambda one: msgspec.structs.replace(one, wire=wire) if one.id == device else one)
    with pytest.raises(Refused, match=f"device {device}: wire: {words}"):
        telling_of(district=district)
