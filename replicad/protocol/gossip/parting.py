"""What a node whose membership was cut is told when it asks for a link: the network-wide records up to that cut, so that it finds out by its own judgement. It was entitled to all of them when they
were said; of what came later it hears nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.protocol.wire import RECORDS_BYTES_PER_MESSAGE, RECORDS_PER_MESSAGE_MAX, Records

if TYPE_CHECKING:
    from replicad.model.ids import NodeId
    from replicad.model.records import Envelope
    from replicad.protocol.trust import Trust


def parting(trust: Trust, node: NodeId) -> Records | None:
    """One message with the newest of those records, at most ``RECORDS_PER_MESSAGE_MAX`` and ``RECORDS_BYTES_PER_MESSAGE``; None if no cut ended the node's membership. Whoever missed more than that
    before its cut cannot place it, and is only refused.
    """
    if (end := trust.ended(node)) is None:
        return None
    envelopes: list[Envelope] = []
    left_bytes = RECORDS_BYTES_PER_MESSAGE
    for record in reversed(trust.said(end, RECORDS_PER_MESSAGE_MAX)):
        left_bytes -= len(record.envelope.payload)
        if left_bytes < 0:
            break
        envelopes.append(record.envelope)
    return Records(tuple(reversed(envelopes)))
