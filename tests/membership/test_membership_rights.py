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
from replicad.services.membership import changes
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
        bob.links.table.close_all("to be found missing")
        ann.clock.ahead_ms += 700_000
        await until(lambda: "bob" not in ann.members(), what="the end of the grant")
        await until(lambda: not ann.linked(bob), what="its link to end")


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
        assert bob.members() == {"bob"}
        assert await bob.files() == {"munki/before"}
        async with peer_node(tmp_path / "c", "cid") as cid:
            await admit(bob, cid)
            assert await cid.files() == {"munki/before"}
