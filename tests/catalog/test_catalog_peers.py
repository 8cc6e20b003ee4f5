"""Heads, invitations, requests, offences, small values: kept, bounded, there after a restart."""

from __future__ import annotations

import asyncio

import pytest
from catalog_world import World, key

from replicad.catalog import Blame, Catalog, HeadRow, Invite, Pending
from replicad.errors import ConflictError
from replicad.model.events import PeerBlamed
from replicad.model.ids import Digest
from replicad.model.records import Envelope

SECRET = Digest(bytes(32))
ANN, BOB, CID = (key(name).id for name in ("ann", "bob", "cid"))


def head(name: str, text: bytes) -> Envelope:
    return Envelope("head", text, key(name).id, bytes(64))


async def test_the_newest_head_of_each_node_and_share_is_kept(world: World) -> None:
    async with world.founded() as ann:
        await ann.save_heads([(BOB, "munki", head("bob", b"1")), (BOB, "", head("bob", b"2")), (CID, "munki", head("cid", b"3"))])
        await ann.save_heads([(BOB, "munki", head("bob", b"4"))])
    async with world.open("ann") as ann:
        kept = {HeadRow(BOB, "munki", head("bob", b"4")), HeadRow(BOB, "", head("bob", b"2")), HeadRow(CID, "munki", head("cid", b"3"))}
        assert set(await ann.heads()) == kept
        await ann.forget_heads(BOB)
        assert [row.node for row in await ann.heads()] == [CID]


async def test_an_invitation_admits_one_key_as_often_as_it_asks(world: World) -> None:
    async with world.founded() as ann:
        await ann.add_invite(SECRET, b'{"role":"mirror"}', 1000)
        with pytest.raises(ConflictError):
            await ann.add_invite(SECRET, b"{}", 2000)
        assert await ann.invite(SECRET) == Invite(SECRET, b'{"role":"mirror"}', 1000, None)
        async with asyncio.TaskGroup() as group:
            tasks = {node: group.create_task(ann.use_invite(SECRET, node)) for node in (BOB, CID)}
        assert sorted(task.result() for task in tasks.values()) == [False, True]
        winner = next(node for node, task in tasks.items() if task.result())
    async with world.open("ann") as ann:
        assert [await ann.use_invite(SECRET, node) for node in (winner, winner, ANN)] == [True, True, False]
        invite = await ann.invite(SECRET)
        assert invite
        assert invite.used_by == winner
        assert (await ann.invite(Digest(b"\1" * 32)), await ann.use_invite(Digest(b"\1" * 32), BOB)) == (None, False)


async def test_an_invitations_use_is_durable(world: World) -> None:
    async with world.founded() as ann:
        await ann.add_invite(SECRET, b"{}", 1000)
        told: list[str] = []
        await ann._database.write(lambda connection: connection.set_trace_callback(told.append))
        await ann.use_invite(SECRET, BOB)
        assert "PRAGMA synchronous = FULL" in told


async def test_requests_are_bounded_and_the_newest_stay(world: World) -> None:
    async with world.founded() as ann:
        nodes = [key(f"node {number}").id for number in range(70)]
        for number, node in enumerate(nodes):
            await ann.add_pending(node, b"%d" % number, number)
        waiting = await ann.pending()
        assert waiting == [Pending(node, b"%d" % number, number) for number, node in enumerate(nodes)][6:]
        await ann.add_pending(nodes[10], b"again", 100)
        await ann.drop_pending(nodes[20])
        waiting = await ann.pending()
        assert (len(waiting), waiting[-1]) == (63, Pending(nodes[10], b"again", 100))


async def test_offences_are_kept_told_and_bounded(world: World) -> None:
    async with world.founded() as ann:
        for number in range(105):
            await ann.blame(BOB, "bad-chunk", f"chunk {number}", number)
        await ann.blame(CID, "bad-frame", "x" * 10_000, 7)
        mine = await ann.blames(BOB)
        assert mine == [Blame(BOB, "bad-chunk", f"chunk {number}", number) for number in range(104, 4, -1)]
        assert [(blame.node, len(blame.detail)) for blame in await ann.blames(CID)] == [(CID, 500)]
        assert len(await ann.blames()) == 101
        assert world.events["ann"][-2] == PeerBlamed(BOB, "bad-chunk", "chunk 104")


async def test_small_values(world: World) -> None:
    async def change(catalog: Catalog) -> list[str | None]:
        await catalog.set_meta("a", "1")
        await catalog.set_meta("network", "2")
        await catalog.set_meta("a", "3")
        return [await catalog.meta(name) for name in ("a", "network", "b")]

    async with world.founded() as ann:
        assert await change(ann) == ["3", "2", None]
    async with world.open("ann") as ann:
        assert ann.network == world.network.id
