"""What the catalog answers about names: plain values, no handles."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.model.ids import Digest, NodeId, RecordId, Stamp


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


@dataclass(frozen=True, slots=True)
class Wanted:
    """Content that this node should hold and does not. ``hlc`` is the time of the oldest entry that names it: transfers go oldest first."""

    content: Digest
    size: int
    manifest: Digest
    hlc: Stamp
