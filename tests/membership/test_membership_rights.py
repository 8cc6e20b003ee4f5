"""Rights with bounds: path prefixes, a life that ends, keys that were stolen, admins that are lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicad.crypto.envelope import seal
from replicad.crypto.keys import SigningKey
from replicad.errors import ConflictError, InputError, NotAllowedError, NotFoundError
from replicad.model.ids import NodeId, Stamp
from replicad.model.members import Member
from replicad.model.records import Envelope, Header, Role
from replicad.protocol import records
from replicad.services.membership import changes, finish, next_key_path
from support.peer_node import PeerNode, admit, all_linked, entry, peer_node
from support.waiting import until

pytestmark = pytest.mark.sockets


def member(node: PeerNode, other: PeerNode) -> Member:
    return node.catalog.replica.trust.members(node.clock())[other.id]


def end(node: PeerNode, other: PeerNode) -> Stamp:
    found = member(node, other).until
    assert found is not None
    return found


async def test_a_publisher_writes_below_its_prefixes_only(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        await ann.create_share("munki")
        await bob.membership.join(await ann.membership.invite(role="publisher", paths=["Pkgs/A/"]))
        await bob.publish("munki", "pkgs/a/x", "PKGS/A/y")
        for outside in ("pkgs/ab", "pkgs", "x"):
            with pytest.raises(NotAllowedError):
                await bob.publish("munki", outside)
        assert member(ann, bob).paths == {"pkgs/a"}
        await ann.membership.set(bob.id, paths=["pkgs"])
        await until(lambda: bob.hash() == ann.hash(), what="the wider prefix at bob")
        await bob.publish_and_wait("munki", "pkgs/ab", ann)
        await ann.membership.set(bob.id, paths=["other"])
        await until(lambda: bob.hash() == ann.hash(), what="the other prefix at bob")
        with pytest.raises(NotAllowedError):
            await bob.publish("munki", "pkgs/late")
        assert await ann.files() == {"munki/pkgs/a/x", "munki/PKGS/A/y", "munki/pkgs/ab"}
        for refused in ({"role": "mirror", "paths": ["x"]}, {"paths": []}, {"paths": ["../x"]}, {"life_s": 1}):
            with pytest.raises(InputError):
                await ann.membership.set(bob.id, **refused)  # type: ignore[arg-type]


async def test_an_admin_says_whose_clients_a_node_gets(tmp_path: Path) -> None:
    """In the token or later; nothing else changes it, and other changes keep it."""
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        await bob.membership.join(await ann.membership.invite(networks=["10.5.0.0/16", "10.4.0.0/16", "10.4.0.0/16", "2001:DB8::/32"]))
        assert member(ann, bob).networks == member(bob, bob).networks == ("10.4.0.0/16", "10.5.0.0/16", "2001:db8::/32")
        await ann.membership.set(bob.id, networks=["192.0.2.1"])
        await ann.membership.set(bob.id, role="publisher", site="ber")
        await ann.membership.set(bob.id, role="mirror")
        assert member(ann, bob).networks == ("192.0.2.1/32",)
        for refused in (["10.4.0.1/16"], ["everybody"], [f"10.{number}.0.0/16" for number in range(65)]):
            with pytest.raises(InputError, match="network"):
                await ann.membership.set(bob.id, networks=refused)
        with pytest.raises(NotAllowedError):
            await bob.membership.set(bob.id, networks=["0.0.0.0/0"])
        await ann.membership.set(bob.id, networks=[])
        assert member(ann, bob).networks == ()


async def test_a_grant_with_a_life_is_renewed_while_its_node_is_there_and_ends_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.services.membership.lasting.LOOK_S", 0.02)
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        await bob.membership.join(await ann.membership.invite(role="publisher", life_s=3600))
        await all_linked(ann, bob)
        first = end(ann, bob)
        await ann.membership.renew()
        assert end(ann, bob) == first, "two thirds of it are not over yet"
        ann.clock.ahead_ms = bob.clock.ahead_ms = 2_500_000
        await ann.membership.renew()
        await until(lambda: end(bob, bob) > first, what="the renewed grant at bob")
        assert changes.of_member(member(bob, bob)) == changes.Rights(Role.PUBLISHER, life_s=3600)
        assert ann.linked(bob)

        await ann.membership.set(bob.id, life_s=None)
        assert member(ann, bob).until is None
        await ann.membership.set(bob.id, life_s=600)
        assert end(ann, bob).ms < ann.clock() + 600_001, "the grant without end was cut"
        await all_linked(ann, bob)
        ann.clock.ahead_ms += 700_000
        await until(lambda: "bob" not in ann.members(), what="the end of the grant")
        await until(lambda: not ann.linked(bob), what="its link to end")


async def test_nobody_renews_the_grant_of_a_node_that_is_gone(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann:
        async with peer_node(tmp_path / "b", "bob") as bob:
            await bob.membership.join(await ann.membership.invite(life_s=3600))
            await all_linked(ann, bob)
        await until(lambda: not ann.linked(bob), what="the link to end")
        if ann.standing.head(bob.id) is not None:
            ann.standing.forget(bob.id, "")
        given = end(ann, bob)
        ann.clock.ahead_ms = 3_500_000
        await ann.membership.renew()
        assert end(ann, bob) == given
        ann.clock.ahead_ms = 3_700_000
        assert ann.members() == {"ann"}


async def test_a_stolen_key_loses_what_it_signed_from_then_on_and_cannot_write_behind_it(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        await ann.create_share("munki")
        await admit(ann, bob)
        await bob.publish_and_wait("munki", "honest", ann)
        stolen = Stamp.of(max(ann.clock(), ann.catalog.replica.clock.last.ms) + 1)
        ann.clock.ahead_ms = bob.clock.ahead_ms = 5_000
        await bob.publish_and_wait("munki", "thief", ann)
        await ann.membership.remove(bob.id)
        preview = await ann.membership.revoke(bob.id, since=stolen, dry_run=True)
        assert (preview.records, preview.names) == (1, 1)
        assert await ann.files() == {"munki/honest", "munki/thief"}
        await ann.membership.revoke(bob.id, since=stolen)
        assert await ann.files() == {"munki/honest"}
        assert await ann.membership.revoke(bob.id, since=stolen, dry_run=True) == type(preview)(1, 0)

        received = await ann.catalog.receive([_signed_before(bob, stolen)], source=None)
        assert len(received.new) == 1
        assert await ann.files() == {"munki/honest"}, "dated back, but nobody had seen it"
        with pytest.raises(NotFoundError):
            await ann.membership.revoke(SigningKey.generate().id)
        with pytest.raises(InputError):
            await ann.membership.revoke(bob.id, since=Stamp.of(ann.clock() + 60_000))
        async with peer_node(tmp_path / "c", "cid") as cid:
            await admit(ann, cid)
            with pytest.raises(ConflictError):
                await ann.membership.revoke(ann.id)


def _signed_before(thief: PeerNode, time: Stamp) -> Envelope:
    """A record of the stolen key that claims to be older than the theft, in a chain that begins anew."""
    body = entry("back-dated")
    header = Header(thief.id, "munki", Stamp.of(time.ms - 1), 1, None, Stamp.of(time.ms - 1))
    return seal(thief.key, thief.catalog.network, records.type_of(body), records.encode(header, body))


async def test_the_network_key_replaces_a_lost_admin(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "b", "bob") as bob:
        async with peer_node(tmp_path / "a", "ann") as ann:
            await ann.create_share("munki")
            await ann.publish("munki", "before")
            await admit(ann, bob)
            network_key = SigningKey.load(tmp_path / "a" / "network.key")
            with pytest.raises(NotAllowedError):
                await bob.membership.set(bob.id, role="admin")
            lost: NodeId = ann.id
        with pytest.raises(NotAllowedError):
            await bob.membership.set(bob.id, role="admin", network_key=SigningKey.generate())
        await bob.membership.set(bob.id, role="admin", network_key=network_key)
        with pytest.raises(NotAllowedError):
            await bob.membership.revoke(lost)
        await bob.membership.revoke(lost, network_key=network_key)
        with pytest.raises(NotAllowedError):
            await bob.membership.revoke(lost)
        assert bob.members() == {"bob"}
        assert await bob.files() == {"munki/before"}
        async with peer_node(tmp_path / "c", "cid") as cid:
            await admit(bob, cid, role="admin")
            assert await cid.files() == {"munki/before"}
            await bob.membership.set(cid.id, role="admin", network_key=network_key)
            assert member(bob, cid).admitted_by == bob.catalog.network
            with pytest.raises(NotAllowedError):
                await bob.membership.remove(cid.id)


async def test_an_admins_node_replaces_its_key_by_itself(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "b", "bob") as bob:
        async with peer_node(tmp_path / "a", "ann") as ann:
            await ann.create_share("munki")
            await ann.publish("munki", "before")
            await admit(ann, bob)
            await all_linked(ann, bob)
            former = ann.id
            new = await ann.membership.rotate(None)
            assert SigningKey.load(tmp_path / "a" / "node.key").id == new != former
            assert not next_key_path(tmp_path / "a" / "node.key").exists()
            assert ann.members() == {"ann", "bob"}
            with pytest.raises(NotAllowedError):
                await ann.publish("munki", "by the former key")
        async with peer_node(tmp_path / "a", "ann") as ann:
            assert ann.id == new
            await all_linked(ann, bob)
            await ann.publish_and_wait("munki", "after", bob)
            assert await bob.files() == {"munki/before", "munki/after"}
            await until(lambda: bob.hash() == ann.hash(), what="the end of the former key at bob")
            assert former not in bob.catalog.replica.trust.members(bob.clock())
            await ann.membership.set(bob.id, role="mirror")


async def test_any_other_node_needs_a_token_that_replaces_it(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann:
        async with peer_node(tmp_path / "b", "bob") as bob, peer_node(tmp_path / "c", "cid") as cid:
            await ann.create_share("munki")
            await bob.membership.join(await ann.membership.invite(role="publisher", paths=["pkgs"], life_s=86_400, networks=["10.4.0.0/16"]))
            await admit(ann, cid)
            await all_linked(ann, bob, cid)
            await bob.publish_and_wait("munki", "pkgs/before", ann)
            with pytest.raises(NotAllowedError):
                await bob.membership.rotate(None)
            assert not next_key_path(tmp_path / "b" / "node.key").exists()
            with pytest.raises(ConflictError, match=r"not for bob") as refused:
                await bob.membership.rotate(await ann.membership.invite(role="publisher"))
            assert refused.value.error_code == "other-node"
            token = await ann.membership.invite(replaces=bob.id)
            former = bob.id
            new = await bob.membership.rotate(token)
            rights = changes.Rights(Role.PUBLISHER, paths=("pkgs",), life_s=86_400, networks=("10.4.0.0/16",))
            assert changes.of_member(ann.catalog.replica.trust.members(ann.clock())[new]) == rights
            assert former not in ann.catalog.replica.trust.members(ann.clock())
            with pytest.raises((ConflictError, NotFoundError)):
                await cid.membership.rotate(token)
        async with peer_node(tmp_path / "b", "bob") as bob:
            assert bob.id == new
            await all_linked(ann, bob)
            await bob.publish_and_wait("munki", "pkgs/after", ann)
            assert await ann.files() == {"munki/pkgs/before", "munki/pkgs/after"}


@pytest.mark.parametrize("configured", ["cid", "cid-anew"])
async def test_a_token_that_replaces_another_node_is_refused_by_that_name_and_stays_good(tmp_path: Path, configured: str) -> None:
    """Also where the configuration calls this node otherwise than the network does: nobody takes another's place by mistake."""
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        async with peer_node(tmp_path / "c", "cid") as cid:
            await admit(ann, bob)
            await admit(ann, cid)
            token = await ann.membership.invite(replaces=bob.id)
        async with peer_node(tmp_path / "c", configured) as cid:
            await all_linked(ann, bob, cid)
            with pytest.raises(ConflictError, match=r"not for cid") as refused:
                await cid.membership.rotate(token)
            assert refused.value.error_code == "other-node"
            assert ann.members() == {"ann", "bob", "cid"}
        former = bob.id
        assert await bob.membership.rotate(token) != former


async def test_a_rotation_that_was_interrupted_ends_with_one_key_that_is_a_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a" / "node.key"
    async with peer_node(tmp_path / "a", "ann") as ann:
        monkeypatch.setattr("replicad.crypto.keys.take_over", _crash)
        with pytest.raises(_CrashError):
            await ann.membership.rotate(None)
        old, new = SigningKey.load(file), SigningKey.load(next_key_path(file))
        members = ann.catalog.replica.trust.members(ann.clock())
        assert members.keys() == {new.id}
    monkeypatch.undo()
    assert finish(file, old, {old.id, new.id}).id == old.id, "granted, not decided: the former goes on"
    assert finish(file, old, {old.id}).id == old.id
    assert SigningKey.load(file).id == old.id
    assert finish(file, old, members).id == new.id, "decided: the new one takes its place"
    assert SigningKey.load(file).id == new.id
    next_key_path(file).write_text("half a ke")
    assert finish(file, new, members).id == new.id


class _CrashError(Exception):
    pass


def _crash(*_: object) -> None:
    raise _CrashError
