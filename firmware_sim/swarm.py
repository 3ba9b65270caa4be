"""Districts for load: manhole monitors spread over buses and gateways, and any district as the text of a file."""

import msgspec

from firmware_sim.fleet import Fleet, district_of
from rules.district import Bus, District, Modbus

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
every = "{every_s:.3f}s"
"""


def swarm(devices: int, buses: int = 4, gateways: int = 1, interval_s: float | None = None) -> District:
    """Make a fleet of manhole monitors and deal it out over ``buses``, and these over ``gateways``.

    ``interval_s`` is how often each is read, instead of its model's own. ``ValueError`` when a bus would hold more than
    247 units or a gateway no bus.
    """
    if not (gateways <= buses <= devices <= buses * _UNITS_MOST):
        raise ValueError(f"{devices} devices do not fit on {buses} buses behind {gateways} gateways")
    fleet = district_of(Fleet(gateways=gateways, manhole_monitors=devices))
    dealt = tuple(Bus(f"bus-{number + 1}", fleet.gateway[number % gateways].id) for number in range(buses))
    return msgspec.structs.replace(
        fleet,
        bus=dealt,
        device=tuple(
            msgspec.structs.replace(
                device,
                gateway=dealt[number % buses].gateway,
                wire=Modbus(dealt[number % buses].id, number // buses + 1),
                interval_s=interval_s,
            )
            for number, device in enumerate(fleet.device)
        ),
    )


def district_text(district: District) -> str:
    """Write a district as the file that ``rules.district.load_district`` reads, one thing a line."""
    return "".join(f"{key} = {_lines(value)}\n" for key, value in msgspec.to_builtins(district).items())


def _lines(value: object) -> str:
    if not isinstance(value, list | tuple):
        return _inline(value)
    return "\n".join(("[", *(f"  {_inline(each)}," for each in value), "]"))


def _inline(value: object) -> str:
    """Write a value on one line of TOML; what is None is left out."""
    if isinstance(value, dict):
        pairs = [f"{key} = {_inline(each)}" for key, each in value.items() if each is not None]
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inline, value))}]"
    return msgspec.json.encode(value).decode()  # TOML writes text, numbers and booleans as JSON does


def scenario_text(per_minute: float, length_s: float, lasts_s: float = 60.0, after_s: float = 10.0) -> str:
    """Write a scenario file: lids tilt far beyond 10° at ``per_minute``, at random phases, ``lasts_s`` city seconds.

    A lid that has moved rests a minute before it may again, so ``per_minute`` × (``lasts_s`` + 60) / 60 must stay
    below the number of devices, or some do not happen (none is recorded then).
    """
    return _SCENARIO.format(
        per_minute=per_minute, every_s=60.0 / per_minute, length_s=length_s, lasts_s=lasts_s, after_s=after_s
    )
