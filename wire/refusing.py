"""How every process ends on a configuration that is not in order: one line on standard error, and exit code 2."""

import contextlib
import sys
from collections.abc import Iterator

from rules.declared import Refused

EXIT_REFUSED = 2


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Turn ``Refused`` into the end of the process. There is no counter of it: what is refused here never runs."""
    try:
        yield
    except Refused as refused:
        sys.stderr.write(f"refused: {refused}\n")
        raise SystemExit(EXIT_REFUSED) from refused
