"""Districts for load tests: any number of manhole monitors behind any number of buses and gateways, as data."""

from rules.district import District, load_district

PROFILE = "reference_manhole_monitor"
_UNITS_MOST = 247  # Modbus ids on one bus

_SCENARIO = """
name = "lids-{per_minute:g}"
title = {{ zh = "井盖压力测试", en = "Lids up and down" }}
length = "{length_s:g}s"

[[event]]
id = "lid"
what = "cover_lifted"
window = ["{after_s:g}s", "{length_s:g}s"]
lasts = ["{lasts_s:g}s", "{lasts_s:g}s"]
per_minute = {per_minute:g}

[hazard.flood]
deeper_than_m = 0.15
larger_than_m2 = 100
over_below_m = 0.10
level = []

[hazard.cover]
gap_from_deg = 5
"""


def district_text(devices: int, buses: int = 4, gateways: int = 1) -> str:
    """Write a district file; ``ValueError`` when a bus would hold more than 247 units or a gateway no bus."""
    if not (gateways <= buses <= devices <= buses * _UNITS_MOST):
        raise ValueError(f"{devices} devices do not fit on {buses} buses behind {gateways} gateways")
    head = """
id = "swarm"
name = { zh = "压力测试区", en = "Swarm" }

[[unit]]
id = "everything"
name = { zh = "综合养护组", en = "Everything" }
functions = ["drainage", "covers", "lighting", "gas", "sensing"]

[[site]]
id = "field"
name = { zh = "试验场", en = "Test field" }
kind = "road"
territory = "all"
outline = [[121.38, 31.24], [121.41, 31.24], [121.41, 31.26], [121.38, 31.26], [121.38, 31.24]]
"""
    parts = [head]
    parts += [
        f'[[gateway]]\nid = "gw-{number}"\nname = {{ zh = "网关{number}", en = "Gateway {number}" }}\n'
        for number in range(gateways)
    ]
    parts += [f'[[bus]]\nid = "bus-{number}"\ngateway = "gw-{number % gateways}"\n' for number in range(buses)]
    for number in range(devices):
        bus = number % buses
        # A degree apart enough that no two of them are one incident's neighbours: about 60 m on a grid of 50.
        lon, lat = 121.38 + 0.0006 * (number % 50), 31.24 + 0.0006 * (number // 50)
        parts.append(
            f'[[device]]\nid = "monitor-{number:05d}"\nkind = "manhole_monitor"\nprofile = "{PROFILE}"\n'
            f'gateway = "gw-{bus % gateways}"\nsite = "field"\nasset = "swarm-{number:05d}"\ncomponent = "0102"\n'
            f"lon = {lon:.4f}\nlat = {lat:.4f}\n"
            f'wire = {{ by = "modbus", bus = "bus-{bus}", unit = {number // buses + 1} }}\n'
            "install = { background_tilt_deg = 1.0, shaft_depth_m = 3.0 }\n"
        )
    return "\n".join(parts)


def swarm(devices: int, buses: int = 4, gateways: int = 1) -> District:
    """Make the district itself."""
    return load_district(district_text(devices, buses, gateways), "swarm")


def scenario_text(per_minute: float, length_s: float, lasts_s: float = 60.0, after_s: float = 10.0) -> str:
    """Write a scenario file: lids tilt far beyond 10° at ``per_minute``, at random phases, ``lasts_s`` city seconds.

    A lid that has moved rests a minute before it may again, so ``per_minute`` × (``lasts_s`` + 60) / 60 must stay
    below the number of devices, or some do not happen (none is recorded then).
    """
    return _SCENARIO.format(per_minute=per_minute, length_s=length_s, lasts_s=lasts_s, after_s=after_s)
