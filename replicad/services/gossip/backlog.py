"""What one peer sent and is not stored yet, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from replicad.protocol.wire import RECORDS_PER_MESSAGE_MAX

if TYPE_CHECKING:
    from replicad.protocol.gossip.events import Store

MESSAGE_COST_BYTES, ENVELOPE_COST_BYTES = 512, 512
"""What a message and an envelope take in memory besides the payload, rounded up (measured: 65 and 311): without them a peer could queue empty ones without end."""


@dataclass
class Backlog:
    """``size_bytes`` counts what is being stored, too, until ``service`` takes it off; ``room`` is set when there is less of it."""

    stores: deque[Store] = field(default_factory=deque)
    size_bytes: int = 0
    working: bool = False
    room: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, store: Store) -> None:
        """Behind what is there."""
        self.stores.append(store)
        self.size_bytes += _size(store)

    def next(self) -> tuple[Store, int]:
        """The first of what is to be stored, as one with the news that follow it, up to the bound of a message; and its size. A burst of messages costs a few transactions, not one each."""
        first = self.stores.popleft()
        size_bytes, envelopes = _size(first), first.envelopes
        while self.stores and not (first.pull or self.stores[0].pull) and len(envelopes) + len(self.stores[0].envelopes) <= RECORDS_PER_MESSAGE_MAX:
            size_bytes += _size(self.stores[0])
            envelopes += self.stores.popleft().envelopes
        return replace(first, envelopes=envelopes), size_bytes


def _size(store: Store) -> int:
    return MESSAGE_COST_BYTES + sum(len(envelope.payload) + ENVELOPE_COST_BYTES for envelope in store.envelopes)
