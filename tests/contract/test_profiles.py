"""One suite over every shipped profile: adding a file adds its tests."""

from collections import Counter
from pathlib import Path

import pytest

from edge.plan import plan
from edge.profile import Profile, load_profiles

GOLDEN = Path(__file__).parent.parent / "golden"
# UCUM/SenML symbols, and the two of uCIFI that have none (%LEL, count).
UNITS = {"m", "mm", "deg", "V", "A", "mA", "W", "kW.h", "W.h", "Hz", "%", "%LEL", "ppm", "count", "1"}
PROFILES = load_profiles()

each = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


@each
def test_cites_its_manual(profile: Profile) -> None:
    head = profile.profile
    assert head.maker
    assert head.model
    if head.maker == "reference":
        assert "this file" in head.manual
    else:
        assert "http" in head.manual


@each
def test_every_quantity_has_a_unit_and_a_name_of_its_own(profile: Profile) -> None:
    for quantity in profile.quantities:
        assert quantity.unit in UNITS, quantity.metric
        assert quantity.metric.isidentifier()
        assert quantity.metric.islower()
        assert quantity.deadband >= 0
        assert quantity.heartbeat_s > 0
    assert Counter(quantity.metric for quantity in profile.quantities).most_common(1)[0][1] == 1


@each
def test_no_register_means_two_things(profile: Profile) -> None:
    taken = Counter(
        (point.function, address)
        for point in profile.point
        if point.type != "bit"
        for address in range(point.register, point.register + point.words)
    )
    assert not [place for place, times in taken.items() if times > 1]


@each
def test_plan_covers_each_point_once_whole_and_within_limits(profile: Profile) -> None:
    requests = plan(profile.point, profile.limits)
    assert sorted(n for request in requests for n in request.points) == list(range(len(profile.point)))
    for request in requests:
        assert request.count <= profile.limits.max_registers
        for n in request.points:
            point = profile.point[n]
            assert point.function == request.function
            assert request.start <= point.register
            assert point.register + point.words <= request.start + request.count


@each
def test_has_golden_vectors(profile: Profile) -> None:
    text = (GOLDEN / f"{profile.id}.toml").read_text("utf-8")
    assert f'profile = "{profile.id}"' in text


@pytest.mark.parametrize("name", ["reference_manhole_monitor", "reference_lamp_controller"])
def test_reference_maps_are_one_read(name: str) -> None:
    profile = PROFILES[name]
    assert len(plan(profile.point, profile.limits)) == 1
    assert "poll_counter" in {point.metric for point in profile.point}
