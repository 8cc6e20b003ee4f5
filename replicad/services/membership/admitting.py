"""The inviting side: makes tokens, answers join requests, relays those whose token another member made, keeps those that wait for approval."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from replicad.errors import ConflictError, InputError, NotAllowedError, NotFoundError, PeerError, ReplicadError, UnreachableError
from replicad.model.events import TrustChanged
from replicad.model.ids import NETWORK_SHARE, NodeId, from_wire, to_text
from replicad.protocol import joining
from replicad.protocol.joining import TOKEN_LIFE_S_MAX, TOKEN_MEMBERS_MAX, Answer, Asked, Door, Request, Token
from replicad.protocol.wire import Relay, Relayed
from replicad.services.membership import changes
from replicad.services.membership.changes import NEWCOMER, Rights, Wishes
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from replicad.crypto.keys import SigningKey
    from replicad.model.members import Member
    from replicad.net.link import Link
    from replicad.services.membership.local import Local

log = get(__name__)

APPROVAL_WAIT_S = 8.0
"""A request without token is held for so long before it is answered "pending": whoever repeats it hears of the approval at once."""
GRANT_WAIT_S = 15.0
RELAY_TIMEOUT_S = 15.0
APPROVALS_AWAITED_MAX = 8
"""Requests without token that are held at once; half of what the door takes, so that strangers leave room for whoever has a token. More are answered "pending" at once."""
RELAYS_MAX = 64


class InviteBody(msgspec.Struct, frozen=True):
    """What this node keeps of a token that it made: everything but the secret. ``proof`` is the public half of the token's key. Whoever uses it takes the place of ``replaces``."""

    proof: NodeId
    rights: Rights
    replaces: NodeId | None = None


class PendingBody(msgspec.Struct, frozen=True):
    """What this node keeps of a request without token."""

    name: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class PendingJoin:
    """A node that asked to join and waits for an admin."""

    node: NodeId
    name: str
    urls: tuple[str, ...]
    asked_ms: int


class Admitting:
    """Part of ``Membership``."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._relays: dict[int, tuple[NodeId, asyncio.Future[Relayed]]] = {}
        self._relay_number = 0
        self._approvals_awaited = 0
        self._admitting = asyncio.Lock()
        local.links.route(Relay, self._relay_asked)
        local.links.route(Relayed, self._relay_told)

    async def invite(self, *, expires_s: int, replaces: NodeId | None, wishes: Wishes) -> str:
        """A token that admits one node; with ``replaces`` it gives that member's rights to another key and ends those of the present one. Raises NotAllowedError, NotFoundError (share, member), InputError."""
        local = self._local
        if not 1 <= expires_s <= TOKEN_LIFE_S_MAX:
            raise InputError(f"expiry {expires_s} s: 1 second to {TOKEN_LIFE_S_MAX // 3600} hours expected")
        local.check_admin("invite")
        rights = changes.revised(NEWCOMER, wishes, existing=local.catalog.replica.trust.shares())
        if replaces is not None:
            rights = changes.of_member(self._replaceable(replaces))
        expires_ms = local.clock_ms() + 1000 * expires_s
        doors = (local.door(), *self._other_doors())[:TOKEN_MEMBERS_MAX]
        token = Token(
            local.catalog.network, doors, secrets.token_bytes(joining.SECRET_BYTES), rights.role, rights.shares, rights.stages, rights.site, expires_ms
        )
        body = InviteBody(token.key.id, rights, replaces)
        await local.catalog.add_invite(token.id, msgspec.json.encode(body, enc_hook=to_text), expires_ms)
        return joining.write_token(token)

    async def answer(self, body: bytes) -> bytes:
        """Answer ``POST /peer/v1/join``. Raises what the asker is to be told."""
        request, asked = joining.read_request(body)
        if asked.invite is None:
            return await self._answer_unbidden(body, asked)
        if asked.network != self._local.catalog.network:
            raise ConflictError("this node belongs to another network than the token", code="other-network")
        if await self._local.catalog.invite(asked.invite) is not None:
            async with self._admitting:
                await self._admit(request, asked)
        elif asked.inviter is not None and asked.inviter != self._local.own:
            await self._relay(asked.inviter, body)
        else:
            raise NotFoundError("no such invitation: it was not made here", code="invite-unknown")
        if not await self._until_member(asked.node, GRANT_WAIT_S):
            raise UnreachableError("the grant did not arrive in time; repeat with the same token")
        return await self._welcome(body, asked)

    async def pending(self) -> list[PendingJoin]:
        """Nodes that asked and wait, oldest first."""
        found = []
        for row in await self._local.catalog.pending():
            body = msgspec.json.decode(row.body, type=PendingBody)
            found.append(PendingJoin(row.node, body.name, body.urls, row.asked_ms))
        return found

    async def approve(self, node: NodeId, *, wishes: Wishes, network_key: SigningKey | None) -> None:
        """Admit a node that asked. Raises NotFoundError if it did not, NotAllowedError, ConflictError."""
        local = self._local
        local.check_admin("approve", network_key)
        waiting = next((one for one in await self.pending() if one.node == node), None)
        if waiting is None:
            raise NotFoundError(f"{node.short} did not ask to join", hint="replicad peer list", code="no-such-node")
        rights = changes.revised(NEWCOMER, wishes, existing=local.catalog.replica.trust.shares())
        self._check_name(node, waiting.name)
        await local.author([rights.grant(node, waiting.name, at=local.now())], network_key)
        await local.catalog.drop_pending(node)
        log.info("node approved", peer=node.short, name=waiting.name, role=str(rights.role))

    # -- with a token -------------------------------------------------------------------------------------------------------------------------------

    async def _admit(self, request: Request, asked: Asked) -> None:
        """Grant what the token promises, once, to one key."""
        local = self._local
        row = await local.catalog.invite(asked.invite) if asked.invite else None
        if row is None or asked.invite is None:
            raise NotFoundError("no such invitation: it was not made here", code="invite-unknown")
        if asked.node == local.own:
            raise ConflictError("a node does not admit itself", code="is-member")
        body = msgspec.json.decode(row.body, type=InviteBody, dec_hook=from_wire)
        joining.check_token_proof(request, body.proof)
        if row.used_by not in (None, asked.node):
            raise ConflictError("this token has admitted another node; each token admits one", code="invite-used", hint="replicad peer invite")
        if any(grant.invite == asked.invite for grant in local.catalog.replica.trust.grants_of(asked.node)):
            if asked.node not in local.members():
                raise NotAllowedError("this token admitted this node before, and it was removed since", code="invite-used", hint="replicad peer invite")
            return
        if local.clock_ms() > row.expires_ms:
            raise NotAllowedError("this token has expired", code="invite-expired", hint="replicad peer invite")
        replaced = None if body.replaces is None else self._replaceable(body.replaces)
        if replaced is None or asked.name != replaced.name:
            self._check_name(asked.node, asked.name)
        if not await local.catalog.use_invite(asked.invite, asked.node):
            raise ConflictError("this token has admitted another node; each token admits one", code="invite-used", hint="replicad peer invite")
        grant = body.rights.grant(asked.node, asked.name, at=local.now(), invite=asked.invite)
        if replaced is None:
            await local.author([grant])
        else:
            await local.cut(replaced.id, reason="rotate", then=[grant])
        log.info("node admitted", peer=asked.node.short, name=asked.name, role=str(body.rights.role))

    def _replaceable(self, node: NodeId) -> Member:
        """A member whose key this node may replace. NotFoundError, NotAllowedError."""
        member = self._local.member(node)
        changes.check_may_end(self._local.catalog.replica.trust, self._local.own, node, member.name, at=self._local.now())
        return member

    def _check_name(self, node: NodeId, name: str) -> None:
        for member in self._local.members().values():
            if member.name == name and member.id != node:
                raise ConflictError(f"another member is called {name!r}; give this node another name (node.name in its configuration)", code="name-taken")

    async def _relay(self, inviter: NodeId, body: bytes) -> None:
        """Let the member that made the token decide."""
        link = self._local.links.get(inviter)
        if link is None:
            raise UnreachableError("the member that made this token cannot be reached from here", code="inviter-unreachable")
        if len(self._relays) >= RELAYS_MAX:
            raise UnreachableError("too many join requests at this moment; try again")
        self._relay_number += 1
        number = self._relay_number
        told: asyncio.Future[Relayed] = asyncio.get_running_loop().create_future()
        self._relays[number] = inviter, told
        try:
            link.send(Relay(number, body))
            async with asyncio.timeout(RELAY_TIMEOUT_S):
                answer = await told
        except TimeoutError:
            raise UnreachableError("the member that made this token does not answer", code="inviter-unreachable") from None
        finally:
            del self._relays[number]
        if answer.status != 200:
            raise refusal(answer.status, answer.code, answer.message)

    def _relay_asked(self, link: Link, message: Relay) -> Awaitable[None]:
        return self._answer_relay(link, message)

    async def _answer_relay(self, link: Link, message: Relay) -> None:
        try:
            request, asked = joining.read_request(message.body)
            if asked.network != self._local.catalog.network:
                raise ConflictError("this node belongs to another network than the token", code="other-network")
            async with self._admitting:
                await self._admit(request, asked)
        except ReplicadError as error:
            status = 400 if isinstance(error, PeerError) else error.http_status
            link.send(Relayed(message.number, status, error.error_code, error.message[:500]))
        else:
            link.send(Relayed(message.number, 200))

    def _relay_told(self, link: Link, message: Relayed) -> None:
        inviter, told = self._relays.get(message.number, (None, None))
        if told is not None and inviter == link.node and not told.done():
            told.set_result(message)

    # -- without a token ----------------------------------------------------------------------------------------------------------------------------

    async def _answer_unbidden(self, body: bytes, asked: Asked) -> bytes:
        local = self._local
        if asked.node in local.members():
            return await self._welcome(body, asked)
        await local.catalog.add_pending(asked.node, msgspec.json.encode(PendingBody(asked.name, asked.door.urls)), local.clock_ms())
        log.seldom("pending", "a node asks to join", peer=asked.node.short, name=asked.name)
        if self._approvals_awaited < APPROVALS_AWAITED_MAX:
            self._approvals_awaited += 1
            try:
                if await self._until_member(asked.node, APPROVAL_WAIT_S):
                    return await self._welcome(body, asked)
            finally:
                self._approvals_awaited -= 1
        return joining.make_answer(local.key, Answer(local.own, local.catalog.network, pending=True, records=(), heads=(), doors=()), body)

    # -- answers ------------------------------------------------------------------------------------------------------------------------------------

    async def _until_member(self, node: NodeId, timeout_s: float) -> bool:
        with self._local.hub.subscribe(TrustChanged) as news:
            try:
                async with asyncio.timeout(timeout_s):
                    while node not in self._local.members():
                        await news.wait()
            except TimeoutError:
                return False
        return True

    async def _welcome(self, body: bytes, asked: Asked) -> bytes:
        local = self._local
        heads = tuple(kept.envelope for kept in local.standing.kept() if kept.head.share == NETWORK_SHARE and kept.head.node != asked.node)
        doors = (local.door(), *self._other_doors())
        return joining.make_answer(
            local.key, Answer(local.own, local.catalog.network, pending=False, records=await local.network_records(), heads=heads, doors=doors), body
        )

    def _other_doors(self) -> tuple[Door, ...]:
        """Linked members whose doors answer, as they are reached from here."""
        doors = []
        for link in self._local.links.all():
            if link.reachable and link.peer_url:
                urls, certificate = self._local.standing.address(link.node)
                doors.append(Door(link.node, urls or (link.peer_url,), link.certificate or certificate))
        return tuple(doors[:TOKEN_MEMBERS_MAX])


_BY_STATUS = {error.http_status: error for error in (InputError, NotAllowedError, NotFoundError, ConflictError)}


def refusal(status: int, code: str, message: str, hint: str = "") -> ReplicadError:
    """The error that another node was told to report, as an error of this one."""
    return _BY_STATUS.get(status, UnreachableError)(message, hint=hint, code=code or None)
