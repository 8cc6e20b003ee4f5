"""Standing: what the newest heads say about every member. Passive: ``gossip.core`` fills it, everybody else asks.

It answers for other members only; what this node itself holds, the catalog and the fetcher know. Claims of absence and presence are both careful: where a head does not tell, the answer is
None ("not known"), never a guess, because ``--wait`` and people rely on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from replicad.model.entries import Listed
from replicad.model.ids import NETWORK_SHARE, Digest, NodeId, Stamp
from replicad.model.records import Envelope
from replicad.protocol.gossip.alarms import FROZEN_MS, LAG_MS, LINKED_INTERVALS, Alarm, Trends
from replicad.protocol.gossip.heads import Head, Presence
from replicad.protocol.wire import End

HEADS_MAX = 65_536
HINTS_MAX = 64


class Frontiers(Protocol):
    """What Standing must know about this node's own chains (``protocol.chains.Chains``)."""

    def frontier_hash(self, share: str) -> Digest:
        """Hash of everything this node has in the share."""

    def ends(self, origin: NodeId, share: str) -> tuple[End, ...]:
        """The ends of one origin's chain here."""

    def have(self, origin: NodeId, share: str) -> dict[Stamp, int]:
        """Incarnation to last seq of one origin's chain here."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a member is behind, over all shares it told about: contents it should hold and does not, their bytes, and since when (the oldest entry's time; None: not behind)."""

    files: int
    bytes: int
    since_ms: int | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A head as it was received: its envelope (to relay), and this node's monotonic time at which its author made it. ``percents``: of the missing contents that it names."""

    head: Head
    envelope: Envelope
    made_at_ms: int
    percents: Mapping[Digest, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "percents", {missing.content: missing.percent for missing in self.head.missing})

    def is_fresh(self, now_ms: int) -> bool:
        """Whether its author is alive as far as it tells."""
        return now_ms - self.made_at_ms < LINKED_INTERVALS * self.head.interval_ms


@dataclass
class Standing:
    """The newest head of every (node, share). Times are this node's monotonic clock in milliseconds. ``chains`` is asked afresh each time: joining a network replaces them."""

    chains: Callable[[], Frontiers]
    _heads: dict[NodeId, dict[str, Kept]] = field(default_factory=dict)
    _count: int = 0
    _hints: dict[NodeId, tuple[tuple[str, ...], Digest | None]] = field(default_factory=dict)
    _trends: Trends = field(default_factory=Trends)

    def head(self, node: NodeId, share: str = "") -> Head | None:
        """The newest head of that node for that share."""
        kept = self.find(node, share)
        return kept.head if kept else None

    def kept(self) -> list[Kept]:
        """Everything known, for relaying and saving."""
        return [kept for of_node in self._heads.values() for kept in of_node.values()]

    def find(self, node: NodeId, share: str) -> Kept | None:
        """The newest head with its envelope and age."""
        return self._heads.get(node, {}).get(share)

    def add(self, kept: Kept) -> bool:
        """Keep a verified head if it is newer than what is known; True when it was."""
        node, share = kept.head.node, kept.head.share
        known = self.find(node, share)
        if known is not None and known.head.order >= kept.head.order:
            return False
        if known is None and self._count >= HEADS_MAX:
            return False
        self._heads.setdefault(node, {})[share] = kept
        self._count += known is None
        self._trends.note(
            known.head if known else None,
            kept.head,
            made_at_ms=kept.made_at_ms,
            paused=known is not None and not known.is_fresh(kept.made_at_ms),
            equal=kept.head.frontier == self.chains().frontier_hash(share),
        )
        return True

    def forget(self, node: NodeId, share: str) -> None:
        """Drop the head of a node that has no right to the share any more."""
        del self._heads[node][share]
        self._count -= 1
        self._trends.forget(node, share)

    def clear(self) -> None:
        """Drop everything: this node moves to another network."""
        self._heads.clear()
        self._count = 0
        self._hints.clear()
        self._trends = Trends()

    def percent(self, node: NodeId, listed: Listed) -> int | None:
        """How much of the entry's content the member holds: 100 held (verified), 0 to 99 on its way, None not known. An entry that has not reached the member yet counts as 0."""
        kept = self.find(node, listed.share)
        if kept is None:
            return None
        head = kept.head
        includes = self._includes(head, listed)
        if not includes:
            return None if includes is None else 0
        if listed.content in kept.percents:
            return kept.percents[listed.content]
        if head.missing_count <= len(head.missing):
            return 100
        if head.missing_since is not None and listed.hlc < head.missing_since:
            return 100
        return None

    def linked(self, node: NodeId, now_ms: int) -> bool:
        """Whether the member is alive as far as heads tell."""
        kept = self.find(node, NETWORK_SHARE)
        return kept is not None and kept.is_fresh(now_ms)

    def seen_ms_ago(self, node: NodeId, now_ms: int) -> int | None:
        """Milliseconds since the member's newest head was made; None when none is known."""
        kept = self.find(node, NETWORK_SHARE)
        return None if kept is None else max(0, now_ms - kept.made_at_ms)

    def lag(self, node: NodeId) -> Lag:
        """What the member still misses. Entries that it has not even heard of are not counted."""
        heads = [kept.head for kept in self._heads.get(node, {}).values()]
        since = min((head.missing_since.ms for head in heads if head.missing_since is not None), default=None)
        return Lag(sum(head.missing_count for head in heads), sum(head.missing_bytes for head in heads), since)

    def in_sync(self, node: NodeId, share: str) -> bool:
        """Whether the member's newest head shows the same records as this node has now."""
        head = self.head(node, share)
        return head is not None and head.frontier == self.chains().frontier_hash(share)

    def alarms(self, node: NodeId, now_ms: int) -> list[Alarm]:
        """What is wrong with the member as far as its heads tell; "lags" and "disk-full" at most once."""
        kept = list(self._heads.get(node, {}).values())
        behind_ms = max((self._trends.behind_ms(one.head, now_ms) for one in kept if one.is_fresh(now_ms)), default=0)
        found = [Alarm("lags", "", behind_ms)] if behind_ms >= LAG_MS else []
        for one in kept:
            head = one.head
            if head.presence and head.presence.is_full and one.is_fresh(now_ms):
                found.append(Alarm("disk-full", "", now_ms - one.made_at_ms))
            went_back_ms = self._trends.went_back_ms(head, now_ms)
            if went_back_ms is not None:
                found.append(Alarm("went-back", head.share, went_back_ms))
            still_ms = self._trends.still_ms(head, one.made_at_ms)
            if still_ms >= max(FROZEN_MS, LINKED_INTERVALS * head.interval_ms) and one.is_fresh(now_ms) and not self.in_sync(node, head.share):
                found.append(Alarm("withholds" if self._claims_more(head) else "frozen", head.share, still_ms))
        return found

    def presence(self, node: NodeId) -> Presence | None:
        """What the member says about itself."""
        head = self.head(node)
        return head.presence if head else None

    def address(self, node: NodeId) -> tuple[tuple[str, ...], Digest | None]:
        """The member's peer door: base URLs in order of preference, and the TLS certificate's fingerprint (None: it has no TLS, or nothing is known)."""
        presence = self.presence(node)
        hinted = self._hints.get(node, ((), None))
        if presence is None:
            return hinted
        return (*presence.urls, *(url for url in hinted[0] if url not in presence.urls)), presence.certificate

    def hint(self, node: NodeId, urls: tuple[str, ...], certificate: Digest | None) -> None:
        """Where somebody (an invitation) says a member's peer door is; its own head takes precedence."""
        self._hints[node] = (urls, certificate)
        while len(self._hints) > HINTS_MAX:
            del self._hints[next(iter(self._hints))]

    def _claims_more(self, head: Head) -> bool:
        """Whether the head names records that are not here."""
        return any(self.chains().have(end.origin, head.share).get(end.incarnation, 0) < end.seq for end in head.ends)

    def _includes(self, head: Head, listed: Listed) -> bool | None:
        """Whether the head's frontier includes the entry; None when it does not tell."""
        if head.frontier == self.chains().frontier_hash(head.share):
            return True
        theirs = [end for end in head.ends if end.origin == listed.origin]
        if not theirs:
            return False if head.ends_whole else None
        if all(end.hlc < listed.hlc for end in theirs):
            return False
        ours = self.chains().ends(listed.origin, head.share)
        if len(ours) == 1:
            return True
        places = {(end.incarnation, end.seq) for end in theirs}
        return True if all((end.incarnation, end.seq) in places for end in ours) else None
