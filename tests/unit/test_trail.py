import asyncio
from functools import partial
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection

from cloud import trail
from cloud.store import Store


def _append(connection: Connection, order: str) -> None:
    trail.append(connection, order, 7, "王工", "accept", "why", {"x": 1.0, "n": 2})


def _written(folder: Path) -> list[trail.Entry]:
    async def run() -> list[trail.Entry]:
        async with Store(folder / "t.sqlite") as store:
            for order in ("a", "b", "a", "a"):
                await store.write(partial(_append, order=order))
            return await store.read(lambda c: trail.entries_of(c, "a"))

    return asyncio.run(run())


def test_a_chain_read_back_is_whole(tmp_path: Path) -> None:
    entries = _written(tmp_path)
    assert [entry.n for entry in entries] == [1, 2, 3]
    assert entries[0].previous == trail.GENESIS
    assert trail.valid(entries)
    assert trail.valid([])


@pytest.mark.parametrize("field", ["at", "who", "action", "why", "detail", "hash", "previous", "work_order"])
def test_whatever_is_altered_breaks_it(tmp_path: Path, field: str) -> None:
    entries = _written(tmp_path)
    other: object = {"at": 8, "detail": {"x": 2.0}}.get(field, "other")
    entries[1] = msgspec.structs.replace(entries[1], **{field: other})
    assert not trail.valid(entries)


def test_a_missing_entry_breaks_it(tmp_path: Path) -> None:
    entries = _written(tmp_path)
    assert not trail.valid(entries[1:])
    assert not trail.valid([entries[0], entries[2]])


def test_the_seal_is_what_the_docstring_says() -> None:
    """Anyone can check a trail without our code: SHA-256 over the previous hash and sorted JSON."""
    import hashlib
    import json

    entry = trail.seal(trail.Entry("o", 1, 7, "王工", "accept", "", {"b": 1, "a": 0.5}, trail.GENESIS))
    content = {
        "work_order": "o",
        "n": 1,
        "at": 7,
        "who": "王工",
        "action": "accept",
        "why": "",
        "detail": {"b": 1, "a": 0.5},
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert entry.hash == hashlib.sha256(trail.GENESIS.encode() + canonical).hexdigest()
