"""The demo as a new user meets it: one command, one address, a browser, and Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

FIRST_ORDER_S = 60.0
STOP_S = 5.0
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/")


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command in a process group of its own; the process and the address that it prints."""
    command = [sys.executable, "-m", "streetwarden", "demo", "--keep", str(folder / "run"), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        try:
            told = ""
            while (found := ADDRESS.search(told)) is None:
                line = process.stderr.readline()
                assert line, f"the demo ended before it told its address:\n{told}"
                told += line
            yield process, found[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def browser(address: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        page = chromium.new_page(viewport={"width": 1440, "height": 900}, locale="en-US")
        page.goto(address)
        yield page
        chromium.close()


@pytest.mark.timeout(200)
def test_a_person_sees_the_flood_drives_its_order_to_a_close_pulls_a_cable_and_stops_it_all(tmp_path: Path) -> None:
    began = time.monotonic()
    with demo(tmp_path) as (process, address):
        with browser(address) as page:
            flood = page.locator("#orders li", has_text="Water in the underpass").get_by_role("button").first
            expect(flood).to_be_visible(timeout=(FIRST_ORDER_S - (time.monotonic() - began)) * 1000)
            expect(page.locator("#balance")).to_contain_text("0 lost", timeout=10_000)
            flood.click()
            _drive_to_a_close(page)

            page.get_by_role("button", name="Pull a gateway's cable").click()
            expect(page.locator("#balance")).not_to_contain_text("0 lost", timeout=20_000)  # amber, names the gateway
            expect(page.locator("#balance")).to_contain_text("0 lost", timeout=45_000)

        parts = _descendants(process.pid)
        assert len(parts) >= 5, "broker, simulator, two gateways and the cloud are processes of their own"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=STOP_S + 5.0) == 0
        assert time.monotonic() - began < STOP_S
        assert [part for part in parts if Path(f"/proc/{part}").exists()] == []


def _drive_to_a_close(page: Page) -> None:
    """As the crew and then the verifier would, by clicking, while the water still stands."""
    head, body = page.locator("#order-head"), page.locator("#order-body")
    expect(body).to_contain_text("answers for drainage in the north")
    expect(body.locator(".chart .limit").first).to_be_attached(timeout=10_000)
    head.get_by_role("button", name="Accept").click()
    head.get_by_role("button", name="Arrive").click()
    head.get_by_role("button", name="Handle").click()
    head.get_by_label("handled").check()
    head.get_by_role("button", name="Confirm: Handle").click()
    head.get_by_role("button", name="Verify").click()
    head.get_by_label("confirmed").check()
    head.get_by_role("button", name="Confirm: Verify").click()
    head.get_by_role("button", name="Close the order").click()
    expect(head.get_by_text("Finished; nothing left to do.")).to_be_visible()
    expect(body).to_contain_text("chain verified")


@pytest.mark.timeout(60)
def test_a_headless_run_writes_the_promised_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    command = [sys.executable, "-m", "streetwarden", "demo", "--headless", "--for", "8", "--report", str(path)]
    ended = subprocess.run(command, check=False, timeout=50, capture_output=True, text=True)
    report = json.loads(path.read_text(encoding="utf-8"))
    wrong = report["truth"]["missed"] + report["truth"]["misfires"] + report["work_orders"]["duplicate"]
    lost = report["samples"]["missing"] + report["samples"]["duplicated"]
    assert ended.returncode == (1 if wrong + lost else 0)
    assert f"found {report['truth']['found']} of {report['truth']['incidents']} incidents" in ended.stderr
    assert {key: set(report[key]) for key in ("samples", "truth", "work_orders", "delay_s", "latency_s")} == {
        "samples": {"acquired", "filtered", "committed", "missing", "duplicated"},
        "truth": {"incidents", "found", "missed", "misfires"},
        "work_orders": {"opened", "closed", "duplicate"},
        "delay_s": {"p50", "p99"},
        "latency_s": {"p50", "p99"},
    }
    assert report["samples"]["acquired"] > 0
    assert len(report["devices"]) >= 24
    assert set(report["devices"][0]) == {"id", "kind", "alerts", "outcomes", "misfire_rate"}
    assert set(report["devices"][0]["misfire_rate"]) == {"n", "mean", "low", "high"}


def _descendants(process: int) -> set[int]:
    found: set[int] = set()
    waiting = [process]
    while waiting:
        for path in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            below = set(map(int, path.read_text().split())) - found
            found |= below
            waiting += below
    return found
