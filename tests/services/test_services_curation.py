"""Curation: what each verb makes of what stands, every refusal with its reason, all of a call or nothing."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from ingest_world import NETWORK, NODE, SHARES, Node, running_node

from replicad.crypto.keys import SigningKey
from replicad.errors import ConflictError, InputError, NotAllowedError, NotFoundError
from replicad.model.entries import Listed
from replicad.model.ids import Digest
from replicad.model.records import Entry, Grant, Role
from replicad.services.curation import curation as curation_module
from replicad.services.fetch.rights import Rights
from support.storing import manifest_of

V1, V2, V3 = b"version 1", b"version 2", b"version 3"


def digest(content: bytes) -> Digest:
    return manifest_of(content).content


async def told(node: Node, share: str, path: str) -> list[tuple[str, str, str, bytes | None]]:
    """The history of a name: stage, what, state (with the reason), content."""
    found = await node.catalog.history(share, path)
    return [(one.body.stage, one.kind, one.state + one.why_not, bytes(one.entry.content) if isinstance(one.body, Entry) else None) for one in found]


async def put(node: Node, path: str, content: bytes, *, share: str = "munki", stage: str = "prod") -> str:
    """Publish; the record's id."""
    node.clock.now_ms += 1000
    [one] = await node.publish(share, {path: content}, stage=stage)
    return str(one.record)


# -- promote


async def test_a_promotion_takes_the_file_of_the_lowest_stage_and_ends_it_there(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await put(node, "a.pkg", V1)
        await put(node, "A.pkg", V2, stage="dev")
        await put(node, "a.pkg", V3, stage="test")
        made = await node.curation.promote("munki", "a.pkg", to="prod", publisher="jane")
        assert (made.path, made.stage, made.kind, made.content) == ("A.pkg", "prod", "promote", digest(V2))
        assert await node.listed("munki") == {"A.pkg@prod": digest(V2), "a.pkg@test": digest(V3)}
        await node.curation.promote("munki", "a.pkg", to="prod", source="test")
        assert await node.listed("munki") == {"a.pkg@prod": digest(V3)}
        assert await told(node, "munki", "a.pkg") == [
            ("prod", "promote", "current", digest(V3)),
            ("prod", "promote", "superseded", digest(V2)),
            ("test", "publish", "superseded", digest(V3)),
            ("dev", "publish", "superseded", digest(V2)),
            ("prod", "publish", "superseded", digest(V1)),
        ]


async def test_last_modified_only_grows_and_stays_where_the_bytes_stay(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await put(node, "new", V1, stage="dev")
        await put(node, "old", V2, stage="dev")
        before = {one.path: one.modified for one in await node.catalog.entries("munki", all_stages=True)}
        await put(node, "old", V1)
        node.clock.now_ms += 60_000
        for path in ("new", "old"):
            await node.curation.promote("munki", path, to="prod")
        after = {one.path: one.modified for one in await node.catalog.entries("munki", all_stages=True)}
        assert (after["new"], after["old"]) == (before["new"], before["old"] + 2)


async def test_what_cannot_be_promoted(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await put(node, "a", V1)
        with pytest.raises(NotFoundError, match="at dev or test there is no such file; it stands at prod"):
            await node.curation.promote("munki", "a", to="prod")
        with pytest.raises(NotFoundError, match="below it there is no such file"):
            await node.curation.promote("munki", "a", to="dev")
        for to, source in (("nowhere", None), ("test", "prod"), ("test", "nowhere")):
            with pytest.raises(InputError):
                await node.curation.promote("munki", "a", to=to, source=source)
        with pytest.raises(NotFoundError, match="no share"):
            await node.curation.promote("nothing", "a", to="prod")


async def test_a_promotion_in_an_immutable_share_replaces_nothing(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        for stage, content in (("dev", V1), ("test", V2), ("prod", V1)):
            await put(node, "a", content, share="sealed", stage=stage)
        with pytest.raises(ConflictError, match="stands at stage test with different content"):
            await node.curation.promote("sealed", "a", to="test")
        assert (await node.curation.promote("sealed", "a", to="prod")).stage == "prod"
        assert await node.listed("sealed") == {"a@test": digest(V2), "a@prod": digest(V1)}
        await node.curation.remove("sealed", ["a"], stage="prod")
        await node.curation.promote("sealed", "a", to="prod")
        assert await node.listed("sealed") == {"a@prod": digest(V2)}


async def test_who_may_write_at_one_stage_only_promotes_nothing(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await put(node, "a", V1, stage="dev")
        await node.catalog.author_cut(NODE.id, reason="change", then=[Grant(NODE.id, "ann", Role.PUBLISHER, stages=("prod",))], key=NETWORK)
        with pytest.raises(NotAllowedError, match="at stage prod from dev"):
            await node.curation.promote("munki", "a", to="prod")
        for dry_run in (True, False):
            with pytest.raises(NotAllowedError, match="may not remove munki/a at stage dev"):
                await node.curation.remove("munki", ["a"], dry_run=dry_run)
        assert await node.listed("munki") == {"a@dev": digest(V1)}


# -- remove and bring back


async def test_a_removal_takes_all_stages_and_what_lies_below_and_comes_back(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        for path, stage in (("apps/a", "dev"), ("apps/a", "prod"), ("apps/b/c", "prod"), ("appsy", "prod")):
            await put(node, path, f"{path} {stage}".encode(), stage=stage)
        before = await node.listed("munki")
        seen = await node.curation.remove("munki", ["Apps"], dry_run=True)
        assert [(one.path, one.stage, one.record) for one in seen] == [("apps/a", "dev", None), ("apps/a", "prod", None), ("apps/b/c", "prod", None)]
        assert await node.listed("munki") == before
        gone = await node.curation.remove("munki", ["Apps", "apps/a"])
        assert [(one.path, one.stage, one.content) for one in gone] == [(one.path, one.stage, one.content) for one in seen]
        assert len({one.record for one in gone}) == 3
        assert list(await node.listed("munki")) == ["appsy@prod"]
        back = await node.curation.undelete("munki", "apps/a")
        assert [(one.stage, one.kind) for one in back] == [("dev", "restore"), ("prod", "restore")]
        await node.curation.undelete("munki", "apps/b/c")
        assert await node.listed("munki") == before


async def test_only_the_last_removal_comes_back_unless_a_stage_is_named(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await put(node, "a", V1, stage="dev")
        await node.curation.remove("munki", ["a"], stage="dev")
        await put(node, "a", V2)
        with pytest.raises(ConflictError, match="it stands at stage prod"):
            await node.curation.undelete("munki", "a")
        node.clock.now_ms += 1000
        await node.curation.remove("munki", ["a"])
        assert [(one.stage, one.content) for one in await node.curation.undelete("munki", "a")] == [("prod", digest(V2))]
        assert [(one.stage, one.content) for one in await node.curation.undelete("munki", "a", stage="dev")] == [("dev", digest(V1))]


async def test_a_directory_comes_back_as_its_last_removal_found_it(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        for path, stage in (("apps/a", "dev"), ("apps/a", "prod"), ("apps/b/c", "prod"), ("apps/old", "prod"), ("apps-x", "prod"), ("apps.y", "prod")):
            await put(node, path, f"{path} {stage}".encode(), stage=stage)
        await node.curation.remove("munki", ["apps/old"])
        node.clock.now_ms += 1000
        before = await node.listed("munki")
        await node.curation.remove("munki", ["apps", "apps-x"])
        seen = await node.curation.undelete("munki", "Apps", dry_run=True)
        assert [(one.path, one.stage, one.record) for one in seen] == [("apps/a", "dev", None), ("apps/a", "prod", None), ("apps/b/c", "prod", None)]
        assert list(await node.listed("munki")) == ["apps.y@prod"]
        assert len({one.record for one in await node.curation.undelete("munki", "Apps")}) == 3
        await node.curation.undelete("munki", "apps-x")
        assert await node.listed("munki") == before
        assert [one.path for one in await node.curation.undelete("munki", "apps")] == ["apps/old"]
        with pytest.raises(NotFoundError, match="no removal of munki/apps, or of anything below it"):
            await node.curation.undelete("munki", "apps")


async def test_a_directory_comes_back_whole_or_not_at_all_and_leaves_alone_what_is_there_again(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        for path in ("apps/a", "apps/b", "apps/c"):
            await put(node, path, path.encode())
        await node.curation.remove("munki", ["apps"])
        await put(node, "apps/b", V2)
        await put(node, "apps/c/d", V3)
        for dry_run in (True, False):
            with pytest.raises(ConflictError, match="munki/apps/c cannot come back: munki/apps/c/d is a file"):
                await node.curation.undelete("munki", "apps", dry_run=dry_run)
        assert list(await node.listed("munki")) == ["apps/b@prod", "apps/c/d@prod"]
        await node.curation.undelete("munki", "apps/a")
        assert await node.listed("munki") == {"apps/a@prod": digest(b"apps/a"), "apps/b@prod": digest(V2), "apps/c/d@prod": digest(V3)}


async def test_a_directory_comes_back_beside_a_name_that_is_there_again(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        for path in ("apps/a", "apps/b"):
            await put(node, path, path.encode())
        await node.curation.remove("munki", ["apps"])
        await put(node, "apps/b", V2)
        await node.curation.undelete("munki", "apps")
        assert await node.listed("munki") == {"apps/a@prod": digest(b"apps/a"), "apps/b@prod": digest(V2)}


async def test_who_may_not_publish_there_brings_nothing_back_and_sees_that_before(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await put(node, "a", V1)
        await node.curation.remove("munki", ["a"])
        await node.catalog.author_cut(NODE.id, reason="change", then=[Grant(NODE.id, "ann", Role.PUBLISHER, stages=("dev",))], key=NETWORK)
        for dry_run in (True, False):
            with pytest.raises(NotAllowedError, match="may not bring back munki/a at stage prod"):
                await node.curation.undelete("munki", "a", dry_run=dry_run)


async def test_what_cannot_come_back(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        with pytest.raises(NotFoundError, match="no removal"):
            await node.curation.undelete("munki", "a")
        await put(node, "a", V1)
        await node.curation.remove("munki", ["a"])
        await put(node, "a/b", V2)
        with pytest.raises(ConflictError, match="munki/a/b is a file"):
            await node.curation.undelete("munki", "a")
        await node.curation.remove("munki", ["a/b"])
        await node.curation.take_down(digest(V1))
        with pytest.raises(NotAllowedError, match="takedown"):
            await node.curation.undelete("munki", "a")
        await node.curation.take_down(digest(V1), lifted=True)
        await node.curation.undelete("munki", "a")
        assert await node.listed("munki") == {"a@prod": digest(V1)}


async def test_an_immutable_file_comes_back_as_the_one_that_won(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await put(node, "a", V1, share="sealed")
        first = (await node.catalog.register("sealed", "a", "prod"))[0]
        await node.upload(V2)
        rival = manifest_of(V2)
        await node.catalog.author("sealed", [Entry("a", "prod", rival.content, rival.size, rival.id, first.modified)])
        await node.curation.remove("sealed", ["a"])
        assert await node.listed("sealed") == {}
        assert [one.content for one in await node.curation.undelete("sealed", "a")] == [digest(V1)]


async def test_a_mass_removal_must_name_the_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curation_module, "_PAGE", 7)
    async with running_node(tmp_path) as node:
        await node.publish("munki", {f"few/{number}": b"x" for number in range(6)} | {f"more/{number}": b"x" for number in range(5)})
        with pytest.raises(ConflictError, match="6 names, more than half of the share munki; none was removed") as refused:
            await node.curation.remove("munki", ["few"])
        assert refused.value.hint.endswith("--expect 6")
        assert len(await node.curation.remove("munki", ["few"], dry_run=True)) == 6
        with pytest.raises(ConflictError, match="6 names would be removed, not 5; none was"):
            await node.curation.remove("munki", ["few"], expect=5)
        assert len(await node.listed("munki")) == 11
        assert len(await node.curation.remove("munki", ["more"])) == 5
        await node.publish("munki", {f"many/{number}": b"x" for number in range(101)} | {f"rest/{number}": b"x" for number in range(150)})
        with pytest.raises(ConflictError, match="101 names, more than 100"):
            await node.curation.remove("munki", ["many"])
        assert len(await node.curation.remove("munki", ["many"], expect=101)) == 101


async def test_a_removal_is_bounded_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_node(tmp_path) as node:
        await node.publish("munki", {f"{number}": b"x" for number in range(4)})
        with pytest.raises(NotFoundError, match="'nothing'"):
            await node.curation.remove("munki", ["1", "nothing"])
        with pytest.raises(NotFoundError, match="at stage dev"):
            await node.curation.remove("munki", ["1"], stage="dev")
        monkeypatch.setattr(curation_module, "REMOVED_MAX", 2)
        with pytest.raises(InputError, match="at most 2 files"):
            await node.curation.remove("munki", ["1", "2", "3"])
        assert len(await node.listed("munki")) == 4


async def test_publishing_and_removing_take_turns(tmp_path: Path) -> None:
    """Whatever comes second is about what the first left: never two live records."""
    async with running_node(tmp_path) as node:
        await node.publish("munki", {"a": V1})
        await node.upload(V2)
        await asyncio.gather(
            node.publish("munki", {"a": V2}), node.curation.remove("munki", ["a"]), node.curation.remove("munki", ["a"]), return_exceptions=True
        )
        assert len(await node.catalog.live_records("munki", "a", "prod")) == 1


# -- older versions


async def test_a_rollback_names_old_content_anew(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        first = await put(node, "a", V1)
        await put(node, "a", V2)
        await put(node, "a", V3)
        modified = (await node.catalog.registers("munki", [("a", "prod")]))[0]
        assert (await node.curation.rollback("munki", "a")).content == digest(V2)
        made = await node.curation.rollback("munki", "a", to=first[:8], publisher="jane")
        assert (made.content, made.kind) == (digest(V1), "restore")
        shown = (await node.catalog.registers("munki", [("a", "prod")]))[0]
        assert shown is not None
        assert modified is not None
        assert (shown.content, shown.publisher, shown.modified > modified.modified + 1) == (digest(V1), "jane", True)
        assert [one[1:3] for one in await told(node, "munki", "a")] == [("restore", "current"), ("restore", "superseded"), *[("publish", "superseded")] * 3]


async def test_a_rollback_ends_a_conflict_too(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await put(node, "a", V1)
        await put(node, "a", V2)
        [rival] = await node.upload(V3)
        node.clock.now_ms += 1000
        await node.catalog.author("munki", [Entry("a", "prod", rival.content, rival.size, rival.id, 1)])
        assert [one.content for one in await node.catalog.register("munki", "a", "prod")] == [digest(V3), digest(V2)]
        assert (await node.curation.rollback("munki", "a")).content == digest(V2)
        assert len(await node.catalog.live_records("munki", "a", "prod")) == 1


async def test_what_cannot_be_rolled_back(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        with pytest.raises(NotFoundError):
            await node.curation.rollback("munki", "a")
        old = await put(node, "a", V1)
        with pytest.raises(NotFoundError, match="no older version"):
            await node.curation.rollback("munki", "a")
        await put(node, "a", V2)
        await put(node, "a", V2, stage="dev")
        with pytest.raises(InputError, match="stands at dev, prod: which stage"):
            await node.curation.rollback("munki", "a")
        for wrong, error in (("x" * 8, InputError), (old[:7], InputError), ("0" * 64, NotFoundError)):
            with pytest.raises(error):
                await node.curation.rollback("munki", "a", stage="prod", to=wrong)
        await node.curation.take_down(digest(V1))
        with pytest.raises(NotAllowedError, match="takedown"):
            await node.curation.rollback("munki", "a", stage="prod")
        with pytest.raises(ConflictError, match="immutable"):
            await node.curation.rollback("sealed", "a")
        assert await node.listed("munki") == {"a@dev": digest(V2), "a@prod": digest(V2)}


async def test_history_tells_what_has_no_effect_and_why(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await put(node, "a", V1, share="sealed")
        live = await node.catalog.live_records("sealed", "a", "prod")
        await node.upload(V2)
        rival = manifest_of(V2)
        node.clock.now_ms += 1000
        await node.catalog.author("sealed", [Entry("a", "prod", rival.content, rival.size, rival.id, 1, supersedes=tuple(live))])
        await node.catalog.author("sealed", [Entry("a", "prod", rival.content, rival.size, rival.id, 1)])
        assert await told(node, "sealed", "a") == [
            ("prod", "restore", "sibling", digest(V2)),
            ("prod", "publish", "voidimmutable", digest(V2)),
            ("prod", "publish", "current", digest(V1)),
        ]
        void = (await node.catalog.history("sealed", "a"))[1].record.id
        with pytest.raises(NotFoundError, match="has an id that begins"):
            await node.curation.revision("sealed", "a", str(void))
        found = await node.catalog.history("sealed", "a", limit=2)
        rest = await node.catalog.history("sealed", "a", before=found[-1].record.order)  # type: ignore[arg-type]
        assert [one.record.id for one in [*found, *rest]] == [one.record.id for one in await node.catalog.history("sealed", "a")]


# -- all of it


async def step(node: Node, dice: random.Random, share: str) -> None:
    path, stage, contents = dice.choice(("a", "A", "b")), dice.choice(("dev", "test", "prod")), (V1, V2, V3)
    curation = node.curation
    match dice.randrange(7):
        case 0 | 1:
            await node.publish(share, {path: dice.choice(contents)}, stage=stage)
        case 2:
            await curation.remove(share, [path], stage=dice.choice((None, stage)), expect=1)
        case 3:
            await curation.undelete(share, path, stage=dice.choice((None, stage)))
        case 4:
            await curation.rollback(share, path, stage=dice.choice((None, stage)))
        case 5:
            await curation.take_down(digest(dice.choice(contents)), lifted=dice.random() < 0.7)
        case _:
            await curation.promote(share, path, to=stage)


@pytest.mark.parametrize("share", ["munki", "sealed"])
async def test_whatever_is_done_in_whatever_order(tmp_path: Path, dice: random.Random, share: str) -> None:
    """One record at most is live in each register, whatever was named stays retrievable, a file shows another date when it shows other content, and an immutable file changes only by way of its removal."""
    shown: dict[tuple[str, str], Listed] = {}
    done = 0
    async with running_node(tmp_path) as node:
        for _ in range(120):
            node.clock.now_ms += 5000
            before = {(one.key, one.stage): one for one in await node.catalog.entries(share, all_stages=True)}
            try:
                await step(node, dice, share)
                done += 1
            except (ConflictError, NotFoundError, NotAllowedError, InputError):
                assert {(one.key, one.stage): one.record for one in await node.catalog.entries(share, all_stages=True)} == {
                    name: one.record for name, one in before.items()
                }
                continue
            now = {(one.key, one.stage): one for one in await node.catalog.entries(share, all_stages=True)}
            for name, one in now.items():
                last = shown.setdefault(name, one)
                assert one.modified > last.modified if one.content != last.content else one.modified >= last.modified
                assert share == "munki" or name not in before or before[name].content == one.content
                assert len(await node.catalog.live_records(share, *name)) == 1
            shown |= now
        for key in ("a", "b"):
            for one in await node.catalog.history(share, key):
                assert one.state in ("current", "superseded")
                assert one.kind == "remove" or one.held
    assert done > 20


# -- takedown


async def test_a_takedown_bars_content_from_names_and_members(tmp_path: Path) -> None:
    mirror = SigningKey(bytes(range(2, 34)))
    async with running_node(tmp_path, bodies=(*SHARES, Grant(mirror.id, "bob", Role.MIRROR))) as node:
        await put(node, "a", V1)
        await put(node, "b", V2)
        rights = Rights(node.catalog, clock_ms=node.clock)
        assert await rights.granted(mirror.id, [digest(V1), digest(V2)]) == {digest(V1), digest(V2)}
        assert await node.curation.take_down(digest(V1), reason="licence")
        assert not await node.curation.take_down(digest(V1))
        assert await rights.granted(mirror.id, [digest(V1), digest(V2)]) == {digest(V2)}
        with pytest.raises(NotAllowedError, match="takedown stands on its content"):
            await node.publish("munki", {"c": V1})
        assert await node.curation.take_down(digest(V1), lifted=True)
        assert not await node.curation.take_down(digest(V1), lifted=True)
        assert await rights.may_have(mirror.id, digest(V1))
        await node.publish("munki", {"c": V1})


async def test_only_an_admin_takes_down(tmp_path: Path) -> None:
    async with running_node(tmp_path, grant=Grant(NODE.id, "ann", Role.PUBLISHER), bodies=()) as node:
        with pytest.raises(NotAllowedError, match="take content down or lift that: only an admin's node may"):
            await node.curation.take_down(digest(V1))
