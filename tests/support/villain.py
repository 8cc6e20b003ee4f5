"""A member that signs and sends what no honest one would. It plays the part with its own real key, over its own real link."""

from __future__ import annotations

import secrets
import time

from replicad.crypto import envelope as envelopes
from replicad.crypto.keys import SigningKey
from replicad.model.ids import NodeId, RecordId, Stamp
from replicad.model.records import Body, Envelope, Header
from replicad.protocol import records as codec
from replicad.protocol.wire import Message, Records
from support.peer_node import PeerNode
from support.waiting import eventually, until

MINUTE_MS = 60_000


def stamp(ahead_ms: int = 0) -> Stamp:
    """Now, or a time before or after; no two are alike."""
    return Stamp.of(int(time.time() * 1000) + ahead_ms, secrets.randbelow(1 << 16))


def forge(
    key: SigningKey,
    network: NodeId,
    share: str,
    body: Body,
    *,
    origin: NodeId | None = None,
    ahead_ms: int = 0,
    at: Stamp | None = None,
    incarnation: Stamp | None = None,
    after: tuple[int, RecordId] | None = None,
    instead: tuple[bytes, bytes] = (b"", b""),
) -> Envelope:
    """A well-signed record: the first of an incarnation of its own, or the one ``after`` (seq, id). In its payload ``instead`` replaces one text by another before it is signed."""
    at = at or stamp(ahead_ms)
    header = Header(origin or key.id, share, incarnation or at, after[0] + 1 if after else 1, after[1] if after else None, at)
    return envelopes.seal(key, network, codec.type_of(body), codec.encode(header, body).replace(*instead))


def tell(villain: PeerNode, victim: PeerNode, *messages: Message | Envelope) -> None:
    """Say it over the link."""
    link = villain.table.get(victim.id)
    assert link is not None
    for message in messages:
        link.send(Records((message,)) if isinstance(message, Envelope) else message)


async def linked(villain: PeerNode, victim: PeerNode) -> None:
    """Wait until both sides have an open link (after the victim dropped one, too)."""
    await until(lambda: all((link := one.table.get(other.id)) and not link.closed for one, other in ((villain, victim), (victim, villain))), what="a link")


async def offences(witness: PeerNode, villain: PeerNode) -> list[str]:
    """What ``peer show`` would list, newest first."""
    return [blame.offence for blame in await witness.catalog.blames(villain.id)]


async def named(witness: PeerNode, villain: PeerNode, *, times: int = 1, what: str = "an offence") -> list[str]:
    """Wait until so many are known."""
    await eventually(lambda: _at_least(witness, villain, times), what=f"{what} to be named")
    return await offences(witness, villain)


async def _at_least(witness: PeerNode, villain: PeerNode, times: int) -> bool:
    return len(await offences(witness, villain)) >= times


async def appears(node: PeerNode, *files: str) -> None:
    """Wait for files (``share/path``)."""
    await eventually(lambda: _shows(node, files), what=f"{', '.join(files)} at {node.name}")


async def _shows(node: PeerNode, files: tuple[str, ...]) -> bool:
    return set(files) <= await node.files()
