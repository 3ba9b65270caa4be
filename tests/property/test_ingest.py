"""However batches are lost, repeated, mixed and cut off by a crash, each is stored exactly once."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.ingest import Link
from tests.ingesting import TABLE, MemoryLink, World, alert_batch, sample_batch, world
from wire.batch import Batch
from wire.topics import Lane

SEQS = range(8)  # even ones are samples, odd ones alerts
LOST, COMMITTED, RECEIPTED, ACKNOWLEDGED = range(4)  # how far a group gets before the process or the link dies

groups = st.lists(st.tuples(st.lists(st.sampled_from(SEQS), max_size=6), st.integers(LOST, ACKNOWLEDGED)), max_size=8)


def batch(seq: int) -> tuple[Lane, Batch]:
    return (Lane.ALERT, alert_batch(seq, f"alert {seq}")) if seq % 2 else (Lane.LIVE, sample_batch(seq, float(seq)))


async def deliver(city: World, seqs: list[int], how_far: int) -> None:
    """Hand a group over; a redelivery of what was never acknowledged is one more group like any other."""
    for seq in seqs:
        await city.send(*batch(seq))
    lanes = ((city.alerts, city.ingest.commit_alerts), (city.samples, city.ingest.commit_samples))
    for link, commit in lanes:
        group = link.receive_waiting(len(seqs))
        if how_far >= COMMITTED:
            answers = await commit(group)
            if how_far >= RECEIPTED:
                await city.ingest.send_receipts(link, answers)
            if how_far >= ACKNOWLEDGED:
                city.ingest.acknowledge(link, group)


def receipted(*links: MemoryLink) -> set[int]:
    return {seq for link in links for seq in link.accepted}


@given(groups)
@settings(max_examples=40)
def test_every_batch_is_stored_exactly_once(history: list[tuple[list[int], int]]) -> None:
    async def main(folder: Path) -> None:
        async with world(folder, run=False) as city:
            await city.points.keep([TABLE], 0)
            for seqs, how_far in history:
                await deliver(city, seqs, how_far)
            told = receipted(city.alerts, city.samples)
            assert told <= set(await city.values()) | {seq for seq in SEQS if f"alert {seq}" in alerts(city)}
            await deliver(city, [seq for seq in SEQS if seq not in told], ACKNOWLEDGED)
            assert receipted(city.alerts, city.samples) == set(SEQS)
            assert await city.values() == [float(seq) for seq in SEQS if seq % 2 == 0]
            assert sorted(alerts(city)) == [f"alert {seq}" for seq in SEQS if seq % 2]
            assert city.balance.view().total.committed == len(SEQS) // 2

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))


def alerts(city: World) -> list[str]:
    return [alert for _, alert, _ in city.sink.taken]


def test_a_memory_link_is_a_link() -> None:
    link: Link = MemoryLink()
    assert link is not None
