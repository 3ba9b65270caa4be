"""What no test may do or leave behind. ``tests/conftest.py`` watches with this; ``unit/test_hygiene.py`` proves it.

Watched once for the whole run: a blocking call on an event loop's thread, a naive datetime made by our code, a task
still running when its loop ends, an error that asyncio could only log, and in unit tests a socket. Whatever is seen is
noted in ``sins`` and fails the test that was running. Not seen: what uvloop does with sockets below Python, and
``from time import sleep`` done before the watch began.
"""

import asyncio
import ctypes
import functools
import gc
import inspect
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

THREAD_GRACE_S = 1.0

sins: dict[str, None] = {}  # of the running test, in order, each once
sockets_forbidden = False
loop_ended = False

_FOREIGN = ("<", __file__, *(sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")))
_LIBRARY = "site-packages"


class SocketForbidden(RuntimeError):  # noqa: N818 - named by what the test must not do
    """A unit test reached for the network."""


def watch() -> None:
    """Begin to watch, for the rest of the process."""
    _watch_blocking()
    _watch_tasks()
    _watch_datetime()
    _watch_asyncio_log()
    sys.addaudithook(_watch_sockets)


def note_unretrieved() -> None:
    """Let asyncio tell now, of this test, what it would tell when a later one collects the garbage."""
    global loop_ended  # noqa: PLW0603 - there is one running test
    if loop_ended:
        loop_ended = False
        gc.collect()


def threads() -> set[threading.Thread]:
    """The threads that are alive."""
    return set(threading.enumerate())


def children() -> set[int]:
    """The process ids of our children, dead but not waited for included; empty where the system does not tell."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has just ended
            found.update(map(int, path.read_text().split()))
    return found


def note_left(threads_before: set[threading.Thread], children_before: set[int]) -> None:
    """Note threads and processes that a test started and did not end; the processes are killed."""
    until = time.monotonic() + THREAD_GRACE_S
    for thread in threads() - threads_before:
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            sins[f"thread {thread.name!r} was left running"] = None
    for child in children() - children_before:
        sins[f"process {child} ({_command(child)}) was left behind"] = None
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _note(what: str) -> None:
    frame = _our_frame(sys._getframe(1))
    place = f" at {frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""
    sins[what + place] = None


def _our_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of our own code."""
    while frame is not None and not _is_ours(frame):
        frame = frame.f_back
    return frame


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return not name.startswith(_FOREIGN) and _LIBRARY not in name


def _command(process: int) -> str:
    with suppress(OSError):
        command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return command or "ended, not waited for"
    return "ended"


# --- blocking calls on a loop's thread


def _watch_blocking() -> None:
    _forbid(time, "sleep", lambda seconds=0.0, *_: seconds > 0)
    _forbid(os, "fsync")
    for name in ("wait", "communicate"):
        _forbid(subprocess.Popen, name)
    for name in ("connect", "accept", "recv", "recv_into", "recvfrom", "send", "sendall", "sendto"):
        _forbid(socket.socket, name, lambda self, *_: self.gettimeout() != 0)
    for name in ("execute", "executemany", "executescript", "commit", "rollback", "cursor", "__exit__"):
        _forbid(_Connection, name)
    modules: tuple[Any, ...] = (sqlite3, sqlite3.dbapi2)
    watched = functools.partial(_with_factory, sqlite3.connect)
    for module in modules:
        module.connect = watched


class _Connection(sqlite3.Connection):
    """A connection whose every statement is watched."""


def _with_factory(connect: Callable[..., sqlite3.Connection], *args: Any, **kwargs: Any) -> sqlite3.Connection:
    return connect(*args, **{"factory": _Connection, **kwargs})


def watch_duckdb() -> None:
    """Watch DuckDB as well, once something has imported it."""
    duckdb = sys.modules.get("duckdb")
    if duckdb is not None and not hasattr(duckdb.DuckDBPyConnection.execute, "__wrapped__"):
        for name in ("execute", "executemany", "commit", "sql"):
            _forbid(duckdb.DuckDBPyConnection, name)


def _forbid(owner: Any, name: str, blocks: Callable[..., bool] = lambda *_: True) -> None:
    """Note every call of ``owner.name`` on the thread of a running loop, if it ``blocks`` with those arguments."""
    original = getattr(owner, name)
    title = f"{owner.__name__}.{name}".replace("_Connection", "sqlite3.Connection")

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if asyncio._get_running_loop() is not None and blocks(*args):
            _note(f"{title} blocks the event loop")
        return original(*args, **kwargs)

    setattr(owner, name, watched)


# --- tasks


def _watch_tasks() -> None:
    """``asyncio.run`` and ``Runner`` silently cancel what a test left running: note it first."""
    runners: Any = asyncio.runners
    cancel_all = runners._cancel_all_tasks

    def noting(loop: asyncio.AbstractEventLoop) -> None:
        global loop_ended  # noqa: PLW0603 - there is one running test
        loop_ended = True
        for task in asyncio.all_tasks(loop):
            frame = next(filter(_is_ours, task.get_stack()), None)
            place = f" at {frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""
            sins[f"task {task.get_name()!r} was left running{place}"] = None
        cancel_all(loop)

    runners._cancel_all_tasks = noting


class _Noting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        sins[f"asyncio: {record.getMessage()}"] = None


def _watch_asyncio_log() -> None:
    """An exception never retrieved or a task destroyed while pending reaches nobody but this log."""
    logging.getLogger("asyncio").addHandler(_Noting(logging.ERROR))


# --- naive datetimes


def _watch_datetime() -> None:
    """Replace the constructors that can leave the zone out. The class is sealed, so its own table is changed."""
    table: dict[str, Any] = gc.get_referents(datetime.__dict__)[0]

    def watch_one(name: str, zone_at: int) -> None:
        original = inspect.getattr_static(datetime, name)

        def make(cls: type[datetime], *args: Any, **kwargs: Any) -> Any:
            zoned = kwargs.get("tz") is not None or any(args[zone_at : zone_at + 1])
            if not zoned and _is_ours(sys._getframe(1)):
                _note(f"datetime.{name}() without a zone")
            return original.__get__(None, cls)(*args, **kwargs)

        table[name] = classmethod(make)

    for name, zone_at in {"now": 0, "utcnow": 0, "today": 0, "fromtimestamp": 1, "utcfromtimestamp": 1}.items():
        watch_one(name, zone_at)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))


# --- sockets in unit tests


def _watch_sockets(event: str, args: tuple[Any, ...]) -> None:
    if not sockets_forbidden or event not in {"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"}:
        return
    if event != "socket.getaddrinfo" and args[0].family == socket.AF_UNIX:
        return
    _note(f"{event} in a unit test")
    raise SocketForbidden(f"{event}{args[1:]!r}: unit and property tests run without a network")
