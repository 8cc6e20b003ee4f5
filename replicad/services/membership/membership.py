"""What the admin door and the peer door ask of membership, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.errors import ConflictError
from replicad.model.ids import NETWORK_SHARE
from replicad.model.records import Grant, Role
from replicad.protocol import joining
from replicad.services.membership import changes
from replicad.services.membership.admitting import Admitting, PendingJoin
from replicad.services.membership.changes import UNSET, Unset
from replicad.services.membership.checking import Checking, Step
from replicad.services.membership.joiner import Joiner
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicad.catalog import Catalog
    from replicad.crypto.keys import SigningKey
    from replicad.model.ids import NodeId
    from replicad.services.membership.local import Local

log = get(__name__)


async def found(catalog: Catalog, network_key: SigningKey, *, name: str, site: str) -> None:
    """Found a network of one: the network key makes the catalog's node its first admin."""
    await catalog.author_as(network_key, [Grant(subject=catalog.node, name=name, role=Role.ADMIN, site=site)])


class Membership:
    """One per daemon. Errors are meant for people; see the parts for who raises what."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._admitting = Admitting(local)
        self._joiner = Joiner(local)
        self._checking = Checking(local)

    def words(self, other: NodeId) -> str:
        """Four words that both this node and the other show: whoever compares them knows that they mean the same two keys."""
        return joining.words(self._local.own, other)

    async def invite(
        self,
        *,
        role: Role | str = Role.MIRROR,
        shares: Sequence[str] | None = None,
        stages: Sequence[str] | None = None,
        site: str = "",
        expires_s: int = 24 * 3600,
    ) -> str:
        """A token that admits one node: see ``Admitting.invite``."""
        return await self._admitting.invite(role=role, shares=shares, stages=stages, site=site, expires_s=expires_s)

    async def answer_join(self, body: bytes) -> bytes:
        """For the peer door: see ``Admitting.answer``."""
        return await self._admitting.answer(body)

    async def pending(self) -> list[PendingJoin]:
        """Nodes that asked to join without a token."""
        return await self._admitting.pending()

    async def approve(
        self, node: NodeId, *, role: Role | str = Role.MIRROR, shares: Sequence[str] | None = None, stages: Sequence[str] | None = None, site: str = ""
    ) -> None:
        """Admit one of them: see ``Admitting.approve``."""
        await self._admitting.approve(node, role=role, shares=shares, stages=stages, site=site)

    async def join(self, token: str, *, merge: bool = False) -> None:
        """Join another network with a token: see ``Joiner.join``."""
        await self._joiner.join(token, merge=merge)

    async def request(self, url: str, node: NodeId) -> str:
        """Ask to join without a token: see ``Joiner.request``."""
        return await self._joiner.request(url, node)

    async def check(self, node: NodeId) -> list[Step]:
        """Try to reach a member: see ``Checking.check``."""
        return await self._checking.check(node)

    async def set(
        self,
        node: NodeId,
        *,
        role: Role | str | Unset = UNSET,
        shares: Sequence[str] | Unset | None = UNSET,
        stages: Sequence[str] | Unset | None = UNSET,
        site: str | Unset = UNSET,
    ) -> None:
        """Change a member's rights; what is unset stays, None means all. Raises NotFoundError, InputError, NotAllowedError, ConflictError."""
        local = self._local
        local.check_admin("change members")
        member = local.member(node)
        trust = local.catalog.replica.trust
        wanted = changes.revised(changes.of_member(member), role=role, shares=shares, stages=stages, site=site, existing=trust.shares())
        ends = {}
        if changes.narrows(changes.of_member(member), wanted):
            if node == local.own:
                raise ConflictError("a node cannot narrow its own rights and keep the rest: another admin above it must", code="own-rights")
            changes.check_may_end(trust, local.own, member, local.now())
            ends = await local.catalog.cut_ends(node)
        if bodies := changes.bodies(member, wanted, ends):
            await local.catalog.author(NETWORK_SHARE, bodies)
            log.info("member changed", peer=node.short, name=member.name, role=str(wanted.role))

    async def remove(self, node: NodeId) -> None:
        """End a membership in good standing: what the node published until now counts. Its links end at once, here and at everybody who hears of it. Errors as in ``set``."""
        local = self._local
        local.check_admin("remove members")
        member = local.member(node)
        changes.check_admin_remains(local.members().values(), member)
        changes.check_may_end(local.catalog.replica.trust, local.own, member, local.now())
        await local.catalog.author(NETWORK_SHARE, [changes.cut(node, await local.catalog.cut_ends(node), reason="remove")])
        log.info("member removed", peer=node.short, name=member.name)
