"""Heads: a node's signed, short-lived statement of where it stands in one share. Only the newest is kept; heads are never reconciled.

One per (node, share), the share ``""`` for the network's own chains; that one also says where the node can be reached and how it is. Newest means largest (incarnation, counter): the
incarnation is the time when the node's daemon started, the counter grows with every head. A head is an ``Envelope`` of type ``"head"`` whose payload is JSON (docs/protocol.md, "Heads").

What may be said is bounded: ``ENDS_MAX`` ends of chains (all of them while they are few, else those that moved last), the newest ``MISSING_MAX`` contents not yet held and a count of the rest.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from replicad.crypto import envelope as envelopes
from replicad.crypto.keys import SigningKey
from replicad.errors import InputError, PeerError
from replicad.model.ids import STAMP_MAX, Digest, NodeId, Stamp, from_wire, to_text
from replicad.model.records import Envelope, Networks

HEAD_TYPE = "head"
ENDS_MAX = 32
MISSING_MAX = 64
URLS_MAX = 8
LINKS_MAX = 256
INTERVAL_MS_MIN = 30_000
HEADS_PER_S = 2
"""Protocol.md section 5: the interval grows with the network so that nobody handles more than about two heads a second."""

_Count = Annotated[int, Meta(ge=0, le=STAMP_MAX)]


class HeadEnd(Struct, frozen=True, array_like=True):
    """The last record of one branch of an origin's chain, as the node has it."""

    origin: NodeId
    incarnation: Stamp
    seq: _Count
    hlc: Stamp


class Missing(Struct, frozen=True, array_like=True):
    """A content that the node should hold and does not yet; ``percent`` 0 to 99 of it is there."""

    content: Digest
    percent: Annotated[int, Meta(ge=0, le=99)]


class Presence(Struct, frozen=True):
    """What only the head of the share ``""`` says: where the node's peer door is (base URLs), its TLS certificate's fingerprint (None: no TLS), versions it speaks, disk and load, and the
    members it has links with. ``load_percent`` is the one-minute load per processor, times 100. ``downloads`` is the base URL of its door for clients, ``networks`` (CIDR) those whose clients are
    near it; absent: none. Others believe ``networks`` of admins only (``model.members.Member``).
    """

    urls: Annotated[tuple[Annotated[str, Meta(max_length=255)], ...], Meta(max_length=URLS_MAX)] = ()
    certificate: Digest | None = None
    version_min: int = 1
    version_max: int = 1
    release: Annotated[str, Meta(max_length=40)] = ""
    disk_used: _Count = 0
    disk_free: _Count = 0
    load_percent: _Count = 0
    links: Annotated[tuple[NodeId, ...], Meta(max_length=LINKS_MAX)] = ()
    downloads: Annotated[str, Meta(max_length=255)] | UnsetType = UNSET
    networks: Networks | UnsetType = UNSET

    @property
    def is_full(self) -> bool:
        """Whether it says that there is no room on its disk. Nothing used and nothing free: it does not say."""
        return self.disk_free == 0 < self.disk_used


class Head(Struct, frozen=True, omit_defaults=True):
    """See the module. ``ends_whole``: ``ends`` lists every end there is. ``missing_count`` and ``missing_bytes`` count all of the share's contents not yet held; ``missing_since`` is the time of
    the oldest entry that names one of them. ``interval_ms``: the next head comes within that time. ``made_ms``: the author's clock.
    """

    node: NodeId
    share: Annotated[str, Meta(max_length=63)]
    incarnation: Stamp
    counter: _Count
    made_ms: _Count
    interval_ms: Annotated[int, Meta(ge=1, le=86_400_000)]
    frontier: Digest
    ends: Annotated[tuple[HeadEnd, ...], Meta(max_length=ENDS_MAX)] = ()
    ends_whole: bool = True
    missing: Annotated[tuple[Missing, ...], Meta(max_length=MISSING_MAX)] = ()
    missing_count: _Count = 0
    missing_bytes: _Count = 0
    missing_since: Stamp | None = None
    presence: Presence | None = None

    @property
    def order(self) -> tuple[int, int]:
        """``(incarnation, counter)``: the newest wins."""
        return self.incarnation, self.counter


class _Order(Struct, frozen=True):
    """The part of a head that tells whether it is news."""

    share: Annotated[str, Meta(max_length=63)]
    incarnation: Stamp
    counter: _Count


_ORDER: msgspec.json.Decoder[_Order] = msgspec.json.Decoder(_Order, dec_hook=from_wire)
_ENCODER = msgspec.json.Encoder(enc_hook=to_text, order="sorted")
_DECODER: msgspec.json.Decoder[Head] = msgspec.json.Decoder(Head, dec_hook=from_wire)


def sign(key: SigningKey, network: NodeId, head: Head) -> Envelope:
    """The head as it is sent."""
    return envelopes.seal(key, network, HEAD_TYPE, _ENCODER.encode(head))


def peek(envelope: Envelope) -> Head:
    """What an envelope claims, unverified: good only to see that it is no news. Raises PeerError("bad-head") for anything that is not a head of its signer."""
    if envelope.type != HEAD_TYPE:
        raise PeerError(f"an envelope of type {envelope.type!r} among heads", code="bad-head")
    try:
        head = _DECODER.decode(envelope.payload)
    except (msgspec.DecodeError, InputError, ValueError, RecursionError) as error:
        raise PeerError(f"head does not decode: {error}", code="bad-head") from None
    if head.node != envelope.key:
        raise PeerError("head signed by another node", code="bad-head")
    return head


def order(envelope: Envelope) -> tuple[str, tuple[int, int]]:
    """Share and order of what claims to be a head, at a tenth of the price of ``peek``: most heads that arrive are no news. Raises PeerError("bad-head")."""
    try:
        found = _ORDER.decode(envelope.payload)
    except (msgspec.DecodeError, InputError, ValueError, RecursionError) as error:
        raise PeerError(f"head does not decode: {error}", code="bad-head") from None
    return found.share, (found.incarnation, found.counter)


def verify(envelope: Envelope, network: NodeId) -> None:
    """Raises SignatureError unless the envelope was signed by its key for this network."""
    envelopes.verify(envelope, network)


def interval_ms(heads: int) -> int:
    """How often a node says something in a network with that many (node, share) pairs."""
    return max(INTERVAL_MS_MIN, heads * 1000 // HEADS_PER_S)
