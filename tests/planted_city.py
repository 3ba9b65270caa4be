"""Runs of the gate with a defect planted in a wrapped port: ``python -m tests.planted_city DEFECT JOB``."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from cloud.timeseries.embedded import EmbeddedTimeSeries
from cloud.timeseries.port import SampleBatch
from edge.agent import Tick
from gateway.rows import Rows
from rules.samples import Block
from streetwarden.fast.run import Parts
from streetwarden.gate.worker import main


class Forgetful(Rows):
    """An outbox that drops its first batch of samples."""

    forgot = False

    def append(self, tick: Tick, boot: str) -> None:
        if len(tick.block) and not self.forgot:
            self.forgot = True
            tick = replace(tick, block=Block.empty())
        super().append(tick, boot)


class Repeating(EmbeddedTimeSeries):
    """A store to which one batch is delivered twice, and which does not notice."""

    repeated = False

    async def write(self, batches: Sequence[SampleBatch]) -> set[tuple[str, int]]:
        new = await super().write(batches)
        if not self.repeated:
            self.repeated = True
            await super().write([replace(batches[0], seq=batches[0].seq + 1_000_000)])
        return new


PLANTED = {"outbox": Parts(rows=Forgetful), "delivery": Parts(timeseries=Repeating.open)}

if __name__ == "__main__":
    main(PLANTED[sys.argv[1]])
