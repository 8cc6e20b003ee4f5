"""What the parts of membership share: this node, its catalog, its links, its clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.crypto.envelope import record_id
from replicad.errors import NotAllowedError, NotFoundError
from replicad.model.ids import NETWORK_SHARE, STAMP_MAX, Stamp
from replicad.model.records import Role
from replicad.protocol import records as codec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from replicad.catalog import Catalog
    from replicad.crypto.keys import SigningKey
    from replicad.model.ids import NodeId
    from replicad.model.members import Member
    from replicad.model.records import Body, Envelope, Grant, Reason
    from replicad.net.dialer import Dialer
    from replicad.net.links import LinkTable
    from replicad.protocol.gossip.standing import Standing
    from replicad.protocol.handshake import Identity
    from replicad.protocol.joining import Door
    from replicad.services.hub import Hub

_BATCH_BYTES = 1 << 20


@dataclass(frozen=True)
class Local:
    """This node, as membership sees it. ``door`` is its own peer door; ``network_key`` the file in which the network's private key may lie, ``node_key`` that of this
    node's.
    """

    catalog: Catalog
    key: SigningKey
    name: str
    site: str
    door: Callable[[], Door]
    identity: Callable[[], Identity]
    links: LinkTable
    dialer: Dialer
    standing: Standing
    hub: Hub
    clock_ms: Callable[[], int]
    network_key: Path
    node_key: Path

    @property
    def own(self) -> NodeId:
        """This node's id."""
        return self.key.id

    def members(self) -> Mapping[NodeId, Member]:
        """The members now."""
        return self.catalog.replica.trust.members(self.clock_ms())

    def member(self, node: NodeId) -> Member:
        """One of them; NotFoundError."""
        found = self.members().get(node)
        if found is None:
            raise NotFoundError(f"{node.short} is not a member of this network", hint="replicad peer list", code="no-such-node")
        return found

    def now(self) -> Stamp:
        """The time as the next record has it: after everything heard of, also from clocks that are ahead of ours."""
        return Stamp(max(Stamp.of(self.clock_ms()), self.catalog.replica.clock.last + 1))

    def check_admin(self, what: str, network_key: SigningKey | None = None, *, hint: str = "ask on a node that replicad peer list shows as admin") -> NodeId:
        """Who signs for the network: ``network_key`` if it is given, else this node. Raises NotAllowedError unless that one may."""
        if network_key is not None:
            if network_key.id != self.catalog.network:
                raise NotAllowedError(
                    f"that is the key of network {network_key.id.short}, this node belongs to {self.catalog.network.short}", hint="replicad key show"
                )
            return network_key.id
        if not self.catalog.replica.trust.may(self.own, share=NETWORK_SHARE, path_key=None, stage=None, role=Role.ADMIN, at=self.now()):
            raise NotAllowedError(f"only an admin of the network may {what}; this node is none", hint=hint)
        return self.own

    async def author(self, bodies: Sequence[Body], network_key: SigningKey | None = None) -> None:
        """Sign for the network with that key, or with this node's own. Raises NotAllowedError."""
        if network_key is None:
            await self.catalog.author(NETWORK_SHARE, bodies)
        else:
            await self.catalog.author_as(network_key, bodies)

    async def cut(
        self,
        subject: NodeId,
        *,
        reason: Reason,
        before: Stamp = Stamp(STAMP_MAX),  # noqa: B008 - immutable
        then: Sequence[Grant] = (),
        network_key: SigningKey | None = None,
    ) -> None:
        """End the subject's grants, keeping what it said before that time, and give new ones. Raises NotAllowedError."""
        await self.catalog.author_cut(subject, reason=reason, before=before, then=then, key=network_key)

    async def network_records(self) -> tuple[Envelope, ...]:
        """Everything in the network's own chains, each predecessor first, the network key's own first."""
        found: list[Envelope] = []
        for origin in sorted(self.catalog.replica.chains.frontier(NETWORK_SHARE), key=lambda origin: (origin != self.catalog.network, origin)):
            have: dict[Stamp, int] = {}
            more = True
            while more:
                batch, more = await self.catalog.records_for_pull(NETWORK_SHARE, origin, have, bytes_max=_BATCH_BYTES)
                found += batch
                for envelope in batch:
                    header = codec.restore(envelope, record_id(self.catalog.network, envelope.type, envelope.payload)).header
                    have[header.incarnation] = max(header.seq, have.get(header.incarnation, 0))
        return tuple(found)
