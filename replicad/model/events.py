"""What services tell each other through the hub. Facts that have happened, never requests."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.model.ids import Digest, NodeId
from replicad.model.records import Record


@dataclass(frozen=True, slots=True)
class RecordsCommitted:
    """These records are durable here, in chain order. ``source`` is the peer they came from, None for our own."""

    records: tuple[Record, ...]
    source: NodeId | None


@dataclass(frozen=True, slots=True)
class TrustChanged:
    """A grant, cut or policy was committed: members, rights and shares may be different now."""


@dataclass(frozen=True, slots=True)
class EntriesChanged:
    """The winners of these registers of one share may be different now. Collision keys; empty means "any of this share"."""

    share: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContentHeld:
    """This node now holds these contents (digest, size), verified and durable; or holds them under other manifests."""

    contents: tuple[tuple[Digest, int], ...]


@dataclass(frozen=True, slots=True)
class ContentLost:
    """This node held this content and does not any more (missing from the disk, or rotten)."""

    content: Digest


@dataclass(frozen=True, slots=True)
class ContentDoubted:
    """This node holds this content, and somebody could not read it just now, or not all of it. Whether it is damaged is to be seen."""

    content: Digest


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link to this member works now; or, for the second time, it turned out that its peer door can be reached from here."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class LinkDown:
    """No link to this member works any more; ``reason`` is for people."""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Synchronised:
    """This node and the linked member had the same records of every share that both are granted, a moment ago."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class HeadsChanged:
    """A newer head of this member arrived."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class PeerBlamed:
    """This member gave wrong bytes or broke the protocol. ``offence`` is a stable word, ``detail`` a sentence."""

    node: NodeId
    offence: str
    detail: str


Event = (
    RecordsCommitted | TrustChanged | EntriesChanged | ContentHeld | ContentLost | ContentDoubted | LinkUp | LinkDown | Synchronised | HeadsChanged | PeerBlamed
)
