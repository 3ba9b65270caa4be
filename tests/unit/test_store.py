"""The relational store and its event table."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, ForeignKey, Integer, Table, func, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from cloud import events
from cloud.events import Event, Events
from cloud.store import Store, metadata

parent = Table("test_parent", metadata, Column("id", Integer, primary_key=True))
child = Table("test_child", metadata, Column("of", Integer, ForeignKey("test_parent.id")))

HERE = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Store], Awaitable[None]]], None]:
    def run_with_store(test: Callable[[Store], Awaitable[None]]) -> None:
        async def main() -> None:
            async with Store(tmp_path / "cloud.sqlite") as store:
                await test(store)

        asyncio.run(main())

    return run_with_store


Run = Callable[[Callable[[Store], Awaitable[None]]], None]


async def count(store: Store) -> int:
    return await store.read(lambda connection: connection.scalar(select(func.count()).select_from(parent)) or 0)


def test_a_transaction_is_whole_or_nothing(run: Run) -> None:
    async def test(store: Store) -> None:
        with pytest.raises(IntegrityError):
            await store.write(lambda connection: connection.execute(insert(parent), [{"id": 1}, {"id": 2}, {"id": 1}]))
        assert await count(store) == 0
        await store.write(lambda connection: connection.execute(insert(parent), [{"id": 1}, {"id": 2}]))
        assert await count(store) == 2

    run(test)


def test_foreign_keys_hold(run: Run) -> None:
    async def test(store: Store) -> None:
        with pytest.raises(IntegrityError):
            await store.write(lambda connection: connection.execute(insert(child).values(of=7)))

    run(test)


def test_a_reader_cannot_write(run: Run) -> None:
    async def test(store: Store) -> None:
        with pytest.raises(OperationalError, match="readonly"):
            await store.read(lambda connection: connection.execute(insert(parent).values(id=1)))

    run(test)


def test_the_disk_is_asked_for_everything_it_can_promise(run: Run) -> None:
    async def test(store: Store) -> None:
        def pragma(connection: Connection, name: str) -> object:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

        for name, expected in {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}.items():
            assert await store.write(partial(pragma, name=name)) == expected

    run(test)


def test_readers_go_on_while_a_write_is_under_way(run: Run) -> None:
    async def test(store: Store) -> None:
        loop = asyncio.get_running_loop()
        begun, may_end = asyncio.Event(), asyncio.Event()

        def write(connection: object) -> None:
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.write(write), name="write")
            await begun.wait()
            assert await asyncio.gather(*(count(store) for _ in range(20))) == [0] * 20
            may_end.set()

    run(test)


def test_many_writers_take_turns(run: Run) -> None:
    async def test(store: Store) -> None:
        await asyncio.gather(
            *(
                store.write(lambda connection, n=n: connection.execute(insert(parent).values(id=n)))  # type: ignore[misc]
                for n in range(1, 101)
            )
        )
        assert await count(store) == 100

    run(test)


def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {str(HERE)!r})
from cloud import events
from cloud.store import Store
async def main():
    async with Store(Path({str(tmp_path)!r}) / "cloud.sqlite") as store:
        await store.write(lambda connection: events.append(connection, "alert", "a", 1))
        os._exit(9)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9

    async def main() -> None:
        async with Store(tmp_path / "cloud.sqlite") as store:
            assert await Events(store).after(0) == [Event(1, "alert", "a", 1)]

    asyncio.run(main())


def test_closing_is_bounded_and_leaves_the_file_to_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with Store(tmp_path / "cloud.sqlite") as store:
            await store.write(lambda connection: events.append(connection, "alert", "a", 1))

    asyncio.run(main())
    with sqlite3.connect(tmp_path / "cloud.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (1,)
    connection.close()


def test_events_are_told_in_the_order_of_their_commits(run: Run) -> None:
    async def test(store: Store) -> None:
        changes = Events(store)
        assert await changes.newest() == 0
        for subject in "abc":
            await store.write(lambda connection, subject=subject: events.append(connection, "alert", subject, 5))  # type: ignore[misc]
        assert await changes.newest() == 3
        assert await changes.after(1) == [Event(2, "alert", "b", 5), Event(3, "alert", "c", 5)]
        assert await changes.after(0, limit=1) == [Event(1, "alert", "a", 5)]
        assert await changes.after(3) == []

    run(test)


def test_an_event_of_an_undone_transaction_never_was(run: Run) -> None:
    async def test(store: Store) -> None:
        def undone(connection: Connection) -> None:
            events.append(connection, "alert", "a", 1)
            raise KeyError

        with pytest.raises(KeyError):
            await store.write(undone)
        assert await Events(store).newest() == 0

    run(test)


def test_only_the_newest_events_are_kept_and_a_stream_from_before_them_begins_at_the_newest(run: Run) -> None:
    async def test(store: Store) -> None:
        changes = Events(store)
        assert await changes.resumed(7) == 0
        for subject in "abcdef":
            await store.write(lambda connection, subject=subject: events.append(connection, "alert", subject, 5))  # type: ignore[misc]
        await store.write(lambda connection: events.forget(connection, 3))
        assert [event.subject for event in await changes.after(0)] == ["d", "e", "f"]
        # Before what is kept, at its edge, within, at the newest, beyond it (of another store), and nowhere.
        assert [await changes.resumed(last) for last in (2, 3, 5, 6, 7, None)] == [6, 3, 5, 6, 6, 6]

    run(test)


def test_a_stream_misses_nothing_and_waits_without_looking(run: Run) -> None:
    async def test(store: Store) -> None:
        changes = Events(store)
        seen: list[str] = []

        async def follow() -> None:
            async for event in changes.follow(0):
                seen.append(event.subject)
                if event.subject == "last":
                    return

        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            for n in range(3):
                tasks.create_task(follow(), name=f"stream {n}")
            for subject in [*map(str, range(250)), "last"]:
                await store.write(lambda connection, subject=subject: events.append(connection, "alert", subject, 1))  # type: ignore[misc]
                changes.committed()
        for subject in [*map(str, range(250)), "last"]:
            assert seen.count(subject) == 3

    run(test)
