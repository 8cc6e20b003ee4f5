"""What the plan is told, and what it wants done. Small frozen values; every effect with a number is answered by exactly one ``Ended`` unless it is cancelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

from replicad.model.chunks import CHUNK_SIZE_MIN, Extent
from replicad.model.entries import Wanted
from replicad.model.ids import Digest, NodeId
from replicad.protocol.fetch.config import STALLED_S
from replicad.protocol.wire import Have, HaveMore, Hold, Interest, Seek, Small


class Target(NamedTuple):
    """A content under one manifest: what every partial, bitmap and ``have`` is keyed by, so that a manifest that lies can only waste its author's time."""

    content: Digest
    manifest: Digest


def small_of(wanted: Wanted) -> Small:
    """The same as the wire names it."""
    return Small(wanted.content, wanted.size)


def key_of(wanted: Wanted) -> Target | Small:
    """What it is kept by: the pack has it, or it is a job of its own."""
    return small_of(wanted) if wanted.size <= CHUNK_SIZE_MIN else Target(wanted.content, wanted.manifest)


class Priority(IntEnum):
    """What goes before what; within one class the oldest goes first. AWAITED: a client waits for it now. URGENT: somebody asked for haste. NEW: published a short while ago.
    BACKFILL: older, as for a node that joins or was away. HEAL: it was here and got lost.
    """

    AWAITED = 0
    URGENT = 1
    NEW = 2
    BACKFILL = 3
    HEAL = 4


class Fault(StrEnum):
    """Why a request ended without what it asked for. The first group says nothing about honesty, CUT (a body that ended early) only if the link outlives it, the third does."""

    BUSY = "busy"
    BROKEN = "broken"
    REFUSED = "refused"
    LOCAL = "local"

    CUT = "cut-body"

    SHORT = "short-body"
    LONG = "long-body"
    MALFORMED = "bad-answer"
    ABSENT = "false-have"
    BAD_CHUNK = "bad-chunk"
    BAD_MANIFEST = "bad-manifest"


# -- events of the plan


@dataclass(frozen=True, slots=True)
class Wants:
    """Everything this node wants now, in the order in which it is looked for within a class, and after that what clients wait for; what is not in it is not wanted any more, unless the list was ``cut`` at its bound.

    ``urgent`` and ``healing`` name contents of these classes; of the others those published from ``new_since`` (a Stamp) on are new. ``urgent`` ones have no limits.
    """

    wanted: tuple[Wanted, ...]
    cut: bool = False
    new_since: int = 0
    urgent: frozenset[Digest] = frozenset()
    healing: frozenset[Digest] = frozenset()

    def priority(self, wanted: Wanted) -> Priority:
        """The class of one of them, but for clients who wait."""
        if wanted.content in self.urgent:
            return Priority.URGENT
        if wanted.content in self.healing:
            return Priority.HEAL
        return Priority.NEW if wanted.hlc >= self.new_since else Priority.BACKFILL


@dataclass(frozen=True, slots=True)
class Awaits:
    """Clients wait for this content, each for one of these chunks and what follows it: it goes before everything else, in their order. No ``chunks``: nobody waits any more."""

    wanted: Wanted
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PeerUp:
    """There is a link to this member."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class PeerDown:
    """There is none any more: what it said it has does not hold, its requests are over."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Told:
    """A peer says what it has."""

    node: NodeId
    message: Have | HaveMore | Hold


@dataclass(frozen=True, slots=True)
class Rival:
    """A peer fetches the same content (``active``), or does not any more. Without ``target``: small contents, any of them."""

    node: NodeId
    target: Target | None
    active: bool


@dataclass(frozen=True, slots=True)
class Crew:
    """Told before ``Opened``: the members at this node's site, itself among them, that may have the content and can be expected to fetch it. None: every peer is as near as any other."""

    target: Target
    nodes: frozenset[NodeId]


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to ``Open``, also sent when the disk lost what it had: ``verified`` is the set of chunks that are here. ``manifest`` False: the manifest must be asked for first."""

    target: Target
    manifest: bool
    verified: int = 0


@dataclass(frozen=True, slots=True)
class Unopened:
    """The other answer to ``Open``: the partial could not be made (no room, disk error). It is tried again after ``pause_s``."""

    target: Target
    pause_s: float = STALLED_S


@dataclass(frozen=True, slots=True)
class Ended:
    """A request ended. ``good``, ``bad`` and ``absent`` are positions within what it asked for (chunk 0 of the extent, blob 0 of the batch, ...): verified and kept; wrong bytes; not held by the
    peer after all. ``spread``: the peer just gave those to another. What is in none of them was not delivered. ``fault`` says why, if it is not obvious.
    """

    number: int
    good: tuple[int, ...] = ()
    bad: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    fault: Fault | None = None
    spread: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer to ``Finish``. ``sound`` False: the manifest lies, as the whole hash shows, whose chunks all verified, or a chunk before that; then it comes unasked."""

    target: Target
    sound: bool = True


@dataclass(frozen=True, slots=True)
class Here:
    """This node holds the content now, however it came."""

    content: Digest


@dataclass(frozen=True, slots=True)
class Halt:
    """Ask for nothing new for so long: the disk is full or failing."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Limited:
    """So many bytes per second may come from now on: from all together (None: no limit) and from these nodes. With 0 only what is urgent is asked for."""

    total: int | None = None
    nodes: Mapping[NodeId, int] = field(default_factory=dict)

    def of(self, node: NodeId) -> int | None:
        """The lower of the two."""
        return min((rate for rate in (self.total, self.nodes.get(node)) if rate is not None), default=None)


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing happened, but the deadline has come."""


Event = Wants | Awaits | PeerUp | PeerDown | Told | Rival | Crew | Opened | Unopened | Ended | Finished | Here | Halt | Limited | Tick


# -- effects of the plan


@dataclass(frozen=True, slots=True)
class Say:
    """Send the message over the link. Interest and Seek go only to peers that may know of the content."""

    node: NodeId
    message: Interest | Seek | Have | HaveMore | Hold


@dataclass(frozen=True, slots=True)
class Open:
    """Look for manifest and verified chunks on the own disk, make the partial ready."""

    target: Target


@dataclass(frozen=True, slots=True)
class GetManifest:
    """Ask this peer for the manifest; when it fits, keep it, open the partial and say ``Opened`` after ``Ended``."""

    number: int
    node: NodeId
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class GetExtent:
    """Fetch, verify and write these chunks."""

    number: int
    node: NodeId
    target: Target
    extent: Extent


@dataclass(frozen=True, slots=True)
class GetBatch:
    """Fetch, verify and keep these small contents. ``patient``: not those that the peer just gave to another, who will pass them on."""

    number: int
    node: NodeId
    wanted: tuple[Wanted, ...]
    patient: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Forget the request; its ``Ended`` is not expected and ignored."""

    number: int


@dataclass(frozen=True, slots=True)
class Finish:
    """All chunks are here: check the whole, give the blob its name."""

    target: Target


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing more is fetched of this for now; the partial stays on the disk, or is discarded."""

    target: Target
    discard: bool


@dataclass(frozen=True, slots=True)
class Blame:
    """This peer did something that no honest one does. ``offence`` is a ``Fault`` or "banned"."""

    node: NodeId
    offence: str
    detail: str


Effect = Say | Open | GetManifest | GetExtent | GetBatch | Cancel | Finish | Close | Blame
