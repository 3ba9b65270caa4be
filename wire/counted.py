"""Counters of what went wrong or was left out: nothing is skipped in silence."""

from collections import Counter
from threading import Lock


class Counted:
    """Named totals of one process. Names end in their unit and ``_total``, as in ``ingest_malformed_batches_total``.

    For every thread: the event loop and the store's writer both count.
    """

    def __init__(self) -> None:
        self._totals: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, name: str, count: int = 1) -> None:
        with self._lock:
            self._totals[name] += count

    def __getitem__(self, name: str) -> int:
        return self._totals[name]

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(sorted(self._totals.items()))
