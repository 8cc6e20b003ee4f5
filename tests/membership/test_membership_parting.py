"""How a node learns that it is no member any more: from those who refuse it, who hand it the records up to its end, and nothing that came later."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from replicad.crypto.keys import SigningKey
from replicad.errors import ConflictError, NotAllowedError, PeerError
from replicad.model.manifest import Manifest
from replicad.model.records import Tombstone
from replicad.net import links as links_module
from replicad.protocol.handshake import Identity
from support.peer_node import PeerNode, admit, all_linked, entry, peer_node
from support.waiting import until

pytestmark = pytest.mark.sockets


async def publish_unseen(node: PeerNode, path: str, content: bytes = b"x") -> None:
    """Publish with content that is here, while nobody is linked."""
    assert not node.table.all()
    body = entry(path, content)
    manifest = Manifest.implied(body.content, body.size)
    assert manifest is not None
    await node.catalog.author("munki", [body], held=[manifest])


async def refused_without_merge(node: PeerNode, token: str, count: str) -> None:
    with pytest.raises(ConflictError, match=count) as caught:
        await node.membership.join(token)
    assert caught.value.error_code == "has-content"


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


async def test_what_nobody_had_seen_of_a_removed_node_is_not_lost_when_it_comes_back(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann:
        async with peer_node(tmp_path / "b", "bob", door_open=False) as bob:
            await ann.create_share("munki")
            await admit(ann, bob)
            await bob.publish_and_wait("munki", "seen", ann)
            bob.table.stop("away")
            await until(lambda: not ann.table.all() and not bob.table.all(), what="the end of the link")
            for path, content in (("unseen", b"1"), ("unseen", b"2"), ("newer-there", b"3"), ("removed", b"4")):
                await publish_unseen(bob, path, content)
            await bob.catalog.author("munki", [Tombstone("removed", "prod")])
        await ann.membership.remove(bob.id)
        await ann.publish("munki", "newer-there", content=b"5")
        async with peer_node(tmp_path / "b", "bob", door_open=False) as bob:
            await until(lambda: bob.members() == {"ann"}, what="the cut at bob")
            token = await ann.membership.invite(role="publisher")
            await refused_without_merge(bob, token, "2 files")
            assert ann.members() == {"ann"}
            assert await bob.files() == {"munki/seen"}
            await bob.membership.join(token, merge=True)
            await until(lambda: ann.hash("munki") == bob.hash("munki"), what="bob's records at ann")
            found = {listed.path: listed.content for listed in await ann.catalog.entries("munki")}
            assert found == {"seen": entry("", b"x").content, "unseen": entry("", b"2").content, "newer-there": entry("", b"5").content}
            assert await bob.catalog.unseen() == []


async def test_a_node_that_hears_of_its_removal_by_coming_back_keeps_what_it_published_since(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        await ann.create_share("munki")
        await admit(ann, bob)
        ann.table.was_cut, ann.table.parting = (lambda _node: False), (lambda _node: None)
        await ann.membership.remove(bob.id)
        await until(lambda: not bob.table.all(), what="the end of the link")
        await publish_unseen(bob, "late")
        token = await ann.membership.invite(role="mirror")
        await refused_without_merge(bob, token, "1 file")
        assert ann.members() == bob.members() == {"ann", "bob"}
        await until(lambda: bob.standing.in_sync(ann.id, ""), what="ann's head at bob")
        with pytest.raises(NotAllowedError, match="munki/late"):
            await bob.membership.join(token, merge=True)
        await ann.membership.set(bob.id, role="publisher")
        await until(lambda: bob.hash() == ann.hash() and bob.standing.in_sync(ann.id, ""), what="the role at bob")
        await bob.membership.join(token, merge=True)
        await until(lambda: ann.hash("munki") == bob.hash("munki"), what="bob's records at ann")
        assert await ann.files() == {"munki/late"}
        assert await bob.catalog.unseen() == []


async def test_what_a_stolen_key_signed_is_not_brought_back(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        await ann.create_share("munki")
        await admit(ann, bob)
        ann.table.was_cut, ann.table.parting = (lambda _node: False), (lambda _node: None)
        await ann.membership.revoke(bob.id)
        await until(lambda: not bob.table.all(), what="the end of the link")
        await publish_unseen(bob, "thief")
        await bob.membership.join(await ann.membership.invite(role="publisher"))
        assert await bob.catalog.unseen() == []
        assert await ann.files() == set()
