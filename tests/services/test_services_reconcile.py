"""Reconcile: whatever a crash left between catalog and disk, they agree afterwards, and nothing that is wrong is held."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ingest_world import Node, items, running_node

from replicad.model.events import ContentHeld, ContentLost
from replicad.services.reconcile import NAMED_MAX, Reconciled, reconcile
from support.storing import MIB, FailingDisk, files_in, manifest_of, pieces, random_bytes

CONTENT = random_bytes(2 * MIB + 77)
MANIFEST = manifest_of(CONTENT)
OTHER = random_bytes(1 * MIB + 3, seed=2)
ELSE = manifest_of(OTHER)
CLEAN = Reconciled((), (), (), (), 0)
DAMAGES = ("removed", "shortened", "lengthened")


async def publish(node: Node) -> None:
    """CONTENT is published, named and held."""
    await node.ingest.receive(pieces(CONTENT), size=len(CONTENT))
    await node.ingest.publish("munki", items({"big.pkg": CONTENT}))
    node.events.clear()


async def settled(node: Node) -> Reconciled:
    """The outcome; another run must find nothing more to do."""
    outcome = await reconcile(node.catalog, node.store)
    again = await reconcile(node.catalog, node.store)
    assert (again.lost, again.adopted, again.corrupt, again.partials_removed) == ((), (), (), 0)
    assert again.unclaimed == outcome.unclaimed
    return outcome


def fields(caplog: pytest.LogCaptureFixture, words: str) -> dict[str, Any]:
    """What the one record with these words says besides."""
    (record,) = (record for record in caplog.records if words in record.getMessage())
    return dict(record.fields)  # type: ignore[attr-defined]


async def test_nothing_to_do(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        assert await settled(node) == CLEAN
        await publish(node)
        assert await settled(node) == CLEAN
        assert node.events == []


def spoil(path: Path, damage: str) -> None:
    """Somebody's hands, or a file system that lost something."""
    if damage == "removed":
        path.unlink()
    else:
        os.truncate(path, len(CONTENT) + (1 if damage == "lengthened" else -1))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("restarted", [False, True])
async def test_what_the_disk_lost_does_not_count_as_used(tmp_path: Path, damage: str, *, restarted: bool) -> None:
    """Otherwise a quota refuses the copy that would heal it."""
    async with running_node(tmp_path) as node:
        await publish(node)
        spoil(node.store.path_of(MANIFEST.content), damage)
        if not restarted:
            await reconcile(node.catalog, node.store)
            assert node.store.used_bytes == sum(node.store.aside.values())
    async with running_node(tmp_path) as node:
        await reconcile(node.catalog, node.store, opened=True)
        assert node.store.used_bytes == sum(node.store.aside.values())


async def test_a_wanted_blob_that_cannot_be_read_ends_nothing_and_is_looked_at_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A node with a bad disk starts, and fetches it; one that merely had too many files open takes it up the next time."""
    disk = FailingDisk("read", armed=0)
    async with running_node(tmp_path, disk=disk) as node:
        await publish(node)
        await node.catalog.lose(MANIFEST.content)
        disk.armed = 1
        assert await reconcile(node.catalog, node.store) == Reconciled((), (), (), (), 0, (MANIFEST.content,))
        [said] = caplog.records
        assert fields(caplog, "could not be read") == said.fields == {"files": "munki/big.pkg", "reason": "reading a content: as the test asked"}  # type: ignore[attr-defined]
        assert [wanted.content for wanted in await node.catalog.wanted()] == [MANIFEST.content]
        assert (node.catalog.is_held(MANIFEST.content), node.store.has(MANIFEST.content), node.store.aside) == (False, True, {})
        assert await settled(node) == Reconciled((), (MANIFEST.content,), (), (), 0)


async def test_the_log_names_the_first_of_what_was_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {f"{number}.pkg": f"content {number}".encode() for number in range(NAMED_MAX + 2)}
    async with running_node(tmp_path) as node:
        await node.publish("munki", files)
        for content in files.values():
            node.store.path_of(manifest_of(content).content).unlink()
        await reconcile(node.catalog, node.store)
        said = fields(caplog, "not on the disk as they should be")
    names, _, more = said["files"].partition(" and ")
    assert (said["lost"], said["corrupt"], more) == (NAMED_MAX + 2, 0, "2 more")
    assert len(set(names.split(", ")) & {f"munki/{path}" for path in files}) == NAMED_MAX


async def test_a_leftover_that_the_disk_does_not_let_go_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A node with a bad disk starts."""
    (tmp_path / "aside" / str(MANIFEST.content) / "unremovable").mkdir(parents=True)
    async with running_node(tmp_path) as node:
        await publish(node)
        assert await settled(node) == CLEAN
        assert set(node.store.aside) == {MANIFEST.content}
        assert "a damaged copy that nobody needs cannot be removed" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_blob_that_is_not_there_in_full_is_lost_and_wanted_again(tmp_path: Path, damage: str) -> None:
    async with running_node(tmp_path) as node:
        await publish(node)
        spoil(node.store.path_of(MANIFEST.content), damage)
        assert await settled(node) == Reconciled((MANIFEST.content,), (), (), (), 0)
        assert node.events == [ContentLost(MANIFEST.content)]
        assert not node.catalog.is_held(MANIFEST.content)
        assert not node.store.has(MANIFEST.content)
        assert [wanted.content for wanted in await node.catalog.wanted()] == [MANIFEST.content]


async def test_a_wanted_blob_without_a_row_is_verified_and_adopted(tmp_path: Path) -> None:
    """A crash between the rename and the transaction."""
    async with running_node(tmp_path) as node:
        await publish(node)
        await node.catalog.lose(MANIFEST.content)
        await node.catalog.save_partials([(MANIFEST.content, MANIFEST.id, b"\x07")])
        node.events.clear()
        assert await settled(node) == Reconciled((), (MANIFEST.content,), (), (), 0)
        assert node.events == [ContentHeld(((MANIFEST.content, MANIFEST.size),))]
        assert await node.catalog.held_manifest(MANIFEST.content) == MANIFEST
        assert await node.catalog.partials() == []
        assert await node.catalog.wanted() == []


async def test_a_wanted_blob_that_rotted_is_removed_and_stays_wanted(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await publish(node)
        await node.catalog.lose(MANIFEST.content)
        with node.store.path_of(MANIFEST.content).open("r+b") as file:
            file.write(b"rot")
        assert await settled(node) == Reconciled((), (), (MANIFEST.content,), (), 0)
        assert not node.catalog.is_held(MANIFEST.content)
        assert not node.store.has(MANIFEST.content)


async def test_a_blob_that_nobody_wants_is_kept_and_told(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.store.receive(pieces(OTHER), size=len(OTHER))
        assert await settled(node) == Reconciled((), (), (), (ELSE.content,), 0)
        assert node.store.has(ELSE.content)
        assert not node.catalog.is_held(ELSE.content)


async def test_partials_with_row_and_file_go_on_and_all_others_go(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await publish(node)
        for manifest in (MANIFEST, ELSE):
            partial = await node.store.open_partial(manifest)
            await partial.write(0, (CONTENT if manifest == MANIFEST else OTHER)[:MIB])
            await node.catalog.add_manifests([manifest])
            await node.catalog.save_partials([(manifest.content, manifest.id, await partial.sync())])
            await partial.close()
        nameless, fileless = manifest_of(OTHER[1:]), manifest_of(OTHER[2:])
        await (await node.store.open_partial(nameless)).close()
        await node.catalog.save_partials([(fileless.content, fileless.id, b"\x01")])
        outcome = await settled(node)
        assert outcome.partials_removed == 2
        assert await node.store.partial_files() == [(ELSE.content, ELSE.id)]
        assert [(row.content, row.manifest, row.bitmap) for row in await node.catalog.partials()] == [(ELSE.content, ELSE.id, b"\x01")]
        async with await node.store.open_partial(ELSE, b"\x01") as partial:
            assert partial.count == 1


async def test_after_a_start_the_disk_has_what_the_catalog_says_and_no_more(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await publish(node)
        await (await node.store.open_partial(ELSE)).close()
    (tmp_path / "partials" / "upload.3").write_bytes(b"half")
    async with running_node(tmp_path) as node:
        assert await settled(node) == Reconciled((), (), (), (), 1)
        name = str(MANIFEST.content)
        assert [path for path in files_in(tmp_path) if not path.startswith("catalog")] == [f"blobs/{name[:2]}/{name}"]
