"""The world is a pure function of time: what one asks first, together or again changes nothing."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim import noise
from firmware_sim.instruments import Instruments
from tests.city import START, district, storm
from wire.clock import NANOSECONDS

INSTANTS = st.lists(st.integers(-10 * NANOSECONDS, 2700 * NANOSECONDS), min_size=1, max_size=12)
ONE_OF_EACH = [
    next(device for device in district().device if device.kind == kind)
    for kind in ("level_sensor", "rain_gauge", "manhole_monitor", "lamp_controller", "manhole_cover", "camera")
]


@settings(max_examples=25)
@given(INSTANTS, st.randoms(use_true_random=False))
def test_the_order_of_questions_does_not_matter(offsets: list[int], order: object) -> None:
    at = START + np.array(offsets, np.int64)
    together = Instruments(storm(11))
    apart = Instruments(storm(11))
    shuffled = [(device, row) for device in ONE_OF_EACH for row in range(len(at))]
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types it as object
    single = {(device.id, row): apart.show(device, at[row : row + 1]) for device, row in shuffled}
    for device in ONE_OF_EACH:
        for metric, column in together.show(device, at).items():
            for row in range(len(at)):
                assert column[row] == single[device.id, row][metric][0]


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
