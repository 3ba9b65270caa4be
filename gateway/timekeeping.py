"""Whether the box's own clock is to be believed: the kernel knows if anything keeps it to the time."""

import ctypes

from wire.clock import Clock

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised to a reliable server
_ROOM = 512  # bytes; `struct timex` takes 208 of them on 64-bit Linux, and all zeros only ask


def synchronised(clock: Clock) -> bool:
    """Tell whether the clock of the city is kept; one that is simulated is exact by its nature."""
    if clock != Clock():
        return True
    asked = ctypes.create_string_buffer(_ROOM)
    return int(ctypes.CDLL(None).adjtimex(asked)) not in (-1, _TIME_ERROR)
