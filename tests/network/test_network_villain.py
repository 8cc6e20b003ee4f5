"""The test plays a member with its real key against real daemons: what it forges is dropped by everyone, a flood costs no memory, and once removed its open session is worth nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replicad.crypto.envelope import record_id
from replicad.crypto.keys import SigningKey
from replicad.errors import PeerError, UnreachableError
from replicad.model.ids import NodeId, Stamp
from replicad.model.records import Cut, Envelope, Grant, Role
from replicad.net.dialer import Dialer
from replicad.net.link import Link
from replicad.protocol.handshake import Identity
from replicad.protocol.wire import Ping, Records
from support.network import Network, Node
from support.peer_node import entry
from support.villain import forge, stamp
from support.waiting import until

pytestmark = [pytest.mark.daemons, pytest.mark.timeout(180)]
FLOOD = 2_048
GROWTH_BYTES = 24 << 20
"""Measured with twice as many: 13 MiB, of which the records are 3; the rest is what the interpreter and SQLite take for work of any size."""


@asynccontextmanager
async def linked_as(key: SigningKey, network: NodeId, victim: Node) -> AsyncIterator[tuple[Dialer, Link]]:
    """A link to a real daemon under that key; what the daemon says is heard and ignored."""
    sockets = asyncio.get_running_loop()._selector.get_map()  # type: ignore[attr-defined]
    own = len(sockets)
    async with Dialer() as dialer, asyncio.TaskGroup() as group:
        link = await dialer.link(url_of(victim), Identity(key, network, None))
        group.create_task(link.run(lambda _link, _message: None))
        yield dialer, link
        link.close("the villain goes")
    await until(lambda: len(sockets) == own, what="the villain's sockets to close")


def url_of(node: Node) -> str:
    return f"https://127.0.0.1:{node.peers_port}"


async def say(link: Link, *envelopes: Envelope) -> None:
    """Say it, and wait until it was read: the daemon answers a ping that comes behind it."""
    for start in range(0, len(envelopes), 512):
        link.send(Records(envelopes[start : start + 512]))
    link.rtt_s, number = None, 1 << 40
    link._pings[number] = time.monotonic()
    link.send(Ping(number))
    await until(lambda: link.rtt_s is not None, what="an answer to the ping", deadline_s=60)


def tiny_records(key: SigningKey, network: NodeId, count: int) -> list[Envelope]:
    """A chain of the smallest entries, each with a name of its own."""
    said: list[Envelope] = []
    first, after = stamp(), None
    for number in range(count):
        at = Stamp(first + number)
        said.append(forge(key, network, "munki", entry(f"f/{number}"), at=at, incarnation=first, after=after))
        after = (number + 1, record_id(network, said[-1].type, said[-1].payload))
    return said


async def played(ams: Node, ber: Node, key: SigningKey, network: NodeId) -> None:
    """The part of the villain, from mirror to publisher to nobody."""
    async with linked_as(key, network, ams) as (dialer, link):
        forged = [
            forge(key, network, "munki", entry("evil.pkg")),
            forge(key, network, "", Grant(key.id, "mir1", Role.ADMIN)),
            forge(key, network, "", Cut(NodeId.parse(ams.id), {}, "revoke")),
        ]
        await say(link, *forged, forge(key, network, "munki", entry("evil-too.pkg")))
        assert await dialer.ping(link, url_of(ams))
        for node in (ams, ber):
            assert [one["path"] for one in node.ask("ls")["entries"]] == ["a.pkg"]
            assert {peer["name"]: peer["role"] for peer in node.ask("peer", "list")["peers"] if peer["name"] == "mir1"} == {"mir1": "mirror"}
        ams.cli("peer", "set", "mir1", "--role", "publisher")
        before = ams.resident_bytes()
        flood = tiny_records(key, network, FLOOD)
        await say(link, *flood)
        await until(lambda: ams.download(f"munki/f/{FLOOD - 1}", method="HEAD").status != 404, what="the flood's end", deadline_s=90)
        assert ams.resident_bytes() - before < GROWTH_BYTES
        ams.cli("peer", "remove", "mir1", "--yes")
        await until(lambda: link.closed, what="the end of the link")
        with pytest.raises(PeerError, match="401"):
            await dialer.ping(link, url_of(ams))
        with pytest.raises((PeerError, UnreachableError), match="not a member"):
            await dialer.link(url_of(ams), Identity(key, network, None))


def test_a_member_that_turns_into_a_villain(network: Network, tmp_path: Path) -> None:
    ams = network.found("ams1")
    ber, mir = network.add("ber1", to="ams1"), network.add("mir1", to="ams1")
    ams.cli("share", "create", "munki", "--public")
    (tmp_path / "a.pkg").write_bytes(b"x")
    ams.cli("publish", str(tmp_path / "a.pkg"), "--share", "munki", "--wait", "all", "--timeout", "60s")
    mir.stop()
    founded = NodeId.parse(ams.ask("status")["node"]["network"])
    asyncio.run(played(ams, ber, SigningKey.load(mir.data / "node.key"), founded))
