"""InfluxDB's line protocol: one line for each reading (one device at one instant), its metrics as float fields.

``reading,device=level-s1,gateway=gw-north distance=4.87,level=0.13 1781782200000000000``. A sample that is not good has
a second field, ``level.quality=17i``; one whose value is unknown has only that one, since the protocol has no NaN. Wide
lines are written twice as fast as one line for each sample.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote

from cloud.timeseries.port import SampleBatch

MEASUREMENT = "reading"
QUALITY_OF = ".quality"

_ENCODED = str.maketrans({"%": "%25", "\\": "%5C", "\n": "%0A", "\r": "%0D"})
_ESCAPED = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})


def stored(name: str) -> str:
    """Write a name as the store has it: what no line can hold (line ends, backslashes) is percent-encoded."""
    return name.translate(_ENCODED)


def told(name: str) -> str:
    """Undo ``stored``."""
    return unquote(name)


@lru_cache(maxsize=100_000)
def escaped(name: str) -> str:
    """Write a name as it stands in a line: tag values, and field keys."""
    return stored(name).translate(_ESCAPED)


def lines(batch: SampleBatch) -> Iterator[str]:
    """Write a batch as lines, without line ends; times in nanoseconds."""
    points = batch.table.points
    tail = f",gateway={escaped(batch.gateway)} "
    heads = [f"{MEASUREMENT},device={escaped(point.device)}{tail}" for point in points]
    metrics = [escaped(point.metric) for point in points]
    block = batch.block
    head, at, fields = "", 0, list[str]()
    for point, taken_at, value, quality in zip(
        block.point.tolist(), block.taken_at.tolist(), block.value.tolist(), block.quality.tolist(), strict=True
    ):
        if taken_at != at or heads[point] != head:
            if fields:
                yield f"{head}{','.join(fields)} {at}"
            head, at, fields = heads[point], taken_at, []
        known = math.isfinite(value)
        if known:
            fields.append(f"{metrics[point]}={value!r}")
        if quality or not known:
            fields.append(f"{metrics[point]}{QUALITY_OF}={quality}i")
    if fields:
        yield f"{head}{','.join(fields)} {at}"
