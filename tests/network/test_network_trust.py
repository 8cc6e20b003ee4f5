"""Trust with real daemons: what a mirror, a thief, a removed node and a liar about the time can do, and what two admins do to each other. The misbehaving nodes run in this process, on real sockets."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiohttp import web

from replicad.crypto.envelope import seal
from replicad.crypto.keys import SigningKey
from replicad.errors import NotAllowedError, PeerError
from replicad.model.ids import Digest, Stamp
from replicad.model.manifest import Manifest
from replicad.model.records import Body, Envelope, Header
from replicad.net.dialer import PING_PATH, PingBody
from replicad.protocol import records
from support.network import Network, Node
from support.peer_node import PeerNode, entry, peer_node
from support.waiting import until, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from replicad.net.link import Link

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(240)]


def signed(key: SigningKey, node: PeerNode, body: Body, *, at: Stamp) -> Envelope:
    """A record that begins a chain anew, which nothing but trust stands against."""
    header = Header(key.id, "munki", at, 1, None, at)
    return seal(key, node.catalog.network, records.type_of(body), records.encode(header, body))


def about(node: Node, path: str) -> list[tuple[bool, str]]:
    """What a daemon has of that name, and what it thinks of it."""
    return [(one["counts"], one["reason"]) for one in node.ask("audit")["records"] if one["path"] == path]


def names(node: Node) -> set[str]:
    return {one["path"] for one in node.ask("ls")["entries"]}


@asynccontextmanager
async def joined(tmp_path: Path, name: str, to: Node, wrap: Callable[[web.Application], None] | None = None) -> AsyncIterator[PeerNode]:
    token = to.cli("peer", "invite").lines[-1]
    async with peer_node(tmp_path / name, name, wrap=wrap) as node:
        await node.membership.join(token)
        yield node


async def ask_for(node: PeerNode, link: Link, content: Manifest) -> int:
    """A data request under the session of that link; the answer's status."""
    target, extent = f"/peer/v1/blobs/{content.content}?manifest={content.id}", f"bytes=0-{content.size - 1}"
    assert link.peer_url is not None
    headers = {"Authorization": link.authorize("GET", target, extent), "Range": extent}
    status, _ = await node.links.dialer._request("GET", link.peer_url + target, pin=link.certificate, headers=headers, body=b"", timeout_s=20)
    return status


async def test_what_mirrors_thieves_and_removed_nodes_cannot_do(network: Network, tmp_path: Path) -> None:
    ams, ber, cdg = (await asyncio.to_thread(network.three))[:3]
    ams.cli("share", "create", "munki", "--public")
    wait_for(lambda: all(node.shares for node in (ber, cdg)), what="the share")

    def publish(node: Node, name: str) -> Manifest:
        (tmp_path / name).write_bytes(name.encode())
        node.cli("publish", str(tmp_path / name), "--share", "munki")
        body = entry(name, name.encode())
        found = Manifest.implied(Digest(bytes(body.content)), body.size)
        assert found is not None
        return found

    async with joined(tmp_path, "mir1", ams) as mir:
        # A mirror may not publish, and what it signs all the same not even its own catalog keeps.
        with pytest.raises(NotAllowedError):
            await mir.publish("munki", "forged")
        forged = await mir.catalog.receive([signed(mir.key, mir, entry("forged"), at=Stamp.of(mir.clock()))], source=None)
        assert (forged.new, len(forged.refused)) == ((), 1)

        # The publisher's key is stolen: from then on its records are void on all nodes, and none that is dated back counts.
        await asyncio.to_thread(publish, ber, "honest")
        stolen = datetime.now(UTC)
        await asyncio.to_thread(publish, ber, "thief")
        for node in (ams, cdg):
            await asyncio.to_thread(wait_for, lambda node=node: names(node) == {"honest", "thief"}, what="both files")
        revoke = ("peer", "revoke", "ber1", "--from", stolen.isoformat())
        assert "1 record of it void, 1 name among them" in (await asyncio.to_thread(ams.cli, *revoke, "--dry-run")).out
        assert names(ams) == {"honest", "thief"}
        await asyncio.to_thread(ams.cli, *revoke)
        for node in (ams, cdg):
            await asyncio.to_thread(wait_for, lambda node=node: names(node) == {"honest"}, what="the thief's file to be gone")
        key = SigningKey.load(ber.data / "node.key")
        back_dated = signed(key, mir, entry("back-dated"), at=Stamp.of(int(stolen.timestamp() * 1000) - 1))
        await mir.catalog.receive([back_dated], source=None)
        for node in (ams, cdg):
            assert await asyncio.to_thread(wait_for, lambda node=node: about(node, "back-dated"), what="the back-dated record") == [(False, "cut")]
            assert names(node) == {"honest"}

        # A removed node: its links end, the session they had opens nothing, and it hears of nothing more.
        content = await asyncio.to_thread(publish, ams, "before")
        await until(lambda: (link := mir.table.get(mir_admin(mir))) and link.reachable, what="the door to answer")
        link = mir.table.get(mir_admin(mir))
        assert link is not None
        assert await ask_for(mir, link, content) == 206
        await asyncio.to_thread(ams.cli, "peer", "remove", "mir1")
        assert await ask_for(mir, link, content) == 401
        with pytest.raises(PeerError):
            await mir.links.dialer.ping(link, str(link.peer_url))
        await until(lambda: not mir.table.all(), what="its links to end")
        await asyncio.to_thread(publish, ams, "after")
        await asyncio.to_thread(wait_for, lambda: "after" in names(cdg), what="the file that others get")
        assert "munki/after" not in await mir.files()
        assert not mir.table.all()


def mir_admin(mir: PeerNode) -> Any:
    """The founder's id, as the node in this process knows it."""
    return next(member.id for member in mir.catalog.replica.trust.members(mir.clock()).values() if member.name == "ams1")


async def test_a_node_whose_clock_all_others_contradict_publishes_nothing_until_the_liar_is_removed(network: Network, tmp_path: Path) -> None:
    @web.middleware
    async def lie(request: web.Request, handler: Any) -> web.StreamResponse:
        answer = await handler(request)
        if request.path != PING_PATH or answer.status != 200:
            return answer
        told = msgspec.json.decode(answer.body, type=PingBody)
        return web.Response(body=msgspec.json.encode(msgspec.structs.replace(told, clock_ms=told.clock_ms + 400_000)), content_type="application/json")

    ams = await asyncio.to_thread(network.found, "ams1")
    ams.cli("share", "create", "munki", "--public")
    (tmp_path / "a.pkg").write_bytes(b"a")
    async with joined(tmp_path, "liar", ams, wrap=lambda app: app.middlewares.append(lie)):

        def refuses() -> bool:
            return any("signs nothing" in problem["message"] for problem in ams.ask("status")["problems"])

        await asyncio.to_thread(wait_for, refuses, what="the difference to be noticed")
        refused = await asyncio.to_thread(ams.cli, "publish", str(tmp_path / "a.pkg"), "--share", "munki", code=9)
        assert " s apart: it signs nothing" in refused.err, refused.err
        await asyncio.to_thread(ams.cli, "peer", "remove", "liar")
        await asyncio.to_thread(wait_for, lambda: not refuses(), what="the liar to be forgotten")
        await asyncio.to_thread(ams.cli, "publish", str(tmp_path / "a.pkg"), "--share", "munki")


def test_admins_who_act_at_once_end_up_with_the_same_network_and_keys_can_be_replaced(network: Network, tmp_path: Path) -> None:
    ams, ber, cdg = network.three(role="admin")
    network.wait_linked()
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(
                lambda act: act[0].run("peer", *act[1:]),
                [
                    (ams, "set", "cdg1", "--role", "publisher"),
                    (ber, "set", "ams1", "--role", "mirror"),
                    (ber, "remove", "ams1"),
                    (cdg, "revoke", "ber1", "--yes"),
                ],
            )
        )
    assert [answer.code for answer in answers] == [0, 6, 6, 6], "a senior ends a junior, nobody a peer or a senior"

    def roles(node: Node) -> dict[str, str]:
        return {one["name"]: one["role"] for one in node.ask("peer", "list")["peers"]} | {node.name: node.ask("status")["node"]["role"]}

    expected = {"ams1": "admin", "ber1": "admin", "cdg1": "publisher"}
    for node in (ams, ber, cdg):
        wait_for(lambda node=node: roles(node) == expected, what="the same members")  # type: ignore[misc]

    ams.cli("share", "create", "munki", "--public")
    former, lost = cdg.id, ams.id
    token = ams.cli("peer", "invite", "--replace", "cdg1").lines[-1]
    cdg.cli("key", "rotate", code=6)
    assert cdg.ask("key", "rotate", token)["former"] == former
    assert cdg.id != former
    assert ams.ask("key", "rotate")["former"] == lost
    network.wait_linked()
    for node in (ams, ber, cdg):
        wait_for(lambda node=node: roles(node) == expected, what="the same members")  # type: ignore[misc]
    (tmp_path / "a.pkg").write_bytes(b"a")
    cdg.cli("publish", str(tmp_path / "a.pkg"), "--share", "munki", "--wait", "all", "--timeout", "60s")

    # The first admin is lost with its key: the network's key, exported before, makes another one and ends it.
    exported = tmp_path / "network.key"
    ams.cli("key", "export", str(exported), "--move", "--yes")
    ams.kill()
    ber.cli("peer", "revoke", "ams1", code=6)
    cdg.cli("peer", "set", "cdg1", "--role", "admin", "--network-key", str(exported))
    cdg.cli("peer", "revoke", "ams1", "--network-key", "-", "--yes", stdin=exported.read_text())
    assert roles(cdg) == {"ber1": "admin", "cdg1": "admin"}
    wait_for(lambda: roles(ber) == roles(cdg), what="the end of the lost admin")
    cdg.cli("peer", "set", "ber1", "--role", "mirror", code=6)
    assert names(ber) == {"a.pkg"}
