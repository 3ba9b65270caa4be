"""From a field misfire to a permanent test: what a district centre stores of an event, played back, alerts the same."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from cloud.timeseries.embedded import EmbeddedTimeSeries
from firmware_sim.recording import load_recordings
from firmware_sim.scenario import load_scenario
from rules.alert import Phase
from rules.declared import Refused
from rules.district import load_district
from streetwarden.capture import Capture, capture_event
from streetwarden.fast.clock import VirtualClock
from streetwarden.fast.desk import opened
from streetwarden.fast.run import FastRun, Parts, run_fast
from streetwarden.gate.result import Result
from streetwarden.gate.suite import run_suite, suite
from streetwarden.matching import TruthFile, read_truth
from streetwarden.told import Told, read_told
from wire.clock import NANOSECONDS, from_iso

DISTRICT = Path(str(resources.files("firmware_sim") / "districts" / "bluestone.toml"))
STARTS = from_iso("2026-06-18T11:30:00Z")
FIELD = """
name = "field"
title = { zh = "现场", en = "Field" }
length = "60min"
[[event]]
id = "truck"
what = "truck"
among = ["cover-n1"]
window = ["20min", "21min"]
lasts = ["20s", "20s"]
[[event]]
id = "lifted"
what = "cover_lifted"
among = ["manhole-n1"]
window = ["21min", "22min"]
lasts = ["8min", "8min"]
[[event]]
id = "bag"
what = "debris"
among = ["level-n2"]
window = ["22min", "23min"]
lasts = ["9min", "9min"]
[[event]]
id = "blind"
what = "level_blind"
among = ["level-n1"]
window = ["22min", "23min"]
lasts = ["5min", "5min"]
"""
STORE = "kept.duckdb"
FROM, TO = "2026-06-18T11:45:00Z", "2026-06-18T20:10:00+08:00"


@dataclass(frozen=True, slots=True)
class Field:
    """A real event as a district centre tells of it."""

    told: Told
    url: str


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    folder = tmp_path_factory.mktemp("field")
    (folder / "field.toml").write_text(FIELD, encoding="utf-8")
    told, store = ran(str(folder / "field.toml"), folder)
    with served(store, folder) as url:
        yield Field(told, url)


def ran(scenario: str, folder: Path) -> tuple[Told, Path]:
    """Run a scenario in fast time, in a process of its own; what it told, and its store of samples, which is kept."""
    subprocess.run([sys.executable, "-m", __name__, scenario, str(folder)], check=True, timeout=60)
    return read_told(folder), folder / STORE


async def run_and_keep(scenario: str, folder: Path) -> None:
    parts = Parts(timeseries=lambda _: EmbeddedTimeSeries.open(folder / STORE))
    await run_fast(FastRun(scenario, 1, folder, parts=parts))


@contextmanager
def served(store: Path, folder: Path) -> Iterator[str]:
    """Serve a district centre's API over a store of samples, on a real socket, from a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    servers: list[uvicorn.Server] = []

    district = load_district(DISTRICT.read_text(encoding="utf-8"), str(DISTRICT))

    async def serve() -> None:
        clock = VirtualClock.at(STARTS + 86_400 * NANOSECONDS)
        async with opened(
            district, (), folder, clock, lambda _: TruthFile(1), lambda _: EmbeddedTimeSeries.open(store)
        ) as desk:
            config = uvicorn.Config(desk.parts.app("127.0.0.1"), log_level="warning", timeout_graceful_shutdown=2)
            servers.append(uvicorn.Server(config))
            await servers[0].serve(sockets=[listener])

    thread = threading.Thread(target=asyncio.run, args=[serve()], name="district centre")
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        httpx.get(f"{url}/readyz", timeout=20.0, trust_env=False).raise_for_status()
        yield url
    finally:
        servers[0].should_exit = True
        thread.join(10)
        listener.close()


def asked(device: str, truth: str, hazard: str, url: str, folder: Path) -> Capture:
    return Capture(device, FROM, TO, truth, hazard, DISTRICT, url, folder)


def typed(asked: Capture) -> None:
    """Capture as a person does, on the command line."""
    options = {
        "--device": asked.device,
        "--from": asked.begin,
        "--to": asked.end,
        "--truth": asked.truth,
        "--hazard": asked.hazard,
        "--district": asked.district,
        "--api": asked.api,
        "--into": asked.folder,
    }
    words = [str(word) for option in options.items() for word in option]
    subprocess.run([sys.executable, "-m", "streetwarden", "sim", "capture", *words], check=True, timeout=30)


def steps(told: Told, device: str) -> list[tuple[str, Phase, str, int, int]]:
    """What was decided on a device: rule, phase, level, since when, and when (UTC ns)."""
    mine = [step.transition for step in told.steps if step.transition.device == device]
    return [(each.rule, each.phase, each.level, each.since, each.decided_at) for each in mine]


# Device, truth, hazard, and how far apart its alerts may be on both runs, s: one interval, and no time at all of what
# speaks by itself, but for the milliseconds of the API.
EVENTS = (
    ("cover-n1", "misfire:truck", "cover", 0.001),
    ("manhole-n1", "real:cover", "cover", 10.0),
    ("level-n2", "misfire:debris", "flood", 10.0),
)


def test_a_captured_event_alerts_as_it_did(field: Field, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    for device, truth, hazard, _ in EVENTS:
        capture = typed if device == "cover-n1" else capture_event
        capture(asked(device, truth, hazard, field.url, kept / device))
    results = {result.job.name: result for result in asyncio.run(run_suite(suite([kept], tmp_path / "out")))}
    for device, truth, hazard, within_s in EVENTS:
        assert not results[device].crash
        original, again = steps(field.told, device), steps(read_told(results[device].job.folder), device)
        assert original, "the event raised nothing: there is nothing to compare"
        assert [step[:3] for step in again] == [step[:3] for step in original]
        for one, other in zip(original, again, strict=True):
            assert abs(one[3] - other[3]) <= within_s * NANOSECONDS
            assert abs(one[4] - other[4]) <= within_s * NANOSECONDS
        _check_label(results[device], device, truth, hazard)


def _check_label(result: Result, device: str, truth: str, hazard: str) -> None:
    """The truth says what a person knows of it, and the scorer goes by that."""
    file = read_truth(result.job.folder / "truth.json")
    kind, _, what = truth.partition(":")
    if kind == "real":
        assert [(one.hazard, one.devices) for one in file.incidents] == [(hazard, (device,))]
        assert (result.figures.found, result.figures.missed) == (1, 0)
    else:
        assert [(one.kind, one.hazard, one.device) for one in file.nuisances] == [(what, hazard, device)]
        assert result.figures.incidents == 0
    assert result.figures.unexpected == 0


@pytest.mark.parametrize("device", ["cover-n1", "level-n1"])
def test_what_is_played_back_is_what_was_recorded(field: Field, device: str, tmp_path: Path) -> None:
    """To the last bit, through registers and payloads; where a sentinel was told, one is told again."""
    folder = capture_event(asked(device, "misfire:any", "flood", field.url, tmp_path / "event"))
    _, store = ran(str(folder), tmp_path)
    with served(store, tmp_path) as url:
        again = capture_event(asked(device, "misfire:any", "flood", url, tmp_path / "again"))
    recorded, replayed = (values_of(each, device) for each in (folder, again))
    assert recorded.keys() == replayed.keys()
    for metric, values in recorded.items():
        assert set(replayed[metric]) <= set(values), metric
        assert (None in replayed[metric]) == (None in values) == (device == "level-n1"), metric


def values_of(folder: Path, device: str) -> dict[str, list[float | None]]:
    """All values that a recording shows from its start on, by metric; ``None`` is "no value"."""
    recorded = load_recordings(*load_scenario(str(folder)))[device]
    first = max(0, np.searchsorted(recorded.at, 0, side="right") - 1)
    return {
        metric: [None if np.isnan(value) else value for value in values[first:].tolist()]
        for metric, values in recorded.values.items()
    }


GOOD = Capture("cover-n1", FROM, TO, "misfire:truck", "cover", DISTRICT, "")


@pytest.mark.parametrize(
    ("wrong", "place", "cure"),
    [
        ({"device": "cover-n0"}, "--device cover-n0", "did you mean `cover-n"),
        ({"begin": "2026-06-18T03:00:00Z", "end": "2026-06-18T04:00:00Z"}, "--device cover-n1", "name another span"),
        ({"begin": "2026-06-18T11:45:00"}, "--from 2026-06-18T11:45:00", "write a time with its zone"),
        ({"end": "noon"}, "--to noon", "write a time with its zone"),
        ({"end": FROM}, f"--to {FROM}", "write a later time"),
        ({"truth": "truck"}, "--truth truck", "write misfire:WHAT"),
        ({"truth": "misfire:a/b"}, "--truth misfire:a/b", "write misfire:WHAT"),
        ({"truth": "real:covers"}, "--truth real:covers", "did you mean `cover`?"),
        ({"hazard": ""}, "--hazard", "no such hazard is known; there is "),
        ({"hazard": "floods"}, "--hazard floods", "did you mean `flood`?"),
        ({"district": Path("nowhere.toml")}, "nowhere.toml", "cannot be read"),
        ({"folder": DISTRICT.parent}, f"--into {DISTRICT.parent}", "name another folder"),
        ({"folder": DISTRICT / "below"}, f"--into {DISTRICT / 'below'}", "cannot be written"),
        ({"api": "http://127.0.0.1:9"}, "--api http://127.0.0.1:9", "is it running?"),
        ({"api": "127.0.0.1:8080"}, "--api 127.0.0.1:8080", "is it running?"),
        ({"api": "http://[::1"}, "--api http://[::1", "is it running?"),
    ],
)
def test_what_cannot_be_captured_is_refused(
    field: Field, wrong: dict[str, Any], place: str, cure: str, tmp_path: Path
) -> None:
    folder = tmp_path / "event"
    with pytest.raises(Refused) as refused:
        capture_event(replace(replace(GOOD, api=field.url, folder=folder), **wrong))
    assert refused.value.place == place
    assert cure in refused.value.why
    assert not folder.exists()


def test_a_device_that_the_centre_does_not_know(field: Field, tmp_path: Path) -> None:
    text = DISTRICT.read_text(encoding="utf-8").replace('"cover-n1"', '"cover-n9"')
    (tmp_path / "other.toml").write_text(text, encoding="utf-8")
    with pytest.raises(Refused, match="404: is cover-n9 of this centre's district"):
        capture_event(replace(GOOD, device="cover-n9", district=tmp_path / "other.toml", api=field.url))


if __name__ == "__main__":
    asyncio.run(run_and_keep(sys.argv[1], Path(sys.argv[2])))
