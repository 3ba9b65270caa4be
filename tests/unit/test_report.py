"""A score as it is shown: the demo's report, one screen on the terminal, JSON, and a page that stands by itself."""

import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from rules.declared import Refused
from streetwarden.matching import Incident, Nuisance, TruthFile
from streetwarden.report import Spread, report_of, spread
from streetwarden.score import Score, score
from streetwarden.scoring import score_folder, show
from streetwarden.timeline import LINES, page
from streetwarden.told import Audit, Flaw, Run, Told, write_told
from tests.unit.test_score import alert, order
from wire.clock import from_iso, iso

NOON = from_iso("2026-06-18T12:00:00+00:00")
MINUTE = 60 * 1_000_000_000


def incidents(count: int, minutes_apart: int) -> tuple[Incident, ...]:
    return tuple(
        Incident(f"theft-{n}", "cover", "city", "s", (f"cover-{n}",), iso(NOON + n * minutes_apart * MINUTE))
        for n in range(count)
    )


def truth_of(count: int, minutes_apart: int = 1, nuisances: int = 0) -> TruthFile:
    quiet = tuple(
        Nuisance(f"n-{n}", "truck", f"cover-{n}", "cover", iso(NOON - 60 * MINUTE), iso(NOON - 59 * MINUTE))
        for n in range(nuisances)
    )
    return TruthFile(1, iso(NOON + count * minutes_apart * MINUTE), incidents(count, minutes_apart), quiet)


def told_of(length_s: float = 3600.0, **more: Any) -> Told:
    raised = alert("cover-0", "cover", "12:00:30", cleared_at="2026-06-18T12:30:00+00:00", work_order="cover-0-12:01")
    opened = order("cover-0", "cover", alerts=[raised["id"]], state="closed", updated_at="2026-06-18T13:00:00+00:00")
    opened["announcements"] = [{"level": "<open>", "at": "2026-06-18T12:01:00+00:00"}]
    flaw = Flaw("lost", "cover-1", "tilt_x", 4, "outbox", "2026-06-18T12:00:10+00:00")
    run = Run("storm", 7, "fast", 0.0, length_s)
    return Told(run, [opened], [raised], [], {}, audit=Audit(100, 90, 30, 0, 60, 60, (flaw,)), **more)


class _Page(HTMLParser):
    """Fails on tags that are not closed in order; gathers the text, and the words that may reach beyond the page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "img", "iframe"}
        assert not {"src", "href"} & {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def shown(truth: TruthFile, told: Told) -> tuple[str, str]:
    """The page, and its text."""
    content = page(score(truth, told), truth, told)
    return content, " ".join(_Page(content).texts)


def test_the_page_stands_by_itself_and_tells_what_went_well_and_what_did_not() -> None:
    content, text = shown(truth_of(3), told_of())
    assert "http" not in content.replace("http://www.w3.org", "")
    assert "storm, seed 7" in text
    assert content.count("<b>missed</b> at rules") == 2
    assert "30 s from onset to alert" in text
    assert "4 lost of cover-1 tilt_x at outbox" in text
    assert "<open>" not in content, "what others wrote stands on the page as text"


def test_a_line_is_drawn_where_the_run_had_it() -> None:
    content, _ = shown(truth_of(4, minutes_apart=15), told_of())
    bars = re.findall(r'class="true cover[^"]*"><title>cover from \S+</title><rect x="([\d.]+)%"', content)
    assert [float(x) for x in bars] == [0.0, 25.0, 50.0, 75.0]


def test_a_long_run_is_drawn_whole_and_each_line_around_its_own_onset() -> None:
    content, text = shown(truth_of(4, minutes_apart=24 * 60), told_of(4 * 86400.0))
    assert "The whole run" in text
    bars = re.findall(r'class="true cover[^"]*"><title>cover from \S+</title><rect x="([\d.]+)%"', content)
    assert len(set(bars)) == 1
    assert len(bars) == 4


def test_too_many_lines_are_cut_those_in_trouble_last_and_the_others_counted() -> None:
    told = told_of()
    content, text = shown(truth_of(LINES + 21, nuisances=300), told)
    assert content.count("<b>missed</b>") == LINES
    assert "300 nuisances of which nothing was told" in text
    assert "21 lines beyond" in text


def test_an_empty_run_has_a_page_too() -> None:
    _, text = shown(TruthFile(1), Told(Run("empty", 1, "real", 30.0, 60.0), [], [], [], {}))
    assert "Nothing happened" in text
    assert "Nothing is amiss" in text


def test_the_terminal_shows_the_score_on_one_screen() -> None:
    out = StringIO()
    show(score(truth_of(30), told_of()), Console(file=out, width=120, color_system=None))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 40
    assert "1 of 30 found · 29 missed" in out.getvalue()
    assert "and 18 more" in out.getvalue()  # 29 missed and one flaw, twelve of them shown


def test_a_folder_is_scored_into_json_and_a_page(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_bytes(msgspec.json.encode(truth_of(3)))
    write_told(tmp_path, told_of())
    result = score_folder(tmp_path, tmp_path / "score.html", tmp_path / "score.json")
    assert result.incidents.missed == 2
    assert msgspec.json.decode((tmp_path / "score.json").read_bytes(), type=Score) == result
    assert (tmp_path / "score.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_folder_without_a_run_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"truth\.json is missing\); make a run there first"):
        score_folder(tmp_path, None, None)
    (tmp_path / "truth.json").write_text("{}")
    with pytest.raises(Refused, match="not to its end"):
        score_folder(tmp_path, None, None)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_bytes(msgspec.json.encode(truth_of(1)))
    write_told(tmp_path, told_of())
    with pytest.raises(Refused, match="cannot be written"):
        score_folder(tmp_path, tmp_path / "missing" / "score.html", None)


def test_the_report_keeps_its_promised_keys() -> None:
    rate = {"n": 0, "mean": None, "low": None, "high": None}
    device = {"id": "cover-0", "kind": "manhole_cover", "alerts": 1, "outcomes": {}, "misfire_rate": rate}
    told = msgspec.structs.replace(told_of(), devices=[{**device, "gateway": "gw-1"}], latency_s=[0.5, 0.25])
    report: Any = msgspec.to_builtins(report_of(score(truth_of(3), told), told))
    assert report["samples"] == {"acquired": 90, "filtered": 30, "committed": 60, "missing": 4, "duplicated": 0}
    assert report["truth"] == {"incidents": 3, "found": 1, "missed": 2, "misfires": 0}
    assert report["work_orders"] == {"opened": 1, "closed": 1, "duplicate": 0}
    assert report["delay_s"] == {"p50": 30.0, "p99": 30.0}
    assert report["latency_s"] == {"p50": 0.25, "p99": 0.5}
    assert list(report["devices"]) == [device]
    assert len(report["details"]) == 3


def test_a_spread_of_nothing_is_none() -> None:
    assert spread([]) == Spread(None, None)
