"""From a field misfire to a permanent test: stored samples of a real event become a scenario that the gate runs."""

import asyncio
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import httpx
import msgspec
import tomli_w
from rich.console import Console

from edge.profile import Profile, load_profiles
from firmware_sim.modbus import COUNTER
from firmware_sim.recording import TAKEN_AT
from firmware_sim.truth import HAZARDS
from rules.declared import Refused, nearest
from rules.district import Device, District, Modbus, load_district
from rules.samples import BAD, Quality
from streetwarden.centre import Centre
from streetwarden.trial import district_text
from wire.clock import NANOSECONDS, from_iso, iso
from wire.files import read

KEPT = Path("tests/gate/scenarios")  # which the gate runs beside the shipped ones
QUIET = 900 * NANOSECONDS  # for so long it goes on after the event, as far as that is stored: alerts take their time
TRUTHS = ("misfire", "benign", "real")
NO_VALUE = (Quality.BAD_SENTINEL, Quality.BAD_RANGE)  # the device did answer; what it said is not stored

console = Console(stderr=True)

Column = dict[int, float]  # values of one metric by their time, UTC ns


@dataclass(frozen=True, slots=True)
class Capture:
    """What to keep: ``begin`` to ``end`` (ISO 8601) of a device of ``district``, as a scenario in ``folder``.

    ``truth`` is ``misfire:WHAT``, ``benign:WHAT`` or ``real:HAZARD``; ``hazard`` is what the first two looked like.
    Without a ``folder`` it goes where the gate looks.
    """

    device: str
    begin: str
    end: str
    truth: str
    hazard: str
    district: Path
    api: str
    folder: Path | None = None


def capture_event(asked: Capture) -> Path:
    """Write ``scenario.toml``, ``district.toml`` and ``samples.csv``; the folder that holds them.

    The centre stores what its gateways' deadbands let through, so a row stands for all readings until the next one:
    played back, a device shows its last row, at most a deadband off what it showed then. What was stored shortly before
    the event says how things stood when it began. A sentinel, or a value out of range, is ``nan``: told, but no value.
    That a device did not answer, or its clock was wrong, is not in the recording. It goes on for a quarter of an hour
    after the event, as far as that is stored.

    ``Refused`` names the option that is not in order.
    """
    begin, end = _instant("--from", asked.begin), _instant("--to", asked.end)
    if end <= begin:
        raise Refused(f"--to {asked.end}", f"the event begins at {asked.begin}; write a later time")
    hazard = _hazard(asked)
    folder = _free(asked.folder or KEPT / f"{asked.device}-{asked.truth.replace(':', '-')}")
    district = load_district(read(asked.district), str(asked.district))
    device, profile = _device(asked, district)
    columns = asyncio.run(_stored(asked, profile, begin, end + QUIET))
    told = sorted({at for column in columns.values() for at in column})
    in_span = [at for at in told if begin <= at < end]
    if not in_span:
        between = f"nothing of it is stored from {iso(begin)} to {iso(end)}"
        raise Refused(f"--device {asked.device}", f"{between}; name another span, or another centre with --api")
    starts = _starts(device, profile, begin, in_span[0])
    label = {
        "id": "event",
        "device": device.id,
        "window": [_after(starts, begin), _after(starts, end)],
        "truth": asked.truth,
        "hazard": hazard,
    }
    title = f"{device.id}, {iso(begin)}: {asked.truth}"
    scenario = {
        "name": folder.resolve().name,
        "title": {"zh": title, "en": title},
        "length": _after(starts, max(end, told[-1] + NANOSECONDS)),
        "district": "district.toml",
        "starts": iso(starts),
        "recording": [{"device": device.id, "file": "samples.csv"}],
        "label": [label],
        "truth": [{"hazard": hazard, "incidents": int(asked.truth.startswith("real:"))}],
    }
    _write(folder, scenario, _cut(district, device), columns, told)
    look = f"look at it: streetwarden sim run {folder}"
    console.print(f"{len(in_span)} readings in {folder}; {look}", highlight=False, soft_wrap=True)
    return folder


def _instant(option: str, text: str) -> int:
    try:
        return from_iso(text)
    except ValueError as error:
        raise Refused(
            f"{option} {text}", f"{error}; write a time with its zone, as in 2026-06-18T19:30:00+08:00"
        ) from error


def _hazard(asked: Capture) -> str:
    """Check what a person says the event was; the hazard that it is, or that it looked like."""
    place = f"--truth {asked.truth}"
    kind, _, what = asked.truth.partition(":")
    if kind not in TRUTHS or not what.replace("-", "_").isidentifier():
        raise Refused(place, "write misfire:WHAT, as in misfire:truck, or benign:WHAT, or real:HAZARD")
    if kind == "real":
        hazard = what
    else:
        hazard, place = asked.hazard, f"--hazard {asked.hazard}".rstrip()
    if hazard not in HAZARDS:
        raise Refused(place, f"no such hazard is known{nearest(hazard, HAZARDS)}")
    return hazard


def _free(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"--into {folder}", "something is there already; name another folder, or remove it first")
    return folder


def _device(asked: Capture, district: District) -> tuple[Device, Profile]:
    devices = {device.id: device for device in district.device}
    if asked.device not in devices:
        raise Refused(
            f"--device {asked.device}", f"{asked.district} declares no such device{nearest(asked.device, devices)}"
        )
    device, profiles = devices[asked.device], load_profiles()
    if device.profile not in profiles:
        why = f"the simulator has no profile `{device.profile}`{nearest(device.profile, profiles)}"
        raise Refused(f"--device {asked.device}", why)
    return device, profiles[device.profile]


async def _stored(asked: Capture, profile: Profile, begin: int, end: int) -> dict[str, Column]:
    """Read what the centre stores of every metric that the device itself tells, and how each stood at ``begin``."""
    place = f"--api {asked.api}"
    quantities = [quantity for quantity in profile.measured if quantity.metric != COUNTER]
    before = 2 * max(profile.profile.interval_s, *(quantity.heartbeat_s for quantity in quantities))
    span = {"since": iso(begin - int(before * NANOSECONDS)), "until": iso(end)}
    path = f"/api/v1/devices/{asked.device}/samples"
    try:
        async with Centre(asked.api) as centre:
            return {
                quantity.metric: _told(await centre.items(path, metric=quantity.metric, **span))
                for quantity in quantities
            }
    except httpx.HTTPStatusError as error:
        why = f"it answers {error.response.status_code}: is {asked.device} of this centre's district?"
        raise Refused(place, why) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Refused(place, f"no district centre answers there ({error}); is it running?") from error
    except (json.JSONDecodeError, KeyError) as error:
        raise Refused(place, "what answers there is no district centre") from error


def _told(items: Sequence[tuple[int, float | None, int]]) -> Column:
    """Take what the device told out of one metric's samples of (time in ms, value, quality); NaN: it had no value."""
    return {
        at * 1_000_000: nan if value is None or quality in NO_VALUE else value
        for at, value, quality in items
        if quality < BAD or quality in NO_VALUE
    }


def _starts(device: Device, profile: Profile, begin: int, first: int) -> int:
    """Choose when the scenario starts, so that the readings come again where they were, or half an interval later.

    What is polled is read from the start on, every interval: half of one after each row, lest a row that came a moment
    early or late be passed over. What speaks by itself does so in whole seconds from the start.
    """
    step, ahead = NANOSECONDS, 0
    if isinstance(device.wire, Modbus):
        step = int((device.interval_s or profile.profile.interval_s) * NANOSECONDS)
        ahead = step // 2
    return begin - (begin - first + ahead) % step


def _after(starts: int, at: int) -> str:
    """Tell an instant as scenario time."""
    return f"{round((at - starts) / NANOSECONDS, 3)}s"


def _cut(district: District, device: Device) -> District:
    """The district as far as this one device needs it."""
    bus = device.wire.bus if isinstance(device.wire, Modbus) else ""
    return msgspec.structs.replace(
        district,
        site=tuple(site for site in district.site if site.id == device.site),
        gateway=tuple(gateway for gateway in district.gateway if gateway.id == device.gateway),
        bus=tuple(each for each in district.bus if each.id == bus),
        device=(device,),
        road=(),
    )


def _write(
    folder: Path, scenario: dict[str, Any], district: District, columns: dict[str, Column], told: Sequence[int]
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "samples.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([TAKEN_AT, *columns])
            writer.writerows([iso(at), *(column.get(at, "") for column in columns.values())] for at in told)
        (folder / "district.toml").write_text(district_text(district), encoding="utf-8")
        (folder / "scenario.toml").write_text(tomli_w.dumps(scenario), encoding="utf-8")
    except OSError as error:
        raise Refused(f"--into {folder}", f"cannot be written: {error.strerror}") from error
