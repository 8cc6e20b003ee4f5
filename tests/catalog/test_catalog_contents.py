"""Content: held, wanted, missing, half fetched, and its manifests."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from catalog_world import SHARE, World, audit, big_content, content_of, copy, entry, key, rows, sign, tombstone

from replicad.catalog import Catalog
from replicad.model.entries import Wanted
from replicad.model.events import ContentHeld, ContentLost
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.model.records import Entry, Grant, Policy, Role


async def wanted(catalog: Catalog) -> list[Digest]:
    return [one.content for one in await catalog.wanted()]


async def test_held_is_known_at_once_and_told_once(world: World) -> None:
    async with world.founded() as ann:
        big, small = big_content("big"), content_of("small")
        await ann.hold([big, small, big])
        await ann.hold([big])
        assert world.events["ann"][-1:] == [ContentHeld(((big.content, big.size), (small.content, small.size)))]
        assert (ann.is_held(big.content), ann.is_held(content_of("other").content)) == (True, False)
        assert [await ann.held_manifest(one.content) for one in (big, small, content_of("other"))] == [big, small, None]
        assert await ann.held_facts([big.content, content_of("other").content]) == {big.content: (big.size, big.id)}
        assert dict([one async for one in ann.held_contents()]) == {big.content: big.size, small.content: small.size}
        await ann.lose(big.content)
        await ann.lose(big.content)
        assert world.events["ann"][-1] == ContentLost(big.content)
        assert len([event for event in world.events["ann"] if isinstance(event, ContentLost)]) == 1
        assert not ann.is_held(big.content)
    async with world.open("ann") as ann:
        assert (ann.is_held(small.content), ann.is_held(big.content)) == (True, False)


async def test_held_contents_come_in_pages_without_end(world: World) -> None:
    async with world.founded() as ann:
        everything = [content_of(str(number)) for number in range(2500)]
        await ann.hold(everything)
        listed = [content async for content, _ in ann.held_contents()]
        assert listed == sorted(one.content for one in everything)


async def test_wanted_is_oldest_first_and_bounded(world: World) -> None:
    async with world.founded() as ann:
        records = await ann.author(SHARE, [entry(f"file{number}", str(number)) for number in range(20)])
        body = records[0].body
        assert isinstance(body, Entry)
        found = await ann.wanted()
        assert found[0] == Wanted(body.content, body.size, body.manifest, records[0].header.hlc, ann.node)
        assert [one.hlc for one in found] == [record.header.hlc for record in records]
        assert await ann.wanted(5) == found[:5]
        await ann.hold([content_of("0"), content_of("2")])
        assert await ann.wanted(2) == [found[1], found[3]]


async def test_wanted_is_divided_among_those_who_wrote_and_goes_on_where_it_ended(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.PUBLISHER)) as bob:
        await bob.author(SHARE, [entry(f"bob{number}", f"bob{number}") for number in range(30)])
        world.now_ms += 1
        await ann.author(SHARE, [entry(f"ann{number}", f"ann{number}") for number in range(2)])
        await copy(bob, ann)
        bobs = [content_of(f"bob{number}").content for number in range(30)]
        found = await ann.wanted(10)
        assert [one.content for one in found if one.origin == bob.node] == bobs[:8]
        assert [one.content for one in found if one.origin == ann.node] == [content_of("ann0").content, content_of("ann1").content]
        assert {one.origin for one in found[:2]} == {one.origin for one in found[2:4]} == {ann.node, bob.node}
        after = {one.origin: one.hlc for one in found}
        assert [one.content for one in await ann.wanted(10, after=after) if one.origin == bob.node] == bobs[8:16]
        late = {bob.node: int(next(one.hlc for one in await ann.wanted() if one.content == bobs[26]))}
        assert [one.content for one in await ann.wanted(10, after=late) if one.origin == bob.node] == [*bobs[27:], *bobs[:5]]
        assert len(await ann.wanted(after=late)) == 32
        since = int(next(one.hlc for one in await ann.wanted() if one.content == bobs[25]))
        newest = await ann.newly_wanted(5, since=since)
        assert [one.content for one in newest if one.origin == bob.node] == bobs[:26:-1]
        assert [one.content for one in newest if one.origin == ann.node] == [content_of("ann1").content, content_of("ann0").content]
        assert [one.content for one in await ann.newly_wanted(50, since=since) if one.origin == bob.node] == bobs[:24:-1]


async def test_content_named_in_several_places_counts_once(world: World) -> None:
    async with world.founded() as ann:
        await ann.author("", [Policy("jamf", public=True)])
        await ann.author(SHARE, [entry("a"), entry("b"), entry("a", stage="dev")])
        await ann.author("jamf", [entry("c"), entry("d", "other")])
        assert await wanted(ann) == [content_of("x").content, content_of("other").content]
        assert ((await ann.usage()).wanted, (await ann.usage()).wanted_bytes) == (2, 6)
        assert [(await ann.missing(share)).count for share in (SHARE, "jamf", "nowhere")] == [1, 2, 0]
        for path, stage in (("a", "prod"), ("b", "prod"), ("a", "dev")):
            await ann.author(SHARE, [tombstone(path, stage=stage, supersedes=await ann.live_records(SHARE, path, stage))])
            await audit(ann)
        assert [(await ann.missing(share)).count for share in (SHARE, "jamf")] == [0, 2]
        assert (await ann.usage()).wanted == 2
        await ann.hold([content_of("x")])
        assert await wanted(ann) == [content_of("other").content]
        await audit(ann)


async def test_more_at_once_than_one_statement_takes(world: World) -> None:
    """New names, names a second time in the same transaction and before, contents under two names, and what is held of them."""
    everything = [content_of(str(number)) for number in range(280)]
    async with world.founded() as ann:
        old = await ann.author(SHARE, [entry(f"file{number}", str(number)) for number in range(0, 280, 90)])
        again = [entry("file0", "1", supersedes=[old[0].id]), entry("file1", "2"), entry("FILE7", "280"), tombstone("file90", supersedes=[old[1].id])]
        await ann.author(
            SHARE,
            [
                *(entry(f"file{number}", one) for number, one in enumerate(everything) if number % 90),
                *again,
                *(entry(f"{number}", one) for number, one in enumerate(everything[:40])),
            ],
        )
        assert (await ann.usage()).wanted == len(await ann.wanted()) == 280
        await ann.hold(everything[:270])
        assert await ann.named_by_many(one.content for one in everything) == {one.content: {SHARE} for one in everything}
        await audit(ann)


async def test_missing_tells_totals_the_oldest_and_the_newest(world: World) -> None:
    async with world.founded() as ann:
        records = []
        for number in range(10):
            world.now_ms += 1
            records += await ann.author(SHARE, [entry(f"file{number}", f"content {number}")])
        missing = await ann.missing(SHARE, 3)
        assert (missing.count, missing.size_bytes, missing.oldest) == (10, 90, records[0].header.hlc)
        assert missing.newest == tuple(content_of(f"content {number}").content for number in (9, 8, 7))
        await ann.hold([content_of("content 0"), content_of("content 9")])
        missing = await ann.missing(SHARE, 3)
        assert (missing.count, missing.oldest, missing.newest[0]) == (8, records[1].header.hlc, content_of("content 8").content)


async def test_what_is_lost_is_wanted_again_if_somebody_names_it(world: World) -> None:
    async with world.founded() as ann:
        await ann.author(SHARE, [entry("a"), entry("b")], held=[content_of("x")])
        await ann.hold([content_of("unnamed")])
        for name in ("x", "unnamed"):
            await ann.lose(content_of(name).content)
        assert await wanted(ann) == [content_of("x").content]
        assert (await ann.is_wanted(content_of("x").content), await ann.is_wanted(content_of("unnamed").content)) == (True, False)
        await audit(ann)


async def test_a_lie_about_the_manifest_is_tried_beside_the_truth(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.PUBLISHER)) as bob:
        truth = big_content("big")
        lie = Manifest(truth.content, truth.size + 1, truth.chunk_size, truth.chunks)
        await bob.author(SHARE, [entry("lie", lie)])
        world.now_ms += 1
        await ann.author(SHARE, [entry("truth", truth)])
        await copy(bob, ann)
        assert {(one.manifest, one.size) for one in await ann.wanted()} == {(lie.id, lie.size), (truth.id, truth.size)}
        assert (await ann.usage()).wanted == (await ann.missing(SHARE)).count == 1
        await ann.add_manifests([lie, truth])
        await ann.save_partials([(lie.content, lie.id, b"\x01"), (truth.content, truth.id, b"\x03")])
        await ann.hold([truth])
        assert (await ann.wanted(), await ann.partials()) == ([], [])
        assert (await ann.manifest(truth.content, truth.id), await ann.manifest(lie.content, lie.id)) == (truth, None)


async def test_content_is_held_under_the_manifest_that_entries_name(world: World) -> None:
    """Who computes it anew may know states that the publisher did not. Under another id no peer could fetch it from here. States that entries name and nobody computed here may be false."""
    async with world.founded() as ann:
        bare, full, both, other = (big_content(name) for name in ("bare", "full", "both", "other"))
        full, both, other = (replace(manifest, states=bytes([number] * 64)) for number, manifest in enumerate((full, both, other)))
        await ann.author(SHARE, [entry("bare", bare), entry("full", full), entry("both/1", both), entry("both/2", both.bare)])
        assert [await ann.named_manifests(one.content) for one in (bare, both, other)] == [{bare.id}, {both.id, both.bare.id}, set()]
        await ann.add_manifests([full, other])
        await ann.hold([replace(bare, states=bytes(64)), full.bare, both, other])
        assert [await ann.held_manifest(one.content) for one in (bare, full, both, other)] == [bare, full.bare, both, other]
        assert await ann.wanted() == []


async def test_what_was_measured_takes_the_place_of_a_false_manifest(world: World) -> None:
    """And of nothing else that is known of the content."""
    async with world.founded() as ann:
        named, bare, lost = (replace(big_content(name), states=bytes(64)) for name in ("named", "bare", "lost"))
        lies = [replace(manifest, states=bytes([1] * 64)) for manifest in (named, bare, lost)]
        await ann.author(SHARE, [entry("named", lies[0]), entry("bare", lies[1]), entry("bare/true", bare.bare), entry("lost", lies[2])])
        await ann.hold(lies)
        await ann.add_checksums({named.content: {"md5": b"m"}})
        await ann.lose(lost.content)
        before = await ann.usage()
        for manifest in (named, bare, lost):
            await ann.hold_under(manifest)
        told = [ContentHeld(((manifest.content, manifest.size),)) for manifest in (named, bare)]
        assert [event for event in world.events["ann"] if isinstance(event, ContentHeld)][1:] == told
        assert await ann.checksums([named.content]) == {named.content: {"md5": b"m"}}
        assert (await ann.usage(), await wanted(ann)) == (before, [lost.content])
        await audit(ann)
    async with world.open("ann") as ann:
        assert [await ann.held_manifest(one.content) for one in (named, bare, lost)] == [named, bare.bare, None]
        kept = await rows(ann, "SELECT content, manifest FROM manifest WHERE content <> ? ORDER BY content", lost.content)
        assert kept == sorted([(named.content, named.id), (bare.content, bare.bare.id)])
        assert await ann.manifest(lost.content, lost.id) is None
        assert (ann.is_held(named.content), ann.is_held(lost.content)) == (True, False)


async def test_manifests_are_stored_or_follow(world: World) -> None:
    async with world.founded() as ann:
        big, small = big_content("big"), content_of("small")
        assert await ann.manifest(big.content, big.id) is None
        await ann.add_manifests([big, small])
        assert await ann.manifest(big.content, big.id) == big
        assert await ann.manifest(small.content, small.id) is None
        await ann.author(SHARE, [entry("s", small)])
        assert await ann.manifest(small.content, small.id) == small
        assert await ann.manifest(small.content, big.id) is None
        await ann.hold([content_of("held")])
        assert await ann.manifest(content_of("held").content, content_of("held").id) == content_of("held")
        empty = content_of(b"")
        await ann.author(SHARE, [entry("empty", empty)])
        assert await ann.manifest(empty.content, empty.id) == empty
        assert await rows(ann, "SELECT content FROM manifest") == [(big.content,)]


async def test_partials_come_back_as_saved_and_go_with_their_manifest(world: World) -> None:
    first, second = big_content("first"), big_content("second")
    async with world.founded() as ann:
        await ann.add_manifests([first, second])
        await ann.save_partials([(first.content, first.id, b"\x01"), (second.content, second.id, b"\x00")])
        await ann.save_partials([(first.content, first.id, b"\x05")])
    async with world.open("ann") as ann:
        assert set(await ann.partials()) == {(first.content, first.id, b"\x05"), (second.content, second.id, b"\x00")}
        await ann.drop_partial(first.content, first.id)
        assert [row.content for row in await ann.partials()] == [second.content]
        assert await ann.manifest(first.content, first.id) is None
        await ann.hold([second])
        await ann.drop_partial(second.content, second.id)
        assert await ann.manifest(second.content, second.id) == second


async def test_usage_counts_everything(world: World) -> None:
    async with world.founded() as ann:
        await ann.author(SHARE, [entry("a", "12345"), entry("b", "1234567", stage="dev"), entry("c", "12345", stage="dev")])
        await ann.hold([content_of("12345")])
        usage = await ann.usage()
        stored = await rows(ann, "SELECT count(*), sum(length(payload) + length(signature)) FROM record")
        assert (usage.records, usage.record_bytes) == stored[0]
        assert (usage.contents, usage.content_bytes, usage.wanted, usage.wanted_bytes) == (1, 5, 1, 7)
        assert usage.stages == {"prod": 1, "dev": 2}


async def test_claims_beyond_all_reason_do_not_break_the_totals(world: World) -> None:
    async with world.founded() as ann:
        bodies = []
        for number in range(20):
            content = Digest(hashlib.sha256(str(number).encode()).digest())
            bodies.append(Entry(f"file{number}", "prod", content, 1 << 42, content, 0))
        await ann.author(SHARE, bodies)
        await ann._database.write(lambda connection: connection.execute("UPDATE tally SET bytes = 9.2e18 WHERE kind LIKE 'wanted%'").fetchall())
        await ann.author(SHARE, [Entry("more", "prod", Digest(hashlib.sha256(b"more").digest()), 1 << 42, Digest(hashlib.sha256(b"m").digest()), 0)])
        assert (await ann.usage()).wanted_bytes >= 9 * 10**18
        assert (await ann.missing(SHARE)).count == 21


async def test_a_mirror_wants_what_it_carries_only(world: World) -> None:
    grant = Grant(key("bob").id, "bob", Role.MIRROR, shares=(SHARE,), stages=("test", "prod"))
    async with world.founded() as ann, world.joined("bob", ann, grant) as bob:
        await ann.author("", [Policy("jamf", public=True)])
        await ann.author(SHARE, [entry(f"{stage}", stage, stage=stage) for stage in ("dev", "test", "prod")])
        await ann.author("jamf", [entry("a", "jamf")])
        await copy(ann, bob)
        assert set(await wanted(bob)) == {content_of("test").content, content_of("prod").content}
        await ann.author("", [Policy(SHARE, public=True, stages=("dev", "prod"))])
        await copy(ann, bob)
        assert await wanted(bob) == [content_of("prod").content]
        await audit(bob)


async def test_an_equivocators_file_is_not_wanted_any_more(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.PUBLISHER)) as bob:
        await copy(ann, bob)
        said = await bob.author(SHARE, [entry("a", "1"), entry("b", "2")])
        await copy(bob, ann)
        assert len(await wanted(ann)) == 2
        await ann.receive([sign(key("bob"), world.network.id, said[1].header, entry("b", "3")).envelope], source=None)
        assert await wanted(ann) == [content_of("1").content]
        await audit(ann)
