"""No question is answered by reading a whole table: SQLite's own plan of every statement that a day's work executes."""

from __future__ import annotations

import re
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from catalog_world import EVERYTHING, SHARE, World, big_content, content_of, copy, entry, key, rows, stored, tombstone

from replicad.catalog import Catalog, checksums, contents, entries, history, keeping, recount, registers, supply
from replicad.catalog import rows as rows_module
from replicad.catalog.migrations import migrate, scripts
from replicad.model.records import Cut, Grant, Policy, Role

GROWING = ("record", "register", "entry", "supersedes", "wanted", "held", "manifest", "checksum", "blame")
"""Tables with a row for each of a million files, or for whatever others do."""
SORTING = {"entries.LIVE_ENTRIES", "entries.LIVE_IDS", "history.HISTORY", "keeping.NEWER", "supply.WANT"}
"""They sort what is few: the records of one register, or of one list."""
ROOMS = (checksums, contents, entries, history, keeping, recount, registers, supply, rows_module)


def plan(connection: sqlite3.Connection, sql: str, values: object = ()) -> list[str]:
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]  # type: ignore[call-overload]


def scans(steps: list[str]) -> list[str]:
    return [step for step in steps if re.match(rf"SCAN ({'|'.join(GROWING)})\b", step)]


def statements() -> dict[str, str]:
    named = {
        f"{room.__name__.rpartition('.')[2]}.{name}": value
        for room in ROOMS
        for name, value in vars(room).items()
        if name.isupper() and not name.startswith("_")
    }
    return {name: sql for name, sql in named.items() if isinstance(sql, str) and re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE)", sql)}


@pytest.mark.parametrize("name", statements())
def test_hot_statements_search(name: str) -> None:
    sql = statements()[name]
    connection = sqlite3.connect(":memory:")
    try:
        migrate(connection, Path("in memory"), scripts())
        numbered = [int(number) for number in re.findall(r"\?(\d+)", sql)]
        steps = plan(connection, sql, [None] * (max(numbered) if numbered else sql.count("?")))
        assert scans(steps) == []
        assert name in SORTING or not any("TEMP B-TREE" in step for step in steps)
    finally:
        connection.close()


async def watch(catalog: Catalog, told: set[str]) -> None:
    """Every statement of every connection from now on."""

    def hear(sql: str) -> None:
        if not sql.startswith(("--", "PRAGMA", "BEGIN", "COMMIT", "ROLLBACK", "EXPLAIN")):
            told.add(sql)

    for doing in (catalog._database.write, catalog._database.read, catalog._database.scan, catalog._database.check):
        await doing(lambda connection: connection.set_trace_callback(hear))


async def test_a_days_work_never_reads_a_whole_table(world: World) -> None:
    told: set[str] = set()
    async with AsyncExitStack() as stack:
        ann = await stack.enter_async_context(world.founded())
        bob = await stack.enter_async_context(world.joined("bob", ann, Grant(key("bob").id, "bob", Role.PUBLISHER)))
        for catalog in (ann, bob):
            await watch(catalog, told)
        await work(ann, bob)
        assert len(told) > 250
        told.discard(EVERYTHING)
        connection = sqlite3.connect(world.path("ann"))
        try:
            found = {sql: slow for sql in told if (slow := scans(plan(connection, sql)))}
        finally:
            connection.close()
    assert found == {}


async def work(ann: Catalog, bob: Catalog) -> None:
    big = big_content("big")
    said = await bob.author(SHARE, [entry(f"d/file{number}", str(number), stage=("dev", "prod")[number % 2]) for number in range(10)], held=[content_of("1")])
    await copy(bob, ann)
    await copy(ann, bob)
    live = await ann.live_records(SHARE, "d/file1", "prod")
    await ann.author(SHARE, [tombstone("d/file1", supersedes=live), entry("d/file0", "0", supersedes=[said[0].id]), entry("big", big)])
    await ann.author("", [Policy("jamf", public=True, immutable=True), Policy(SHARE, public=True, stages=("prod", "dev"))])
    await ann.author("jamf", [entry("a", "1"), entry("a", "2")])
    await ann.author("jamf", [entry("a", "3", supersedes=await ann.live_records("jamf", "a", "prod"))])
    await ann.add_manifests([big])
    await ann.save_partials([(big.content, big.id, b"\x01")])
    await ann.hold([content_of("3"), big])
    await ann.lose(content_of("3").content)
    await ann.drop_partial(big.content, big.id)
    await ask(ann, big.content)
    await ann.author("", [Cut(bob.node, {SHARE: (said[4].id,)}, "revoke")])
    await bob.receive(await stored(ann), source=ann.node)
    await bob.records_for_pull("jamf", ann.node, {}, bytes_max=1000)
    await ann.blame(bob.node, "bad-chunk", "x", 1)


async def ask(ann: Catalog, content: object) -> None:
    for share in (None, SHARE):
        await ann.entries(share)
        await ann.entries(share, prefix="d", after=(SHARE, "d/file2"), all_stages=True)
    await ann.register(SHARE, "d/file3", "prod")
    await ann.registers(SHARE, [("d/file3", "prod")])
    await ann.standings(SHARE, [("d/file3", "prod")])
    await ann.visible(SHARE, "d/file3")
    await ann.collides(SHARE, "d/e/f")
    await ann.count_names(SHARE, 5)
    assert await ann.history("jamf", "a")
    assert await ann.history(SHARE, "d/file1")
    await ann.wanted()
    await ann.newly_wanted(10, since=0)
    await ann.missing(SHARE)
    await ann.usage()
    await ann.partials()
    await ann.blames(ann.node)
    for digest in (content_of("3").content, content_of("4").content, content):
        await ann.is_named(digest, [SHARE])  # type: ignore[arg-type]
        await ann.named_by_many([digest])  # type: ignore[list-item]
        await ann.name_of(digest)  # type: ignore[arg-type]
        await ann.is_wanted(digest)  # type: ignore[arg-type]
        await ann.held_manifest(digest)  # type: ignore[arg-type]
        await ann.held_facts([digest])  # type: ignore[list-item]
        await ann.manifest(digest, content_of("4").id)  # type: ignore[arg-type]
    assert [found async for found in ann.held_contents()]


async def test_opening_reads_the_records_of_the_network_alone(world: World) -> None:
    async with world.founded() as ann:
        await ann.author(SHARE, [entry(f"file{number}", str(number)) for number in range(100)])
        steps: list[str] = []
        await ann._database.scan(lambda connection: steps.extend(plan(connection, rows_module.NETWORK_RECORDS)))
        assert [step.split(" USING")[0] for step in steps] == ["SCAN run", "SEARCH record"]
        assert await rows(ann, f"SELECT count(*) FROM ({rows_module.NETWORK_RECORDS})") == [(2,)]
