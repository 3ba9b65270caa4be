"""Every decoder against millions of mutated messages: ``python -m tests.fuzz``, or ``make fuzz``.

Fails, with the input and the command that brings it again, when a decoder does anything but decode or refuse by the
documented names, and when less than a tenth of its inputs decode. Ctrl-C tells what was reached.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context

from tests.fuzz.decoders import DECODERS
from tests.fuzz.part import Part, begin, prepare
from tests.fuzz.running import EPISODE, LEAST, Broken, Tally

_INTERRUPTED = 130


class Reached:
    """How far the run has come, by decoder; ``broken`` has the first fault of each."""

    def __init__(self, names: Sequence[str], seed: int, inputs: int) -> None:
        self.tallies = {name: Tally() for name in names}
        self.broken: dict[str, Broken] = {}
        self.died = False
        self._seed = seed
        self._inputs = inputs
        self._last = ""

    def parts(self) -> Iterator[Part]:
        """What is to be done, decoder by decoder; nothing more of one that is broken."""
        for name in self.tallies:
            for first in range(0, self._inputs, EPISODE):
                if name not in self.broken:
                    yield Part(name, self._seed, first // EPISODE, min(EPISODE, self._inputs - first))

    def add(self, part: Part, tally: Tally, broken: Broken | None) -> None:
        self.tallies[part.decoder].add(tally)
        if broken is not None and part.decoder not in self.broken:
            self.broken[part.decoder] = broken
            self.say(f"{broken}\n")
        self.show(part.decoder)

    def show(self, name: str) -> None:
        """Say how far it is: on one line where somebody looks, and once a decoder is done."""
        tally = self.tallies[name]
        line = f"{name}: {tally.inputs:,} of {self._inputs:,}, {tally.decoded:.0%} decoded"
        if tally.inputs == self._inputs:
            self.say(line)
        elif sys.stderr.isatty():
            sys.stderr.write(f"\r{line.ljust(len(self._last))}")
            sys.stderr.flush()
            self._last = line

    def say(self, text: str) -> None:
        if self._last:
            sys.stderr.write(f"\r{' ' * len(self._last)}\r")
            self._last = ""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def table(self) -> str:
        """What became of all inputs."""
        rows = [("decoder", "inputs", "decoded", "us each", "slowest ms", "what became of the others")]
        for name, tally in self.tallies.items():
            if tally.inputs:
                each, slowest = f"{tally.seconds / tally.inputs * 1e6:.1f}", f"{tally.slowest_s * 1e3:.0f}"
                others = ", ".join(f"{count:,} {what}" for what, count in tally.others())
                why = "BROKEN; " * (name in self.broken) + others
                rows.append((name, f"{tally.inputs:,}", f"{tally.decoded:.1%}", each, slowest, why))
        return "\n".join("{:14}{:>12}{:>9}{:>9}{:>12}  {}".format(*row) for row in rows)

    def fails(self) -> bool:
        """Say what was not reached; whether there is any."""
        few = [name for name, tally in self.tallies.items() if tally.inputs and tally.decoded < LEAST]
        for name in few:
            self.say(f"{name}: fewer than {LEAST:.0%} of its inputs decode: the mutations hide what is inside")
        return bool(few or self.broken or self.died)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 1 when a decoder failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000_000, help="of each decoder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=sorted(DECODERS), metavar="NAME", help=", ".join(DECODERS))
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--at", type=int, help="only up to this input, in its episode: the reproduction of a failure")
    given = parser.parse_args(arguments)
    names = given.only or list(DECODERS)
    if given.at is not None:
        return max(_again(Part(name, given.seed, *divmod(given.at, EPISODE))) for name in names)
    reached = Reached(names, given.seed, given.inputs)
    began = time.monotonic()
    try:
        _run(reached, given.jobs)
    except KeyboardInterrupt:
        reached.say(f"interrupted\n{reached.table()}")
        return _INTERRUPTED
    reached.say(f"{reached.table()}\n{time.monotonic() - began:.0f} s with {given.jobs} processes, seed {given.seed}")
    return int(reached.fails())


def _run(reached: Reached, jobs: int) -> None:
    with ProcessPoolExecutor(jobs, get_context("spawn"), begin) as pool:
        parts = reached.parts()
        under_way: dict[Future[tuple[Tally, Broken | None]], Part] = {}
        try:
            while True:
                for part in islice(parts, 2 * jobs - len(under_way)):
                    under_way[pool.submit(part.work)] = part
                if not under_way:
                    return
                for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                    part = under_way.pop(done)
                    reached.add(part, *done.result())
        except BrokenProcessPool:
            for each in (part, *under_way.values()):
                at = each.number * EPISODE + each.count - 1
                again = f"python -m tests.fuzz --only {each.decoder} --seed {each.seed} --at {at}"
                reached.say(f"a process died, perhaps of this: {again}")
            reached.died = True
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _again(part: Part) -> int:
    """Repeat an episode up to one input."""
    prepare()
    at = part.number * EPISODE + part.count
    _, broken = replace(part, count=part.count + 1).work()
    sys.stdout.write(f"{broken or f'{part.decoder} survives seed {part.seed} up to input {at}'}\n")
    return int(broken is not None)


if __name__ == "__main__":
    sys.exit(main())
