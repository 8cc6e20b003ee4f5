"""Joining with tokens between real nodes: what it brings, how it is repeated, and every way in which it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from replicad.errors import BusyError, ConflictError, InputError, NotAllowedError
from replicad.net.dialer import JOIN_PATH
from replicad.protocol import joining
from replicad.protocol.joining import Asked
from support.peer_node import PeerNode, admit, all_linked, peer_node
from support.waiting import until

pytestmark = pytest.mark.sockets


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
async def test_a_node_joins_and_has_everything_when_join_returns(tmp_path: Path, tls: bool) -> None:
    async with peer_node(tmp_path / "a", "ann", tls=tls) as ann, peer_node(tmp_path / "b", "bob", tls=tls) as bob:
        await ann.create_share("munki")
        await ann.publish("munki", "Firefox.pkg", "Chrome.pkg")
        await admit(ann, bob)
        assert bob.members() == {"ann", "bob"}
        assert await bob.files() == {"munki/Firefox.pkg", "munki/Chrome.pkg"}
        assert bob.hash("munki") == ann.hash("munki")
        await all_linked(ann, bob)
        await bob.publish_and_wait("munki", "Safari.pkg", ann)


@pytest.mark.parametrize("damage", ["cut", "letter", "prefix", "empty"])
async def test_a_mangled_token_is_told_from_a_wrong_one(tmp_path: Path, damage: str) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        token = await ann.membership.invite()
        mangled = {"cut": token[:-3], "letter": token[:40] + ("A" if token[40] != "A" else "B") + token[41:], "prefix": token[5:], "empty": ""}[damage]
        with pytest.raises(InputError) as caught:
            await bob.membership.join(mangled)
        assert caught.value.error_code == "token-mangled"
        assert bob.members() == {"bob"}


async def test_a_token_admits_one_key_and_repeating_is_harmless(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob, peer_node(tmp_path / "c", "cid") as cid:
        token = await ann.membership.invite()
        await bob.membership.join(token)
        records = ann.hash()
        await until(lambda: bob.standing.in_sync(ann.id, ""), what="ann's head at bob")
        await bob.membership.join("\n".join([token[:30], token[30:]]))
        assert ann.hash() == records
        with pytest.raises(ConflictError) as caught:
            await cid.membership.join(token)
        assert caught.value.error_code == "invite-used"
        await ann.membership.remove(bob.id)
        with pytest.raises((NotAllowedError, ConflictError)):
            await bob.membership.join(token)
        assert ann.members() == {"ann"}


async def test_a_node_never_admits_itself_and_a_member_is_not_admitted_twice(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:

        async def refused(node: PeerNode, asking: Awaitable[object]) -> None:
            records = ann.hash()
            with pytest.raises(ConflictError, match="this node is a member of that network already") as caught:
                await asking
            assert (caught.value.error_code, node.hash(), ann.hash()) == ("is-member", records, records)

        await refused(ann, ann.membership.join(await ann.membership.invite()))
        await refused(ann, ann.membership.request(ann.url, ann.id))
        with pytest.raises(InputError, match="the node itself"):
            await ann.membership.check(ann.id)
        await admit(ann, bob, role="mirror")
        await all_linked(ann, bob)
        await until(lambda: bob.hash() == ann.hash(), what="bob's grant at bob")
        await refused(bob, bob.membership.join(await ann.membership.invite(role="admin")))

        # Removed, and nobody may tell bob so: a new token admits him again.
        await ann.membership.remove(bob.id)
        await until(lambda: not bob.table.all(), what="no link to a node that was removed")
        await bob.membership.join(await ann.membership.invite())
        assert ann.members() == bob.members() == {"ann", "bob"}


async def test_an_inviter_refuses_its_own_key(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann:
        token = joining.read_token(await ann.membership.invite())
        asked = Asked(ann.id, "ann", token.members[0], token.network, ann.id, token.id, bytes(32))
        with pytest.raises(ConflictError) as caught:
            await ann.membership.answer_join(joining.make_request(ann.key, asked, token))
        assert caught.value.error_code == "is-member"


async def test_a_second_joining_is_told_that_one_is_under_way(tmp_path: Path) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    @web.middleware
    async def slow(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        if request.path == JOIN_PATH:
            asked.set()
            await go_on.wait()
        return await handler(request)

    async with (
        peer_node(tmp_path / "a", "ann", wrap=lambda app: app.middlewares.append(slow)) as ann,
        peer_node(tmp_path / "b", "bob") as bob,
    ):
        token = await ann.membership.invite()
        async with asyncio.TaskGroup() as group:
            group.create_task(bob.membership.join(token))
            await asked.wait()
            for joining_too in (bob.membership.join(token), bob.membership.request(ann.url, ann.id)):
                with pytest.raises(BusyError, match="joining a network"):
                    await joining_too
            go_on.set()
        assert bob.members() == {"ann", "bob"}


@pytest.mark.parametrize("site", ["two\nlines", "\x1b[2J", "x" * 64])
async def test_a_site_is_a_printable_label(tmp_path: Path, site: str) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann:
        expected = "site: at most 63 characters, all of them printable"
        with pytest.raises(InputError, match=expected):
            await ann.membership.invite(site=site)
        with pytest.raises(InputError, match=expected):
            await ann.membership.set(ann.id, site=site)


async def test_an_expired_token_says_so(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        token = await ann.membership.invite(expires_s=60)
        ann.clock.ahead_ms = 61_000
        with pytest.raises(NotAllowedError) as caught:
            await bob.membership.join(token)
        assert caught.value.error_code == "invite-expired"


async def test_a_token_whose_maker_is_in_another_network_now(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob, peer_node(tmp_path / "c", "cid") as cid:
        token = await bob.membership.invite()
        await admit(ann, bob)
        with pytest.raises(ConflictError) as caught:
            await cid.membership.join(token)
        assert caught.value.error_code == "other-network"


async def test_another_listed_member_relays(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann", door_open=False) as ann, peer_node(tmp_path / "b", "bob") as bob, peer_node(tmp_path / "c", "cid") as cid:
        await admit(bob, ann, role="admin")
        await all_linked(ann, bob)
        await until(lambda: ann.table.get(bob.id).reachable, what="bob's door")  # type: ignore[union-attr]
        await cid.membership.join(await ann.membership.invite())
        assert bob.members() == {"ann", "bob", "cid"}


async def test_content_of_ones_own_moves_when_told_to_merge_only(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        await ann.create_share("munki")
        await bob.create_share("munki")
        await bob.publish("munki", "mine")
        token = await ann.membership.invite(role="publisher")
        with pytest.raises(ConflictError) as caught:
            await bob.membership.join(token)
        assert caught.value.error_code == "has-content"
        assert await bob.files() == {"munki/mine"}
        with pytest.raises(NotAllowedError):
            await bob.membership.join(await ann.membership.invite(role="mirror"), merge=True)
        await bob.membership.join(token, merge=True)
        await until(lambda: ann.hash("munki") == bob.hash("munki"), what="what bob had")
        assert await ann.files() == {"munki/mine"}


async def test_a_request_without_token_waits_for_approval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.services.membership.admitting.APPROVAL_WAIT_S", 0.05)
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        assert await bob.membership.request(ann.url, ann.id) == "pending"
        (waiting,) = await ann.membership.pending()
        assert (waiting.node, waiting.name) == (bob.id, "bob")
        assert ann.membership.words(bob.id) == bob.membership.words(ann.id)
        await ann.membership.approve(bob.id)
        assert await bob.membership.request(ann.url, ann.id) == "member"
        assert await ann.membership.pending() == []
        assert bob.members() == {"ann", "bob"}


async def test_rights_widen_narrow_and_end(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob:
        await ann.create_share("munki")
        await ann.create_share("jamf")
        await admit(ann, bob)
        await bob.publish_and_wait("munki", "before", ann)
        await ann.membership.set(bob.id, role="mirror", shares=["munki"])
        await until(lambda: bob.hash() == ann.hash(), what="the change at bob")
        with pytest.raises(NotAllowedError):
            await bob.publish("munki", "after")
        assert await ann.files() == {"munki/before"}
        await until(lambda: ann.standing.address(bob.id)[0], what="bob's address")
        steps = await ann.membership.check(bob.id)
        assert all(step.ok for step in steps), steps
        with pytest.raises(ConflictError):
            await ann.membership.set(ann.id, role="mirror")
        with pytest.raises(ConflictError):
            await ann.membership.remove(ann.id)
        with pytest.raises(NotAllowedError):
            await bob.membership.invite()
