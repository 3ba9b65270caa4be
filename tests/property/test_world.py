"""The world is a pure function of time: what one asks first, together or again changes nothing."""

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim import noise
from firmware_sim.happenings import KINDS
from firmware_sim.instruments import Instruments
from firmware_sim.scenario import Burst, Event, Lighting, Rain, candidates
from firmware_sim.world import World
from tests.city import START as STORM
from tests.city import district, quiet
from wire.clock import NANOSECONDS

SPAN_S = 2700
START = STORM - 1500 * NANOSECONDS  # so that dusk falls within
INSTANTS = st.lists(st.integers(-10 * NANOSECONDS, SPAN_S * NANOSECONDS), min_size=1, max_size=12)
ONE_OF_EACH = [
    next(device for device in district().device if device.kind == kind)
    for kind in ("level_sensor", "rain_gauge", "manhole_monitor", "lamp_controller", "manhole_cover", "camera")
]
RAIN = Rain(burst=(Burst("10min", "10min", 80.0),))


def eventful() -> World:
    """One of every kind of happening, on top of each other, to the devices that are asked."""
    asked = {device.id for device in ONE_OF_EACH} | {ONE_OF_EACH[3].wire.bus, ONE_OF_EACH[0].site}  # type: ignore[union-attr]
    world = quiet(start=START, lighting=Lighting(by_sun=True), rain=RAIN)
    for number, (what, kind) in enumerate(KINDS.items()):
        begin = START + 45 * number * NANOSECONDS
        for target in asked.intersection(candidates(what, (), world.district, world.scenario)):
            size = sum(kind.size) / 2
            world.add(Event(f"{what}-{target}", what, target, begin, begin + 600 * NANOSECONDS, size))
    return world


@settings(max_examples=25)
@given(INSTANTS, st.randoms(use_true_random=False))
def test_the_order_of_questions_does_not_matter(offsets: list[int], order: Random) -> None:
    at = START + np.array(offsets, np.int64)
    together = Instruments(eventful())
    apart = Instruments(eventful())
    shuffled = [(device, row) for device in ONE_OF_EACH for row in range(len(at))]
    order.shuffle(shuffled)
    single = {(device.id, row): apart.show(device, at[row : row + 1]) for device, row in shuffled}
    for device in ONE_OF_EACH:
        for metric, column in together.show(device, at).items():
            np.testing.assert_array_equal(column, [single[device.id, row][metric][0] for row in range(len(at))])


@settings(max_examples=40)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 60), INSTANTS)
def test_what_a_visitor_does_changes_nothing_that_lies_before_it(what: str, begin_s: int, offsets: list[int]) -> None:
    world = eventful()
    target = candidates(what, (), world.district, world.scenario)[0]
    begin = START + 30 * begin_s * NANOSECONDS
    asked = [device for device in ONE_OF_EACH if target in (device.id, device.site)] or ONE_OF_EACH
    at = START + np.array([*offsets, SPAN_S * NANOSECONDS], np.int64)
    before = [Instruments(world).show(device, at) for device in asked]
    world.add(Event("visitor", what, target, begin, begin + 300 * NANOSECONDS, sum(KINDS[what].size) / 2))
    after = [Instruments(world).show(device, at) for device in asked]
    for earlier, later in zip(before, after, strict=True):
        for metric, column in earlier.items():
            np.testing.assert_array_equal(later[metric][at < begin], column[at < begin])


@given(st.integers(0, 2**32), st.text(max_size=5), INSTANTS)
def test_noise_stays_in_its_bounds_and_repeats(seed: int, name: str, offsets: list[int]) -> None:
    at = START + np.array(offsets, np.int64)
    stream = noise.stream(seed, name)
    uniform, normal, smooth = noise.uniform(stream, at), noise.normal(stream, at), noise.smooth(stream, at, 7.5)
    assert ((uniform >= 0) & (uniform < 1)).all()
    assert (np.abs(normal) <= 3.5).all()
    assert (np.abs(smooth) <= 1).all()
    assert noise.uniform(stream, at[::-1])[::-1].tolist() == uniform.tolist()


def test_noise_looks_like_what_it_is_called() -> None:
    bucket = np.arange(200_000)
    stream = noise.stream(5, "check")
    uniform, normal = noise.uniform(stream, bucket), noise.normal(stream, bucket)
    assert abs(uniform.mean() - 0.5) < 0.005
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert abs(np.corrcoef(uniform[1:], uniform[:-1])[0, 1]) < 0.01
