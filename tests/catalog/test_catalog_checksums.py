"""Checksums of contents: kept while the content is held, and asked for by shares."""

from __future__ import annotations

from catalog_world import SHARE, World, content_of, entry, rows, tombstone

from replicad.model.records import Policy


async def test_they_are_kept_as_long_as_the_content_is_held(world: World) -> None:
    one, two = content_of("one").content, content_of("two").content
    async with world.founded() as ann:
        await ann.hold([content_of("one")])
        await ann.add_checksums({one: {"md5": b"m", "sha512": b"s"}, two: {"md5": b"no"}})
        await ann.add_checksums({one: {"md5": b"m"}})
        assert await ann.checksums([one, two]) == {one: {"md5": b"m", "sha512": b"s"}}
    async with world.open("ann") as ann:
        assert await ann.checksums([one]) == {one: {"md5": b"m", "sha512": b"s"}}
        await ann.damage(one, "rotten")
        await ann.hold([content_of("one")])
        assert await ann.checksums([one]) == {}


async def test_what_is_missing_follows_names_and_wishes(world: World) -> None:
    one, two, three = (content_of(name).content for name in ("one", "two", "three"))
    async with world.founded() as ann:
        await ann.author("", [Policy("other", public=True)])
        await ann.hold([content_of("one"), content_of("two")])
        await ann.author(SHARE, [entry("a", "one"), entry("c", "three")])
        _, second = await ann.author("other", [entry("a", "one"), entry("b", "two")])
        await ann.add_checksums({one: {"md5": b"m"}})
        every = [one, two, three]
        assert await ann.missing_checksums(every, {SHARE: ["md5", "sha512"]}) == {one: ["sha512"]}
        assert await ann.missing_checksums(every, {SHARE: ["md5"], "other": ["sha512"]}) == {one: ["sha512"], two: ["sha512"]}
        assert await ann.missing_checksums(every, {}) == await ann.missing_checksums([], {SHARE: ["md5"]}) == {}
        await ann.author("other", [tombstone("b", supersedes=[second.id])])
        assert await ann.missing_checksums(every, {"other": ["md5", "sha512"]}) == {one: ["sha512"]}
        assert await rows(ann, "SELECT count(*) FROM checksum") == [(1,)]
