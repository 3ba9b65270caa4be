"""The detectors there are, by the name that column texts call them. A new one adds its file and a line here."""

from collections.abc import Mapping

from rules.detectors.detector import Detector
from rules.detectors.rate import Rate
from rules.detectors.unchanged import Unchanged

DETECTORS: Mapping[str, type[Detector]] = {"rate": Rate, "unchanged": Unchanged}
