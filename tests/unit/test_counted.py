"""Counters are for every thread: none is lost."""

import time
from concurrent.futures import ThreadPoolExecutor

from wire.counted import Counted


class Slow(str):
    """A name that lets another thread in between a counter's reading and its writing."""

    __slots__ = ()

    def __hash__(self) -> int:
        time.sleep(0.0005)
        return super().__hash__()


def test_no_count_is_lost_between_threads() -> None:
    counted, name = Counted(), Slow("things_total")
    with ThreadPoolExecutor(8) as threads:
        for _ in range(100):
            threads.submit(counted.add, name)
    assert counted.snapshot() == {"things_total": 100}
