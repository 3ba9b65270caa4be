"""The district and the rule catalog as looked-up tables."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from rules.declared import Refused
from rules.district import Device, District, Site, Text, Unit
from rules.rule import Level, Rule
from rules.samples import PointTable

EARTH_RADIUS_M = 6_371_008.8  # mean radius, IUGG
_METRIC = re.compile(r"(?P<detector>\w+)\((?P<metric>\w+)")


class Registry:
    """Devices, sites, units and rules by id. ``Refused``: a rule twice, or one whose function nobody answers for."""

    def __init__(self, district: District, rules: Sequence[Rule]) -> None:
        self.district = district
        self.devices: Mapping[str, Device] = {device.id: device for device in district.device}
        self.sites: Mapping[str, Site] = {site.id: site for site in district.site}
        self.units: Mapping[str, Unit] = {unit.id: unit for unit in district.unit}
        self.rules: Mapping[str, Rule] = {rule.id: rule for rule in rules}
        functions = {function for unit in district.unit for function in unit.functions}
        for rule in rules:
            if self.rules[rule.id] is not rule:
                raise Refused(f"rule {rule.id}", "this id is declared twice")
            if rule.runbook.function not in functions:
                raise Refused(f"rule {rule.id}", f"no unit of the district answers for `{rule.runbook.function}`")

    def unknown(self, rule: str, device: str) -> Literal["unknown_rule", "unknown_device"] | None:
        """Tell what of an alert's two names nobody declares: catalog and district may have been edited since."""
        if rule not in self.rules:
            return "unknown_rule"
        return None if device in self.devices else "unknown_device"

    def level(self, rule: str, name: str) -> Level | None:
        levels = self.rules[rule].level if rule in self.rules else ()
        return next((level for level in levels if level.name == name), None)

    def level_title(self, rule: str, name: str) -> Text | None:
        level = self.level(rule, name)
        return level.title if level else None

    def site_of(self, device: str) -> Site:
        return self.sites[self.devices[device].site]

    def distance_m(self, one: str, other: str) -> float:
        """Great-circle distance between two devices in metres (haversine); one that is not declared is far from all."""
        a, b = self.devices.get(one), self.devices.get(other)
        if a is None or b is None:
            return math.inf
        rise = math.radians(b.lat - a.lat)
        run = math.radians(b.lon - a.lon)
        shrink = math.cos(math.radians(a.lat)) * math.cos(math.radians(b.lat))
        h = math.sin(rise / 2) ** 2 + shrink * math.sin(run / 2) ** 2
        return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(h))


class Units:
    """The unit of each metric and column, from the point tables that the gateways sent."""

    def __init__(self, tables: Iterable[PointTable]) -> None:
        self._of = {(point.device, point.metric): point.unit for table in tables for point in table.points}

    def knows(self, device: str, metric: str) -> bool:
        return (device, metric) in self._of

    def of_metric(self, device: str, metric: str) -> str:
        """UCUM/SenML symbol; empty while no table has told it."""
        return self._of.get((device, metric), "")

    def of_column(self, device: str, column: str) -> str:
        """Tell the unit of what a rule compares: a metric's own, per hour for a rate, seconds for ``unchanged``."""
        match = _METRIC.match(column)
        if match is None:
            return self.of_metric(device, column)
        if match["detector"] == "unchanged":
            return "s"
        unit = self.of_metric(device, match["metric"])
        return f"{unit}/h" if unit and match["detector"] == "rate" else unit


def metric_of(column: str) -> str:
    """Name the metric that a column rests on: ``level`` for ``rate(level, 5min)``."""
    match = _METRIC.match(column)
    return match["metric"] if match else column
