"""Names: stages, conflicts, deletes, immutable shares, collisions, pages."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack

import pytest
from catalog_world import SHARE, World, audit, content_of, copy, entry, key, sign, tombstone

from replicad.catalog import Catalog
from replicad.catalog import memory as memory_module
from replicad.errors import InputError, NotAllowedError
from replicad.model.entries import Listed
from replicad.model.ids import Stamp
from replicad.model.records import Cut, Grant, Header, Policy, Record, Role, Takedown
from support.waiting import until


def paths_of(page: list[Listed]) -> list[str]:
    return [one.path for one in page]


async def put(catalog: Catalog, path: str, content: str = "x", *, stage: str = "prod", share: str = SHARE) -> Record:
    """As a publisher does it: superseding what is live."""
    (record,) = await catalog.author(share, [entry(path, content, stage=stage, supersedes=await catalog.live_records(share, path.lower(), stage))])
    return record


async def remove(catalog: Catalog, path: str, *, stage: str = "prod", share: str = SHARE) -> Record:
    (record,) = await catalog.author(share, [tombstone(path, stage=stage, supersedes=await catalog.live_records(share, path.lower(), stage))])
    return record


async def test_what_was_published_is_listed(world: World) -> None:
    async with world.founded() as ann:
        (record,) = await ann.author(SHARE, [entry("Apps/Firefox-145.0.PKG", "firefox")])
        manifest = content_of("firefox")
        listed = await ann.visible(SHARE, "apps/firefox-145.0.pkg")
        assert listed == Listed(
            record=record.id,
            origin=ann.node,
            hlc=record.header.hlc,
            share=SHARE,
            key="apps/firefox-145.0.pkg",
            path="Apps/Firefox-145.0.PKG",
            stage="prod",
            content=manifest.content,
            size=7,
            manifest=manifest.id,
            modified=1_700_000_000,
            publisher="jane",
            available=False,
        )
        assert await ann.visible(SHARE, "Apps/Firefox-145.0.PKG") is None
        assert await ann.visible("jamf", "apps/firefox-145.0.pkg") is None


async def test_availability_follows_the_content(world: World) -> None:
    async with world.founded() as ann:
        await put(ann, "a")
        before = await ann.visible(SHARE, "a")
        assert before
        assert not before.available
        seen = []
        for change in (ann.hold([content_of("x")]), ann.lose(content_of("x").content)):
            await change
            shown = await ann.visible(SHARE, "a")
            assert shown
            seen.append((shown.available, [one.available for one in await ann.entries()], [one.available for one in await ann.register(SHARE, "a", "prod")]))
        assert seen == [(True, [True], [True]), (False, [False], [False])]


@pytest.mark.parametrize(
    ("stages", "shown"),
    [(None, "dev"), (("dev", "test", "prod"), "dev"), (("test", "prod"), "test"), (("prod",), "prod"), (("dev", "prod"), "dev"), (("none",), None)],
)
async def test_the_lowest_carried_stage_is_shown(world: World, stages: tuple[str, ...] | None, shown: str | None) -> None:
    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.MIRROR, stages=stages)) as bob:
        for stage in ("prod", "test", "dev"):
            await put(ann, "a", stage, stage=stage)
        await put(ann, "b", "b", stage="test")
        await copy(ann, bob)
        listed = await bob.visible(SHARE, "a")
        assert (listed and listed.stage) == shown
        carries = stages is None or "test" in stages
        assert [(one.path, one.stage) for one in await bob.entries()] == [
            (path, stage) for path, stage in (("a", shown), ("b", "test" if carries else None)) if stage
        ]
        assert [(one.path, one.stage) for one in await bob.entries(all_stages=True)] == [("a", "dev"), ("a", "test"), ("a", "prod"), ("b", "test")]
        assert len(await bob.wanted()) == sum(stages is None or stage in stages for stage in ("dev", "test", "prod", "test"))
        await audit(bob)


async def test_promotion_is_seen_at_once_and_ends_its_source(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.MIRROR, stages=("prod",))) as bob:
        await put(ann, "a", "v1", stage="prod")
        await put(ann, "a", "v2", stage="dev")
        await copy(ann, bob)
        assert [(await one.visible(SHARE, "a") or pytest.fail("nothing")).content for one in (ann, bob)] == [content_of("v2").content, content_of("v1").content]
        both = [*await ann.live_records(SHARE, "a", "prod"), *await ann.live_records(SHARE, "a", "dev")]
        await ann.author(SHARE, [entry("a", "v2", stage="prod", supersedes=both, source="dev")])
        await copy(ann, bob)
        for one in (ann, bob):
            assert [(listed.stage, listed.content) for listed in await one.entries(all_stages=True)] == [("prod", content_of("v2").content)]
            await audit(one)


async def test_nothing_but_a_promotion_ends_what_stands_at_another_stage(world: World) -> None:
    """In any order of arrival: who may write at dev only cannot make the file of prod go away by naming it."""
    async with (
        world.founded() as ann,
        world.joined("bob", ann, Grant(key("bob").id, "bob", Role.PUBLISHER, stages=("dev",))) as bob,
        world.joined("cid", ann) as cid,
    ):
        [standing] = await ann.author(SHARE, [entry("a", "good", stage="prod")])
        await copy(ann, bob)
        attacks = await bob.author(SHARE, [entry("a", "bad", stage="dev", supersedes=[standing.id]), tombstone("a", stage="dev", supersedes=[standing.id])])
        with pytest.raises(NotAllowedError, match="stage dev from prod"):
            await bob.author(SHARE, [entry("a", "bad", stage="dev", supersedes=[standing.id], source="prod")])
        await cid.receive([record.envelope for record in attacks], source=bob.node)
        await copy(bob, cid)
        await copy(bob, ann)
        for one in (ann, bob, cid):
            assert [listed.record for listed in await one.register(SHARE, "a", "prod")] == [standing.id]
            await audit(one)


async def test_a_takedown_is_kept_and_followed_at_once(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann) as bob:
        await put(ann, "a", "x")
        await put(ann, "b", "x")
        await ann.hold([content_of("x")])
        await copy(ann, bob)
        shown = await ann.visible(SHARE, "a")
        assert shown
        assert (shown.available, shown.taken_down, len(await bob.wanted())) == (True, False, 1)
        await ann.author("", [Takedown(content_of("x").content)])
        await copy(ann, bob)
        for one, held in ((ann, True), (bob, False)):
            shown = await one.visible(SHARE, "a")
            assert shown
            assert (shown.available, shown.taken_down) == (False, True)
            assert (one.is_held(shown.content), one.serves(shown.content)) == (held, False)
            assert await one.wanted() == []
            await audit(one)
        await bob.hold([content_of("x")])
        assert not (await bob.visible(SHARE, "b") or pytest.fail("nothing")).available
        await audit(bob)
        await bob.lose(content_of("x").content)
        await ann.author("", [Takedown(content_of("x").content, lifted=True)])
        await copy(ann, bob)
        assert (await ann.visible(SHARE, "a") or pytest.fail("nothing")).available
        assert [one.content for one in await bob.wanted()] == [content_of("x").content]
        await audit(ann)
        await audit(bob)


async def test_a_takedown_that_an_older_program_stored_without_knowing_it_takes_effect(world: World) -> None:
    async with world.founded() as ann:
        await put(ann, "a", "x")
        await ann.author("", [Takedown(content_of("x").content)])
        await ann._database.write(lambda connection: connection.execute("DELETE FROM taken_down").fetchall())
    async with world.open("ann") as ann:
        assert (await ann.visible(SHARE, "a") or pytest.fail("nothing")).taken_down
        assert await ann.wanted() == []
        await audit(ann)


async def test_narrowing_this_node_narrows_what_it_shows_and_wants(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann) as bob:
        for stage in ("dev", "prod"):
            await put(ann, "a", stage, stage=stage)
        await copy(ann, bob)
        assert len(await bob.wanted()) == 2
        assert await bob.visible(SHARE, "a") == (await bob.entries())[0]
        await ann.author("", [Grant(bob.node, "bob", Role.MIRROR, stages=("prod",))])
        await copy(ann, bob)
        shown = await bob.visible(SHARE, "a")
        assert shown
        assert shown.stage == "prod"
        assert [one.content for one in await bob.wanted()] == [content_of("prod").content]
        await audit(bob)
        await ann.author("", [Cut(bob.node, {}, "change"), Grant(bob.node, "bob", Role.MIRROR, shares=("jamf",))])
        await copy(ann, bob)
        assert (await bob.visible(SHARE, "a"), await bob.wanted(), await bob.entries()) == (None, [], [])
        await audit(bob)


async def test_a_grant_that_ends_by_itself_ends_carrying(world: World) -> None:
    until_ms = world.now_ms + 10_000
    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.MIRROR, until=Stamp.of(until_ms))) as bob:
        await put(ann, "a")
        await copy(ann, bob)
        assert await bob.visible(SHARE, "a")
        assert len(await bob.wanted()) == (await bob.missing(SHARE)).count == 1
        world.now_ms = until_ms + 1001
        assert await bob.visible(SHARE, "a") is None
        assert await bob.wanted() == await bob.entries() == []
        assert (await bob.missing(SHARE)).count == (await bob.usage()).wanted == 0


async def test_a_removed_share_is_gone_and_comes_back(world: World) -> None:
    async with world.founded() as ann:
        await put(ann, "a")
        await ann.author("", [Policy(SHARE, public=True, removed=True)])
        assert (await ann.visible(SHARE, "a"), await ann.entries(), await ann.entries(SHARE, all_stages=True), await ann.wanted()) == (None, [], [], [])
        await ann.author("", [Policy(SHARE, public=True, stages=("prod",))])
        assert paths_of(await ann.entries()) == ["a"]
        assert len(await ann.wanted()) == 1
        await audit(ann)


async def test_writing_conflicts_have_one_winner_and_keep_the_loser(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.PUBLISHER)) as bob:
        first = await put(ann, "a", "1")
        await copy(ann, bob)
        left = await put(ann, "a", "left")
        right = await put(bob, "a", "right")
        await copy(ann, bob)
        await copy(bob, ann)
        winner, loser = sorted((left, right), key=lambda record: record.order, reverse=True)
        for one in (ann, bob):
            assert [listed.record for listed in await one.register(SHARE, "a", "prod")] == [winner.id, loser.id]
            assert [listed.siblings for listed in await one.entries()] == [1]
            assert await one.live_records(SHARE, "a", "prod") == [winner.id, loser.id]
            assert first.id not in await one.live_records(SHARE, "a", "prod")
        settled = await put(bob, "a", "settled")
        assert await bob.live_records(SHARE, "a", "prod") == [settled.id]
        assert [listed.siblings for listed in await bob.entries()] == [0]
        await audit(bob)


async def test_the_first_two_of_a_name_that_come_together_conflict(world: World) -> None:
    async with (
        world.founded() as ann,
        world.joined("bob", ann, Grant(key("bob").id, "bob", Role.PUBLISHER)) as bob,
        world.joined("cid", ann) as cid,
    ):
        said = [await put(ann, "a", "left"), await put(bob, "A", "right"), await put(bob, "b", "alone")]
        await cid.receive([record.envelope for record in said], source=ann.node)
        winner, loser = sorted(said[:2], key=lambda record: record.order, reverse=True)
        assert [listed.record for listed in await cid.register(SHARE, "a", "prod")] == [winner.id, loser.id]
        assert [(listed.record, listed.siblings) for listed in await cid.entries()] == [(winner.id, 1), (said[2].id, 0)]
        assert {one.content for one in await cid.wanted()} == {content_of(name).content for name in ("left", "right", "alone")}
        await audit(cid)


@pytest.mark.parametrize("together", [False, True])
async def test_what_was_promoted_before_it_came_does_not_show_at_its_source(world: World, together: bool) -> None:
    async with (
        world.founded() as ann,
        world.joined("bob", ann, Grant(key("bob").id, "bob", Role.PUBLISHER)) as bob,
        world.joined("cid", ann) as cid,
    ):
        source = await put(ann, "a", "v", stage="dev")
        await copy(ann, bob)
        (promoted,) = await bob.author(SHARE, [entry("a", "v", stage="prod", supersedes=[source.id], source="dev")])
        said = [promoted.envelope, source.envelope]
        for batch in [said] if together else [[envelope] for envelope in said]:
            await cid.receive(batch, source=ann.node)
        assert [(listed.stage, listed.record) for listed in await cid.entries(all_stages=True)] == [("prod", promoted.id)]
        await audit(cid)


async def test_an_update_beats_a_concurrent_delete(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.PUBLISHER)) as bob:
        await put(ann, "a", "1")
        await copy(ann, bob)
        update = await put(ann, "a", "2")
        world.now_ms += 1000
        await remove(bob, "a")
        assert await bob.entries() == []
        await copy(ann, bob)
        await copy(bob, ann)
        for one in (ann, bob):
            assert [listed.record for listed in await one.entries()] == [update.id]
            await audit(one)


async def test_a_delete_deletes_and_a_new_file_may_follow(world: World) -> None:
    async with world.founded() as ann:
        await put(ann, "a", "1")
        gone = await remove(ann, "a")
        assert (await ann.visible(SHARE, "a"), await ann.entries(), await ann.register(SHARE, "a", "prod"), await ann.wanted()) == (None, [], [], [])
        assert await ann.live_records(SHARE, "a", "prod") == [gone.id]
        assert (await ann.usage()).stages == {}
        await put(ann, "A", "2")
        assert paths_of(await ann.entries()) == ["A"]
        await audit(ann)


async def test_an_immutable_share_keeps_the_first_until_it_is_removed(world: World) -> None:
    async with world.founded(immutable=True) as ann:
        first = await put(ann, "a", "1")
        world.now_ms += 5
        await put(ann, "a", "2")
        await ann.author(SHARE, [entry("a", "3")])
        assert [listed.record for listed in await ann.entries()] == [first.id]
        await audit(ann)
        await remove(ann, "a")
        await audit(ann)
        again = await put(ann, "a", "4")
        assert again.id in [listed.record for listed in await ann.register(SHARE, "a", "prod")]
        await audit(ann)


async def test_files_and_directories_collide(world: World) -> None:
    async with world.founded() as ann:
        for path in ("a/b/C", "x", "y-z"):
            await put(ann, path)
        await put(ann, "dev only/file", stage="dev")
        await put(ann, "gone/file")
        await remove(ann, "gone/file")
        expected = {
            "a": "a/b/C",
            "a/b": "a/b/C",
            "a/b/c": None,
            "a/b/c/d": "a/b/C",
            "x/y/z": "x",
            "xy": None,
            "y": None,
            "ab/c": None,
            "dev only": "dev only/file",
            "gone": None,
        }
        assert {name: await ann.collides(SHARE, name) for name in expected} == expected
        assert {name: one.collides for name, one in zip(expected, await ann.standings(SHARE, [(name, "prod") for name in expected]), strict=True)} == expected
        assert await ann.collides("jamf", "a") is None


async def test_standings_tell_a_publisher_everything(world: World) -> None:
    async with world.founded() as ann:
        live = await put(ann, "a", "1")
        gone = await put(ann, "b", "1")
        tomb = await remove(ann, "b")
        standings = await ann.standings(SHARE, [("a", "prod"), ("b", "prod"), ("a", "dev"), ("new", "prod")])
        assert [one.listed and one.listed.record for one in standings] == [live.id, None, None, None]
        assert [one.live for one in standings] == [(live.id,), (tomb.id,), (), ()]
        assert gone.id not in standings[1].live
        assert await ann.registers(SHARE, [("b", "prod"), ("a", "prod")]) == [None, standings[0].listed]
        with pytest.raises(InputError, match="at most 1000"):
            await ann.registers(SHARE, [("a", "prod")] * 1001)


async def test_names_differing_in_case_or_composition_are_one(world: World) -> None:
    async with world.founded() as ann:
        spellings = ["ÄPFEL.pkg", "äpfel.pkg", "a\u0308pfel.pkg", "A\u0308PFEL.PKG"]
        records = [(await ann.author(SHARE, [entry(spelling, str(number))]))[0] for number, spelling in enumerate(spellings)]
        assert [one.key for one in await ann.entries()] == ["äpfel.pkg"]
        assert [one.record for one in await ann.register(SHARE, "äpfel.pkg", "prod")] == [record.id for record in reversed(records)]


async def test_pages_cover_everything_once(world: World) -> None:
    async with world.founded() as ann:
        await ann.author("", [Policy("jamf", public=True)])
        names = [f"d{number % 5}/f{number:03}" for number in range(100)] + ["d1", "d1-x", "d1.x", "d10/a", "d1/ü"]
        for stage in ("dev", "prod"):
            await ann.author(SHARE, [entry(name, name, stage=stage) for name in names])
        await ann.author("jamf", [entry("a"), entry("d1/x")])
        expected = [("jamf", "a"), ("jamf", "d1/x"), *((SHARE, name) for name in sorted(names))]
        for limit in (1, 7, 1000):
            assert await paged(ann, limit=limit) == expected
            assert await paged(ann, limit=limit, share=SHARE) == expected[2:]
        below = sorted(name for name in names if name == "d1" or name.startswith("d1/"))
        assert await paged(ann, limit=7, share=SHARE, prefix="d1") == [(SHARE, name) for name in below]
        assert await paged(ann, limit=7, prefix="d1") == [("jamf", "d1/x"), *((SHARE, name) for name in below)]
        assert await paged(ann, limit=7, share="nowhere") == []
        twice = await ann.entries(SHARE, limit=3, all_stages=True)
        assert [(one.key, one.stage) for one in twice] == [(min(names), "dev"), (min(names), "prod")]
        for limit in (0, 10_001):
            with pytest.raises(InputError, match="limit"):
                await ann.entries(limit=limit)


async def paged(catalog: Catalog, *, limit: int, share: str | None = None, prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    while page := await catalog.entries(share, prefix=prefix, after=found[-1] if found else None, limit=limit):
        assert len(page) <= limit
        found += [(one.share, one.key) for one in page]
    return found


async def test_which_shares_name_a_content(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.PUBLISHER)) as bob:
        await ann.author("", [Policy("jamf", public=True)])
        await ann.author(SHARE, [entry(f"file{number}") for number in range(50)])
        for content_name in ("x", "y"):
            await put(ann, "replaced", content_name)
        await put(ann, "old", "x", stage="test")
        await put(ann, "old", "y", stage="test")
        await put(ann, "here", "x", stage="dev", share="jamf")
        content = content_of("x").content
        assert [await ann.is_named(content, shares) for shares in (["jamf"], [SHARE], ["hidden", SHARE], ["hidden"], [])] == [True, True, True, False, False]
        await put(ann, "only once", "z", stage="test")
        assert await ann.is_named(content_of("z").content, [SHARE])
        await put(ann, "only once", "y", stage="test")
        assert not await ann.is_named(content_of("z").content, [SHARE]), "an older version"
        assert await ann.named_by_many([content_of("z").content]) == {content_of("z").content: {SHARE}}
        assert await ann.named_by_many([content, content_of("nothing").content]) == {content: {"jamf", SHARE}, content_of("nothing").content: set()}
        assert await ann.name_of(content) in {("jamf", "here"), *((SHARE, f"file{number}") for number in range(50))}
        assert await ann.name_of(content_of("nothing").content) is None
        await copy(ann, bob)
        evil = sign(key("bob"), world.network.id, (await bob.author(SHARE, [entry("b", "mine")]))[0].header, entry("evil", "secret"))
        await ann.receive([evil.envelope], source=None)
        await ann.author("", [Policy("hidden", public=False)])
        assert await ann.is_named(content_of("secret").content, [SHARE])


async def test_an_entry_that_does_not_count_names_nothing(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.PUBLISHER, shares=("jamf",))) as bob:
        header = (await ann.author(SHARE, [entry("a")]))[0].header
        forged = sign(key("bob"), world.network.id, Header(bob.node, SHARE, header.incarnation, 1, None, header.hlc), entry("evil", "secret"))
        received = await ann.receive([forged.envelope], source=bob.node)
        assert received.new == (forged,)
        assert not await ann.is_named(content_of("secret").content, [SHARE])
        assert await ann.named_by_many([content_of("secret").content]) == {content_of("secret").content: set()}
        assert paths_of(await ann.entries()) == ["a"]
        assert await ann.collides(SHARE, "evil/below") is None
        assert await ann.name_of(content_of("secret").content) is None
        await audit(ann)


async def test_a_long_history_costs_no_more_than_a_short_one(world: World) -> None:
    """Only what is live is read when a name changes again."""
    async with world.founded() as ann:
        for number in range(30):
            await put(ann, "a", str(number))
        told: list[str] = []
        await ann._database.write(lambda connection: connection.set_progress_handler(lambda: told.append(""), 1))
        told.clear()
        await put(ann, "a", "again")
        long = len(told)
        told.clear()
        await put(ann, "new", "a")
        await put(ann, "new", "b")
        assert long < len(told)


async def test_remembered_names_are_few(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "SHOWN_MAX", 10)
    async with world.founded() as ann:
        await ann.author(SHARE, [entry(f"file{number}") for number in range(30)])
        for number in range(30):
            assert await ann.visible(SHARE, f"file{number}")
        assert len(ann._shown._answers) == 10
        for name in ("file20", "file0"):
            assert await ann.visible(SHARE, name)
        assert [(SHARE, name) in ann._shown for name in ("file20", "file21")] == [True, False]
        assert await ann.visible(SHARE, "file0")


async def test_a_slow_read_never_brings_back_an_older_winner(world: World) -> None:
    """The read began before the commit and is answered after it: it may be answered with the old file, but that is not remembered."""
    async with AsyncExitStack() as stack:
        ann = await stack.enter_async_context(world.founded())
        await put(ann, "a", "old")
        begun, go_on = threading.Event(), threading.Event()
        read = ann._database.read

        async def slow(unit: object) -> object:
            def slowed(connection: object) -> object:
                found = unit(connection)  # type: ignore[operator]
                begun.set()
                assert go_on.wait(30)
                return found

            return await read(slowed)  # type: ignore[arg-type]

        ann._database.read = slow  # type: ignore[method-assign,assignment]
        asking = asyncio.ensure_future(ann.visible(SHARE, "a"))
        await until(begun.is_set, what="the slow read")
        ann._database.read = read  # type: ignore[method-assign]
        (newer,) = await ann.author(SHARE, [entry("a", "new")])
        go_on.set()
        await asking
        shown = await ann.visible(SHARE, "a")
        assert shown
        assert shown.record == newer.id
