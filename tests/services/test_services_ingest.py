"""Ingest: all of one call or none, every refusal with its reason, and no trace of what was refused."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from ingest_world import NETWORK, NODE, SHARES, Node, items, running_node

from replicad.errors import ConflictError, InputError, IntegrityError, NoSpaceError, NotAllowedError, NotFoundError, ReplicadError, StorageError
from replicad.model.events import ContentHeld, EntriesChanged
from replicad.model.ids import Digest
from replicad.model.records import Grant, Role, Tombstone
from replicad.services.ingest import Item
from replicad.services.ingest import ingest as ingest_module
from replicad.store.space import StoreConfig
from support.storing import MIB, FailingDisk, files_in, manifest_of, pieces, random_bytes

A, B = b"first version", b"second version"
DIGEST_A = manifest_of(A).content


async def blobs(node: Node) -> set[Digest]:
    return set(await node.store.contents())


async def test_a_directory_is_published_in_one_transaction(tmp_path: Path) -> None:
    files = {f"apps/{number:03}.pkg": random_bytes(1000, seed=number) for number in range(300)}
    async with running_node(tmp_path) as node:
        await node.upload(*files.values())
        assert await node.listed("munki") == {}
        assert {content for event in node.events if isinstance(event, ContentHeld) for content, _ in event.contents} == await blobs(node)
        node.events.clear()
        published = await node.ingest.publish("munki", items(files), publisher="jane")
        assert [(one.path, one.stage, one.size, one.state) for one in published] == [(path, "prod", 1000, "new") for path in files]
        assert [one.content for one in published] == [manifest_of(content).content for content in files.values()]
        assert len({one.record for one in published}) == 300
        assert [event.keys for event in node.events if isinstance(event, EntriesChanged)] == [tuple(sorted(files))]
        entry = await node.catalog.visible("munki", "apps/007.pkg")
        assert entry is not None
        assert (entry.publisher, entry.modified, entry.available, entry.record) == ("jane", node.clock.now_ms // 1000, True, published[7].record)


async def test_uploads_of_every_kind_are_held_durably_and_unnamed(tmp_path: Path) -> None:
    contents = [random_bytes(5, seed=1), random_bytes(2 * MIB, seed=2), random_bytes(3 * MIB, seed=3), random_bytes(10, seed=4)]
    async with running_node(tmp_path) as node:
        assert await node.ingest.receive(pieces(contents[0]), size=5) == manifest_of(contents[0])
        assert await node.ingest.receive(pieces(contents[1]), size=None) == manifest_of(contents[1])
        theirs, ours = socket.socketpair()
        with theirs, ours:
            ours.setblocking(False)
            sending = asyncio.get_running_loop().run_in_executor(None, theirs.sendall, contents[2][1000:])
            assert await node.ingest.receive(node.store.from_socket(ours.fileno(), prefix=contents[2][:1000], size=3 * MIB), size=3 * MIB) == manifest_of(
                contents[2]
            )
            await sending
        assert await node.ingest.receive_small([contents[3]]) == [manifest_of(contents[3])]
    async with running_node(tmp_path) as node:
        for content in contents:
            assert await node.catalog.held_manifest(manifest_of(content).content) == manifest_of(content)
        content = manifest_of(contents[0]).content
        assert await node.catalog.named_by_many([content]) == {content: set()}


async def test_failed_uploads_leave_no_trace(tmp_path: Path) -> None:
    content = random_bytes(2 * MIB)
    async with running_node(tmp_path, config=StoreConfig(reserve_fraction=0.0, quota_bytes=3 * MIB)) as node:
        with pytest.raises(IntegrityError):
            await node.ingest.receive(pieces(content), size=len(content), expect=DIGEST_A)
        with pytest.raises(IntegrityError):
            await node.ingest.receive(pieces(content), size=len(content) + 1)
        with pytest.raises(NoSpaceError):
            await node.ingest.receive(pieces(content + content), size=None)
        with pytest.raises(InputError):
            await node.ingest.receive_small([b"fine", bytes(MIB + 1)])
        assert (await blobs(node), node.events, node.store.used_bytes) == (set(), [], 0)
        assert [name for name in files_in(tmp_path) if "blobs" in name or "partials" in name] == []


async def test_a_failing_disk_is_told_and_nothing_is_held(tmp_path: Path) -> None:
    disk = FailingDisk("sync")
    async with running_node(tmp_path, disk=disk) as node:
        with pytest.raises(StorageError):
            await node.upload(A)
        assert not node.catalog.is_held(DIGEST_A)
        disk.armed = 0
        await node.upload(A)
        assert node.catalog.is_held(DIGEST_A)


async def test_the_same_again_is_unchanged_and_makes_no_record(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        (first,) = await node.publish("munki", {"a.pkg": A})
        node.events.clear()
        (again,) = await node.publish("munki", {"a.pkg": A})
        assert (again.state, again.record, node.events) == ("unchanged", first.record, [])
        mixed = await node.publish("munki", {"b.pkg": B, "a.pkg": A})
        assert [one.state for one in mixed] == ["new", "unchanged"]
        assert mixed[1].record == first.record != mixed[0].record


async def test_a_replacement_supersedes_and_its_time_always_moves_on(tmp_path: Path) -> None:
    """Last-Modified must be a strong validator: two versions never share a second, whatever the clock does."""
    async with running_node(tmp_path) as node:
        modified = []
        for content in (A, B, A):
            (published,) = await node.publish("munki", {"a.pkg": content})
            assert published.state == ("replaced" if modified else "new")
            (winner,) = await node.catalog.register("munki", "a.pkg", "prod")
            assert (winner.record, winner.siblings) == (published.record, 0)
            modified.append(winner.modified)
            node.clock.now_ms -= 1000
        assert modified == [modified[0], modified[0] + 1, modified[0] + 2]


async def test_a_new_spelling_of_a_name_replaces_the_old_one(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.publish("munki", {"Firefox.pkg": A})
        (published,) = await node.publish("munki", {"firefox.PKG": A})
        assert published.state == "replaced"
        assert list(await node.listed("munki")) == ["firefox.PKG@prod"]


async def test_stages_are_separate_and_the_last_is_the_default(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.publish("munki", {"a.pkg": A}, stage="dev")
        await node.publish("munki", {"a.pkg": B})
        await node.publish("plain", {"a.pkg": B})
        assert set(await node.listed("munki")) == {"a.pkg@dev", "a.pkg@prod"}
        assert set(await node.listed("plain")) == {"a.pkg@only"}
        with pytest.raises(InputError, match="share munki has no stage 'beta'; it has dev, test, prod"):
            await node.publish("munki", {"a.pkg": A}, stage="beta")


REFUSED = {
    "absolute": ({"/a": A}, InputError, "relative"),
    "parent": ({"../a": A}, InputError, r"\.\."),
    "here": ({"./a": A}, InputError, '"."'),
    "empty": ({"": A}, InputError, "empty"),
    "empty segment": ({"a//b": A}, InputError, "empty segment"),
    "control character": ({"a\nb": A}, InputError, "control character"),
    "backslash": ({"a\\b": A}, InputError, "not allowed"),
    "colon": ({"a:b": A}, InputError, "not allowed"),
    "trailing dot": ({"a.": A}, InputError, "dot or a space"),
    "trailing space": ({"a /b": A}, InputError, "dot or a space"),
    "long segment": ({"a" * 256: A}, InputError, "at most 255"),
    "long path": ({"/".join(["a" * 250] * 5): A}, InputError, "at most 1024"),
    "lone surrogate": ({"a\udc80": A}, InputError, "surrogate"),
    "two spellings": ({"A.pkg": A, "a.PKG": B}, InputError, "'A.pkg' and 'a.PKG' are the same name"),
    "decomposed": ({"\u00e9": A, "e\u0301": B}, InputError, "are the same name"),
    "file and directory": ({"a/b": A, "A": B}, InputError, "'A' and 'a/b' cannot both be files"),
    "under a live file": ({"there.pkg/inside": A}, ConflictError, "munki/there.pkg is a file"),
    "over a live directory": ({"Dir": A}, ConflictError, "munki/dir/file is a file"),
}


@pytest.mark.parametrize(("files", "error", "reason"), REFUSED.values(), ids=REFUSED)
async def test_one_name_that_cannot_stand_refuses_the_whole_call(tmp_path: Path, files: dict[str, bytes], error: type[ReplicadError], reason: str) -> None:
    async with running_node(tmp_path) as node:
        await node.publish("munki", {"there.pkg": A, "dir/file": B})
        before = await node.listed("munki")
        await node.upload(*files.values())
        node.events.clear()
        for dry_run in (True, False):
            with pytest.raises(error, match=reason):
                await node.ingest.publish("munki", items({"good.pkg": A} | files), dry_run=dry_run)
        assert (await node.listed("munki"), node.events) == (before, [])


async def test_every_reason_is_told_at_once(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        with pytest.raises(InputError) as caught:
            await node.ingest.publish("munki", items({"good": A} | {f"bad{number}.": A for number in range(14)}))
        lines = caught.value.message.splitlines()
        assert lines[0] == "14 files cannot be published, so none was:"
        assert len(lines) == 12
        assert "bad0." in lines[1]
        assert lines[-1] == "  and 4 more"


async def test_unknown_shares_and_contents_are_not_found(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.upload(A)
        with pytest.raises(NotFoundError, match="there is no share 'nope'") as caught:
            await node.ingest.publish("nope", items({"a": A}))
        assert caught.value.error_code == "no-such-share"
        with pytest.raises(NotFoundError, match="upload it first") as caught:
            await node.ingest.publish("munki", items({"a": A, "b": B}))
        assert caught.value.error_code == "no-such-content"
        assert await node.listed("munki") == {}


async def test_an_immutable_share_takes_a_name_once(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.upload(A, B)
        await node.ingest.publish("sealed", items({"a.pkg": A}), publisher="jane")
        for paths in (["a.pkg"], ["new.pkg", "A.pkg"]):
            with pytest.raises(ConflictError, match=r"already exists with different content \(the share is immutable\)") as caught:
                await node.ingest.publish("sealed", items(dict.fromkeys(paths, B)))
            assert f"published 2027-01-15 by jane at ann, sha256 {DIGEST_A}; your file has {manifest_of(B).content}" in caught.value.message
            assert caught.value.error_code == "immutable"
            assert caught.value.hint == "publish it under a new name, or as a new first version after: replicad rm sealed/a.pkg"
        assert list(await node.listed("sealed")) == ["a.pkg@prod"]
        assert [one.state for one in await node.publish("sealed", {"A.PKG": A})] == ["unchanged"]
        live = await node.catalog.live_records("sealed", "a.pkg", "prod")
        await node.catalog.author("sealed", [Tombstone("a.pkg", "prod", supersedes=tuple(live))])
        assert [one.state for one in await node.publish("sealed", {"a.pkg": B})] == ["new"]


NARROW = {
    "mirror": (Grant(NODE.id, "ann", Role.MIRROR), "munki", "apps/a", None),
    "another share": (Grant(NODE.id, "ann", Role.PUBLISHER, shares=("plain",)), "munki", "apps/a", None),
    "another stage": (Grant(NODE.id, "ann", Role.PUBLISHER, stages=("dev",)), "munki", "apps/a", "test"),
    "another path": (Grant(NODE.id, "ann", Role.PUBLISHER, paths=("apps",)), "munki", "appsx/a", None),
}


@pytest.mark.parametrize(("grant", "share", "path", "stage"), NARROW.values(), ids=NARROW)
async def test_what_this_node_may_not_publish_is_refused_before_anything_is_signed(
    tmp_path: Path, grant: Grant, share: str, path: str, stage: str | None
) -> None:
    async with running_node(tmp_path, grant=grant, bodies=SHARES) as node:
        await node.upload(A)
        for dry_run in (True, False):
            with pytest.raises(NotAllowedError, match=f"may not publish {share}/{path}"):
                await node.ingest.publish(share, items({path: A}), stage=stage, dry_run=dry_run)
        assert await node.listed(share) == {}


async def test_where_this_node_may_publish_is_told_with_the_share(tmp_path: Path) -> None:
    for shares, where in ((("plain",), "plain"), (None, "every share")):
        grant = Grant(NODE.id, "ann", Role.PUBLISHER, shares=shares, paths=("team1",))
        async with running_node(tmp_path / where, grant=grant) as node:
            await node.upload(A)
            with pytest.raises(NotAllowedError, match=f"it may publish below team1 in {where}$"):
                await node.ingest.publish("munki", items({"a": A}))


async def test_a_publisher_may_publish_what_its_grant_covers(tmp_path: Path) -> None:
    grant = Grant(NODE.id, "ann", Role.PUBLISHER, shares=("munki",), paths=("apps",), stages=("dev",))
    async with running_node(tmp_path, grant=grant) as node:
        assert [one.state for one in await node.publish("munki", {"Apps/a": A}, stage="dev")] == ["new"]


async def test_a_dry_run_tells_what_would_happen_and_does_nothing(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        (first,) = await node.publish("munki", {"same": A})
        await node.publish("munki", {"other": A})
        before = await node.listed("munki")
        node.events.clear()
        answers = await node.ingest.publish("munki", items({"same": A, "other": B, "new": b"never uploaded"}), dry_run=True)
        assert [(one.path, one.state, one.size, one.record) for one in answers] == [
            ("same", "unchanged", len(A), first.record),
            ("other", "replaced", len(B), None),
            ("new", "new", 14, None),
        ]
        assert (await node.listed("munki"), node.events) == (before, [])


async def test_bounds_of_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "ITEMS_MAX", 3)
    async with running_node(tmp_path) as node:
        with pytest.raises(InputError, match="at most 3 files"):
            await node.publish("munki", {f"{number}.pkg": A for number in range(4)})
        with pytest.raises(InputError, match="255 characters of publisher"):
            await node.ingest.publish("munki", items({"a": A}), publisher="j" * 256)
        assert await node.ingest.publish("munki", []) == []


async def test_concurrent_publishing_of_one_name_makes_no_conflict(tmp_path: Path) -> None:
    contents = [random_bytes(100, seed=number) for number in range(10)]
    async with running_node(tmp_path) as node:
        await node.upload(*contents)
        async with asyncio.TaskGroup() as group:
            for content in contents:
                group.create_task(node.ingest.publish("munki", items({"a.pkg": content})))
        (winner,) = await node.catalog.register("munki", "a.pkg", "prod")
        assert (winner.siblings, winner.content) == (0, manifest_of(contents[-1]).content)


async def test_more_names_than_one_query_takes(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        (manifest,) = await node.upload(A)
        names = [Item(f"{number:04}.pkg", manifest.content) for number in range(2100)]
        assert len(await node.ingest.publish("munki", names)) == 2100
        assert {one.state for one in await node.ingest.publish("munki", names)} == {"unchanged"}
        assert len(await node.listed("munki")) == 2100


async def test_what_a_lower_stage_hides_is_told_where_both_are_carried(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.publish("munki", {"A": b"1", "b": b"1"})
        for _ in range(2):
            assert [one.hides for one in await node.publish("munki", {"a": b"2", "c": b"2"}, stage="dev")] == ["prod", None]
        assert [one.hides for one in await node.publish("munki", {"a": b"3"})] == [None]
        assert [one.former for one in await node.publish("munki", {"A": b"3", "b": b"3"})] == ["a", None]
        await node.catalog.author_cut(NODE.id, reason="change", then=[Grant(NODE.id, "ann", Role.ADMIN, stages=("dev",))], key=NETWORK)
        assert [one.hides for one in await node.publish("munki", {"a": b"4"}, stage="dev")] == [None]
