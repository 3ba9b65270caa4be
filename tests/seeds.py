"""Which worlds a seeded test runs: a few in CI, the long form when asked (``STREETWARDEN_SEEDS=1-20``)."""

import os


def seeds(usual: str) -> list[int]:
    """The seeds of ``STREETWARDEN_SEEDS``, such as ``"1-20"`` or ``"4,7"``, else the ``usual`` ones."""
    found: list[int] = []
    for part in os.environ.get("STREETWARDEN_SEEDS", usual).split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
