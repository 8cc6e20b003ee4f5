"""Keys that are used twice, stolen or late: restored and cloned catalogs, what a revocation names, and a clock that nobody believes."""

from __future__ import annotations

import shutil

import pytest
from catalog_world import SHARE, World, copy, entry, key, sign
from msgspec.structs import replace

from replicad.catalog import Catalog
from replicad.catalog.answers import Voided
from replicad.errors import ConflictError
from replicad.model.ids import RecordId, Stamp
from replicad.model.records import Cut, Grant, Policy, Role
from replicad.protocol.clock import FUTURE_MAX_MS


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
        async with world.open("bob", path=world.path("yesterday")) as bob:
            await bob.author(SHARE, [entry("after the restore", "3")])
            await copy(bob, ann)
            await copy(ann, bob)
            everything = {"first", "lost by the restore", "after the restore"}
            assert await names(ann, bob) == [everything, everything]
            assert len(ann.replica.chains.ends(bob.node, SHARE)) == 2, "the chain branches"
            assert ann.replica.trust.forks(bob.node, Stamp.of(world.now_ms + 1)) == [], "and that is legal"
            assert bob.signed_elsewhere() == []

            world.now_ms += FUTURE_MAX_MS + 1
            async with world.open("bob", path=world.path("clone")) as clone:
                await clone.author(SHARE, [entry("by the clone", "4")])
                await copy(clone, bob)
                assert bob.signed_elsewhere() == [SHARE]
                await copy(bob, clone)
                assert await names(bob, clone) == [everything | {"by the clone"}] * 2


async def test_what_was_signed_before_the_start_by_a_clock_that_was_ahead_is_no_other_process(world: World) -> None:
    async with world.founded() as ann:
        async with world.joined("bob", ann, publisher("bob")):
            pass
        shutil.copy(world.path("bob"), world.path("yesterday"))
        async with world.open("bob") as bob:
            world.now_ms += 240_000
            (ahead,) = await ann.author(SHARE, [entry("by a clock that is ahead", "1")])
            await copy(ann, bob)
            world.now_ms -= 240_000
            (last,) = await bob.author(SHARE, [entry("at the advanced time", "2")])
            assert last.header.hlc > ahead.header.hlc
            await copy(bob, ann)
        for path, clock_ms in ((world.path("bob"), world.now_ms), (world.path("bob"), world.now_ms - 3 * 3_600_000), (world.path("yesterday"), world.now_ms)):
            world.now_ms = clock_ms
            async with world.open("bob", path=path) as bob:
                await copy(ann, bob)
                assert bob.signed_elsewhere() == []
        async with world.open("bob") as bob:
            world.now_ms += FUTURE_MAX_MS + 1
            await bob.author(SHARE, [entry("by this process", "3")])
            await copy(bob, ann)
            await bob.move(world.network.id, [])
            await copy(ann, bob)
            assert bob.signed_elsewhere() == [], "nor is it this one, when it went away and came back"


async def test_whoever_continues_what_this_process_has_said_is_another_process_however_early_it_is(world: World) -> None:
    async with world.founded() as ann:
        async with world.joined("bob", ann, publisher("bob")):
            pass
        shutil.copy(world.path("bob"), world.path("clone"))
        async with world.open("bob") as bob, world.open("bob", path=world.path("clone")) as clone:
            await bob.author(SHARE, [entry("by this process", "1")])
            await copy(bob, clone)
            await clone.author(SHARE, [entry("by the clone", "2")])
            await copy(clone, bob)
            assert (bob.signed_elsewhere(), clone.signed_elsewhere()) == ([SHARE], [])
            await bob.author(SHARE, [entry("later", "3")])
            assert bob.signed_elsewhere() == [SHARE], "going on does not end it"
            await bob.move(key("another network").id, [])
            assert bob.signed_elsewhere() == []


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


async def test_a_cut_names_the_last_records_before_a_time_in_every_share_and_branch(world: World) -> None:
    async def ends(before: Stamp) -> dict[str, tuple[RecordId, ...]]:
        (cut,) = await ann.author_cut(bob.node, reason="revoke", before=before)
        assert isinstance(cut.body, Cut)
        return cut.body.ends

    async with world.founded() as ann, world.joined("bob", ann, Grant(key("bob").id, "bob", Role.ADMIN)) as bob:
        await copy(ann, bob)
        (policy,) = await bob.author("", [Policy("jamf", public=True)])
        before = [(await bob.author(SHARE, [entry(f"a{number}", "a")]))[0] for number in range(3)]
        world.now_ms += 1000
        stolen = Stamp.of(world.now_ms)
        late = (await bob.author(SHARE, [entry("late", "b")]))[0]
        (branch,) = (sign(key("bob"), world.network.id, replace(late.header, incarnation=Stamp(late.header.incarnation + 1)), entry("branch", "c")),)
        await copy(bob, ann)
        await ann.receive([branch.envelope], source=None)
        assert await ann.said_since(bob.node, stolen) == Voided(2, 2)
        assert await ends(Stamp.of(world.now_ms + 1000)) == {"": (policy.id,), SHARE: tuple(sorted((late.id, branch.id)))}
        assert await ends(stolen) == {"": (policy.id,), SHARE: (before[-1].id,)}
        assert await ends(before[1].header.hlc) == {"": (policy.id,), SHARE: (before[0].id,)}
        assert await ends(policy.header.hlc) == {}
        assert await names(ann) == [set()]


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
