"""Seeded defects, planted in copied data or a wrapped port: each time the gate fails and names the cause."""

import asyncio
import re
import time
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path

import msgspec
import pytest

from streetwarden.gate.bounds import Bounds, Kept, bound_of
from streetwarden.gate.commands import gated
from streetwarden.gate.suite import STOP_S, in_own_process, run_suite, suite

SCENARIO = "storm"
TRUCKS = "trucks"  # what an on-delay is for


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Bounds:
    """What the unplanted run gives."""
    out = tmp_path_factory.mktemp("kept")
    jobs = [job for job in suite([None], out) if job.name in {SCENARIO, TRUCKS}]
    results = asyncio.run(run_suite(jobs))
    assert [result.crash for result in results] == ["", ""]
    return Bounds(scenarios={result.job.name: Kept(whole=bound_of(result)) for result in results})


def failed(
    kept: Bounds,
    out: Path,
    defect: str = "",
    scenario: str = SCENARIO,
    rules: Path | None = None,
    profiles: Path | None = None,
) -> dict[str, str]:
    (job,) = suite([None], out, only=scenario)
    job = msgspec.structs.replace(job, rules=rules, profiles=profiles)
    runner = partial(in_own_process, module=("tests.planted_city", defect)) if defect else in_own_process
    checks = gated([job], kept, out, whole=True, only=scenario, runner=runner)
    return {check.name: check.failure for check in checks if check.failure}


def copied(package: str, folder: str, to: Path, change: Callable[[str, str], str]) -> Path:
    to.mkdir()
    for file in (resources.files(package) / folder).iterdir():
        if file.name.endswith(".toml"):
            (to / file.name).write_text(change(file.name, file.read_text(encoding="utf-8")), encoding="utf-8")
    return to


def test_the_unplanted_run_passes(kept: Bounds, tmp_path: Path) -> None:
    assert not failed(kept, tmp_path)
    assert (tmp_path / f"{SCENARIO}-1" / "score.html").is_file()


def test_a_rule_without_its_on_delay(kept: Bounds, tmp_path: Path) -> None:
    def change(name: str, text: str) -> str:
        return re.sub(r"(?m)^ *on_delay = .*\n", "", text) if name == "cover.toml" else text

    rules = copied("rules", "catalog", tmp_path / "rules", change)
    failures = failed(kept, tmp_path, scenario=TRUCKS, rules=rules)
    assert next(iter(failures)) == "digest told"
    assert re.search(r"cover-\S+: alerts of rule cover\.open are changed \(stage: rules\)", failures["digest told"])
    cause = re.search(r"(\S+): misfire, rule cover\.open.*truck.*\(lost at stage: rules\)", failures["misfires"])
    assert cause is not None, failures["misfires"]
    assert failures["misfires"].endswith(f"--device {cause[1]}")


def test_a_word_order_fault_in_a_profile(kept: Bounds, tmp_path: Path) -> None:
    def change(name: str, text: str) -> str:
        if name != "reference_manhole_monitor.toml":
            return text
        return text.replace('order = "ABCD"\nrange', 'order = "CDAB"\nrange')

    failures = failed(kept, tmp_path, profiles=copied("edge", "profiles", tmp_path / "profiles", change))
    assert "garbled" in failures
    assert "reference_manhole_monitor" in failures["garbled"]
    assert "stage: edge" in failures["garbled"]


def test_an_outbox_that_drops_a_batch(kept: Bounds, tmp_path: Path) -> None:
    failures = failed(kept, tmp_path, "outbox")
    assert "lost" in failures
    assert "stage: outbox" in failures["lost"]
    assert "--device" in failures["lost"]


def test_a_batch_that_is_stored_twice(kept: Bounds, tmp_path: Path) -> None:
    failures = failed(kept, tmp_path, "delivery")
    assert "doubled" in failures
    assert "stage: ingest" in failures["doubled"]
    assert "--device" in failures["doubled"]


def test_a_run_that_dies_is_a_failed_result_that_says_why(tmp_path: Path) -> None:
    (job,) = suite([None], tmp_path, only=SCENARIO)
    lost = msgspec.structs.replace(job, rules=tmp_path / "nowhere")
    (result,) = asyncio.run(run_suite([lost]))
    assert "exit code" in result.crash
    assert "nowhere" in result.crash


def test_a_run_that_is_cancelled_ends_in_bounded_time(tmp_path: Path) -> None:
    (job,) = suite([None], tmp_path, only=SCENARIO)

    async def cut_short() -> None:
        async with asyncio.timeout(0.5):
            await run_suite([job])

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(cut_short())
    assert time.monotonic() - began < 0.5 + STOP_S + 1.0
