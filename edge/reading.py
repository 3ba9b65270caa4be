"""One device at one instant, as it came: nothing is decoded before the tick that gathers it with its like."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from edge.installed import Installed
from edge.reads import Reads
from rules.samples import Quality


class Replies(NamedTuple):
    """The data bytes of the answers to ``reads.requests``."""

    reads: Reads
    data: tuple[bytes, ...]


Told = Replies | tuple[float, ...] | None


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one device said at ``taken_at`` (UTC ns, the time of reading).

    ``told`` is the replies of a poll, or a message's numbers in the order of ``profile.field`` (NaN: not told), before
    scale and offset. None says nothing of them but the ``quality``, and with ``GOOD`` nothing at all. A ``quality``
    worse than ``GOOD`` holds for all quantities. ``lag_ns`` is how long before its receipt the device's own clock said
    that it was taken: also where that clock is not to be believed, and ``taken_at`` is the time of receipt instead.

    ``settle`` is called once the reading, and every reading put before it, is safe: it acknowledges a message.
    ``message`` is what that one is known by should it come again: its origin and stamp.
    """

    place: Installed
    taken_at: int
    told: Told
    quality: Quality = Quality.GOOD
    lag_ns: int = 0
    settle: Callable[[], None] | None = None
    message: tuple[str, int] | None = None
