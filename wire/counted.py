"""Counters of what went wrong or was left out: nothing is skipped in silence."""

from collections import Counter


class Counted:
    """Named totals of one process. Names end in their unit and ``_total``, as in ``ingest_malformed_batches_total``."""

    def __init__(self) -> None:
        self._totals: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        self._totals[name] += count

    def __getitem__(self, name: str) -> int:
        return self._totals[name]

    def snapshot(self) -> dict[str, int]:
        return dict(sorted(self._totals.items()))
