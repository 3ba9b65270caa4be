"""A part of the long run, as the processes that share it have it."""

import faulthandler
import signal
import sys
import warnings
from dataclasses import dataclass

from tests.fuzz.decoders import DECODERS
from tests.fuzz.running import Broken, Tally, episode, quiet

STUCK_S = 1800.0  # wall; an episode takes a second, and the machine may have other things to do


@dataclass(frozen=True)
class Part:
    """The first ``count`` inputs of one episode."""

    decoder: str
    seed: int
    number: int
    count: int

    def work(self) -> tuple[Tally, Broken | None]:
        """Feed them; a decoder that hangs where Python cannot interrupt it ends the process, and tells where it was."""
        faulthandler.dump_traceback_later(STUCK_S, exit=True, file=sys.__stderr__ or sys.stderr)
        try:
            return episode(DECODERS[self.decoder], self.seed, self.number, self.count)
        finally:
            faulthandler.cancel_dump_traceback_later()


def prepare() -> None:
    """Set a process up: a warning is a fault, and logs are written nowhere."""
    warnings.simplefilter("error")
    quiet()


def begin() -> None:
    """Set a process of the pool up; of Ctrl-C its parent tells."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare()
