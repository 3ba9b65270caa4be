"""Same seed, same bytes: truth, registers, payloads and what is told, in another process with another hash seed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streetwarden.told import Told, read_told


def run(scenario: str, seed: int, folder: Path, hash_seed: str) -> tuple[Told, bytes]:
    command = [sys.executable, "-m", "streetwarden", "sim", "run", scenario, "--seed", str(seed), "--keep", str(folder)]
    subprocess.run(
        command, env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True, timeout=60, check=False
    )
    return read_told(folder), (folder / "truth.json").read_bytes()


@pytest.mark.parametrize("scenario", ["storm", "bad-radio", "gateway-silent"])
def test_the_same_seed_gives_the_same_bytes_in_another_process(scenario: str, tmp_path: Path) -> None:
    one, truth = run(scenario, 5, tmp_path / "one", "1")
    other, same_truth = run(scenario, 5, tmp_path / "other", "2")
    assert one.digest.keys() == {"truth", "emitted", "told"}
    assert one.digest == other.digest
    assert truth == same_truth
    assert one.steps == other.steps
    assert {order["number"]: order["decided_at"] for order in one.orders} == {
        order["number"]: order["decided_at"] for order in other.orders
    }


def test_another_seed_gives_other_bytes(tmp_path: Path) -> None:
    one, _ = run("storm", 5, tmp_path / "one", "1")
    other, _ = run("storm", 6, tmp_path / "other", "1")
    assert all(one.digest[name] != other.digest[name] for name in one.digest)
