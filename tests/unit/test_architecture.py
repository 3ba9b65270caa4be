"""The import direction of the project, as failing checks; the contracts stand in ``pyproject.toml``."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("rules", "wire", "edge", "gateway", "cloud", "firmware_sim", "streetwarden")
# What a pure package may not reach in the standard library; anything outside it must be named below.
IMPURE = {"asyncio", "io", "logging", "os", "pathlib", "random", "secrets", "shutil", "socket", "sqlite3", "subprocess"}
IMPURE |= {"sys", "tempfile", "threading", "time", "urllib", "concurrent", "multiprocessing", "signal", "http"}


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "rules").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_rules_import_numpy_and_msgspec_and_nothing_else(path: Path) -> None:
    known = (sys.stdlib_module_names - IMPURE) | {"rules", "numpy", "msgspec"}
    imported = {name.partition(".")[0] for name in _imports(path) if name != "pathlib.PurePath"}  # a name, not a file
    assert imported <= known


def test_rules_open_no_file() -> None:
    calls = (
        node.func.id
        for path in (ROOT / "rules").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    )
    assert {"open", "print", "input", "exec", "eval"}.isdisjoint(calls)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_start_empty(package: str) -> None:
    with_code = [path for path in (ROOT / package).rglob("__init__.py") if ast.parse(path.read_text()).body]
    assert with_code == []


@pytest.mark.parametrize(
    ("process", "without"),
    [
        ("cloud.process", {"pymodbus", "iotcore", "edge", "gateway", "firmware_sim", "streetwarden"}),
        (
            "gateway.process",
            {
                "sqlalchemy",
                "duckdb",
                "fastapi",
                "starlette",
                "uvicorn",
                "scipy",
                "cloud",
                "firmware_sim",
                "streetwarden",
            },
        ),
        ("firmware_sim.process", {"sqlalchemy", "duckdb", "fastapi", "cloud", "gateway", "streetwarden"}),
    ],
)
def test_a_process_loads_only_its_own_side(process: str, without: set[str]) -> None:
    assert find_spec(process) is not None
    code = f"import json, sys, {process}; print(json.dumps(list(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert loaded & without == set()


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
