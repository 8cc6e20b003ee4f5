"""What the admin door and the peer door ask of membership, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.errors import ConflictError, InputError, NotFoundError
from replicad.model.records import Grant, Role
from replicad.protocol import joining
from replicad.protocol.joining import TOKEN_LIFE_S_MAX
from replicad.services.membership import changes
from replicad.services.membership.admitting import Admitting, PendingJoin
from replicad.services.membership.checking import Checking, Step
from replicad.services.membership.joiner import Joiner
from replicad.services.membership.lasting import Lasting
from replicad.services.membership.rotating import Rotating
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from typing import Unpack

    from replicad.catalog import Catalog
    from replicad.catalog.answers import Voided
    from replicad.crypto.keys import SigningKey
    from replicad.model.ids import NodeId, Stamp
    from replicad.services.membership.changes import Wishes
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
        self._lasting = Lasting(local)
        self._rotating = Rotating(local)

    async def run(self) -> None:
        """Renew grants, and notice their end, until cancelled."""
        await self._lasting.run()

    async def renew(self) -> None:
        """Renew now what is due: see ``Lasting.renew``."""
        await self._lasting.renew()

    def words(self, other: NodeId) -> str:
        """Four words that both this node and the other show: whoever compares them knows that they mean the same two keys."""
        return joining.words(self._local.own, other)

    async def invite(self, *, expires_s: int = TOKEN_LIFE_S_MAX, replaces: NodeId | None = None, **wishes: Unpack[Wishes]) -> str:
        """A token that admits one node, or gives the member ``replaces`` a new key: see ``Admitting.invite``."""
        return await self._admitting.invite(expires_s=expires_s, replaces=replaces, wishes=wishes)

    async def answer_join(self, body: bytes) -> bytes:
        """For the peer door: see ``Admitting.answer``."""
        return await self._admitting.answer(body)

    async def pending(self) -> list[PendingJoin]:
        """Nodes that asked to join without a token."""
        return await self._admitting.pending()

    async def approve(self, node: NodeId, *, network_key: SigningKey | None = None, **wishes: Unpack[Wishes]) -> None:
        """Admit one of them: see ``Admitting.approve``."""
        await self._admitting.approve(node, wishes=wishes, network_key=network_key)

    async def join(self, token: str, *, merge: bool = False) -> None:
        """Join another network with a token: see ``Joiner.join``."""
        await self._joiner.join(token, merge=merge)

    async def request(self, url: str, node: NodeId) -> str:
        """Ask to join without a token: see ``Joiner.request``."""
        return await self._joiner.request(url, node)

    async def rotate(self, token: str | None) -> NodeId:
        """Give this node a new key: see ``Rotating.rotate``."""
        return await self._rotating.rotate(token)

    async def check(self, node: NodeId) -> list[Step]:
        """Try to reach a member: see ``Checking.check``."""
        return await self._checking.check(node)

    async def set(self, node: NodeId, *, network_key: SigningKey | None = None, **wishes: Unpack[Wishes]) -> None:
        """Change a member's rights; what is not wished stays. Raises NotFoundError, InputError, NotAllowedError, ConflictError. ``network_key``: signed by that instead of this node, also when
        nothing else is different: nobody but the network stands above such a grant.
        """
        local = self._local
        author = local.check_admin("change members", network_key)
        member = local.member(node)
        trust = local.catalog.replica.trust
        current = changes.of_member(member)
        wanted = changes.revised(current, wishes, existing=trust.shares())
        if wanted == current and network_key is None:
            return
        grant = wanted.grant(node, member.name, at=local.now())
        if changes.narrows(current, wanted):
            if author == node:
                raise ConflictError("a node cannot narrow its own rights and keep the rest: another admin above it must", code="own-rights")
            changes.check_may_end(trust, author, node, member.name, at=local.now())
            await local.cut(node, reason="change", then=[grant], network_key=network_key)
        else:
            await local.author([grant], network_key)
        log.info("member changed", peer=node.short, name=member.name, role=str(wanted.role))

    async def remove(self, node: NodeId) -> None:
        """End a membership in good standing: what the node published until now counts. Its links end at once, here and at everybody who hears of it. Errors as in ``set``."""
        local = self._local
        local.check_admin("remove members")
        member = local.member(node)
        changes.check_admin_remains(local.members().values(), member)
        changes.check_may_end(local.catalog.replica.trust, local.own, node, member.name, at=local.now())
        await local.cut(node, reason="remove")
        log.info("member removed", peer=node.short, name=member.name)

    async def revoke(self, node: NodeId, *, since: Stamp | None = None, dry_run: bool = False, network_key: SigningKey | None = None) -> Voided:
        """Its key is stolen: end its membership, and void what it said from ``since`` on (None: from now on) - also what the thief dates back, for all nodes keep only what they see named here.

        Of a former member too. The answer is what becomes void, known here so far. Raises NotFoundError if the key never had a grant, InputError if ``since`` is in the future; else as ``set``.
        """
        local = self._local
        author = local.check_admin("revoke keys", network_key)
        trust, now = local.catalog.replica.trust, local.now()
        name = trust.named().get(node)
        if name is None:
            raise NotFoundError(f"{node.short} never was a member of this network", hint="replicad peer list", code="no-such-node")
        if since is not None and since > now:
            raise InputError("from: a time that has passed, or none for now")
        if network_key is None and (member := local.members().get(node)) is not None:
            changes.check_admin_remains(local.members().values(), member)
        changes.check_may_end(trust, author, node, name, at=now, past=True)
        before = now if since is None else since
        voided = await local.catalog.said_since(node, before)
        if not dry_run:
            await local.cut(node, reason="revoke", before=before, network_key=network_key)
            log.info("key revoked", peer=node.short, name=name, records=voided.records, names=voided.names)
        return voided
