"""From a field misfire to a permanent test: stored samples of a real event become a scenario that the gate runs."""

import asyncio
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import tomli_w
from rich.console import Console

from edge.profile import load_profiles
from firmware_sim.modbus import COUNTER
from firmware_sim.truth import HAZARDS
from rules.declared import Refused, nearest
from rules.district import Device, District, Modbus, load_district
from rules.samples import BAD
from streetwarden.centre import Centre
from streetwarden.trial import district_text
from wire.clock import NANOSECONDS, from_iso, iso
from wire.files import read

KEPT = Path("tests/gate/scenarios")  # which the gate runs beside the shipped ones
QUIET_S = 900.0  # city seconds run on after the event, so that what it brings has time to come


console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Capture:
    """What to keep: ``begin`` to ``end`` (UTC ns) of a device of ``district``, as a scenario in ``folder``.

    ``truth`` is ``misfire:WHAT`` or ``real:HAZARD``, ``hazard`` what a misfire looked like.
    """

    device: str
    begin: int
    end: int
    truth: str
    hazard: str
    district: Path
    folder: Path


async def capture(centre: Centre, asked: Capture) -> int:
    """Write the scenario's folder; how many readings it holds. ``Refused``: nothing stored, or nothing of that name."""
    if asked.end <= asked.begin:
        raise Refused("--to", "the event ends before it begins")
    district = load_district(read(asked.district), str(asked.district))
    device = _device(asked.device, district)
    metrics = [quantity.metric for quantity in load_profiles()[device.profile].measured if quantity.metric != COUNTER]
    rows = _rows([await _samples(centre, device.id, metric, asked) for metric in metrics])
    if not rows:
        raise Refused(f"--device {device.id}", "the store holds nothing of it between --from and --to")
    asked.folder.mkdir(parents=True, exist_ok=True)
    with (asked.folder / "samples.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["taken_at", *metrics])
        writer.writerows(rows)
    (asked.folder / "district.toml").write_text(district_text(_cut(district, device)), encoding="utf-8")
    _write(asked.folder / "scenario.toml", _scenario(asked))
    return len(rows)


def capture_event(
    device: str, begin: str, end: str, truth: str, hazard: str, district: Path, api: str, folder: Path | None
) -> None:
    """Capture as the command line asks; ``Refused`` names the option that is not in order."""
    asked = Capture(
        device,
        _instant("--from", begin),
        _instant("--to", end),
        truth,
        hazard,
        district,
        folder or KEPT / f"{device}-{truth.replace(':', '-')}",
    )

    async def run() -> int:
        async with Centre(api) as centre:
            return await capture(centre, asked)

    try:
        count = asyncio.run(run())
    except httpx.HTTPError as error:
        raise Refused(f"--api {api}", f"the district centre does not answer: {error}") from error
    console.print(
        f"{count} readings in {asked.folder}; look at it: streetwarden sim run {asked.folder}", highlight=False
    )


def _instant(option: str, text: str) -> int:
    try:
        return from_iso(text)
    except ValueError as error:
        raise Refused(f"{option} {text}", str(error)) from error


def _device(name: str, district: District) -> Device:
    devices = {device.id: device for device in district.device}
    if name not in devices:
        raise Refused(f"--device {name}", f"no device of that name is declared{nearest(name, devices)}")
    return devices[name]


async def _samples(centre: Centre, device: str, metric: str, asked: Capture) -> dict[str, float]:
    """Read the good values of one metric, by their time."""
    path = f"/api/v1/devices/{device}/samples"
    items = await centre.items(path, metric=metric, since=iso(asked.begin), until=iso(asked.end))
    return {iso(at * 1_000_000): value for at, value, quality in items if quality < BAD}


def _rows(columns: Sequence[dict[str, float]]) -> list[list[Any]]:
    instants = sorted({at for column in columns for at in column})
    return [[at, *(column.get(at, "") for column in columns)] for at in instants]


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


def _scenario(asked: Capture) -> dict[str, Any]:
    kind, _, name = asked.truth.partition(":")
    if kind not in ("misfire", "real") or not name:
        raise Refused(f"--truth {asked.truth}", "write misfire:WHAT, as in misfire:truck, or real:HAZARD")
    hazard = name if kind == "real" else asked.hazard
    if hazard not in HAZARDS:
        raise Refused(f"--hazard {hazard}", f"nothing is called so{nearest(hazard, HAZARDS)}")
    length_s = (asked.end - asked.begin) / NANOSECONDS
    title = f"{asked.device}, {iso(asked.begin)}: {asked.truth}"
    window = ["0s", f"{length_s:g}s"]
    return {
        "name": asked.folder.name,
        "title": {"zh": title, "en": title},
        "length": f"{length_s + QUIET_S:g}s",
        "district": "district.toml",
        "starts": iso(asked.begin),
        "recording": [{"device": asked.device, "file": "samples.csv"}],
        "label": [{"id": "event", "device": asked.device, "window": window, "truth": asked.truth, "hazard": hazard}],
        "truth": [{"hazard": hazard, "incidents": int(kind == "real"), "orders": int(kind == "real")}],
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
