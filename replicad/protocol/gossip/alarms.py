"""Alarms: what the heads of one member show to be wrong with it, judged from how they follow each other. Told by ``standing`` of every head it keeps; decides nothing about rights.

    lags           its heads are fresh and it has been missing contents for ``LAG_MS``
    frozen         its heads are fresh and its frontier stands still, while this node has records that it does not take
    withholds      the same, but it claims records that this node does not have: it does not give them to anybody who would pass them on
    disk-full      its heads are fresh and the newest says that there is no room on its disk
    went-back      a later head knows less than an earlier one: a restored backup, or a disk that lost what it had

Times are this node's monotonic clock; after a pause in the heads (a member that was away) the first two begin to count anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from replicad.model.ids import NodeId, Stamp
    from replicad.protocol.gossip.heads import Head

LINKED_INTERVALS = 3
"""A member counts as linked while its newest head is younger than this many of its intervals (protocol.md section 5)."""
LAG_MS = 600_000
"""A guess: an ordinary package is everywhere within minutes, and whoever is slower wants to be looked at."""
FROZEN_MS = 300_000
"""Ten rounds of anti-entropy: by then whatever can come has come (protocol.md section 9, I2)."""
WENT_BACK_SHOWN_MS = 3_600_000

Kind = Literal["lags", "frozen", "withholds", "disk-full", "went-back"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """``for_ms``: how long it has been so ("went-back": how long ago it was seen; "disk-full": since the head that says so). ``share`` is empty for "lags" and "disk-full", which are about all of them, and for the network's own chains."""

    kind: Kind
    share: str
    for_ms: int


@dataclass
class _Trend:
    """Of one (node, share): when its frontier last moved or was ours, since when it has been missing contents, when it went back."""

    moved_ms: int
    behind_ms: int | None = None
    went_back_ms: int | None = None


@dataclass
class Trends:
    """How the heads of every (node, share) developed."""

    _trends: dict[tuple[NodeId, str], _Trend] = field(default_factory=dict)

    def note(self, before: Head | None, now: Head, *, made_at_ms: int, paused: bool, equal: bool) -> None:
        """A newer head is kept. ``paused``: too long after the one before; ``equal``: it shows what this node has."""
        trend = self._trends.setdefault((now.node, now.share), _Trend(made_at_ms))
        if before is None or paused or equal or before.frontier != now.frontier:
            trend.moved_ms = made_at_ms
        if not now.missing_count:
            trend.behind_ms = None
        elif trend.behind_ms is None or paused:
            trend.behind_ms = made_at_ms
        if before is not None and _went_back(before, now):
            trend.went_back_ms = made_at_ms

    def forget(self, node: NodeId, share: str) -> None:
        """Its heads of that share are not kept any more."""
        self._trends.pop((node, share), None)

    def still_ms(self, head: Head, made_at_ms: int) -> int:
        """For how long the frontier has stood still, other than ours, up to this newest head."""
        return made_at_ms - self._trends[head.node, head.share].moved_ms

    def behind_ms(self, head: Head, now_ms: int) -> int:
        """For how long the member has been missing contents of the share."""
        since = self._trends[head.node, head.share].behind_ms
        return 0 if since is None else now_ms - since

    def went_back_ms(self, head: Head, now_ms: int) -> int | None:
        """How long ago it went back, if that is worth telling."""
        at = self._trends[head.node, head.share].went_back_ms
        return None if at is None or now_ms - at > WENT_BACK_SHOWN_MS else now_ms - at


def _went_back(before: Head, now: Head) -> bool:
    """Of the records of an origin in a share the one with the greatest clock is always an end, and records are never pruned: that clock does not go down."""
    then, latest = _latest(before), _latest(now)
    return any(latest.get(origin, 0 if now.ends_whole else hlc) < hlc for origin, hlc in then.items())


def _latest(head: Head) -> dict[NodeId, Stamp]:
    found: dict[NodeId, Stamp] = {}
    for end in head.ends:
        found[end.origin] = max(end.hlc, found.get(end.origin, end.hlc))
    return found
