"""How a node learns that it is no member any more: from those who refuse it, who hand it the records up to its end, and nothing that came later."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from replicad.crypto.keys import SigningKey
from replicad.errors import ConflictError, NotAllowedError, PeerError
from replicad.net import links as links_module
from replicad.protocol.handshake import Identity
from support.peer_node import PeerNode, admit, all_linked, peer_node
from support.waiting import until

pytestmark = pytest.mark.sockets


def shares(node: PeerNode) -> set[str]:
    return set(node.catalog.replica.trust.shares())


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
async def test_a_linked_node_learns_at_once_that_it_is_no_member(tmp_path: Path, tls: bool) -> None:
    async with peer_node(tmp_path / "a", "ann", tls=tls) as ann, peer_node(tmp_path / "b", "bob", tls=tls) as bob:
        await ann.create_share("munki")
        await admit(ann, bob)
        await ann.membership.remove(bob.id)
        await until(lambda: bob.members() == {"ann"}, what="the cut at bob")
        with pytest.raises(NotAllowedError):
            await bob.publish("munki", "late")


async def test_a_node_that_was_away_learns_its_end_and_nothing_later(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann:
        async with peer_node(tmp_path / "b", "bob", door_open=False) as bob:
            await admit(ann, bob)
        await ann.create_share("before")
        await ann.membership.remove(bob.id)
        await ann.create_share("after")
        async with peer_node(tmp_path / "b", "bob", door_open=False) as bob:
            await until(lambda: bob.members() == {"ann"}, what="the cut at bob")
            assert shares(bob) == {"before"}
            assert not ann.table.all()


async def test_the_authority_of_an_admin_whom_it_never_heard_of_comes_along(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "c", "cid") as cid:
        async with peer_node(tmp_path / "b", "bob", door_open=False) as bob:
            await admit(ann, bob)
        await admit(ann, cid, role="admin")
        await all_linked(ann, cid)
        await cid.membership.remove(bob.id)
        await until(lambda: bob.id not in ann.catalog.replica.trust.members(ann.clock()), what="the cut at ann")
        async with peer_node(tmp_path / "b", "bob", door_open=False) as bob:
            await until(lambda: bob.members() == {"ann", "cid"}, what="the cut at bob")


async def test_only_the_holder_of_the_key_is_told_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann:
        async with peer_node(tmp_path / "b", "bob", door_open=False) as bob:
            await admit(ann, bob)
        await until(lambda: not ann.table.all(), what="the end of bob's link")
        await ann.membership.remove(bob.id)
        told: list[object] = []
        tell = ann.table.parting
        ann.table.parting = lambda node: (told.append(node), tell(node))[1]

        async def knock(key: SigningKey) -> None:
            """Ask for a link, and wait until it ends."""
            link = await ann.links.dialer.link(ann.url, Identity(key, ann.catalog.network, None))
            heard: list[object] = []
            async with asyncio.timeout(20):
                reason = await link.run(lambda _link, message: heard.append(message))
            assert (len(heard), "not a member" in reason) == (1, True)

        with pytest.raises(PeerError, match="not a member"):
            await knock(SigningKey.generate())
        assert told == []
        await knock(bob.key)
        with pytest.raises(PeerError, match="not a member"):
            await knock(bob.key)
        assert told == [bob.id]
        monkeypatch.setattr(links_module, "TELL_AGAIN_S", 0.0)
        await knock(bob.key)
        assert told == [bob.id, bob.id]


async def test_the_only_admin_stays_also_in_a_network_of_one(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann:
        for end in (ann.membership.remove, ann.membership.revoke):
            with pytest.raises(ConflictError) as caught:
                await end(ann.id)
            assert (caught.value.error_code, ann.members()) == ("last-admin", {"ann"})
