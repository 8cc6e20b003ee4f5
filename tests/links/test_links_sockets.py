"""Links between real nodes: with and without TLS, through one-way reachability, after losses; and every way to get in that must not work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from replicad.crypto import certificate as certificates
from replicad.errors import PeerError, UnreachableError
from replicad.net import establish
from replicad.net.dialer import LINK_PATH, PING_PATH, SOCKET_FRAME_BYTES_MAX
from replicad.net.tls import client_context, server_context
from replicad.server.peers import application
from replicad.server.peers import join as join_door
from replicad.server.peers import link as link_door
from support.peer_node import PeerNode, admit, all_linked, peer_node
from support.waiting import until

pytestmark = pytest.mark.sockets


@asynccontextmanager
async def two_members(tmp_path: Path, *, tls: bool = True) -> AsyncIterator[tuple[PeerNode, PeerNode]]:
    async with peer_node(tmp_path / "a", "ann", tls=tls) as ann, peer_node(tmp_path / "b", "bob", tls=tls) as bob:
        await ann.create_share("munki")
        await admit(ann, bob)
        await all_linked(ann, bob)
        yield ann, bob


# -- how it works -----------------------------------------------------------------------------------------------------------------------------------------


async def test_tls_and_plain_members_mix(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob", tls=False) as bob, peer_node(tmp_path / "c", "cid") as cid:
        await ann.create_share("munki")
        await admit(ann, bob, cid)
        await all_linked(ann, bob, cid)
        for node in (ann, bob, cid):
            await node.publish_and_wait("munki", node.name, *(other for other in (ann, bob, cid) if other is not node))


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
async def test_a_node_whose_door_is_closed_to_the_others_gets_and_gives_everything(tmp_path: Path, tls: bool) -> None:
    async with (
        peer_node(tmp_path / "a", "ann", tls=tls) as ann,
        peer_node(tmp_path / "b", "bob", tls=tls) as bob,
        peer_node(tmp_path / "c", "hidden", tls=tls, door_open=False) as hidden,
    ):
        await ann.create_share("munki")
        await admit(ann, bob, hidden)
        await all_linked(ann, bob, hidden)
        await hidden.publish_and_wait("munki", "from within", ann, bob)
        await bob.publish_and_wait("munki", "from outside", hidden)
        assert ann.table.get(hidden.id).reachable is False  # type: ignore[union-attr]
        assert hidden.table.get(ann.id).reachable is True  # type: ignore[union-attr]


async def test_two_hidden_nodes_hear_of_each_other_through_one_that_both_reach(tmp_path: Path) -> None:
    async with (
        peer_node(tmp_path / "a", "ann") as ann,
        peer_node(tmp_path / "b", "bob", door_open=False) as bob,
        peer_node(tmp_path / "c", "cid", door_open=False) as cid,
    ):
        await ann.create_share("munki")
        await admit(ann, bob, cid)
        await until(lambda: ann.linked(bob, cid), what="links to the one that is reachable")
        await bob.publish_and_wait("munki", "one", ann, cid)
        await cid.publish_and_wait("munki", "two", ann, bob)
        await until(lambda: bob.standing.in_sync(cid.id, "munki"), what="cid's head at bob")
        assert not bob.linked(cid)
        await until(lambda: "refused" in bob.links.trouble(cid.id), what="why there is no link")


async def test_both_doors_are_found_whoever_opened_the_link(tmp_path: Path) -> None:
    async with two_members(tmp_path) as (ann, bob):
        for one, other in ((ann, bob), (bob, ann)):
            link = one.table.get(other.id)
            assert link is not None
            await until(lambda link=link: link.reachable, what="the door")
            assert (link.peer_url, link.certificate) == (other.url, other.certificate)
        await until(lambda: ann.links.skews() and bob.links.skews(), what="the clocks' difference")
        assert abs(ann.links.skews()[bob.id]) < 2_000


async def test_a_member_that_was_away_is_linked_again_and_caught_up(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann:
        await ann.create_share("munki")
        async with peer_node(tmp_path / "b", "bob") as bob:
            await admit(ann, bob)
            await all_linked(ann, bob)
            await bob.gossip.save_heads()
        await until(lambda: not ann.table.all(), what="the end of the link")
        await ann.publish("munki", "while away")
        async with peer_node(tmp_path / "b", "bob") as bob:
            await until(lambda: bob.hash("munki") == ann.hash("munki"), what="what was published meanwhile")
            assert bob.linked(ann)


async def test_a_member_with_a_new_certificate_and_a_new_port_needs_no_admin(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann:
        async with peer_node(tmp_path / "b", "bob") as bob:
            await admit(ann, bob)
            before = bob.certificate
            await until(lambda: ann.standing.address(bob.id)[1] == before, what="bob's head")
        (tmp_path / "b" / "peer.crt").unlink()
        (tmp_path / "b" / "peer.key").unlink()
        async with peer_node(tmp_path / "b", "bob") as bob:
            await until(lambda: ann.linked(bob) and ann.table.get(bob.id).reachable, what="the new door")  # type: ignore[union-attr]
            assert ann.table.get(bob.id).certificate == bob.certificate != before  # type: ignore[union-attr]


async def test_a_removed_node_loses_its_links_everywhere_at_once_and_gets_no_new_ones(tmp_path: Path) -> None:
    async with peer_node(tmp_path / "a", "ann") as ann, peer_node(tmp_path / "b", "bob") as bob, peer_node(tmp_path / "c", "cid") as cid:
        await ann.create_share("munki")
        await admit(ann, bob, cid)
        await all_linked(ann, bob, cid)
        authorization = cid.table.get(bob.id).authorize("GET", PING_PATH)  # type: ignore[union-attr]
        await ann.membership.remove(cid.id)
        await until(lambda: not cid.table.all(), what="the end of cid's links")
        await until(lambda: bob.members() == {"ann", "bob"}, what="the cut at bob")
        with pytest.raises(PeerError, match=r"no link|not a member"):
            bob.table.authenticate(authorization, "GET", PING_PATH)
        await ann.publish_and_wait("munki", "secret", bob)
        assert "not a member" in (await refusal(cid, bob)).message
        assert cid.hash("munki") != ann.hash("munki")


async def refusal(node: PeerNode, other: PeerNode) -> PeerError:
    """Why the other does not link with the node."""
    identity = node.links.identity()
    try:
        await node.links.dialer.link(other.url, identity, expect=other.id)
    except PeerError as error:
        return error
    raise AssertionError("it does")


async def test_a_link_survives_ten_renewals_under_traffic(tmp_path: Path) -> None:
    async with two_members(tmp_path, tls=False) as (ann, bob):
        opener, answerer = (ann, bob) if ann.table.get(bob.id).outgoing else (bob, ann)  # type: ignore[union-attr]
        link = opener.table.get(answerer.id)
        assert link is not None
        for epoch in range(1, 11):
            link.renew()
            await opener.publish_and_wait("munki", f"under epoch {epoch}", answerer)
            await until(lambda epoch=epoch: link.session.epoch == epoch, what="the renewal")
        assert opener.table.get(answerer.id) is link


# -- how it must not work ---------------------------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def man_in_the_middle(tmp_path: Path, target: PeerNode, *, tls_before: bool = True, tls_behind: bool = True) -> AsyncIterator[str]:
    """Somebody who terminates TLS with a certificate of his own and passes every byte on."""
    own = tmp_path / "middle"
    own.mkdir(exist_ok=True)
    certificates.ensure(own / "crt", own / "key")
    port = int(target.url.rpartition(":")[2])

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context() if tls_behind else None)
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, back_writer))
            group.create_task(copy(back_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(own / "crt", own / "key") if tls_before else None)
    try:
        yield f"http{'s' if tls_before else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("tls_before", [True, False], ids=["relay", "downgrade"])
async def test_whoever_stands_in_the_middle_is_found_out(tmp_path: Path, tls_before: bool) -> None:
    async with two_members(tmp_path) as (ann, bob), man_in_the_middle(tmp_path, ann, tls_before=tls_before) as url:
        with pytest.raises(PeerError) as caught:
            await bob.links.dialer.link(url, bob.links.identity(), expect=ann.id)
        assert caught.value.error_code == "relayed"


async def test_a_data_request_goes_to_the_pinned_certificate_only(tmp_path: Path) -> None:
    async with two_members(tmp_path) as (ann, bob), man_in_the_middle(tmp_path, ann) as url:
        link = bob.table.get(ann.id)
        assert link is not None
        await until(lambda: link.reachable, what="the door")
        with pytest.raises(PeerError, match="pinned"):
            await bob.links.dialer.ping(link, url)
        assert (await bob.links.dialer.ping(link, ann.url)).release


async def test_a_plain_request_to_a_tls_door_reaches_nothing(tmp_path: Path) -> None:
    async with two_members(tmp_path) as (ann, bob):
        with pytest.raises(UnreachableError):
            await bob.links.dialer.link(ann.url.replace("https", "http"), bob.links.identity(), expect=ann.id)


async def test_a_replayed_data_request_is_refused(tmp_path: Path) -> None:
    async with two_members(tmp_path) as (ann, bob), aiohttp.ClientSession() as client:
        headers = {"Authorization": bob.table.get(ann.id).authorize("GET", PING_PATH)}  # type: ignore[union-attr]
        statuses = []
        for _ in range(2):
            async with client.get(ann.url + PING_PATH, headers=headers, ssl=False) as answer:
                statuses.append((answer.status, (await answer.json()).get("code")))
        assert statuses == [(200, None), (401, "replay")]


async def test_requests_without_credentials_get_nothing(tmp_path: Path) -> None:
    async with two_members(tmp_path) as (ann, _bob), aiohttp.ClientSession() as client:
        for path, method in ((PING_PATH, "GET"), ("/", "GET"), ("/peer/v1/", "GET"), ("/peer/v1/join", "GET"), (LINK_PATH, "GET")):
            async with client.request(method, ann.url + path, ssl=False) as answer:
                assert answer.status in {400, 401, 404, 405}, path


@pytest.mark.parametrize("what", ["text", "garbage", "oversize", "silence"])
async def test_a_link_request_that_is_none_is_dropped(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if what == "silence":
        monkeypatch.setattr("replicad.net.establish.HANDSHAKE_TIMEOUT_S", 0.2)
    async with two_members(tmp_path) as (ann, bob), aiohttp.ClientSession() as client, client.ws_connect(ann.url + LINK_PATH, ssl=False) as websocket:
        if what == "text":
            await websocket.send_str("hello")
        elif what == "garbage":
            await websocket.send_bytes(b"\x00" * 500)
        elif what == "oversize":
            await websocket.send_bytes(bytes(SOCKET_FRAME_BYTES_MAX + 1))
        async with asyncio.timeout(10):
            while not websocket.closed:
                await websocket.receive()
        assert ann.linked(bob)
        assert len(ann.table.all()) == 1


async def test_an_oversize_frame_ends_an_established_link_and_nothing_else(tmp_path: Path) -> None:
    async with two_members(tmp_path) as (ann, bob):
        link = ann.table.get(bob.id)
        assert link is not None
        await link._frames.send(bytes(SOCKET_FRAME_BYTES_MAX + 1))
        await until(lambda: link.closed, what="the end of the link")
        await all_linked(ann, bob)
        await ann.publish_and_wait("munki", "afterwards", bob)


async def raw(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), ssl=client_context() if url.startswith("https") else None)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01garbage\r\n\r\n",
        b"GET /" + b"y" * (application.LINE_BYTES_MAX + 10) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (application.FIELD_BYTES_MAX + 10) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(5000)) + b"\r\n",
        b"POST /peer/v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /peer/v1/join HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + bytes(0x10000) + b"\r\n",
    ],
    ids=["garbage", "long line", "long header", "many headers", "long body", "endless body"],
)
async def test_oversize_and_garbage_requests_are_answered_by_an_error_and_closed(
    tmp_path: Path, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with peer_node(tmp_path / "a", "ann", tls=False) as ann:
        reader, writer = await raw(ann.url)
        writer.write(request_bytes)
        async with asyncio.timeout(10):
            answer = await reader.readline()
            assert b" 400 " in answer
        writer.close()
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_connection_that_drips_its_header_is_closed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert application.RUNNER["keepalive_timeout"] == application.IDLE_S
    monkeypatch.setitem(application.RUNNER, "keepalive_timeout", 0.3)
    async with peer_node(tmp_path / "a", "ann", tls=False) as ann:
        reader, writer = await raw(ann.url)
        writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")

        def drip() -> None:
            if not writer.is_closing():
                writer.write(b"y")
                asyncio.get_running_loop().call_later(0.05, drip)

        drip()
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.transport.abort()


async def test_handshakes_under_way_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_door, "HANDSHAKES_MAX", 2)
    async with (
        peer_node(tmp_path / "a", "ann") as ann,
        aiohttp.ClientSession() as client,
        client.ws_connect(ann.url + LINK_PATH, ssl=False) as oldest,
        client.ws_connect(ann.url + LINK_PATH, ssl=False) as second,
        client.ws_connect(ann.url + LINK_PATH, ssl=False) as third,
    ):
        assert (await oldest.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}, (
            "the oldest gives way, so that strangers keep no member out"
        )
        assert not second.closed
        assert not third.closed


async def test_a_peer_that_goes_while_its_link_begins_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    @web.middleware
    async def lose(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked.append(request.path)
        assert request.transport is not None
        request.transport.abort()
        return await handler(request)

    async with peer_node(tmp_path / "a", "ann", wrap=lambda door: door.middlewares.append(lose)) as ann, aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientError):
            await client.ws_connect(ann.url + LINK_PATH, ssl=False)
    assert set(asked) == {LINK_PATH}
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_an_oversize_frame_of_a_stranger_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(establish, "HANDSHAKE_TIMEOUT_S", 60.0)
    async with peer_node(tmp_path / "a", "ann", tls=False) as ann:
        reader, writer = await raw(ann.url)
        fields = f"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
        writer.write(f"GET {LINK_PATH} HTTP/1.1\r\n{fields}\r\n".encode())
        writer.write(b"\x82\xff" + (16 * SOCKET_FRAME_BYTES_MAX).to_bytes(8, "big") + bytes(4) + bytes(SOCKET_FRAME_BYTES_MAX + 1))
        async with asyncio.timeout(20):
            assert b" 101 " in await reader.readline()
            with contextlib.suppress(ConnectionError):
                while await reader.read(1 << 16):
                    pass
        writer.transport.abort()


JOIN_HEAD = b"POST /peer/v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"


async def test_a_request_to_join_that_does_not_arrive_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_door, "BODY_TIMEOUT_S", 0.3)
    async with peer_node(tmp_path / "a", "ann", tls=False) as ann:
        reader, writer = await raw(ann.url)
        writer.write(JOIN_HEAD + b"slow")
        async with asyncio.timeout(10):
            assert b" 408 " in await reader.readline()
        writer.transport.abort()


async def test_requests_to_join_under_way_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits for the rest of its body, which never comes. Whole (and bad) ones are looked at until it has come as far as that."""
    monkeypatch.setattr(join_door, "JOINS_AT_ONCE", 1)
    monkeypatch.setattr(join_door, "BODY_TIMEOUT_S", 60.0)
    async with peer_node(tmp_path / "a", "ann", tls=False) as ann:
        answer, writers = b" 400 ", list[asyncio.StreamWriter]()
        async with asyncio.timeout(20):
            while b" 400 " in answer:
                for body in (b"", bytes(100)):
                    reader, writer = await raw(ann.url)
                    writer.write(JOIN_HEAD + body)
                    writers.append(writer)
                answer = await reader.readline()
        for writer in writers:
            writer.transport.abort()
        assert b" 429 " in answer
