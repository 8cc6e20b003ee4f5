"""Follow: what a linked peer's own head shows to be missing here, and did not come by itself, is fetched without waiting for the next round.

Push is allowed to lose messages (a peer that was declined a moment too long, a node that restarts). A head names the newest ends of chains; ``GRACE_MS`` later they should be here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicad.model.ids import NodeId
    from replicad.protocol.chains import Chains
    from replicad.protocol.gossip.heads import Head

GRACE_MS = 500
"""Ten batch intervals: a guess. Shorter, and records that are just on their way cost an exchange each."""


class Follow:
    """The newest head of each linked peer and share that shows something missing."""

    def __init__(self, chains: Chains) -> None:
        self._chains = chains
        self._noted: dict[tuple[NodeId, str], tuple[Head, int]] = {}

    def note(self, head: Head, now_ms: int) -> None:
        """A linked peer's own head arrived."""
        place = (head.node, head.share)
        if head.frontier == self._chains.frontier_hash(head.share):
            self._noted.pop(place, None)
        elif place not in self._noted:
            self._noted[place] = (head, now_ms + GRACE_MS)

    def forget(self, node: NodeId) -> None:
        """A link ended."""
        for place in [place for place in self._noted if place[0] == node]:
            del self._noted[place]

    def due(self, now_ms: int) -> list[tuple[NodeId, str]]:
        """(peer, share) of heads that still show something missing after the grace."""
        ready = [(place, head) for place, (head, due_ms) in self._noted.items() if due_ms <= now_ms]
        for place, _ in ready:
            del self._noted[place]
        return [place for place, head in ready if self._lacks(head)]

    def deadline_ms(self) -> int | None:
        """When ``due`` has something to do."""
        return min((due_ms for _, due_ms in self._noted.values()), default=None)

    def _lacks(self, head: Head) -> bool:
        if head.frontier == self._chains.frontier_hash(head.share):
            return False
        return any(self._chains.have(end.origin, head.share).get(end.incarnation, 0) < end.seq for end in head.ends)
