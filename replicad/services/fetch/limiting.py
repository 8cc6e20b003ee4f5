"""What our own limits and pauses mean for whom the plan may ask, and how fast answers can be expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.net.pace import TOTAL
from replicad.protocol.fetch.events import Limited, PeerDown, PeerUp

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.model.ids import NodeId
    from replicad.net.links import LinkTable
    from replicad.net.pace import Paces
    from replicad.protocol.fetch.events import Event


class Limiting:
    """``tell`` gives the plan an event."""

    def __init__(self, paces: Paces, links: LinkTable, tell: Callable[[Event], None]) -> None:
        self._paces = paces
        self._links = links
        self._tell = tell
        self._paused: frozenset[NodeId] = frozenset()

    def up(self, node: NodeId) -> None:
        """There is a link to it: it may be asked, unless it is paused."""
        self._tell(self._limited())
        if node not in self._paces.paused:
            self._tell(PeerUp(node))

    def anybody(self) -> bool:
        """Whether there is a link to a member that is not paused."""
        return any(link.node not in self._paces.paused for link in self._links.all())

    def changed(self) -> None:
        """Limits or pauses are others than before."""
        self._tell(self._limited())
        before, self._paused = self._paused, self._paces.paused
        for link in self._links.all():
            if link.node in self._paused - before:
                self._tell(PeerDown(link.node))
            elif link.node in before - self._paused:
                self._tell(PeerUp(link.node))

    def _limited(self) -> Limited:
        rate, keys = self._paces.down.throttle.rate, self._paces.keys
        return Limited(rate([TOTAL]), {link.node: own for link in self._links.all() if (own := rate(keys(link.node)[1:])) is not None})
