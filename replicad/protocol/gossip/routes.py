"""Routes: through whom the news of each origin comes and goes.

News is relayed to every linked peer that has not declined it (``Eager``). Whoever hears everything of an origin twice declines all but one of the peers that tell it: its *parent* for that
origin, which is the origin itself where there is a link; and with the first it declines all others that it hears themselves. So in a full mesh only authors speak, in a sparse one a tree grows per origin
(the idea of Plumtree, Leitao et al. 2007), and when a parent's link ends everybody is asked to tell again. Lost messages are anti-entropy's business, so nothing here needs to be exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.protocol.gossip.events import Effect, Tell
from replicad.protocol.wire import Eager

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicad.model.ids import NodeId

ORIGINS_MAX = 4096
"""Origins that one peer may decline, and that are declined towards one peer. Beyond it news arrives twice."""
_PER_MESSAGE = 1024


class Routes:
    """One table for records and heads alike."""

    def __init__(self) -> None:
        self._linked: set[NodeId] = set()
        self._declined_by: dict[NodeId, set[NodeId]] = {}
        self._declined_to: dict[NodeId, set[NodeId]] = {}
        self._parents: dict[NodeId, NodeId] = {}

    def open(self, node: NodeId) -> None:
        """A link begins: both sides tell each other everything."""
        self._linked.add(node)
        self._declined_by[node] = set()
        self._declined_to[node] = set()

    def close(self, node: NodeId, out: list[Effect]) -> None:
        """A link ended. If anything came through it, ask all others to tell again what they were told not to."""
        self._linked.discard(node)
        self._declined_by.pop(node, None)
        self._declined_to.pop(node, None)
        orphans = [origin for origin, parent in self._parents.items() if parent == node]
        for origin in orphans:
            del self._parents[origin]
        if orphans:
            for other in sorted(self._declined_to):
                if self._declined_to[other]:
                    self._declined_to[other].clear()
                    out.append(Tell(other, Eager((), wanted=True)))

    def wants(self, node: NodeId, origin: NodeId) -> bool:
        """Whether news of that origin should be relayed to that peer."""
        return origin != node and origin not in self._declined_by.get(node, ())

    def hear(self, node: NodeId, message: Eager) -> None:
        """A peer says which origins it wants relayed."""
        declined = self._declined_by.get(node)
        if declined is None:
            return
        if not message.wanted:
            declined.update(message.origins[: max(0, ORIGINS_MAX - len(declined))])
        elif message.origins:
            declined.difference_update(message.origins)
        else:
            declined.clear()

    def arrived(self, node: NodeId, *, fresh: Iterable[NodeId], repeated: Iterable[NodeId], out: list[Effect]) -> None:
        """News of these origins came from that peer: of some first, of others after we had it."""
        for origin in fresh:
            self._parent(origin, node)
        declined = self._declined_to.get(node)
        if declined is None:
            return
        spare = self._spare(node, repeated)
        if spare:
            spare |= self._spare(node, self._linked)
        told = tuple(sorted(spare)[: min(_PER_MESSAGE, ORIGINS_MAX - len(declined))])
        if told:
            declined.update(told)
            out.append(Tell(node, Eager(told, wanted=False)))

    def _spare(self, node: NodeId, origins: Iterable[NodeId]) -> set[NodeId]:
        """Of these, not declined yet, those whose news comes through another."""
        return {origin for origin in set(origins) - self._declined_to[node] if self._parent(origin, node) != node}

    def _parent(self, origin: NodeId, teller: NodeId) -> NodeId:
        """Through whom news of the origin comes; the teller if nobody else does."""
        if origin in self._linked:
            self._parents[origin] = origin
        parent = self._parents.get(origin)
        if parent is None or parent not in self._linked or origin in self._declined_to.get(parent, ()):
            self._parents[origin] = parent = teller
        return parent
