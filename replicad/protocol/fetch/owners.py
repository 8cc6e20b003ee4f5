"""Who of a site takes which chunk across the WAN: one owner for each, so that about one copy crosses it.

The owner is the first in rendezvous order among the site's nodes that may have the content, so everybody finds the same one without asking. The others wait until somebody of the site has the chunk. An
owner of whose chunks none appears for max(``MISS_S``, 3 x expected) is skipped for this content, and so is one whose link broke: its chunks pass to the next in order. Who says that it has chunks, and for
as long brings none of what it is asked for, keeps nobody from asking elsewhere (docs/protocol.md, "Several sites").
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from replicad.model.ids import Digest, NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import MISS_FACTOR, MISS_S

LOOK_S = 0.5
"""Misses are looked for so often."""


class Owners:
    """The owners of one content's ``count`` chunks at the site of ``own``, which is one of ``crew``. ``mine``: the chunks of which ``own`` is the owner now. ``near``: the others; ``giving``: those of them
    whose word is that the site has something.
    """

    def __init__(self, own: NodeId, crew: Iterable[NodeId], *, content: Digest, count: int, now: float) -> None:
        self.near = frozenset(crew) - {own}
        self.giving = self.near
        self.mine = 0
        self.due = now + LOOK_S
        self.slowest_s = 0.0
        """The longest that a request across the WAN took so far."""
        self._own = own
        self._weights = {node: struct.unpack(f"<{count}I", hashlib.shake_256(content + node).digest(4 * count)) for node in sorted(self.near | {own})}
        self._owned: dict[NodeId, int] = {}
        self._waiting: dict[NodeId, tuple[int, float]] = {}
        self._vain: dict[NodeId, tuple[float, float]] = {}
        self._divide()

    def _divide(self) -> None:
        nodes = list(self._weights)
        members: list[list[int]] = [[] for _ in nodes]
        for chunk, weights in enumerate(zip(*self._weights.values(), strict=True)):
            members[weights.index(max(weights))].append(chunk)
        self._owned = {node: sets.of(chunks) for node, chunks in zip(nodes, members, strict=True)}
        self.mine = self._owned[self._own]

    def skip(self, node: NodeId) -> None:
        """It does not bring its chunks: they pass to the next in order."""
        if node != self._own and self._weights.pop(node, None) is not None:
            self._waiting.pop(node, None)
            self._divide()

    def asked(self, node: NodeId, since: float, now: float, *, brought: bool) -> None:
        """What it was asked for came, or did not: refused, broken, overdue. Believed no longer is who at this site brought nothing from a first such time to another that much later."""
        if node not in self.near:
            self.slowest_s = max(self.slowest_s, now - since)
        elif not brought:
            self._vain[node] = self._vain.get(node, (now, now))[0], now
        elif self._vain.pop(node, None) is not None:
            self.giving |= {node}

    def look(self, waited_for: int, now: float, *, running_s: float) -> bool:
        """Skip owners that bring nothing of what is ``waited_for`` (and could be had across the WAN), and no longer believe who brings nothing that it is asked for; True if there were any. ``running_s``: how old
        the oldest request across the WAN is.
        """
        self.due = now + LOOK_S
        patience_s = max(MISS_S, MISS_FACTOR * max(self.slowest_s, running_s))
        missed = []
        for node in self._weights.keys() - {self._own}:
            waiting = self._owned[node] & waited_for
            before, since = self._waiting.get(node, (0, now))
            if waiting & ~before or before & ~waiting or not waiting:
                since = now
            elif now - since >= patience_s:
                missed.append(node)
            self._waiting[node] = waiting, since
        vain = {node for node, (first, last) in self._vain.items() if node in self.giving and last - first >= patience_s}
        self.giving -= vain
        for node in (*missed, *vain):
            self.skip(node)
        return bool(missed or vain)
