"""The counters for Prometheus: the process's own, and each gateway's with its id as label ``gateway``."""

import re
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from cloud.balance import Balance
from wire.counted import Counted

_NAME = re.compile(r"[a-z][a-z0-9_]*_total")


class Totals(Collector):
    """``Counted`` as Prometheus counters, under their own names."""

    def __init__(self, counted: Counted, balance: Balance) -> None:
        self._counted = counted
        self._balance = balance

    def collect(self) -> Iterator[CounterMetricFamily]:
        families: dict[str, CounterMetricFamily] = {}
        own: dict[str, str] = {}
        parts = [(own, self._counted.snapshot())]
        # A gateway's names came over the wire: one that Prometheus could not read would hide all others.
        parts += [({"gateway": gateway}, counters) for gateway, counters in self._balance.counters().items()]
        for labels, counters in parts:
            for name, count in ((name, count) for name, count in counters.items() if _NAME.fullmatch(name)):
                full = f"streetwarden_{name.removesuffix('_total')}"
                family = families.setdefault(full, CounterMetricFamily(full, name.replace("_", " ")))
                family.add_sample(f"{full}_total", labels, count)
        yield from families.values()
