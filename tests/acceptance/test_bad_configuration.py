"""Every command refuses a configuration that is not in order: exit code 2, one line with file, key and cure.

There is no counter to read here: a process whose configuration is refused does not start, so the line and the exit code
are all there is. The same file, mended, is in order.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

from tests.small_city import ROOT, district_text

RULE = (ROOT / "rules/catalog/gas.toml").read_text("utf-8")
PROFILE = (ROOT / "edge/profiles/dfrobot_sen0492.toml").read_text("utf-8")
BROKER = {"host": "127.0.0.1", "port": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Configurations in order, with all that they name."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "profiles").mkdir()
    for profile in (ROOT / "edge/profiles").glob("*.toml"):
        (tmp_path / "profiles" / profile.name).write_text(profile.read_text("utf-8"), "utf-8")
    (tmp_path / "rules" / "gas.toml").write_text(RULE, "utf-8")
    (tmp_path / "district.toml").write_text(district_text(), "utf-8")
    shared = {"district": str(tmp_path / "district.toml"), "broker": BROKER}
    own = {
        "gateway.toml": {
            **shared, "gateway": "gw-2", "data": "gw", "buses": {"bus-2": BROKER}, "rules": "rules", "profiles": "profiles"
        },
        "cloud.toml": {**shared, "data": "cloud", "timeseries": "memory://", "rules": "rules"},
        "sim.toml": {**shared, "seed": 1, "truth": str(tmp_path / "truth.json"), "scenario": "storm", "bus": {"bus-2": 0}},
    }  # fmt: skip
    for name, content in own.items():
        (tmp_path / name).write_text(tomli_w.dumps(content), "utf-8")
    return tmp_path


def streetwarden(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "streetwarden", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=30)


CHECK, GATEWAY = "gateway check gateway.toml", "gateway run gateway.toml"
CLOUD, SIM = "cloud run cloud.toml", "sim run sim.toml"
RULES, PROFILES = "rules check rules", "profile check profiles"
GAS, LEVEL = "rules/gas.toml", "profiles/dfrobot_sen0492.toml"

CASES = [
    # command, the file that is spoilt, what was written, what is written instead, what the line says
    (CHECK, "gateway.toml", "[broker]", "tick = 1\n[broker]", "gateway.toml: unknown key `tick`; did you mean `tick_s`?"),
    (GATEWAY, "gateway.toml", "port = 1", "prt = 1", "gateway.toml: unknown key `broker.prt`; did you mean `port`?"),
    (CHECK, "gateway.toml", '"gw-2"', '"gw-22"', "gateway.toml: gateway: `gw-22` is not declared"),
    (CHECK, "gateway.toml", "buses.bus-2", "buses.bus-22", "gateway.toml: buses.bus-22: no such bus belongs to gw-2"),
    (CHECK, "gateway.toml", "district.toml", "distrct.toml", "distrct.toml: cannot be read: No such file"),
    (CHECK, "gateway.toml", 'gateway = "', "gateway = ", "gateway.toml: not TOML: "),
    (GATEWAY, "district.toml", 'asset = "level-1"', 'aset = "level-1"', "unknown key `device[2].aset`; did you mean `asset`?"),
    (GATEWAY, "district.toml", "dfrobot_sen0492", "dfrobot_sen0429",
     "district.toml: device level-1: profile: no profile `dfrobot_sen0429` is known; did you mean `dfrobot_sen0492`?"),
    (CHECK, "district.toml", '"dfrobot_sen0492"', '"eastron_sdm120"',
     "district.toml: device level-1: kind: is level_sensor, but `eastron_sdm120` is a power_meter"),
    (CHECK, "district.toml", "mounting_height_m", "mounting_hight_m", "device level-1: install.mounting_height_m: is missing"),
    (CHECK, GAS, "on_delay", "on_dely", "did you mean `on_delay`?"),
    (CHECK, LEVEL, "scale = 0.001", "scal = 0.001", "unknown key `point[0].scal`; did you mean `scale`?"),
    (CLOUD, "cloud.toml", "timeseries", "timeserie", "unknown key `timeserie`; did you mean `timeseries`?"),
    (CLOUD, "cloud.toml", "memory://", "oracle://", "`oracle://` is no address; write duckdb:///PATH"),
    (CLOUD, "district.toml", "gateway = \"gw-1\"", "gateway = \"gw-11\"", "no gateway `gw-11` is declared; did you mean `gw-1`?"),
    (CLOUD, GAS, "hazard = ", "hazzard = ", "did you mean `hazard`?"),
    (SIM, "sim.toml", "seed = ", "sed = ", "sim.toml: unknown key `sed`; did you mean `seed`?"),
    (SIM, "sim.toml", '"storm"', '"strom"', "none of that name is shipped"),
    (SIM, "sim.toml", "bus-2", "bus-22", "sim.toml: bus.bus-22: "),
    (SIM, "district.toml", "dfrobot_sen0492", "dfrobot_sen0429", "device level-1: profile: `dfrobot_sen0429` is no Modbus"),
    (RULES, GAS, "on_delay", "on_dely", "did you mean `on_delay`?"),
    (RULES, GAS, 'column = "ch4"', 'column = "mean(ch4, 5min)"', "there is no detector `mean`"),
    ("rules check rulse", GAS, "", "", "rulse: cannot be listed: No such file"),
    (PROFILES, LEVEL, "register = 0x34", "regster = 0x34", "unknown key `point[0].regster`; did you mean `register`?"),
    (PROFILES, LEVEL, '"minus"', '"plus"', "Invalid enum value 'plus'"),
    (PROFILES, LEVEL, 'id = "dfrobot_sen0492"', 'id = "sen0492"', "profile.id: is `sen0492`; a profile is named as its file"),
    ("demo --headless", GAS, "", "", "--headless: a run without a person needs its length"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "file", "was", "instead", "said"), CASES)
def test_it_is_refused_in_one_line_with_file_key_and_cure(
    folder: Path, command: str, file: str, was: str, instead: str, said: str
) -> None:
    spoilt = (folder / file).read_text("utf-8")
    assert was in spoilt
    (folder / file).write_text(spoilt.replace(was, instead, 1), "utf-8")
    ended = streetwarden(folder, *command.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("refused: ")
    assert said in line


@pytest.mark.parametrize("command", [CHECK, RULES, PROFILES, "rules check", f"profile check {LEVEL}"])
def test_the_mended_one_is_in_order(folder: Path, command: str) -> None:
    ended = streetwarden(folder, *command.split())
    assert (ended.returncode, ended.stderr) == (0, "")
    assert all(": in order" in line for line in ended.stdout.splitlines())
