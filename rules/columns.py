"""Columns: everything that a rule can compare, named by its text."""

import re

import msgspec

from rules.declared import seconds
from rules.detectors.kinds import DETECTORS

SILENCE = "silence"
_METRIC = r"[a-z][a-z0-9_]*"
_CALL = re.compile(rf"(?P<detector>{_METRIC})\(\s*(?P<metric>{_METRIC})\s*(?:,\s*(?P<window>[^,()]*?)\s*)?\)")


class Column(msgspec.Struct, frozen=True):
    """A metric's newest known value, or what a detector makes of it; ``silence`` has neither.

    >>> str(parse("rate(level,5min)"))
    'rate(level, 5min)'
    """

    metric: str = ""
    detector: str = ""
    window: str = ""

    def __str__(self) -> str:
        if not self.detector:
            return self.metric or SILENCE
        return f"{self.detector}({self.metric}{', ' if self.window else ''}{self.window})"

    @property
    def window_s(self) -> float:
        """The detector's window in seconds, 0 where it takes none."""
        return seconds(self.window) if self.window else 0.0

    def unit(self, metric_unit: str) -> str:
        """Give the column's unit from its metric's: a rate is per hour; ``silence``, in intervals, has none."""
        if self.detector:
            return DETECTORS[self.detector].unit.format(metric_unit)
        return metric_unit if self.metric else "1"


def parse(text: str) -> Column:
    """Read a column's text; ``ValueError`` says what would be one."""
    text = text.strip()
    if text == SILENCE:
        return Column()
    if re.fullmatch(_METRIC, text):
        return Column(metric=text)
    call = _CALL.fullmatch(text)
    if call is None:
        raise ValueError(f"`{text}` is not a column; write a metric, or a detector of one as in `rate(level, 5min)`")
    detector = DETECTORS.get(call["detector"])
    if detector is None:
        known = ", ".join(f"`{name}`" for name in sorted(DETECTORS))
        raise ValueError(f"`{text}`: there is no detector `{call['detector']}`; there are {known}")
    if detector.windowed != (call["window"] is not None):
        cure = f"`{call['detector']}({call['metric']}{', 5min' if detector.windowed else ''})`"
        raise ValueError(f"`{text}`: write {cure}, {'with' if detector.windowed else 'without'} a window")
    window = (call["window"] or "").replace(" ", "")
    if detector.windowed and not seconds(window) >= 1.0:
        raise ValueError(f"`{text}`: the window lasts 1s or more")
    return Column(call["metric"], call["detector"], window)
