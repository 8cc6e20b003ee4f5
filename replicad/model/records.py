"""Records: the signed, immutable statements of which everything else is computed.

An ``Envelope`` is what is stored and sent: the exact bytes that were signed. A ``Record`` is an envelope whose signature was verified and whose payload was parsed. The payload is
deterministic JSON (sorted keys, no spaces, no floats, UTF-8, at most 64 KiB) with the header's fields and the body's fields side by side; unknown fields are kept because the bytes are.

Header: ``origin, share, incarnation, seq, prev, hlc``. The network's own chains (grants, cuts, policies, takedowns) live in the share ``""``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec

from replicad.model.access import Access
from replicad.model.checksums import ASKED_MAX
from replicad.model.ids import STAMP_MAX, Digest, NodeId, RecordId, Stamp
from replicad.model.redirects import Redirects

PAYLOAD_BYTES_MAX = 64 * 1024
SUPERSEDES_MAX = 256
SHARES_MAX = 1024
STAGES_MAX = 16
PATHS_MAX = 256
CUT_ENDS_MAX = 512
NEAR_MAX = 64
"""Networks near a node."""
NAME_MAX = 63
LABEL_MAX = 255
DEFAULT_STAGES = ("dev", "test", "prod")


class Role(StrEnum):
    """What a grant allows. Each includes what stands before it."""

    rank: int
    """0 mirror, 1 publisher, 2 admin."""

    MIRROR = "mirror"
    PUBLISHER = "publisher"
    ADMIN = "admin"

    def __init__(self, _text: str) -> None:
        self.rank = len(type(self).__members__)


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """``(type, payload, key, signature)`` exactly as signed; ``key`` is the origin's public key, ``signature`` 64 bytes of Ed25519."""

    type: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    payload: Annotated[bytes, msgspec.Meta(max_length=PAYLOAD_BYTES_MAX)]
    key: NodeId
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Header(msgspec.Struct, frozen=True):
    """Where a record stands: chain (origin, share), place in it, predecessor (None for the chain's first record) and time."""

    origin: NodeId
    share: Annotated[str, msgspec.Meta(max_length=63)]
    incarnation: Stamp
    seq: Annotated[int, msgspec.Meta(ge=1, le=STAMP_MAX)]
    prev: RecordId | None
    hlc: Stamp


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_MAX)]
_Share = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
_Stage = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
_Shares = Annotated[tuple[_Share, ...], msgspec.Meta(max_length=SHARES_MAX)]
_Stages = Annotated[tuple[_Stage, ...], msgspec.Meta(min_length=1, max_length=STAGES_MAX)]
_Path = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_Algorithm = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
Networks = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=49)], ...], msgspec.Meta(max_length=NEAR_MAX)]
"""In CIDR notation."""
_Supersedes = Annotated[tuple[RecordId, ...], msgspec.Meta(max_length=SUPERSEDES_MAX)]


class Grant(msgspec.Struct, frozen=True):
    """Admits a node. ``shares``, ``paths``, ``stages`` are None for "all". ``paths`` are collision keys of path prefixes that a publisher may write below, segment-wise.
    ``until`` ends the grant's life (None: no end). ``invite`` is the SHA-256 of the join token's secret, so that a token visibly admits one key only. ``networks`` are those whose clients it may get
    from others because it is near them; absent, never empty: none.
    """

    subject: NodeId
    name: _Name
    role: Role
    site: Annotated[str, msgspec.Meta(max_length=NAME_MAX)] = ""
    shares: _Shares | None = None
    paths: Annotated[tuple[_Path, ...], msgspec.Meta(max_length=PATHS_MAX)] | None = None
    stages: _Stages | None = None
    until: Stamp | None = None
    invite: Digest | None = None
    networks: Networks | msgspec.UnsetType = msgspec.UNSET


Reason = Literal["remove", "revoke", "change", "rotate"]


class Cut(msgspec.Struct, frozen=True):
    """Ends every grant of ``subject`` made before it. Under those grants only ``ends`` and their ancestors still count: per share the last records, one per branch of the chain; a
    share that is absent has none. ``reason`` is for people.
    """

    subject: NodeId
    ends: dict[Annotated[str, msgspec.Meta(max_length=63)], Annotated[tuple[RecordId, ...], msgspec.Meta(max_length=CUT_ENDS_MAX)]]
    reason: Reason


class Policy(msgspec.Struct, frozen=True):
    """What a share is. The newest that counts wins, except that ``immutable`` is fixed by the oldest. ``stages`` from lowest to highest. ``removed`` ends the share. ``access`` says who may
    download beside or, for ``networks``, of everybody; ``layout`` which product's tree it is, ``root`` in which directory that begins; ``checksums`` which algorithms nodes compute of its contents besides SHA-256, those that they know; ``redirects`` where
    clients are sent. All five are absent, never ``null`` or empty, when there is nothing to say.
    """

    name: _Share
    public: bool
    immutable: bool = False
    stages: _Stages = DEFAULT_STAGES
    removed: bool = False
    access: Access | msgspec.UnsetType = msgspec.UNSET
    layout: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] | msgspec.UnsetType = msgspec.UNSET
    root: _Path | msgspec.UnsetType = msgspec.UNSET
    checksums: Annotated[tuple[_Algorithm, ...], msgspec.Meta(min_length=1, max_length=ASKED_MAX)] | msgspec.UnsetType = msgspec.UNSET
    redirects: Redirects | msgspec.UnsetType = msgspec.UNSET


class Entry(msgspec.Struct, frozen=True):
    """The path of a share names this content at this stage. ``modified`` (seconds since 1970) becomes Last-Modified; ``publisher`` is a label for people, never a right.
    ``source`` makes it a promotion: the stage it takes the content from and whose records it supersedes, too. ``urgent``: its content goes before others and no limit holds it up.
    """

    path: _Path
    stage: _Stage
    content: Digest
    size: Annotated[int, msgspec.Meta(ge=0, le=1 << 42)]
    manifest: Digest
    modified: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
    publisher: Annotated[str, msgspec.Meta(max_length=LABEL_MAX)] = ""
    supersedes: _Supersedes = ()
    source: _Stage | msgspec.UnsetType = msgspec.UNSET
    urgent: bool | msgspec.UnsetType = msgspec.UNSET

    @property
    def stages(self) -> tuple[str, ...]:
        """Where it has an effect: the stage it stands at, and the one that a promotion ends."""
        return (self.stage, self.source) if self.source else (self.stage,)


class Tombstone(msgspec.Struct, frozen=True):
    """The path of a share names nothing more at this stage."""

    path: _Path
    stage: _Stage
    publisher: Annotated[str, msgspec.Meta(max_length=LABEL_MAX)] = ""
    supersedes: _Supersedes = ()

    @property
    def stages(self) -> tuple[str, ...]:
        """Where it has an effect."""
        return (self.stage,)


class Takedown(msgspec.Struct, frozen=True):
    """This content is served nowhere; with ``lifted``, it may be served again. The newest that counts decides. ``reason`` is for people."""

    content: Digest
    lifted: bool = False
    reason: Annotated[str, msgspec.Meta(max_length=LABEL_MAX)] = ""


class Unknown(msgspec.Struct, frozen=True):
    """A record of a type this version does not know: stored and relayed, never applied."""


Body = Grant | Cut | Policy | Takedown | Entry | Tombstone | Unknown
BODIES: dict[str, Any] = {"grant": Grant, "cut": Cut, "policy": Policy, "takedown": Takedown, "entry": Entry, "tombstone": Tombstone}
"""Record type name to body type. A type that is not here becomes ``Unknown``."""
NETWORK_TYPES = frozenset({"grant", "cut", "policy", "takedown"})
"""Types that live in the share "" only; entries and tombstones live in named shares only."""


@dataclass(frozen=True, slots=True)
class Record:
    """A verified, parsed record. Made by ``protocol.records.parse`` only."""

    envelope: Envelope
    id: RecordId
    header: Header
    body: Body

    @property
    def order(self) -> tuple[int, bytes]:
        """``(hlc, id)``: the total order by which conflicts are decided."""
        return self.header.hlc, self.id
