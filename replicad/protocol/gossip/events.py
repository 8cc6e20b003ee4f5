"""What happens to the gossip core, and what it wants done. Small frozen values; the service (or the simulator) performs the effects and reports back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicad.model.ids import NodeId, Stamp
    from replicad.model.records import Envelope, Record
    from replicad.protocol.gossip.heads import Missing, Presence
    from replicad.protocol.wire import Message, Pull


@dataclass(frozen=True, slots=True)
class Now:
    """The time, twice: intervals use the monotonic clock only, rights and heads name the wall clock."""

    monotonic_ms: int
    wall_ms: int


# -- events ---------------------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """A link to this member works now."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class LinkClosed:
    """The link to this member ended."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Heard:
    """A gossip message arrived over the member's link."""

    node: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Committed:
    """These records are stored here now, in chain order. ``source`` is the peer they came from, None for our own."""

    records: tuple[Record, ...]
    source: NodeId | None


@dataclass(frozen=True, slots=True)
class Stored:
    """A ``Store`` was done. ``fresh``: origins of records that were new. ``gaps``: records whose predecessor is missing here."""

    store: Store
    fresh: frozenset[NodeId]
    gaps: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A ``Read`` was done."""

    node: NodeId
    pull: Pull
    envelopes: tuple[Envelope, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class RightsChanged:
    """Members, their rights or the shares may be different now."""


@dataclass(frozen=True, slots=True)
class HoldingsChanged:
    """This node holds other contents than before, or got further with one."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a head says about contents. ``newest``: at most ``MISSING_MAX`` of those not yet held; ``oldest``: the time of the oldest entry that names one of them."""

    count: int
    size_bytes: int
    oldest: Stamp | None
    newest: tuple[Missing, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """A ``Describe`` was done. ``presence`` for the share ``""`` only."""

    share: str
    holdings: Holdings
    presence: Presence | None


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline passed."""


Event = LinkOpened | LinkClosed | Heard | Committed | Stored | Chain | RightsChanged | HoldingsChanged | Described | Tick

# -- effects --------------------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tell:
    """Send this message over the member's link."""

    node: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Store:
    """Verify and store these envelopes, then report ``Stored``. One after the other per node. ``pull``: number of the pull they answer, 0 for news; ``more``: the answer goes on."""

    node: NodeId
    envelopes: tuple[Envelope, ...]
    pull: int
    more: bool


@dataclass(frozen=True, slots=True)
class Read:
    """Read the answer to a member's pull, then report ``Chain``."""

    node: NodeId
    pull: Pull


@dataclass(frozen=True, slots=True)
class Describe:
    """Say what this node holds of a share, then report ``Described``."""

    share: str


@dataclass(frozen=True, slots=True)
class News:
    """A newer head of this member was kept."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Agreed:
    """This node and the member had the same records of every share that both are granted, a moment ago."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Accuse:
    """The member broke the protocol. ``offence`` is a stable word."""

    node: NodeId
    offence: str
    detail: str


Effect = Tell | Store | Read | Describe | News | Agreed | Accuse
