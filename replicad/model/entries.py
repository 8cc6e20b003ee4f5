"""What the catalog answers about names: plain values, no handles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.records import Entry, Record, Tombstone


@dataclass(frozen=True, slots=True)
class Listed:
    """The winning entry of one register (share, collision key, stage), and whether this node holds its content verified and may serve it. ``siblings`` counts losing live entries.

    ``taken_down``: a takedown stands on the content.
    """

    record: RecordId
    origin: NodeId
    hlc: Stamp
    share: str
    key: str
    path: str
    stage: str
    content: Digest
    size: int
    manifest: Digest
    modified: int
    publisher: str
    available: bool
    taken_down: bool = False
    siblings: int = 0


RevisionKind = Literal["publish", "promote", "restore", "remove"]
"""What a record did to its name. "restore": an entry naming content that an older one of its register named."""
RevisionState = Literal["current", "sibling", "superseded", "void"]
"""What a record is now. "current": the register's winner, or what ended its last one. "sibling": live, and lost a conflict. "void": it has no effect."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One entry or tombstone in the history of a name. ``why_not`` says why it is void: one of trust's REASONS, or "immutable". ``held`` and ``taken_down`` are about its content."""

    record: Record
    kind: RevisionKind
    state: RevisionState
    why_not: str
    held: bool
    taken_down: bool

    @property
    def entry(self) -> Entry:
        """What an entry says; of a tombstone nobody asks."""
        assert isinstance(self.record.body, Entry)  # noqa: S101 - see ``kind``
        return self.record.body

    @property
    def body(self) -> Entry | Tombstone:
        """The record's."""
        assert isinstance(self.record.body, Entry | Tombstone)  # noqa: S101 - the history of a name has no others
        return self.record.body


@dataclass(frozen=True, slots=True)
class Wanted:
    """Content that this node should hold and does not. ``hlc`` is the time of the oldest entry that names it: transfers go oldest first. ``origin`` is the node that wrote that entry, empty if a client asks:
    what is looked for is divided among them.
    """

    content: Digest
    size: int
    manifest: Digest
    hlc: Stamp
    origin: bytes = b""
