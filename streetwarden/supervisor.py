"""Starts the parts of a demonstration as separate OS processes, restarts one that dies, and leaves none behind."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

STOP_SECONDS = 2.5  # how long a part may take to stop by itself before it is killed
RESTART_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(slots=True)
class Part:
    """One process: ``module`` is run with ``arguments``; what it prints goes to ``log``."""

    name: str
    module: str
    arguments: Sequence[str]
    log: Path
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    down_s: float = RESTART_SECONDS
    wanted: bool = field(default=True)


class Supervisor:
    """Keeps its parts running until ``stop``; use ``async with``."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # Shielded: a second Ctrl-C must not leave processes behind.
        await asyncio.shield(self.stop())

    async def start(self, part: Part) -> None:
        self.parts[part.name] = part
        await self._spawn(part)
        self._watchers[part.name] = asyncio.create_task(self._watch(part), name=f"watch {part.name}")

    async def stop(self, *names: str) -> None:
        """Stop the named parts (all, when none is named): asked first, killed after ``STOP_SECONDS``."""
        chosen = [self.parts[name] for name in names or tuple(self.parts)]
        for part in chosen:
            part.wanted = False
        await asyncio.gather(*(self._end(part) for part in chosen))
        for part in chosen:
            watcher = self._watchers.pop(part.name, None)
            if watcher is not None:
                watcher.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watcher
            self.parts.pop(part.name, None)

    def kill(self, name: str, down_s: float = RESTART_SECONDS) -> None:
        """SIGKILL, as a power cut would: the part is started again after ``down_s`` seconds."""
        self.parts[name].down_s = down_s
        process = self.parts[name].process
        if process is not None and process.returncode is None:
            # The whole group: an embedded broker keeps a child of its own.
            os.killpg(process.pid, signal.SIGKILL)

    async def _spawn(self, part: Part) -> None:
        part.starts += 1
        with part.log.open("ab") as log:
            part.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                part.module,
                *part.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own keeps the terminal's Ctrl-C to the supervisor, which stops the parts in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    async def _watch(self, part: Part) -> None:
        while part.wanted and part.process is not None:
            await part.process.wait()
            if part.wanted:
                await asyncio.sleep(part.down_s)
                part.down_s = RESTART_SECONDS
            if part.wanted:  # it may have been stopped while it lay dead
                await self._spawn(part)

    @staticmethod
    async def _end(part: Part) -> None:
        process = part.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            # The whole group: an embedded broker keeps a child of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _die_with_parent() -> None:
    """Ask the kernel to end this child when the supervisor is gone, even by SIGKILL (Linux, prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
