"""Every command refuses a configuration that is not in order: exit code 2, one line with file, key and cure.

There is no counter to read here: a process whose configuration is refused does not start, so the line and the exit code
are all there is. The same file, mended, is in order.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import tomli_w

from streetwarden.cli import main
from tests.small_city import CALM, ROOT, district_text

RULE = (ROOT / "rules/catalog/gas.toml").read_text("utf-8")
PROFILE = (ROOT / "edge/profiles/dfrobot_sen0492.toml").read_text("utf-8")
BROKER = {"host": "127.0.0.1", "port": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Configurations in order, with all that they name."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "profiles").mkdir()
    for profile in (ROOT / "edge/profiles").glob("*.toml"):
        (tmp_path / "profiles" / profile.name).write_text(profile.read_text("utf-8"), "utf-8")
    (tmp_path / "rules" / "gas.toml").write_text(RULE, "utf-8")
    (tmp_path / "calm.toml").write_text(CALM, "utf-8")
    (tmp_path / "district.toml").write_text(district_text(), "utf-8")
    shared = {"district": str(tmp_path / "district.toml"), "broker": BROKER}
    rules = {"rules": "rules"}
    own: dict[str, dict[str, Any]] = {
        "gateway.toml": {"gateway": "gw-2", "data": "gw", "buses": {"bus-2": BROKER}, "profiles": "profiles", **rules},
        "cloud.toml": {"data": "cloud", "timeseries": "memory://", **rules},
        "sim.toml": {"seed": 1, "truth": "truth.json", "scenario": str(tmp_path / "calm.toml"), "bus": {"bus-2": 0}},
    }
    for name, content in own.items():
        (tmp_path / name).write_text(tomli_w.dumps(shared | content), "utf-8")
    yield tmp_path
    structlog.reset_defaults()  # a command sets up the log of its process, and here that is ours


def run(folder: Path, module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)


CHECK, GATEWAY = "gateway check gateway.toml", "gateway run gateway.toml"
CLOUD, SIM = "cloud run cloud.toml", "sim serve sim.toml"
RULES, PROFILES = "rules check rules", "profile check profiles"
GAS, LEVEL = "rules/gas.toml", "profiles/dfrobot_sen0492.toml"

CASES = [
    # command, the file that is spoilt, what was written, what is written instead, what the line says
    (CHECK, "gateway.toml", "[broker]", "tick = 1\n[broker]",
     "gateway.toml: unknown key `tick`; did you mean `tick_s`?"),
    (GATEWAY, "gateway.toml", "port = 1", "prt = 1", "gateway.toml: unknown key `broker.prt`; did you mean `port`?"),
    (CHECK, "gateway.toml", '"gw-2"', '"gw-22"', "gateway.toml: gateway: `gw-22` is not declared"),
    (CHECK, "gateway.toml", "buses.bus-2", "buses.bus-22", "gateway.toml: buses.bus-22: no such bus belongs to gw-2"),
    (CHECK, "gateway.toml", "district.toml", "distrct.toml", "distrct.toml: cannot be read: No such file"),
    (CHECK, "gateway.toml", 'gateway = "', "gateway = ", "gateway.toml: not TOML: "),
    (GATEWAY, "district.toml", 'asset = "level-1"', 'aset = "level-1"',
     "district.toml: unknown key `device[2].aset`; did you mean `asset`?"),
    (GATEWAY, "district.toml", "dfrobot_sen0492", "dfrobot_sen0429",
     "district.toml: device level-1: profile: no profile `dfrobot_sen0429` is known; did you mean `dfrobot_sen0492`?"),
    (CHECK, "district.toml", '"dfrobot_sen0492"', '"eastron_sdm120"',
     "district.toml: device level-1: kind: is level_sensor, but `eastron_sdm120` is a power_meter"),
    (CHECK, "district.toml", "mounting_height_m", "mounting_hight_m",
     "district.toml: device level-1: install.mounting_height_m: is missing"),
    (CHECK, GAS, "on_delay", "on_dely", "did you mean `on_delay`?"),
    (CHECK, LEVEL, "scale = 0.001", "scal = 0.001", "unknown key `point[0].scal`; did you mean `scale`?"),
    (CLOUD, "cloud.toml", "timeseries", "timeserie", "unknown key `timeserie`; did you mean `timeseries`?"),
    (CLOUD, "cloud.toml", "memory://", "oracle://", "`oracle://` is no address; write duckdb:///PATH"),
    (CLOUD, "district.toml", 'gateway = "gw-2"', 'gateway = "gw-22"',
     "district.toml: bus bus-2: gateway: no gateway `gw-22` is declared; did you mean `gw-2`?"),
    (CLOUD, GAS, "hazard = ", "hazzard = ", "did you mean `hazard`?"),
    (SIM, "sim.toml", "seed = ", "sed = ", "sim.toml: unknown key `sed`; did you mean `seed`?"),
    (SIM, "sim.toml", "calm.toml", "clam.toml", "clam.toml: no such file"),
    (SIM, "calm.toml", "length = ", "lenth = ", "calm.toml: unknown key `lenth`; did you mean `length`?"),
    (SIM, "sim.toml", "bus-2", "bus-22", "sim.toml: bus.bus-22: "),
    (SIM, "district.toml", "dfrobot_sen0492", "dfrobot_sen0429",
     "district.toml: device level-1: profile: `dfrobot_sen0429` is no Modbus profile"),
    (RULES, GAS, "on_delay", "on_dely", "did you mean `on_delay`?"),
    (RULES, GAS, 'column = "ch4"', 'column = "mean(ch4, 5min)"', "there is no detector `mean`"),
    ("rules check rulse", GAS, "", "", "rulse: cannot be listed: No such file"),
    (PROFILES, LEVEL, "register = 0x34", "regster = 0x34", "unknown key `point[0].regster`; did you mean `register`?"),
    (PROFILES, LEVEL, '"minus"', '"plus"', "Invalid enum value 'plus'"),
    (PROFILES, LEVEL, 'id = "dfrobot_sen0492"', 'id = "sen0492"',
     "dfrobot_sen0492.toml: profile.id: is `sen0492`; a profile is named as its file"),
    ("demo --headless", GAS, "", "", "--headless: a run without a person needs its length"),
]  # fmt: skip


def spoil(folder: Path, file: str, was: str, instead: str) -> None:
    written = (folder / file).read_text("utf-8")
    assert was in written
    (folder / file).write_text(written.replace(was, instead, 1), "utf-8")


def check_line(stderr: str, said: str) -> None:
    """``said`` tells no line numbers; which line is meant, tests/unit/test_declared.py holds."""
    (line,) = stderr.splitlines()
    assert line.startswith("refused: ")
    assert said in re.sub(r"(?<=\.toml):\d+(?=: )", "", line)
    if "unknown key" in said or "not TOML" in said:
        assert re.search(r"\.toml:\d+: ", line)


@pytest.mark.parametrize(("command", "file", "was", "instead", "said"), CASES)
def test_it_is_refused_in_one_line_with_file_key_and_cure(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    file: str,
    was: str,
    instead: str,
    said: str,
) -> None:
    """The command itself, in this process: every case in milliseconds."""
    spoil(folder, file, was, instead)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["streetwarden", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    check_line(told.err, said)


@pytest.mark.parametrize(
    ("command", "file", "was", "instead", "said"), [case for n, case in enumerate(CASES) if case[0] not in
                                                    [other[0] for other in CASES[:n]]]
)  # fmt: skip
def test_every_command_ends_its_process_alike(
    folder: Path, command: str, file: str, was: str, instead: str, said: str
) -> None:
    """The first case of each command, as a process: its exit code, and nothing but the one line."""
    spoil(folder, file, was, instead)
    ended = run(folder, "streetwarden", *command.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    check_line(ended.stderr, said)


@pytest.mark.parametrize(
    "module", ["gateway.process", "cloud.process", "firmware_sim.process", "streetwarden.centre_process"]
)
def test_so_does_every_process_that_is_started_without_the_command(folder: Path, module: str) -> None:
    spoil(folder, "cloud.toml", "[broker]", "tick = 1\n[broker]")
    more = ["http://127.0.0.1:1"] if module == "streetwarden.centre_process" else []
    ended = run(folder, module, "cloud.toml", *more)
    assert (ended.returncode, ended.stdout) == (2, "")
    check_line(ended.stderr, "cloud.toml: unknown key `")


@pytest.mark.parametrize("command", [CHECK, RULES, PROFILES, "rules check", f"profile check {LEVEL}"])
def test_the_mended_one_is_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["streetwarden", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert all(": in order" in line for line in told.out.splitlines())
