"""Who may hear what: the one question that every message of gossip asks, answered from the current records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from replicad.model.ids import NETWORK_SHARE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replicad.model.ids import NodeId
    from replicad.model.members import Member
    from replicad.model.records import Envelope
    from replicad.protocol.replica import Replica


class _Placed(msgspec.Struct, frozen=True):
    """The part of a record's payload that tells whose business it is."""

    share: str


_PLACED = msgspec.json.Decoder(_Placed)


class Rights:
    """A view of a replica's trust for one moment: call ``at`` before asking."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._wall_ms = 0

    def at(self, wall_ms: int) -> None:
        """Answer for this time from now on."""
        self._wall_ms = wall_ms

    @property
    def own(self) -> NodeId:
        """This node."""
        return self._replica.own

    @property
    def members(self) -> Mapping[NodeId, Member]:
        """Everybody with a grant in force."""
        return self._replica.trust.members(self._wall_ms)

    def own_shares(self) -> tuple[str, ...]:
        """The shares this node is granted, the network's own chains first."""
        return self._shares_of(self.members.get(self.own))

    def shares_with(self, node: NodeId) -> tuple[str, ...]:
        """The shares that both this node and the other are granted, the network's own chains first; empty if it is no member."""
        if (member := self.members.get(node)) is None:
            return ()
        return tuple(share for share in self.own_shares() if member.has_share(share))

    def may_share(self, node: NodeId, share: str) -> bool:
        """Whether records and heads of a share may pass between this node and the other."""
        member, own = self.members.get(node), self.members.get(self.own)
        if member is None:
            return False
        return share == NETWORK_SHARE or (member.has_share(share) and own is not None and own.has_share(share) and share in self._replica.trust.shares())

    def receivable(self, node: NodeId, envelopes: Iterable[Envelope]) -> tuple[Envelope, ...]:
        """Those of a peer's records that are, as they claim, of shares that both sides are granted. Whether the claim is signed, storing finds out; what names no share is left to it, too."""
        common = self.shares_with(node)
        return tuple(envelope for envelope in envelopes if (share := _share(envelope)) is None or share in common)

    def same_site(self, node: NodeId) -> bool:
        """Whether the other member stands at this node's site."""
        member, own = self.members.get(node), self.members.get(self.own)
        return member is not None and own is not None and member.site == own.site

    def _shares_of(self, member: Member | None) -> tuple[str, ...]:
        if member is None:
            return (NETWORK_SHARE,)
        return NETWORK_SHARE, *(share for share in self._replica.trust.shares() if member.has_share(share))


def _share(envelope: Envelope) -> str | None:
    try:
        return _PLACED.decode(envelope.payload).share
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
