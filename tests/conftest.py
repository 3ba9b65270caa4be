"""The rules every test keeps: see ``tests/hygiene.py``. Nothing here needs to be asked for."""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests import hygiene

# The cores are shared, so an example has no deadline; CI draws the same examples each time.
settings.register_profile("shared", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("shared")

WITHOUT_NETWORK = {"unit", "property"}


def pytest_configure() -> None:
    hygiene.watch()


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported stays: the fixture below collects garbage quickly


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else native modules complain at exit, behind pytest's last line


@pytest.fixture(autouse=True)
def keeps_the_rules(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaks a task, thread or process, blocks a loop, makes a naive datetime, or needs a network."""
    threads, children = hygiene.threads(), hygiene.children()
    hygiene.watch_duckdb()
    folders = request.path.relative_to(request.config.rootpath).parts
    hygiene.sockets_forbidden = folders[0] == "tests" and bool(WITHOUT_NETWORK & set(folders[:-1]))
    yield
    hygiene.sockets_forbidden = False
    hygiene.note_unretrieved()
    hygiene.note_left(threads, children)
    seen = list(hygiene.sins)
    hygiene.sins.clear()
    if seen:
        pytest.fail("this test does what no test may:\n" + "\n".join(f"- {sin}" for sin in seen), pytrace=False)
