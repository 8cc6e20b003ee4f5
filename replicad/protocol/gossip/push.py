"""Push: new records go to every linked peer that may have and wants them, at once, in small batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.protocol.gossip.events import Effect, Tell
from replicad.protocol.wire import RECORDS_PER_MESSAGE_MAX, Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicad.model.ids import NodeId
    from replicad.model.records import Envelope, Record
    from replicad.protocol.gossip.rights import Rights
    from replicad.protocol.gossip.routes import Routes

BATCH_MS = 50
BATCH_BYTES = 64 * 1024
"""Protocol.md section 5. The first record after a pause goes at once; those that follow within ``BATCH_MS`` share a message."""
QUIET_MS = 1_000
"""Without a full mesh, the first record after such a pause goes also to those who declined its origin: a single publication takes the shortest way (to 200 nodes 4 hops instead of 7 along the
trees of ``routes``, measured by bench/simulation.py) and costs a copy per link; only bursts keep to the trees."""
ENVELOPE_OVERHEAD = 160
"""Key, signature, type and framing of one record on the wire, in bytes, rounded up."""


@dataclass
class _Batch:
    envelopes: list[Envelope] = field(default_factory=list)
    size_bytes: int = 0
    sent_ms: int = -BATCH_MS


class Push:
    """One batch per linked peer."""

    def __init__(self, rights: Rights, routes: Routes) -> None:
        self._rights = rights
        self._routes = routes
        self._batches: dict[NodeId, _Batch] = {}

    def open(self, node: NodeId) -> None:
        """A link begins."""
        self._batches[node] = _Batch()

    def close(self, node: NodeId) -> None:
        """A link ended."""
        self._batches.pop(node, None)

    def committed(self, records: Sequence[Record], source: NodeId | None, now_ms: int, out: list[Effect]) -> None:
        """Queue records for everybody but the peer they came from."""
        meshed = len(self._batches) >= len(self._rights.members) - 1
        for node, batch in self._batches.items():
            if node == source:
                continue
            allowed = {share for share in {record.header.share for record in records} if self._rights.may_share(node, share)}
            for record in records:
                quiet = not meshed and not batch.envelopes and now_ms - batch.sent_ms >= QUIET_MS
                if record.header.share in allowed and record.header.origin != node and (quiet or self._routes.wants(node, record.header.origin)):
                    self._add(node, batch, record.envelope, now_ms, out)
        self.due(now_ms, out)

    def due(self, now_ms: int, out: list[Effect]) -> None:
        """Send what has waited long enough."""
        for node, batch in self._batches.items():
            if batch.envelopes and now_ms - batch.sent_ms >= BATCH_MS:
                _flush(node, batch, now_ms, out)

    def deadline_ms(self) -> int | None:
        """When ``due`` has something to do."""
        return min((batch.sent_ms + BATCH_MS for batch in self._batches.values() if batch.envelopes), default=None)

    def _add(self, node: NodeId, batch: _Batch, envelope: Envelope, now_ms: int, out: list[Effect]) -> None:
        batch.envelopes.append(envelope)
        batch.size_bytes += len(envelope.payload) + ENVELOPE_OVERHEAD
        if batch.size_bytes >= BATCH_BYTES or len(batch.envelopes) >= RECORDS_PER_MESSAGE_MAX:
            _flush(node, batch, now_ms, out)


def _flush(node: NodeId, batch: _Batch, now_ms: int, out: list[Effect]) -> None:
    out.append(Tell(node, Records(tuple(batch.envelopes))))
    batch.envelopes.clear()
    batch.size_bytes = 0
    batch.sent_ms = now_ms
