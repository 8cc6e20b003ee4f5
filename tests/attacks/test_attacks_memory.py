"""What a member makes up without end: every table that a peer's words reach stays bounded, and the honest work goes on."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from replicad.crypto.keys import SigningKey
from replicad.crypto.session import nonce
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.records import Envelope
from replicad.net.dialer import JOIN_PATH
from replicad.net.link import PINGS_MAX, LinkConfig
from replicad.protocol.gossip import heads
from replicad.protocol.gossip.heads import Head, Presence
from replicad.protocol.joining import Asked, Door, make_request
from replicad.protocol.wire import Eager, End, Frontier, Heads, Pull, Records, encode
from replicad.server.listening import open_tcp, peers_runner
from replicad.server.peers.join import JOINS_AT_ONCE
from replicad.services.gossip import service as gossip_service
from replicad.services.membership.admitting import APPROVALS_AWAITED_MAX
from support.peer_node import PeerNode, admit, entry, peer_node
from support.villain import appears, forge, linked, named, stamp, tell
from support.waiting import until


@asynccontextmanager
async def two(tmp_path: Path, config: LinkConfig | None = None) -> AsyncIterator[tuple[PeerNode, PeerNode]]:
    """An admin and a publisher of everything, with a share."""
    async with peer_node(tmp_path / "a", "ann", link_config=config) as ann, peer_node(tmp_path / "e", "eve") as eve:
        await ann.create_share("munki")
        await admit(ann, eve)
        await until(lambda: "munki" in eve.catalog.replica.trust.shares(), what="the share")
        await linked(eve, ann)
        yield ann, eve


def node_id() -> NodeId:
    return NodeId(secrets.token_bytes(32))


async def test_made_up_origins_shares_and_heads_leave_no_trace(tmp_path: Path) -> None:
    async with two(tmp_path) as (ann, eve):
        id_, core = ann.catalog.network, ann.gossip._core
        assert core is not None
        lines = {node_id(): tuple(End(stamp(), number + 1, RecordId(secrets.token_bytes(32))) for number in range(60)) for _ in range(150)}
        shares = [f"share{number}" for number in range(200)]
        digest = Digest(secrets.token_bytes(32))
        head = Head(eve.id, "", stamp(), 1, 0, 30_000, digest)
        forged = [heads.sign(eve.key, id_, msgspec.structs.replace(head, share=share)) for share in shares]
        tell(
            eve,
            ann,
            Frontier("munki", lines, whole=True, reply=True),
            Heads(tuple(forged), (0,) * len(forged)),
            *(Eager(tuple(node_id() for _ in range(1000)), wanted=False) for _ in range(6)),
            *(forge(eve.key, id_, share, entry("x")) for share in shares),
            *(Pull(number + 1, shares[number], node_id(), {}) for number in range(100)),
            forge(eve.key, id_, "munki", entry("honest")),
        )
        await appears(ann, "munki/honest")
        assert set(ann.catalog.replica.chains._trees) == {"", "munki"}
        assert {kept.head.share for kept in ann.standing.kept()} <= {"", "munki"}
        assert not core._pulls._sides[eve.id].wanted
        assert len(core._routes._declined_by[eve.id]) <= 4096
        tell(eve, ann, Records(tuple(Envelope("entry", b"", node_id(), bytes(64)) for _ in range(1000))))
        await named(ann, eve)
        assert set(core._routes._parents) <= {ann.id, eve.id, id_}


async def test_a_chain_that_branches_without_end_stays_bounded_and_its_author_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each branch costs the victim memory, and a cut must name where the branches end: more than 978 of them do not fit into one record."""
    monkeypatch.setattr("replicad.protocol.chains.RUNS_MAX", 1200)
    async with two(tmp_path) as (ann, eve):
        await eve.publish_and_wait("munki", "before", ann)
        branches = [forge(eve.key, ann.catalog.network, "munki", entry(f"evil{number}")) for number in range(1300)]
        tell(eve, ann, *(Records(tuple(branches[start : start + 650])) for start in (0, 650)))
        tree = ann.catalog.replica.chains._trees["munki"][eve.id]
        await until(lambda: len(tree.runs) == 1200, what="the branches")
        await ann.publish("munki", "meanwhile")
        await ann.membership.remove(eve.id)
        assert ann.members() == {"ann"}
        assert {"munki/before", "munki/meanwhile"} <= await ann.files(), "what was there first still counts"
        assert len(tree.runs) == 1200


async def test_what_waits_to_be_stored_holds_back_who_sends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty messages and records of empty payload, too: what they take in memory counts."""
    monkeypatch.setattr(gossip_service, "BACKLOG_BYTES", 1 << 18)
    async with two(tmp_path) as (ann, eve):
        link = ann.table.get(eve.id)
        assert link is not None
        for message in (Records(()), Records((Envelope("entry", b"", eve.id, bytes(64)),) * 100)):
            for _ in range(gossip_service.STORES_AT_ONCE):
                await ann.gossip._store_slots.acquire()
            taken = 0
            while (waiting := ann.gossip._heard(link, message)) is None:
                taken += 1
                assert taken < 1000, "it takes more and more"
            for _ in range(gossip_service.STORES_AT_ONCE):
                ann.gossip._store_slots.release()
            await waiting


async def test_addresses_that_nobody_can_dial_end_nothing(tmp_path: Path) -> None:
    evil = ("ftp://x", "https://a..b:1", f"https://{'a' * 70}:1", "https://[::1", "https://\u0661.example:1", "https://x:99999", "https://u@h:1", "")
    async with two(tmp_path) as (ann, eve):
        for number in range(2):
            urls = evil[number::2] if number else (*evil[:7], eve.url)
            forged = heads.sign(eve.key, ann.catalog.network, Head(eve.id, "", stamp(), 1, 0, 30_000, ann.hash(), presence=Presence(urls=urls)))
            tell(eve, ann, Heads((forged,), (0,)))
            await until(lambda urls=urls: set(urls) <= set(ann.standing.address(eve.id)[0]), what="the head")  # type: ignore[misc]
            probe = ann.links._probes[eve.id]
            await until(lambda urls=urls, probe=probe: set(urls) <= set(probe.urls) and not probe.busy and probe.next_s, what="all of them to be tried")  # type: ignore[misc]
        link = eve.table.get(ann.id)
        assert link is not None
        link.close("the villain goes, and its addresses are dialled")
        await until(lambda: ann.table.get(eve.id) is not link, what="the end of the link")
        await linked(eve, ann)
        await eve.publish_and_wait("munki", "honest", ann)
        assert all(not task.done() for task in ann.tasks)


NESTED = b"\x91" * 100_000


@pytest.mark.parametrize(
    "frame",
    [
        b"\x94\xa7records\x90\x00\xc2" + NESTED,
        b"\x93\xa4ping\x01" + NESTED,
        b"\x92\xa5novel" + NESTED,
        b"\x92\x01\x01",
        bytes(1000),
        encode(Eager((NodeId(bytes(32)),) * 1025, wanted=False)),
        encode(Pull(1, "munki", NodeId(bytes(32)), {Stamp(number): 1 for number in range(65)})),
    ],
    ids=["nested", "nested extra", "nested novelty", "nameless", "zeroes", "long list", "long map"],
)
async def test_a_frame_that_is_no_message_ends_its_link_and_names_its_sender(tmp_path: Path, frame: bytes) -> None:
    async with two(tmp_path) as (ann, eve):
        link = eve.table.get(ann.id)
        assert link is not None
        await link._frames.send(frame)
        assert await named(ann, eve) == ["bad-frame"]
        await linked(eve, ann)
        await eve.publish_and_wait("munki", "honest", ann)


async def test_a_head_and_a_record_of_nested_brackets_are_offences(tmp_path: Path) -> None:
    async with two(tmp_path) as (ann, eve):
        nested = b'{"share":"munki","x":' + b"[" * 60_000
        tell(eve, ann, Heads((Envelope("head", nested, eve.id, bytes(64)),), (0,)))
        assert await named(ann, eve) == ["bad-head"]
        await linked(eve, ann)
        tell(eve, ann, forge(eve.key, ann.catalog.network, "munki", entry("a"), instead=(b'"supersedes":[]', b'"supersedes":' + b"[" * 60_000)))
        assert await named(ann, eve, times=2) == ["bad-json", "bad-head"]
        await linked(eve, ann)
        await eve.publish_and_wait("munki", "honest", ann)


async def test_pings_that_nobody_answers_are_not_collected(tmp_path: Path) -> None:
    async with two(tmp_path, LinkConfig(ping_s=0.01)) as (ann, eve):
        link = ann.table.get(eve.id)
        assert link is not None
        link._measure = lambda _number: None  # type: ignore[method-assign]
        await until(lambda: link._ping_number > 3 * PINGS_MAX, what="many pings")
        assert len(link._pings) <= PINGS_MAX


async def test_strangers_who_wait_for_approval_leave_room_for_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.services.membership.admitting.APPROVAL_WAIT_S", 600.0)
    async with (
        peer_node(tmp_path / "a", "ann") as ann,
        peer_node(tmp_path / "b", "bob") as bob,
        aiohttp.ClientSession() as client,
        asyncio.TaskGroup() as group,
    ):
        strangers = [group.create_task(_ask_to_join(client, ann, f"eve{number}")) for number in range(3 * JOINS_AT_ONCE)]
        await until(lambda: sum(stranger.done() for stranger in strangers) == 3 * JOINS_AT_ONCE - APPROVALS_AWAITED_MAX, what="the others to be answered")
        await bob.membership.join(await ann.membership.invite())
        assert ann.members() == {"ann", "bob"}
        for stranger in strangers:
            stranger.cancel()


async def _ask_to_join(client: aiohttp.ClientSession, node: PeerNode, name: str) -> int:
    key = SigningKey.generate()
    body = make_request(key, Asked(key.id, name, Door(key.id, ("https://e:1",), None), None, None, None, nonce()), None)
    async with client.post(node.url + JOIN_PATH, data=body, ssl=False) as answer:
        return answer.status


async def test_requests_to_join_by_nodes_without_number_fill_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.services.membership.admitting.APPROVAL_WAIT_S", 0.0)
    async with peer_node(tmp_path / "a", "ann") as ann, aiohttp.ClientSession() as client:
        for number in range(70):
            assert await _ask_to_join(client, ann, f"eve{number}") == 200
        assert len(await ann.membership.pending()) == 64
        for bad in (b"\x94\xc4\x00\xc4\x40" + bytes(64) + b"\xc4\x00" + b"\x91" * 20_000, b"", bytes(100)):
            async with client.post(ann.url + JOIN_PATH, data=bad, ssl=False) as answer:
                assert (answer.status, (await answer.json())["code"]) == (400, "bad-join")
        assert ann.members() == {"ann"}


async def test_connections_that_say_nothing_make_room_and_more_than_the_bound_are_cut_off(unused_tcp_port: int) -> None:
    """Strangers may knock as often as they like: who has asked something keeps its connection, and the door never has more than its bound."""

    async def here(_: web.Request) -> web.Response:
        return web.Response(text="here")

    application = web.Application()
    application.add_routes([web.get("/", here)])
    runner = peers_runner(application)

    async def knock() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
        stack.callback(writer.close)
        return reader, writer

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
        return answer + await reader.readexactly(4)

    async with AsyncExitStack() as stack:
        await open_tcp(stack, runner, host="127.0.0.1", port=unused_tcp_port, key="peers.listen", connections_max=4)
        server = runner.server
        assert server is not None
        busy = [await knock() for _ in range(2)]
        for one in busy:
            assert (await ask(*one)).endswith(b"here")
        silent = [await knock() for _ in range(20)]
        for reader, _ in silent[:-2]:
            assert await reader.read() == b""
        await until(lambda: len(server.connections) <= 4, what="the end of those that were closed")
        late = [await knock(), await knock()]
        for one in (*busy, *late):
            assert (await ask(*one)).endswith(b"here")
        reader, _ = await knock()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        await until(lambda: len(server.connections) == 4, what="the end of the one cut off")
        for one in (*busy, *late):
            assert (await ask(*one)).endswith(b"here")
