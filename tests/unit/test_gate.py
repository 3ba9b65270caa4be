"""The gate on results as data: what drifts, what is past a bound, what each report says of it."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
import typer

from rules.declared import Refused
from streetwarden.gate import commands
from streetwarden.gate.bounds import (
    Bounds,
    Check,
    Kept,
    bound_of,
    compare,
    gate,
    read_bounds,
    short,
    updated,
    write_bounds,
)
from streetwarden.gate.junit import write_junit
from streetwarden.gate.result import DAY_S, Figures, Job, Result, decode_result, encode, fingerprints
from streetwarden.gate.suite import run_suite, suite
from streetwarden.gate.summary import markdown
from streetwarden.gate.unseen import garwood, measure, unseen_report, wilson
from streetwarden.score import Detail

JOB = Job("storm", "storm", 1, 3600.0, Path("out/storm-1"))
DIGEST = {"truth": "a" * 64, "emitted": "b" * 64, "told": "c" * 64}
FIGURES = Figures(incidents=4, found=4, orders=4, real=4, useful_share=1.0, delay_p50_s=20.0, delay_p99_s=60.0)
GOOD = Result(JOB, FIGURES, digest=DIGEST, alerts={"cover_open cover-1": "00"}, devices=50, samples=9)
TRUCK = Detail(
    kind="misfire",
    hazard="cover",
    device="cover-7",
    rule="cover_open",
    at="12:03",
    stage="rules",
    reason="order 5 has no incident",
)


def result(name: str = "storm", seed: int = 1, **figures: Any) -> Result:
    job = msgspec.structs.replace(JOB, name=name, scenario=name, seed=seed)
    return msgspec.structs.replace(GOOD, job=job, figures=msgspec.structs.replace(FIGURES, **figures))


def failures(of: Result, bound: Result = GOOD) -> dict[str, str]:
    """Failures but the scorer's: these runs differ in figures alone."""
    checks = compare(of, bound_of(bound))
    return {check.name: check.failure for check in checks if check.failure and check.name != "score"}


def test_the_same_bytes_are_scored_the_same() -> None:
    """A scorer that counts nothing any more is better by every bound."""
    checks = {check.name: check.failure for check in compare(result(missed=0, found=5), bound_of(GOOD))}
    assert "the same bytes are scored otherwise" in checks["score"]
    assert "found: 4 is kept, 5 is told" in checks["score"]
    drifted = msgspec.structs.replace(result(found=5), digest={**DIGEST, "told": "d" * 64})
    assert {check.name for check in compare(drifted, bound_of(GOOD)) if check.failure} == {"digest told"}


def test_a_run_as_it_was_kept_passes_every_check() -> None:
    checks = compare(GOOD, bound_of(GOOD))
    assert [check.failure for check in checks] == [""] * len(checks)
    assert {"run", "digest truth", "digest emitted", "digest told", "found", "lost"} <= {check.name for check in checks}


@pytest.mark.parametrize("part", DIGEST)
def test_one_byte_fails_by_itself_and_says_which_of_the_three(part: str) -> None:
    drifted = msgspec.structs.replace(GOOD, digest={**DIGEST, part: "d" * 64})
    found = failures(drifted)
    assert list(found) == [f"digest {part}"]
    assert part in found[f"digest {part}"]
    assert "streetwarden sim run storm --seed 1" in found[f"digest {part}"]


def test_a_drift_of_what_was_told_names_rule_and_device() -> None:
    told = {"cover_open cover-2": "77"}
    drifted = msgspec.structs.replace(GOOD, digest={**DIGEST, "told": "d" * 64}, alerts=told)
    text = failures(drifted)["digest told"]
    assert "cover-1: alerts of rule cover_open are gone (stage: rules)" in text
    assert "cover-2: alerts of rule cover_open are new (stage: rules)" in text
    assert text.endswith("--device cover-1")
    decided = msgspec.structs.replace(drifted, alerts={"cover_open cover-1": "00 22"})
    was = msgspec.structs.replace(GOOD, alerts={"cover_open cover-1": "00 11"})
    assert "cover_open are changed (stage: confirmation)" in failures(decided, was)["digest told"]


def test_drifts_of_all_scenarios_stand_before_any_bound() -> None:
    drifted = msgspec.structs.replace(result("b"), digest={**DIGEST, "truth": ""})
    checks = gate([(result("a", misfires=1), bound_of(GOOD)), (drifted, bound_of(GOOD))])
    assert [check.name for check in checks if check.failure] == ["digest truth", "misfires", "score"]


@pytest.mark.parametrize(
    ("figure", "worse", "better"),
    [
        ("found", 3, 5),
        ("useful_share", 0.9, None),
        ("missed", 1, 0),
        ("late", 1, 0),
        ("misfires", 1, 0),
        ("benign", 1, 0),
        ("duplicates", 1, 0),
        ("delay_p50_s", 20.1, 19.9),
        ("delay_p99_s", 60.1, None),
        ("lost", 1, 0),
        ("doubled", 1, 0),
        ("garbled", 1, 0),
        ("alien", 1, 0),
        ("unexpected", 1, 0),
    ],
)
def test_every_figure_is_a_bound_on_one_side(figure: str, worse: Any, better: Any) -> None:
    assert list(failures(result(**{figure: worse}))) == [figure]
    assert not failures(result(**{figure: better}))


def test_a_failure_names_device_rule_reason_stage_and_the_command() -> None:
    misfired = msgspec.structs.replace(result(misfires=1), details=(TRUCK,))
    assert failures(misfired)["misfires"].splitlines() == [
        "storm: misfires 1, at most 0 is kept",
        "  cover-7: misfire, rule cover_open, 12:03: order 5 has no incident (lost at stage: rules)",
        "  reproduce: streetwarden sim run storm --seed 1 --device cover-7",
    ]


def test_the_new_shortfall_is_named_not_the_one_agreed_to() -> None:
    kept = msgspec.structs.replace(result(misfires=1), details=(TRUCK,))
    other = msgspec.structs.replace(TRUCK, device="cover-8")
    now = msgspec.structs.replace(result(misfires=2), details=(TRUCK, other))
    assert not failures(kept, kept)
    text = failures(now, kept)["misfires"]
    assert "cover-8" in text
    assert "cover-7" not in text


def test_many_causes_are_cut_and_counted() -> None:
    details = tuple(msgspec.structs.replace(TRUCK, device=f"cover-{number}") for number in range(12))
    text = failures(msgspec.structs.replace(result(misfires=12), details=details))["misfires"]
    assert len(text.splitlines()) == 8
    assert "and 7 more" in text


def test_no_bound_no_scenario_another_length_and_a_crash_fail_with_the_cure() -> None:
    (new,) = compare(GOOD, None)
    assert 'make city-update BECAUSE="' in new.failure
    (cut,) = compare(GOOD, msgspec.structs.replace(bound_of(GOOD), length_s=60.0))
    assert "kept for 60 s, run for 3600 s" in cut.failure
    crashed = msgspec.structs.replace(GOOD, crash="out of memory")
    (died,) = compare(crashed, bound_of(GOOD))
    assert "out of memory" in died.failure
    (stranger,) = gate([], ["gone"])
    assert stranger.scenario == "gone"
    assert "make city-update" in stranger.failure


def test_an_update_keeps_its_reasons_and_marks_what_is_worse(tmp_path: Path) -> None:
    file = tmp_path / "bounds.json"
    first, lines = updated(Bounds(), [("whole", GOOD)], [], "the first")
    assert any("new" in line for line in lines)
    worse = msgspec.structs.replace(result(misfires=1, late=0, delay_p50_s=10.0), details=(TRUCK,))
    second, lines = updated(first, [("whole", worse)], [], "trucks are hard")
    write_bounds(file, second)
    again = read_bounds(file)
    assert again == second
    assert [(because.reason, because.changed) for because in again.because] == [
        ("the first", ("storm",)),
        ("trucks are hard", ("storm",)),
    ]
    text = "\n".join(lines)
    assert "misfires: 0 → 1  WORSE" in text
    assert "delay_p50_s: 20.0 → 10.0  better" in text
    assert "agreed to from now on: misfire cover cover-7 cover_open ×1" in text
    assert updated(again, [("whole", worse)], [], "nothing") == (again, [])
    third, lines = updated(again, [], ["storm"], "retired")
    assert third.scenarios == {}
    assert lines == ["storm: gone"]


def test_an_update_without_a_reason_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="say why"):
        commands.city_update(because="  ", bounds=tmp_path / "bounds.json")


def test_bounds_that_are_not_in_order_are_refused_with_their_place(tmp_path: Path) -> None:
    file = tmp_path / "bounds.json"
    with pytest.raises(Refused, match=r"bounds\.json"):
        read_bounds(file)
    file.write_text('{"scenarios": {"storm": {"hole": {}}}}')
    with pytest.raises(Refused, match="hole"):
        read_bounds(file)


def test_a_long_scenario_has_a_short_form_and_its_length_can_be_kept() -> None:
    month = msgspec.structs.replace(JOB, length_s=30 * DAY_S)
    cut = short(month, None)
    assert cut is not None
    assert cut.length_s == 3 * DAY_S
    assert cut.folder != month.folder
    kept = Kept(short=msgspec.structs.replace(bound_of(GOOD), length_s=DAY_S))
    assert (short(month, kept) or month).length_s == DAY_S
    assert short(JOB, None) is None


def test_the_folder_says_what_is_run(tmp_path: Path) -> None:
    scenario = 'name = "x"\ntitle = { zh = "x", en = "x" }\nlength = "2h"\nseed = 5\n'
    (tmp_path / "one.toml").write_text(scenario + 'district = "small.toml"\n')
    (tmp_path / "small.toml").write_text("not a scenario: the district of one\n")
    (tmp_path / "captured").mkdir()
    (tmp_path / "captured" / "scenario.toml").write_text(scenario)
    jobs = suite([tmp_path], Path("out"))
    assert [(job.name, job.seed, job.length_s) for job in jobs] == [("captured", 5, 7200.0), ("one", 5, 7200.0)]
    assert [job.seed for job in suite([tmp_path], Path("out"), seed=9, only="one")] == [9]
    with pytest.raises(Refused, match="did you mean `one`"):
        suite([tmp_path], Path("out"), only="onn")
    (tmp_path / "broken.toml").write_text(scenario + "lenght = 1\n")
    with pytest.raises(Refused, match=r"broken\.toml.*did you mean `length`"):
        suite([tmp_path], Path("out"))
    assert "storm" in {job.name for job in suite([None], Path("out"))}


def test_a_suite_runs_two_at_a_time_and_keeps_the_order() -> None:
    jobs = [msgspec.structs.replace(JOB, seed=seed, length_s=float(seed)) for seed in range(1, 6)]
    running: list[int] = []
    most = 0

    async def run(job: Job, progress: Callable[[float], None]) -> Result:
        nonlocal most
        running.append(job.seed)
        most = max(most, len(running))
        progress(job.length_s / 2)
        await asyncio.sleep(0)
        running.remove(job.seed)
        return Result(job)

    results = asyncio.run(run_suite(jobs, run))
    assert [result.job for result in results] == jobs
    assert most == 2


def test_the_gate_writes_its_reports_and_ends_on_failure(tmp_path: Path) -> None:
    async def run(job: Job, progress: Callable[[float], None]) -> Result:
        await asyncio.sleep(0)
        job.folder.mkdir()
        (job.folder / "score.html").write_text("<p>")
        return msgspec.structs.replace(GOOD, job=job, figures=msgspec.structs.replace(FIGURES, lost=3))

    job = msgspec.structs.replace(JOB, folder=tmp_path / "storm-1")
    bounds = Bounds(scenarios={"storm": Kept(whole=bound_of(GOOD)), "gone": Kept()})
    checks = commands.gated([job], bounds, tmp_path, whole=False, runner=run)
    assert [check.name for check in checks if check.failure] == ["lost", "score", "scenario"]
    cases = ET.parse(tmp_path / "junit.xml").findall("./testsuite/testcase")
    assert len(cases) == len(checks)
    (lost,) = [case for case in cases if case.get("name") == "lost"]
    assert lost.get("classname") == "city.storm"
    assert "reproduce" in (lost.findtext("failure") or "")
    summary = (tmp_path / "summary.md").read_text()
    assert summary.index("storm: lost 3") < summary.index("| scenario |")
    assert msgspec.json.decode((tmp_path / "results.json").read_bytes())["scenarios"]["storm"]["lost"] == 3
    assert 'href="storm-1/score.html"' in (tmp_path / "index.html").read_text()


def test_junit_takes_any_text(tmp_path: Path) -> None:
    write_junit(tmp_path / "junit.xml", [Check("storm", "run", "died: \x1b[31m<&>\x00")])
    (failure,) = ET.parse(tmp_path / "junit.xml").iter("failure")
    assert failure.text == "died: �[31m<&>�"


def test_the_table_puts_failed_runs_on_top() -> None:
    text = markdown([result("a"), result("b")], [Check("b", "lost", "b: lost 1 | 2")])
    assert text.index("| b |") < text.index("| a |")


def test_a_result_survives_its_process() -> None:
    full = msgspec.structs.replace(GOOD, details=(TRUCK,), job=msgspec.structs.replace(JOB, rules=Path("r")))
    assert decode_result(encode(full)) == full


def test_fingerprints_do_not_depend_on_the_order_of_alerts() -> None:
    alert = {
        "rule": "r",
        "device": "d",
        "since": "1",
        "raised_at": "2",
        "cleared_at": None,
        "level": "",
        "decision": None,
    }
    later = {**alert, "since": "3", "decision": {"verdict": "held", "code": "cleared", "numbers": {}}}
    assert fingerprints([alert, later]) == fingerprints([later, alert]) != fingerprints([alert])


@pytest.mark.parametrize(
    ("count", "of", "low", "high"), [(1, 10, 0.01787621, 0.40415003), (81, 263, 0.25528818, 0.36625160)]
)
def test_the_interval_of_a_share_is_wilsons(count: int, of: int, low: float, high: float) -> None:
    """Reference: Newcombe 1998, table I, method 3."""
    assert wilson(count, of) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0.0, 3.6889), (1, 0.0253, 5.5716), (10, 4.7954, 18.3904), (100, 81.3640, 121.6270)]
)
def test_the_interval_of_a_count_is_exact(count: int, low: float, high: float) -> None:
    """Reference: half the chi-square quantiles at 2n and 2n + 2 degrees of freedom, as tabled."""
    assert garwood(count) == pytest.approx((low, high), abs=2e-3)


def test_rules_tuned_to_the_kept_seed_show() -> None:
    kept = [result(found=4, missed=0)]
    fresh = [result(seed=seed, found=2, missed=2, misfires=1, orders=3, real=2) for seed in range(100, 120)]
    measured = measure(fresh)
    assert measured["found share"] is not None
    assert (measured["found share"].count, measured["found share"].of) == (40, 80)
    rows = unseen_report(fresh, kept, 100).splitlines()
    (row,) = [row for row in rows if row.startswith("| storm | found share")]
    assert "0.5" in row
    assert "! kept is better" in row
    same = unseen_report([result(seed=seed) for seed in range(20)], kept, 0)
    assert "!" not in same


def test_ctrl_c_ends_what_runs_and_the_exit_code_is_130() -> None:
    ended: list[int] = []

    async def run(job: Job, progress: Callable[[float], None]) -> Result:
        if job.seed == 2:
            signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(job.seed)
        return Result(job)

    jobs = [msgspec.structs.replace(JOB, seed=seed) for seed in (1, 2, 3)]
    with pytest.raises(typer.Exit) as stopped:
        commands.gated(jobs, Bounds(), Path("out"), whole=False, runner=run)
    assert stopped.value.exit_code == 130
    assert sorted(ended) == [1, 2]
