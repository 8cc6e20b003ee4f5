"""Who may be believed to try: offences, strikes, bans. Exact, because every extent has one source.

An offence is what no honest peer does: wrong bytes, an answer of a wrong length, lacking what it said it has. Connections that break are no offence; a body that ended early is one only if nothing
of it was of use, the link outlives it and no other answer brings anything (``suspect``). Conduct is remembered by node, not by link.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from replicad.model.ids import NodeId
from replicad.protocol.fetch.config import BAN_S, STRIKES_MAX, STRIKES_WINDOW_S, SUSPICION_S

OFFENDERS_MAX = 4096
"""Nodes remembered; the network's members are fewer."""


@dataclass(slots=True)
class _Record:
    strikes: deque[float] = field(default_factory=lambda: deque(maxlen=STRIKES_MAX))
    banned_until: float = 0.0


class Conduct:
    """Strikes and bans of all peers."""

    def __init__(self) -> None:
        self._records: dict[NodeId, _Record] = {}
        self._suspects: dict[NodeId, tuple[float, str]] = {}

    def strike(self, node: NodeId, now: float) -> bool:
        """Count one offence; True if that banned the peer."""
        if node not in self._records and len(self._records) >= OFFENDERS_MAX:
            del self._records[next(iter(self._records))]
        record = self._records.setdefault(node, _Record())
        record.strikes.append(now)
        if len(record.strikes) < STRIKES_MAX or now - record.strikes[0] > STRIKES_WINDOW_S:
            return False
        record.strikes.clear()
        record.banned_until = now + BAN_S
        return True

    def banned(self, node: NodeId, now: float) -> bool:
        """Whether nothing is asked of it now."""
        record = self._records.get(node)
        return record is not None and now < record.banned_until

    def suspect(self, node: NodeId, detail: str, now: float) -> None:
        """It looks like an offence, but its link may be about to go down, which would explain it. Several at once are one."""
        self._suspects.setdefault(node, (now + SUSPICION_S, detail))

    def cleared(self, node: NodeId) -> None:
        """The link went down, or an answer brought something, as over a network that breaks connections: no offence."""
        self._suspects.pop(node, None)

    def convicted(self, now: float) -> list[tuple[NodeId, str]]:
        """Suspects whose link is still there: (node, detail) of the offences to count now."""
        found = [(node, detail) for node, (due, detail) in self._suspects.items() if due <= now]
        for node, _ in found:
            del self._suspects[node]
        return found

    def next_deadline(self, now: float) -> float | None:
        """When a suspicion matures or a ban ends."""
        times = [due for due, _ in self._suspects.values()]
        times += [record.banned_until for record in self._records.values() if record.banned_until > now]
        return min(times, default=None)
