"""Push: new records go to every linked peer that may have and wants them, at once, in small batches. Whether it may is asked when a batch leaves: rights may have changed while it waited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.protocol.gossip.events import Effect, Tell
from replicad.protocol.wire import RECORDS_PER_MESSAGE_MAX, Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicad.model.ids import NodeId
    from replicad.model.records import Record
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
    records: list[Record] = field(default_factory=list)
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
            for record in records:
                quiet = not meshed and not batch.records and now_ms - batch.sent_ms >= QUIET_MS
                if record.header.origin != node and (quiet or self._routes.wants(node, record.header.origin)):
                    self._add(node, batch, record, now_ms, out)
        self.due(now_ms, out)

    def due(self, now_ms: int, out: list[Effect]) -> None:
        """Send what has waited long enough."""
        for node, batch in self._batches.items():
            if batch.records and now_ms - batch.sent_ms >= BATCH_MS:
                self._flush(node, batch, now_ms, out)

    def deadline_ms(self) -> int | None:
        """When ``due`` has something to do."""
        return min((batch.sent_ms + BATCH_MS for batch in self._batches.values() if batch.records), default=None)

    def _add(self, node: NodeId, batch: _Batch, record: Record, now_ms: int, out: list[Effect]) -> None:
        batch.records.append(record)
        batch.size_bytes += len(record.envelope.payload) + ENVELOPE_OVERHEAD
        if batch.size_bytes >= BATCH_BYTES or len(batch.records) >= RECORDS_PER_MESSAGE_MAX:
            self._flush(node, batch, now_ms, out)

    def _flush(self, node: NodeId, batch: _Batch, now_ms: int, out: list[Effect]) -> None:
        allowed = {share for share in {record.header.share for record in batch.records} if self._rights.may_share(node, share)}
        envelopes = tuple(record.envelope for record in batch.records if record.header.share in allowed)
        if envelopes:
            out.append(Tell(node, Records(envelopes)))
            batch.sent_ms = now_ms
        batch.records.clear()
        batch.size_bytes = 0
