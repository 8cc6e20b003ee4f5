"""The writer: shared commits, isolation of failures, order of what follows, a full disk; and memory that never differs from the disk."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from catalog_world import SHARE, World, audit, content_of, copy, entry, key, rows, sign

from replicad.catalog import Catalog
from replicad.catalog import database as database_module
from replicad.catalog.database import GROUP_MAX, Database, opened
from replicad.errors import CatalogError, NoSpaceError, NotAllowedError, StorageError
from replicad.model.ids import Stamp
from replicad.model.records import Cut, Grant, Header, Role
from support.waiting import until

pytestmark = pytest.mark.usefixtures("no_thread_left")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "a.sqlite", create=True) as found:
        yield found


async def trace(database: Database) -> list[str]:
    """What the writer's connection is told from now on."""
    told: list[str] = []
    await database.write(lambda connection: connection.set_trace_callback(told.append))
    told.clear()
    return told


async def held_up(database: Database) -> threading.Event:
    """The writer's thread is busy until the event is set, so that whatever is written meanwhile queues up."""
    begun, go_on = threading.Event(), threading.Event()

    def unit(_: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(30)

    database.held_up = asyncio.ensure_future(database.write(unit))  # type: ignore[attr-defined]
    await until(begun.is_set, what="the writer's thread")
    return go_on


def put(name: str) -> database_module.Unit[str]:
    def unit(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO meta VALUES (?, '')", (name,))
        return name

    return unit


async def names(database: Database) -> list[str]:
    return [name for (name,) in await database.read(lambda connection: connection.execute("SELECT name FROM meta ORDER BY name").fetchall())]


async def test_a_transaction_is_visible_to_readers_when_write_returns(database: Database) -> None:
    assert await database.write(put("a")) == "a"
    assert await names(database) == ["a"]


async def test_concurrent_callers_share_a_commit(database: Database) -> None:
    told = await trace(database)
    go_on = await held_up(database)
    async with asyncio.TaskGroup() as group:
        for number in range(GROUP_MAX + 6):
            group.create_task(database.write(put(f"{number:03}")))
        await until(lambda: len(database._jobs) == GROUP_MAX + 6, what="the queue")
        go_on.set()
    assert told.count("COMMIT") == 3
    assert len(await names(database)) == GROUP_MAX + 6


async def test_the_queue_is_bounded_and_everybody_gets_a_turn(database: Database) -> None:
    go_on = await held_up(database)
    async with asyncio.TaskGroup() as group:
        for number in range(database_module.QUEUE_MAX + 50):
            group.create_task(database.write(put(f"{number:03}")))
        await until(lambda: len(database._jobs) == database_module.QUEUE_MAX - 1, what="the full queue")
        go_on.set()
    assert len(await names(database)) == database_module.QUEUE_MAX + 50


async def test_one_failure_in_a_group_is_its_own(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO meta VALUES ('half', '')")
        raise NotAllowedError("no")

    told = await trace(database)
    go_on = await held_up(database)
    tasks = [asyncio.ensure_future(database.write(unit)) for unit in (put("a"), fail, put("b"))]
    await until(lambda: len(database._jobs) == 3, what="the queue")
    go_on.set()
    await asyncio.wait(tasks)
    assert [task.exception() and type(task.exception()) for task in tasks] == [None, NotAllowedError, None]
    assert await names(database) == ["a", "b"]
    assert told.count("COMMIT") == 3


async def test_only_what_is_promised_is_refused_when_the_file_is_gone(database: Database, tmp_path: Path) -> None:
    go_on = await held_up(database)
    tasks = [asyncio.ensure_future(database.write(put(name), durable=durable)) for name, durable in (("a", False), ("b", True), ("c", False))]
    await until(lambda: len(database._jobs) == 3, what="the queue")
    (tmp_path / "a.sqlite").unlink()
    go_on.set()
    await asyncio.wait(tasks)
    assert [task.exception() and type(task.exception()) for task in tasks] == [None, CatalogError, None]
    assert await names(database) == ["a", "c"]


async def test_what_follows_is_called_in_order_of_commits_and_only_after_them(database: Database) -> None:
    followed: list[str] = []
    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(database.write(put(f"{number:03}"), after=followed.append))
    assert followed == sorted(followed)
    with pytest.raises(StorageError, match="UNIQUE"):
        await database.write(put("000"), after=followed.append)
    assert len(followed) == 200


async def test_a_cancelled_caller_loses_only_the_answer(database: Database) -> None:
    followed: list[str] = []
    go_on = await held_up(database)
    task = asyncio.ensure_future(database.write(put("a"), after=followed.append))
    await until(lambda: len(database._jobs) == 1, what="the queue")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await database.write(put("b"))
    assert (await names(database), followed) == (["a", "b"], ["a"])


async def test_only_durable_units_wait_for_the_disk(database: Database) -> None:
    told = await trace(database)
    await database.write(put("a"))
    await database.write(put("b"), durable=True)
    assert [line for line in told if line.startswith("PRAGMA")] == ["PRAGMA synchronous = NORMAL", "PRAGMA synchronous = FULL"]


async def test_reads_of_one_unit_see_one_state(database: Database) -> None:
    between, go_on = threading.Event(), threading.Event()

    def unit(connection: sqlite3.Connection) -> tuple[int, int]:
        first = connection.execute("SELECT count(*) FROM meta").fetchone()[0]
        between.set()
        assert go_on.wait(30)
        return first, connection.execute("SELECT count(*) FROM meta").fetchone()[0]

    reading = asyncio.ensure_future(database.scan(unit))
    await until(between.is_set, what="the first half of the read")
    await database.write(put("a"))
    go_on.set()
    assert await reading == (0, 0)
    assert await names(database) == ["a"]


async def test_the_log_is_copied_back_when_it_is_long(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "LOG_BYTES", 100_000)
    log = tmp_path / "a.sqlite-wal"
    sizes = []
    await database.write(put("the tables were made just now: that log is longer"))
    for number in range(60):
        await database.write(put(f"{number} {'x' * 10_000}"))
        sizes.append(log.stat().st_size)
    assert 100_000 < max(sizes) < 200_000
    assert sizes != sorted(sizes)


async def fill(database: Database) -> None:
    """From now on the disk is full: the file may not grow."""

    def unit(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    await database.write(unit)


async def test_a_full_disk_refuses_what_needs_room_and_breaks_nothing(world: World) -> None:
    async with world.founded() as catalog:
        await catalog.author(SHARE, [entry("before")])
        frontier = catalog.replica.chains.frontier_hash(SHARE)
        await fill(catalog._database)
        with pytest.raises(NoSpaceError):
            await catalog.author(SHARE, [entry(f"file{number}", held_name(number)) for number in range(500)], held=[content_of(held_name(7))])
        assert catalog.replica.chains.frontier_hash(SHARE) == frontier
        assert not catalog.is_held(content_of(held_name(7)).content)
        await audit(catalog)
        await catalog._database.write(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchall())
        (record,) = await catalog.author(SHARE, [entry("after")])
        assert record.header.seq == 2
        await audit(catalog)


def held_name(number: int) -> str:
    return f"content {number}"


@pytest.mark.parametrize("part", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 1.0])
async def test_interrupted_anywhere_memory_is_what_the_disk_says(world: World, part: float) -> None:
    """SQLite refuses some statement of the transaction, from the first to the COMMIT: all of it is undone on the disk and in memory, and can be done again."""
    async with world.founded() as ann, world.joined("bob", ann) as bob, world.joined("eve", ann) as eve:
        header = Header(world.network.id, "", Stamp.of(world.now_ms), 1, None, Stamp.of(world.now_ms + 1))
        news = [sign(world.network, world.network.id, header, Cut(key("ann").id, {SHARE: ()}, "revoke")).envelope]
        await copy(ann, bob)
        news += [record.envelope for record in await ann.author(SHARE, [entry(f"n{number}", str(number)) for number in range(5)])]
        all_asked = await refuse_after(eve, None)
        await eve.receive(news, source=ann.node)
        states = [
            (dict(one.replica.trust.members(world.now_ms)), one.replica.chains.frontier_hash(""), one.replica.chains.frontier_hash(SHARE)) for one in (bob, eve)
        ]
        total = len(all_asked)
        asked = await refuse_after(bob, int(part * (total - 1)))
        with pytest.raises(StorageError):
            await bob.receive(news, source=ann.node)
        assert len(asked) > part * (total - 1)
        state = (dict(bob.replica.trust.members(world.now_ms)), bob.replica.chains.frontier_hash(""), bob.replica.chains.frontier_hash(SHARE))
        assert state in states
        await told_writer(bob, lambda connection: connection.set_authorizer(None))
        await audit(bob)
        assert len((await bob.receive(news, source=ann.node)).new) == (6 if state == states[0] else 0)
        await audit(bob)
        assert bob.replica.trust.members(world.now_ms) == {}


async def refuse_after(catalog: Catalog, count: int | None) -> list[int]:
    """From the next transaction on the writer may ask SQLite for so many actions (None: any number); returns what it asked for. It may always roll back."""
    asked: list[int] = []

    def authorize(action: int, what: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_TRANSACTION and what == "ROLLBACK":
            return sqlite3.SQLITE_OK
        asked.append(action)
        return sqlite3.SQLITE_OK if count is None or len(asked) <= count else sqlite3.SQLITE_DENY

    await told_writer(catalog, lambda connection: connection.set_authorizer(authorize))
    return asked


async def told_writer(catalog: Catalog, unit: database_module.Unit[None]) -> None:
    """Outside of any transaction."""
    await database_module._hop(catalog._database._writer, unit)


async def test_a_replica_that_was_rolled_back_opens_a_new_incarnation(world: World) -> None:
    async with world.founded() as catalog:
        (first,) = await catalog.author(SHARE, [entry("a")])
        await fill(catalog._database)
        with pytest.raises(NoSpaceError):
            await catalog.author(SHARE, [entry(f"file{number}", str(number)) for number in range(500)])
        await catalog._database.write(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchall())
        (second,) = await catalog.author(SHARE, [entry("b")])
        assert second.header.incarnation > first.header.incarnation
        assert second.header.prev == first.id


async def test_a_refused_author_costs_no_incarnation(world: World) -> None:
    async with world.founded() as catalog:
        (first,) = await catalog.author(SHARE, [entry("a")])
        with pytest.raises(NotAllowedError):
            await catalog._author(SHARE, [entry("b")], key=key("stranger"), held=())
        (second,) = await catalog.author(SHARE, [entry("b")])
        assert second.header.incarnation == first.header.incarnation


async def test_two_catalogs_in_one_process_do_not_mix(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.PUBLISHER)) as bob:
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(ann.author(SHARE, [entry(f"a{number}")]))
                group.create_task(bob.author(SHARE, [entry(f"b{number}")]))
        assert {one.origin for one in await ann.entries()} == {ann.node}
        assert {one.origin for one in await bob.entries()} == {bob.node}
        assert await rows(ann, "SELECT count(*) FROM record WHERE type = 'entry'") == [(20,)]
