"""Copies of a catalog: consistent while others write, and taken up on another disk with everything that follows from that."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from catalog_world import SHARE, World, audit, content_of, entry, rows

from replicad.catalog import Action, take_up
from replicad.catalog.migrations import APPLICATION_ID, scripts
from replicad.errors import ConfigurationError, IntegrityError, StorageError
from support.waiting import until

ACTION = Action(0, 5, "root", "restore", "", "POST", "/backup", "", 200, "")


def changed(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)


async def test_what_the_other_disk_has_is_held_and_the_rest_is_wanted(world: World, tmp_path: Path) -> None:
    async with world.founded() as ann:
        await ann.author(SHARE, [entry("here", "1"), entry("gone", "2"), entry("never", "3")])
        await ann.hold([content_of("1"), content_of("2")])
        await ann.damage(content_of("2").content, "rotten")
        await ann.hold([content_of("2")])
        found = await ann.copy_to(tmp_path / "copy")
        assert (found.files, found.actions, (tmp_path / "copy").stat().st_mode & 0o777) == (3, 0, 0o600)
        network = ann.network
    here = content_of("1")
    assert take_up(tmp_path / "copy", is_on_disk=lambda content, size: (content, size) == (here.content, here.size), action=ACTION) == network
    async with world.open("ann", path=tmp_path / "copy") as again:
        assert [content async for content, _ in again.held_contents()] == [here.content]
        await audit(again)
        assert await rows(again, "SELECT count(*) FROM wanted") == [(2,)]
        assert await again.damaged() == []
        [action] = await again.actions(limit=9)
        assert (action.seq, action.origin) == (1, "restore")
        before = again.replica.chains.last_incarnation(again.node, SHARE)
        await again.author(SHARE, [entry("later", "4")])
        assert again.replica.chains.last_incarnation(again.node, SHARE) > before


async def test_a_copy_is_of_one_moment_while_others_write(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.catalog.database.COPY_PAGES", 1)
    async with world.founded() as ann:
        await ann.author(SHARE, [entry(f"before/{number}") for number in range(200)])

        async def write() -> None:
            for number in range(50):
                await ann.author(SHARE, [entry(f"while/{number}")])

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            found = await ann.copy_to(tmp_path / "copy")
    take_up(tmp_path / "copy", is_on_disk=lambda _content, _size: False, action=ACTION)
    async with world.open("ann", path=tmp_path / "copy") as again:
        await audit(again)
        assert await rows(again, "SELECT count(*) FROM record") == [(found.records,)]


async def test_a_cancelled_copy_leaves_nothing(world: World, tmp_path: Path, no_thread_left: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.catalog.database.COPY_PAGES", 1)
    (place := tmp_path / "copies").mkdir()
    async with world.founded() as ann:
        await ann.author(SHARE, [entry(f"{number}") for number in range(500)])
        task = asyncio.create_task(ann.copy_to(place / "copy"))
        await until(lambda: list(place.iterdir()), what="the beginning of the copy")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(place.iterdir()) == []
        with pytest.raises(StorageError, match="cannot be copied"):
            await ann.copy_to(place / "no" / "copy")


HOSTILE = {
    "a trigger": "CREATE TRIGGER x AFTER INSERT ON token BEGIN DELETE FROM action; END",
    "a view": "CREATE VIEW x AS SELECT 1",
    "a table": "CREATE TABLE x (y)",
    "another index": "DROP INDEX token_name",
    "no network": "DELETE FROM meta",
    "not a number": "PRAGMA user_version = 0",
}


@pytest.mark.parametrize("change", HOSTILE)
async def test_what_is_not_the_catalog_of_its_version_is_refused(world: World, tmp_path: Path, change: str) -> None:
    async with world.founded() as ann:
        await ann.copy_to(tmp_path / "copy")
    changed(tmp_path / "copy", HOSTILE[change])
    with pytest.raises(ConfigurationError if change == "no network" else IntegrityError):
        take_up(tmp_path / "copy", is_on_disk=lambda _content, _size: False, action=ACTION)


async def test_newer_foreign_and_damaged_ones_are_refused(world: World, tmp_path: Path) -> None:
    async with world.founded() as ann:
        await ann.author(SHARE, [entry(f"{number}") for number in range(100)])
        await ann.copy_to(tmp_path / "copy")
    whole = (tmp_path / "copy").read_bytes()

    def refused(kind: type[Exception], match: str) -> None:
        with pytest.raises(kind, match=match):
            take_up(tmp_path / "copy", is_on_disk=lambda _content, _size: False, action=ACTION)

    changed(tmp_path / "copy", f"PRAGMA user_version = {len(scripts()) + 1}")
    refused(ConfigurationError, "this program knows up to")
    (tmp_path / "copy").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    refused(IntegrityError, "damaged|not a whole catalog|malformed")
    (tmp_path / "copy").write_bytes(b"x" * 10_000)
    refused(IntegrityError, "not a database")


def test_one_of_an_older_schema_gets_the_current_one(tmp_path: Path) -> None:
    older = "\n".join(scripts()[:5])
    changed(tmp_path / "copy", f"{older}\nPRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 5; INSERT INTO meta VALUES ('network', '{'0' * 52}')")
    with pytest.raises(Exception, match=r"node id|network"):  # that network is none, which is looked at last
        take_up(tmp_path / "copy", is_on_disk=lambda _content, _size: False, action=ACTION)
    with closing(sqlite3.connect(tmp_path / "copy")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(scripts()),)
        assert connection.execute("SELECT count(*) FROM action").fetchone() == (1,)
