"""What the page's stub answers is what the API would: every recorded record fits the API's own models."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from cloud.api import models

RECORD: dict[str, Any] = json.loads((Path(__file__).parents[1] / "page_recorded.json").read_text(encoding="utf-8"))
SHAPES: list[tuple[str, type[BaseModel]]] = [
    ("clock", models.ClockView),
    ("district", models.DistrictView),
    ("devices", models.DeviceView),
    ("alerts", models.AlertView),
    ("work_orders", models.WorkOrderView),
    ("evidence", models.EvidenceView),
    ("balance", models.BalanceView),
]


@pytest.mark.parametrize(("name", "model"), SHAPES, ids=[name for name, _ in SHAPES])
def test_the_recording_fits_the_api(name: str, model: type[BaseModel]) -> None:
    recorded = RECORD[name]
    many = recorded if isinstance(recorded, list) else [recorded]
    assert many
    for each in many:
        shown = model.model_validate(each).model_dump(mode="json")
        assert set(each) <= set(shown), f"the API knows no {set(each) - set(shown)}"


def test_the_recorded_trails_fit_the_api() -> None:
    for entries in RECORD["trails"].values():
        models.TrailView.model_validate({"valid": True, "entries": entries})
