"""What real devices once showed, played back: a CSV beside the scenario stands in for a device's world."""

import csv
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np

from firmware_sim.noise import Floats, Times
from firmware_sim.scenario import Scenario, scenarios
from rules.declared import Refused
from wire.clock import from_iso

TAKEN_AT = "taken_at"


@dataclass(frozen=True, slots=True)
class Recorded:
    """Rows of a recording: ``at`` ascends (ns of scenario time, shape ``[n]``), ``values`` by metric are ``[n]`` each.

    NaN in a row says that the device told no value there.
    """

    at: Times
    values: dict[str, Floats]

    def column(self, metric: str, since_start: Times) -> Floats:
        """What was last told of a metric at instants of scenario time; NaN before the first, and for any other."""
        if metric not in self.values:
            return np.full(len(since_start), np.nan)
        row = np.searchsorted(self.at, since_start, side="right") - 1
        return np.where(row < 0, np.nan, self.values[metric][np.maximum(row, 0)])


def load_recordings(scenario: Scenario, place: str) -> dict[str, Recorded]:
    """Read the recordings of a scenario, by device; ``Refused`` names the file and line of a bad row.

    An empty cell was not told and keeps what was told before it; ``nan`` was told as "no value".
    """
    folder: Traversable = Path(place).parent if Path(place).is_file() else scenarios()
    return {one.device: _load(folder / one.file, from_iso(scenario.starts)) for one in scenario.recording}


def _load(file: Traversable, start: int) -> Recorded:
    if not file.is_file():
        raise Refused(str(file), "no such recording")
    rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
    head = next(rows, [])
    if head[:1] != [TAKEN_AT] or len(head) < 2 or len(set(head)) < len(head):
        raise Refused(f"{file}:1", f"the first line names its columns: `{TAKEN_AT}`, then metrics, each once")
    at: list[int] = []
    columns: list[list[float]] = [[] for _ in head[1:]]
    for cells in rows:
        place = f"{file}:{rows.line_num}"
        if len(cells) != len(head):
            raise Refused(place, f"{len(cells)} cells in a table of {len(head)} columns")
        try:
            at.append(from_iso(cells[0]) - start)
            for column, cell in zip(columns, cells[1:], strict=True):
                column.append(float(cell) if cell else column[-1] if column else np.nan)
        except ValueError as error:
            raise Refused(place, str(error)) from error
        if at[-2:] != sorted(set(at[-2:])):
            raise Refused(place, f"`{TAKEN_AT}` is not later than in the line before")
    if not at:
        raise Refused(str(file), "holds no row")
    values = {metric: np.array(column) for metric, column in zip(head[1:], columns, strict=True)}
    return Recorded(np.array(at, np.int64), values)
