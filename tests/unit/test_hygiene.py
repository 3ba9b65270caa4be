"""Each sin fails the test that commits it, and its innocent twin passes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SINS = {
    "leaked_task": """
        async def main():
            left = asyncio.create_task(asyncio.sleep(60), name="forgotten")
            await asyncio.sleep(0)
        asyncio.run(main())
    """,
    "failed_task_nobody_asks": """
        async def fail():
            raise ValueError("lost")
        async def main():
            task = asyncio.create_task(fail())
            await asyncio.sleep(0)
        asyncio.run(main())
    """,
    "sleep_in_the_loop": """
        async def main():
            time.sleep(0.001)
        asyncio.run(main())
    """,
    "blocking_socket_in_the_loop": """
        async def main():
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.sendall(b"x")
        asyncio.run(main())
    """,
    "process_waited_for_in_the_loop": """
        async def main():
            subprocess.run(["true"], check=True)
        asyncio.run(main())
    """,
    "sqlite_in_the_loop": """
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            async def main():
                connection.commit()
            asyncio.run(main())
    """,
    "sqlite_with_block_in_the_loop": """
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            async def main():
                with connection:
                    pass
            asyncio.run(main())
    """,
    "duckdb_in_the_loop": """
        with duckdb.connect(":memory:") as connection:
            async def main():
                connection.execute("select 1")
            asyncio.run(main())
    """,
    "fsync_in_the_loop": """
        with tempfile.TemporaryFile() as file:
            async def main():
                os.fsync(file.fileno())
            asyncio.run(main())
    """,
    "naive_now": "datetime.now()",
    "naive_now_of_none": "datetime.now(None)",
    "naive_utcfromtimestamp": """
        with warnings.catch_warnings(action="ignore"):
            datetime.utcfromtimestamp(0)
    """,
    "naive_fromtimestamp": "datetime.fromtimestamp(0)",
    "naive_utcnow": """
        with warnings.catch_warnings(action="ignore"):
            datetime.utcnow()
    """,
    "warning": "warnings.warn('stray')",
    "unclosed_file": """
        open(__file__)
    """,
    "exception_in_a_thread": """
        def fail():
            raise ValueError("unseen")
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    """,
    "socket_in_a_unit_test": """
        with socket.socket() as s, contextlib.suppress(OSError, RuntimeError):
            s.connect(("127.0.0.1", 9))
    """,
    "listener_in_a_unit_test": """
        with socket.socket() as s, contextlib.suppress(OSError, RuntimeError):
            s.bind(("127.0.0.1", 0))
    """,
    "leaked_thread": """
        threading.Thread(target=threading.Event().wait, args=(30,), name="left", daemon=True).start()
    """,
    "leaked_process": """
        global kept
        kept = subprocess.Popen(["sleep", "30"])
    """,
}

INNOCENT = {
    "finished_task": """
        async def main():
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
            await asyncio.to_thread(time.sleep, 0.001)
            time.sleep(0)
        asyncio.run(main())
    """,
    "process_of_the_loop": """
        async def main():
            process = await asyncio.create_subprocess_exec("true")
            await process.wait()
        asyncio.run(main())
    """,
    "sqlite_in_a_thread": """
        def work():
            with contextlib.closing(sqlite3.connect(":memory:")) as connection, connection:
                connection.execute("create table t (n)")
        async def main():
            await asyncio.to_thread(work)
        asyncio.run(main())
    """,
    "zoned_datetime": """
        class Mine(datetime):
            pass
        assert datetime.now(UTC).tzinfo is datetime.now(tz=UTC).tzinfo is datetime.fromtimestamp(0, UTC).tzinfo is UTC
        assert type(Mine.now(UTC)) is Mine
    """,
    "joined_thread": """
        thread = threading.Thread(target=time.sleep, args=(0.001,))
        thread.start()
        thread.join()
    """,
}

HEAD = """\
import asyncio, contextlib, os, socket, sqlite3, subprocess, tempfile, threading, time, warnings
from datetime import UTC, datetime
import duckdb
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every case as a test of its own, run once by a pytest of its own under our rules: its name to its outcome."""
    project = tmp_path_factory.mktemp("project")
    folder = project / "tests" / "unit"
    folder.mkdir(parents=True)
    (project / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    cases = "".join(f"\ndef test_{name}():\n{_indented(body)}\n" for name, body in (SINS | INNOCENT).items())
    (folder / "test_cases.py").write_text(HEAD + cases)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-rA", "-q", "--tb=line"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    found = re.findall(r"^(PASSED|FAILED|ERROR) \S+::test_(\w+)", run.stdout, flags=re.MULTILINE)
    outcomes: dict[str, str] = {}
    for word, name in found:  # a sin seen after the test is an error beside its pass
        outcomes[name] = "passed" if word == "PASSED" and outcomes.get(name, "passed") == "passed" else "failed"
    assert outcomes.keys() == (SINS | INNOCENT).keys(), run.stdout + run.stderr
    return outcomes


def _indented(body: str) -> str:
    lines = body.strip("\n").splitlines()
    margin = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(f"    {line[margin:]}" for line in lines)


@pytest.mark.parametrize("sin", SINS)
def test_a_sin_fails_its_test(sin: str, outcome: dict[str, str]) -> None:
    assert outcome[sin] == "failed"


@pytest.mark.parametrize("name", INNOCENT)
def test_an_innocent_test_passes(name: str, outcome: dict[str, str]) -> None:
    assert outcome[name] == "passed"
