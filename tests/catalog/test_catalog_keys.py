"""Keys that are used twice, stolen or late: restored and cloned catalogs, what a revocation names, and a clock that nobody believes."""

from __future__ import annotations

import shutil

import pytest
from catalog_world import SHARE, World, copy, entry, key, sign

from replicad.catalog import Catalog
from replicad.errors import ConflictError
from replicad.model.ids import Stamp
from replicad.model.records import Cut, Grant, Role


def publisher(name: str) -> Grant:
    return Grant(key(name).id, name, Role.PUBLISHER)


async def names(*catalogs: Catalog) -> list[set[str]]:
    return [{listed.path for listed in await catalog.entries(all_stages=True)} for catalog in catalogs]


async def test_a_catalog_restored_from_yesterday_and_its_clone_lose_nothing_and_say_so(world: World) -> None:
    async with world.founded() as ann:
        async with world.joined("bob", ann, publisher("bob")) as bob:
            await bob.author(SHARE, [entry("first", "1")])
        for copied in ("yesterday", "clone"):
            shutil.copy(world.path("bob"), world.path(copied))
        async with world.open("bob") as bob:
            await bob.author(SHARE, [entry("lost by the restore", "2")])
            await copy(bob, ann)
        world.now_ms += 60_000
        started_ms = world.now_ms
        async with world.open("bob", path=world.path("yesterday")) as bob:
            await bob.author(SHARE, [entry("after the restore", "3")])
            await copy(bob, ann)
            await copy(ann, bob)
            everything = {"first", "lost by the restore", "after the restore"}
            assert await names(ann, bob) == [everything, everything]
            assert len(ann.replica.chains.ends(bob.node, SHARE)) == 2, "the chain branches"
            assert ann.replica.trust.forks(bob.node, Stamp.of(world.now_ms + 1)) == [], "and that is legal"
            assert bob.signed_elsewhere(started_ms) == []

            world.now_ms += 1_000
            async with world.open("bob", path=world.path("clone")) as clone:
                await clone.author(SHARE, [entry("by the clone", "4")])
                await copy(clone, bob)
                assert bob.signed_elsewhere(started_ms) == [SHARE]
                await copy(bob, clone)
                assert await names(bob, clone) == [everything | {"by the clone"}] * 2


async def test_a_fork_is_told_until_an_admin_decides(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, publisher("bob")) as bob:
        await copy(ann, bob)
        said = await bob.author(SHARE, [entry(f"file{number}", str(number)) for number in range(4)])
        other = sign(key("bob"), world.network.id, said[2].header, entry("other", "other"))
        await ann.receive([*(record.envelope for record in said), other.envelope], source=None)
        at = Stamp.of(world.now_ms + 1000)
        (fork,) = ann.replica.trust.forks(bob.node, at)
        assert (fork.share, fork.seq) == (SHARE, 3)
        assert set(await ann.witnesses(fork)) == {said[2].id, other.id}
        assert await names(ann) == [{"file0", "file1"}]
        await ann.author("", [Cut(bob.node, {SHARE: (other.id,)}, "revoke"), Grant(bob.node, "bob", Role.PUBLISHER)])
        assert await names(ann) == [{"file0", "file1", "other"}], "the cut names the branch that is true"
        assert ann.replica.trust.forks(bob.node, Stamp.of(world.now_ms + 1000)) == []
        assert len(ann.replica.chains.forks(bob.node)) == 1, "the evidence stays"


async def test_a_revocation_names_the_last_records_before_the_theft_in_every_share_and_branch(world: World) -> None:
    async with world.founded() as ann, world.joined("bob", ann, publisher("bob")) as bob:
        await copy(ann, bob)
        before = [(await bob.author(SHARE, [entry(f"a{number}", "a")]))[0] for number in range(3)]
        world.now_ms += 1000
        stolen = Stamp.of(world.now_ms)
        assert await bob.cut_ends(bob.node, before=stolen) == {SHARE: (before[-1].id,)}
        async with world.joined("cid", ann) as cid:
            await copy(bob, cid)
            await bob.author(SHARE, [entry("late", "b")])
            await copy(bob, cid)
            assert await cid.cut_ends(bob.node, before=stolen) == {SHARE: (before[-1].id,)}
            assert await cid.cut_ends(bob.node, before=before[1].header.hlc) == {SHARE: (before[0].id,)}
            assert await cid.cut_ends(bob.node, before=before[0].header.hlc) == {}
            assert (await cid.said_since(bob.node, stolen)).records == 1


async def test_a_clock_that_nobody_believes_signs_cuts_only(world: World) -> None:
    def refuse() -> None:
        raise ConflictError("the clock", code="clock-skew")

    async with world.founded() as ann, world.joined("bob", ann, publisher("bob")) as bob:
        ann.check_clock = refuse
        for share, body in ((SHARE, entry("a")), ("", Grant(bob.node, "bob", Role.ADMIN))):
            with pytest.raises(ConflictError):
                await ann.author(share, [body])
        await ann.author("", [Cut(bob.node, {}, "remove")])
        assert bob.node not in ann.replica.trust.members(world.now_ms)
        assert await names(ann) == [set()]
