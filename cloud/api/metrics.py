"""The process's counters for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from wire.counted import Counted


class Totals(Collector):
    """``Counted`` as Prometheus counters, under their own names."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def collect(self) -> Iterator[CounterMetricFamily]:
        for name, count in self._counted.snapshot().items():
            family = CounterMetricFamily(f"streetwarden_{name.removesuffix('_total')}", name.replace("_", " "))
            family.add_metric([], count)
            yield family
