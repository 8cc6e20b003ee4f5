"""Opening and closing: what is refused, what is left behind (nothing), and that the same file gives the same catalog."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from catalog_world import SHARE, World, audit, content_of, copy, entry, key, rows, threads

from replicad.catalog import database as database_module
from replicad.catalog.memory import HeldSet
from replicad.catalog.migrations import scripts
from replicad.errors import ConfigurationError
from replicad.model.ids import NodeId
from replicad.model.records import Grant, Role
from support.waiting import until

pytestmark = pytest.mark.usefixtures("no_thread_left")


async def make(world: World, name: str = "ann") -> None:
    async with world.founded(name) as catalog:
        await catalog.author(SHARE, [entry(f"file{number}", str(number)) for number in range(50)], held=[content_of("3")])


def bytes_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


async def expect_refusal(world: World, path: Path, words: str, *, network: NodeId | None = None) -> ConfigurationError:
    before = bytes_of(path)
    with pytest.raises(ConfigurationError, match=words) as refusal:
        async with world.open("ann", path=path, network=network):
            pass
    assert bytes_of(path) == before
    return refusal.value


async def test_reopened_it_is_the_same(world: World) -> None:
    async with world.founded() as catalog:
        await catalog.author(SHARE, [entry("a"), entry("b", "y")], held=[content_of("x")])
        frontier, usage = catalog.replica.chains.frontier_hash(SHARE), await catalog.usage()
    async with world.open("ann") as catalog:
        assert (catalog.network, catalog.node) == (world.network.id, key("ann").id)
        assert (catalog.replica.chains.frontier_hash(SHARE), await catalog.usage()) == (frontier, usage)
        assert set(catalog.replica.trust.members(world.now_ms)) == {key("ann").id}
        assert catalog.is_held(content_of("x").content)
        await audit(catalog)


async def test_the_files_are_for_their_owner_alone_and_one_when_closed(world: World) -> None:
    async with world.founded():
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in world.directory.iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"ann.sqlite", "ann.sqlite-wal", "ann.sqlite-shm", "ann.sqlite.lock"} == set(modes)
    assert {file.name for file in world.directory.iterdir()} == {"ann.sqlite", "ann.sqlite.lock"}


async def test_pragmas(world: World) -> None:
    async with world.founded() as catalog:
        assert await rows(catalog, "PRAGMA journal_mode") == [("wal",)]
        assert await rows(catalog, "PRAGMA query_only") == [(1,)]
        strict = await rows(catalog, "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%'")
        assert len(strict) > 10
        assert [name for name, is_strict in strict if not is_strict] == []


async def test_a_missing_catalog_is_not_made_by_accident(world: World) -> None:
    refusal = await expect_refusal(world, world.path("ann"), "there is no catalog here")
    assert refusal.hint.startswith("replicad backup restore FILE"), "init refuses a directory that belongs to a node"
    assert list(world.directory.iterdir()) == []


async def test_another_network_is_refused(world: World) -> None:
    await make(world)
    await expect_refusal(world, world.path("ann"), "another network", network=key("elsewhere").id)


async def test_a_newer_catalog_is_refused(world: World) -> None:
    await make(world)
    connection = sqlite3.connect(world.path("ann"))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    await expect_refusal(world, world.path("ann"), f"has schema 99, this program knows up to {len(scripts())}")


async def test_somebody_elses_database_is_refused(world: World) -> None:
    connection = sqlite3.connect(world.path("ann"))
    connection.executescript("CREATE TABLE cookies (name TEXT)")
    connection.close()
    await expect_refusal(world, world.path("ann"), "not a replicad catalog", network=world.network.id)


async def test_a_file_that_is_no_database_is_refused(world: World) -> None:
    world.path("ann").write_bytes(b"PK\x03\x04" * 4096)
    await expect_refusal(world, world.path("ann"), "file is not a database", network=world.network.id)


@pytest.mark.parametrize("page", [1, 2, 3, 5])
async def test_a_damaged_catalog_is_refused(world: World, page: int) -> None:
    await make(world)
    damaged = bytearray(world.path("ann").read_bytes())
    start = (page - 1) * 4096 + (100 if page == 1 else 0)
    damaged[start : start + 2000] = b"\xff" * 2000
    world.path("ann").write_bytes(damaged)
    refusal = await expect_refusal(world, world.path("ann"), "ann.sqlite: the catalog is damaged: database disk image is malformed$")
    assert refusal.hint.startswith("replicad backup restore FILE --force, with the daemon stopped (docs/backup.md)")


async def test_a_record_that_cannot_be_parsed_is_refused(world: World) -> None:
    await make(world)
    connection = sqlite3.connect(world.path("ann"))
    connection.execute("UPDATE record SET payload = x'7b7d' WHERE type = 'grant'")
    connection.commit()
    connection.close()
    refusal = await expect_refusal(world, world.path("ann"), "the catalog is damaged: grant record")
    assert "replicad backup restore" in refusal.hint


@pytest.mark.parametrize("where", ["missing/a.sqlite", "file/a.sqlite", "directory"])
async def test_a_place_that_cannot_be_written_is_refused(world: World, where: str) -> None:
    (world.directory / "file").write_text("")
    (world.directory / "directory").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be used as catalog"):
        async with world.open("ann", path=world.directory / where, network=world.network.id):
            pass


async def test_one_process_at_a_time(world: World) -> None:
    async with world.founded():
        with pytest.raises(ConfigurationError, match="another replicad process"):
            async with world.open("ann"):
                pass
    async with world.open("ann") as catalog:
        await audit(catalog)


async def test_an_error_in_the_body_comes_through_and_closes(world: World) -> None:
    with pytest.raises(BlockingIOError, match="mine"):
        async with world.founded():
            raise BlockingIOError("mine")
    async with world.open("ann") as catalog:
        await audit(catalog)


async def test_cancelled_at_every_step_it_is_closed_and_usable(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cancellation arrives while the first, second, third, ... piece of work is with a connection's thread, until one life comes through."""
    await make(world)
    hop, hops, cancel_at = database_module._hop, 0, 0

    async def counted(connection: Any, unit: Any) -> Any:
        nonlocal hops
        hops += 1
        if hops == cancel_at:
            life.cancel()
        return await hop(connection, unit)

    async def lived() -> None:
        async with world.open("ann") as catalog:
            await catalog.author(SHARE, [entry("again", str(world.random))])

    monkeypatch.setattr(database_module, "_hop", counted)
    cancelled = 0
    while hops >= cancel_at:
        hops, cancel_at = 0, cancel_at + 1
        life = asyncio.ensure_future(lived())
        await asyncio.wait([life])
        cancelled += life.cancelled()
        assert life.cancelled() or life.exception() is None
        await until(lambda: not threads(), what="the end of the connections' threads")
    assert cancelled >= 8
    async with world.open("ann") as catalog:
        await audit(catalog)


async def test_cancelled_while_memory_is_filled_nothing_is_closed_under_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await make(world)
    begun, go_on = threading.Event(), threading.Event()
    ended: list[str] = []
    load = HeldSet.load

    def slow(self: HeldSet, catalog: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(30)
        load(self, catalog)
        ended.append("loaded")

    monkeypatch.setattr(HeldSet, "load", slow)
    monkeypatch.setattr(HeldSet, "close", lambda _: ended.append("closed"))
    opening = asyncio.ensure_future(world.open("ann").__aenter__())
    await until(begun.is_set, what="the filling")
    opening.cancel()
    turns = iter(range(20))
    await until(lambda: next(turns, None) is None, what="some turns of the event loop")
    go_on.set()
    await asyncio.wait([opening])
    assert (opening.cancelled(), ended) == (True, ["loaded", "closed"])


FAILED_START = """
import asyncio, sys
from pathlib import Path
from replicad.catalog import Catalog
from replicad.crypto.keys import SigningKey

async def main():
    async with Catalog.open(Path(sys.argv[1]), node=SigningKey(bytes(32)), clock_ms=lambda: 0, random16=lambda: 0):
        {body}

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("damage", "body", "word"),
    [("PRAGMA user_version = 99", "pass", "ConfigurationError"), ("SELECT 1", "raise RuntimeError('port taken')", "RuntimeError: port taken")],
)
async def test_a_failed_start_ends_the_process(world: World, damage: str, body: str, word: str) -> None:
    await make(world)
    connection = sqlite3.connect(world.path("ann"))
    connection.execute(damage)
    connection.close()
    command: list[Any] = [sys.executable, "-c", FAILED_START.format(body=body), world.path("ann")]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert word in ended.stderr


async def test_two_incarnations_after_a_restart_one_while_running(world: World) -> None:
    async with world.founded() as catalog:
        first = await catalog.author(SHARE, [entry("a")])
        second = await catalog.author(SHARE, [entry("b")])
    world.now_ms -= 60_000
    async with world.open("ann") as catalog:
        third = await catalog.author(SHARE, [entry("c")])
        headers = [records[0].header for records in (first, second, third)]
        assert headers[0].incarnation == headers[1].incarnation < headers[2].incarnation
        assert [header.seq for header in headers] == [1, 2, 3]
        assert headers[0].hlc < headers[1].hlc < headers[2].hlc
        assert headers[2].prev == second[0].id


async def test_a_mirror_opened_without_network_knows_its_own(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.MIRROR, stages=("prod",))) as bob:
        await copy(ann, bob)
    async with world.open("bob") as bob:
        assert bob.replica.trust.members(world.now_ms)[bob.node].stages == frozenset({"prod"})
        assert await rows(bob, "SELECT share, stage FROM carried") == [(SHARE, "prod")]
