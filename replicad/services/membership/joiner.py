"""The joining side: asks the members that a token names, proves before it moves that the answer holds its grant, moves, and waits until everything is synchronised.

A node that founded its own network and published nothing simply moves. With content it must be told to merge: its live entries are signed anew under the new grant, which must cover them all -
that is checked before anything is given up. A node that shares its network with others does not move.

So it is with what a removed node has published and nobody had seen when it was removed: that is void, and is signed anew if it comes back with ``merge``.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from replicad.crypto.session import nonce
from replicad.errors import BusyError, ConflictError, DistrustError, InputError, NotAllowedError, PeerError, ReplicadError, UnreachableError
from replicad.model import paths
from replicad.model.events import HeadsChanged, Synchronised, TrustChanged
from replicad.model.ids import NETWORK_SHARE, NodeId, RecordId
from replicad.model.records import Entry, Record, Role
from replicad.model.words import plural
from replicad.net.dialer import JOIN_PATH, check_url
from replicad.protocol import joining
from replicad.protocol import records as codec
from replicad.protocol.gossip import heads
from replicad.protocol.gossip.standing import Kept
from replicad.protocol.joining import Answer, Asked, Token
from replicad.protocol.replica import Admission, Replica
from replicad.services.membership.admitting import refusal
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from replicad.model.entries import Listed
    from replicad.model.ids import Digest
    from replicad.model.records import Envelope
    from replicad.protocol.runs import Place
    from replicad.services.hub import Subscription
    from replicad.services.membership.local import Local

log = get(__name__)

ASK_TIMEOUT_S = 40.0
SYNCHRONISED_TIMEOUT_S = 600.0
MERGE_BATCH = 1000
_OLD_MS = 1 << 42
"""Age given to heads in an answer: nobody counts as linked because of them."""


class _Problem(msgspec.Struct, frozen=True):
    title: str
    code: str = ""
    hint: str = ""


_Own = dict[str, list[Entry]]
"""What this node would take along: entries to be signed anew, per share."""


class Joiner:
    """Part of ``Membership``."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._moving = asyncio.Lock()

    async def join(self, text: str, *, merge: bool = False) -> None:
        """Join with a token; returns when grants, shares and catalog are those of the member that answered. Harmless when repeated.

        Raises InputError (mangled token), ConflictError (used by another node, other network, made here, a member already, own content without ``merge``), NotAllowedError (expired, or the
        grant does not cover own content), NotFoundError (unknown token), BusyError (joining already), UnreachableError (no listed member answers, or none is linked in time - then the joining
        itself stands).
        """
        token = joining.read_token(text)
        self._check_outside(token)
        async with self._alone():
            own = await self._what_moves(token.network, merge=merge)
            await self._enter(await self.ask_members(token), token.network, own, merge=merge)

    async def request(self, url: str, node: NodeId) -> str:
        """Ask a member, known by its address and id, without a token. "pending" until an admin approves there, then joins and returns "member". Repeat it; errors as in ``join``."""
        self._check_not_own(node)
        async with self._alone():
            own = await self._what_moves(None, merge=False)
            body = joining.make_request(self._local.key, self._asked(None), None)
            answer = await self._ask(check_url(url), body, pin=None)
            if answer.node != node:
                raise ConflictError(f"another node answers at {url}: {answer.node}", code="other-node")
            if answer.pending:
                return "pending"
            await self._enter(answer, answer.network, own, merge=False)
        return "member"

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One joining at a time: who comes second is told so, for the first may take minutes. Raises BusyError."""
        if self._moving.locked():
            raise BusyError("this node is joining a network at this moment", hint="replicad status; repeat when that is over")
        async with self._moving:
            yield

    # -- may this node move? ------------------------------------------------------------------------------------------------------------------------

    def _check_outside(self, token: Token) -> None:
        """Raises ConflictError if the token is of no use here: it leads to this node itself, or this node is a member there by other means.

        It is one by what it knows and by a link: whoever removed it keeps none, and what it does not know yet, the one who made the token does. Repeating with the same token is harmless.
        """
        local = self._local
        self._check_not_own(token.members[0].node)
        is_member = token.network == local.catalog.network and local.own in local.members() and local.links.all()
        if is_member and all(grant.invite != token.id for grant in local.catalog.replica.trust.grants_of(local.own)):
            raise ConflictError("this node is a member of that network already", hint="an admin changes its rights: replicad peer set NODE", code="is-member")

    def _check_not_own(self, inviter: NodeId) -> None:
        if inviter == self._local.own:
            raise ConflictError("this node is a member of that network already: it would have to admit itself", hint="run it on the new node", code="is-member")

    async def _what_moves(self, network: NodeId | None, *, merge: bool) -> _Own:
        """What must be published again after moving. Raises ConflictError if this node may not move."""
        local = self._local
        members = local.members()
        if local.own not in members:
            return await self._unseen(merge=merge)
        if network == local.catalog.network:
            return {}
        others = [member.name for member in members.values() if member.id != local.own]
        if others:
            raise ConflictError(
                f"this node belongs to a network with {plural(len(others), 'other member')} ({', '.join(sorted(others)[:3])}); it must leave that first",
                hint="replicad peer remove THIS-NODE there",
                code="has-members",
            )
        return _if_merged(await self._own_entries(), "in a network of its own", merge=merge)

    async def _unseen(self, *, merge: bool) -> _Own:
        """What this node's removal made void. Raises ConflictError unless it is to be published again."""
        found: _Own = defaultdict(list)
        for record in await self._local.catalog.unseen():
            if isinstance(record.body, Entry):
                found[record.header.share].append(_anew(record.body))
        return _if_merged(found, "that nobody had seen when it was removed: they do not count", merge=merge)

    async def _own_entries(self) -> _Own:
        found: _Own = defaultdict(list)
        after: tuple[str, str] | None = None
        while page := await self._local.catalog.entries(None, after=after, limit=10_000, all_stages=True):
            for listed in page:
                found[listed.share].append(_anew(listed))
            after = (page[-1].share, page[-1].key)
        return found

    # -- asking -------------------------------------------------------------------------------------------------------------------------------------

    def _asked(self, token: Token | None) -> Asked:
        local = self._local
        if token is None:
            return Asked(local.own, local.name, local.door(), None, None, None, nonce())
        return Asked(local.own, local.name, local.door(), token.network, token.members[0].node, token.id, nonce())

    async def ask_members(self, token: Token) -> Answer:
        """The answer of the first listed member that gives one. What a member decides is final, except that it could not reach the one that made the token."""
        body = joining.make_request(self._local.key, self._asked(token), token)
        troubles = []
        for door in token.members:
            for url in door.urls:
                try:
                    answer = await self._ask(check_url(url), body, pin=door.certificate)
                    if answer.network != token.network or answer.node not in {member.node for member in token.members} or answer.pending:
                        raise PeerError(f"{url}: the answer is not that of a member whom the token names", code="bad-join")
                except (UnreachableError, PeerError, InputError) as error:
                    troubles.append(error)
                else:
                    return answer
        if any(trouble.error_code == "wrong-pin" for trouble in troubles):
            raise PeerError(f"somebody else answers at the address in the token: {troubles[0].message}", code="wrong-pin", hint="make a new token")
        raise UnreachableError(
            "no member that the token names answers: " + "; ".join(trouble.message for trouble in troubles), hint="is its peer door open to this node?"
        )

    async def _ask(self, url: str, body: bytes, *, pin: Digest | None) -> Answer:
        status, content = await self._local.dialer.ask(url, JOIN_PATH, pin=pin, body=body, timeout_s=ASK_TIMEOUT_S)
        if status == 200:
            return joining.read_answer(content, body)
        try:
            problem = msgspec.json.decode(content, type=_Problem)
        except (msgspec.DecodeError, RecursionError):
            raise PeerError(f"{url} is no peer door: it answers {status} to a request to join", code="bad-join") from None
        raise refusal(status, problem.code, problem.title, problem.hint)

    # -- moving -------------------------------------------------------------------------------------------------------------------------------------

    async def _enter(self, answer: Answer, network: NodeId, own: _Own, *, merge: bool) -> None:
        """Become a member of that network. A removed node that hears of its removal only now is a member even if it is told that it must merge."""
        local = self._local
        now_ms = local.clock_ms()
        replica = await asyncio.to_thread(_replica_of, network, local.own, answer.records, now_ms)
        if local.own not in replica.trust.members(now_ms):
            raise PeerError("the answer does not hold a grant for this node", code="bad-join")
        self._check_covered(replica, own)
        is_back = network == local.catalog.network
        with local.hub.subscribe(Synchronised) as news:
            if is_back:
                received = await local.catalog.receive(answer.records, source=answer.node)
            else:
                await self._move(network, answer)
            if not is_back or received.new or not any(local.standing.in_sync(link.node, NETWORK_SHARE) for link in local.links.all()):
                self._learn(answer)
                await self._until_synchronised(news)
        if is_back:
            own = await self._unseen(merge=merge)
            self._check_covered(local.catalog.replica, own)
        await self._publish_again(own)
        log.info("joined the network", network=network.short, through=answer.node.short)

    def _check_covered(self, replica: Replica, own: _Own) -> None:
        at = self._local.now()
        for share, entries in own.items():
            for entry in entries:
                if share not in replica.trust.shares() or not replica.trust.may(
                    self._local.own, share=share, path_key=paths.key(entry.path), stage=entry.stage, role=Role.PUBLISHER, at=at
                ):
                    raise NotAllowedError(
                        f"the token does not allow to publish {share}/{entry.path} ({entry.stage}) anew in the other network",
                        hint=f"there: replicad share create {share}; replicad peer invite --role publisher --share {share}",
                    )

    async def _move(self, network: NodeId, answer: Answer) -> None:
        local = self._local
        local.links.close_all("this node moves to another network")
        former = local.catalog.network
        await local.catalog.move(network, answer.records)
        local.standing.clear()
        if local.network_key.exists():
            local.network_key.rename(local.network_key.with_name(f"network-{former.short}.key"))

    def _learn(self, answer: Answer) -> None:
        """Where the others are: from their heads, and from the member that answered."""
        local = self._local
        for envelope in answer.heads:
            try:
                head = heads.peek(envelope)
                heads.verify(envelope, local.catalog.network)
            except (PeerError, DistrustError):
                continue
            local.standing.add(Kept(head, envelope, -_OLD_MS))
        for door in answer.doors:
            local.standing.hint(door.node, door.urls, door.certificate)
        local.hub.publish(TrustChanged())
        local.hub.publish(HeadsChanged(answer.node))

    @staticmethod
    async def _until_synchronised(news: Subscription) -> None:
        try:
            async with asyncio.timeout(SYNCHRONISED_TIMEOUT_S):
                await news.wait()
        except TimeoutError:
            raise UnreachableError(
                "this node is a member now, but no link to another member came up in time; it goes on trying", hint="replicad doctor"
            ) from None

    async def _publish_again(self, own: _Own) -> None:
        """Own entries under the new grant. What the network has under the same name already, with the same content, is left alone; different content becomes a conflict that nobody loses."""
        catalog = self._local.catalog
        for share, entries in own.items():
            for start in range(0, len(entries), MERGE_BATCH):
                batch = entries[start : start + MERGE_BATCH]
                there = await catalog.registers(share, [(paths.key(entry.path), entry.stage) for entry in batch])
                new = [entry for entry, other in zip(batch, there, strict=True) if other is None or other.content != entry.content]
                if new:
                    await catalog.author(share, new)


def _if_merged(own: _Own, where: str, *, merge: bool) -> _Own:
    """The same; raises ConflictError if there is something to take along and that is not meant."""
    if own and not merge:
        count = sum(len(entries) for entries in own.values())
        raise ConflictError(f"this node has published {plural(count, 'file')} {where}", hint="add --merge to publish them anew there", code="has-content")
    return own


def _anew(said: Listed | Entry) -> Entry:
    return Entry(said.path, said.stage, said.content, said.size, said.manifest, said.modified, said.publisher)


def _replica_of(network: NodeId, own: NodeId, envelopes: Sequence[Envelope], now_ms: int) -> Replica:
    """What these records add up to, every signature checked. Raises PeerError for anything that cannot be a network's own chains. About 0.1 ms a record."""
    try:
        waiting: list[Record] = [codec.parse(envelope, network) for envelope in envelopes]
    except ReplicadError as error:
        raise PeerError(f"the answer holds a bad record: {error.message}", code="bad-join") from None
    replica, places = Replica(network, own), dict[RecordId, "Place"]()
    while waiting:
        left = []
        for record in waiting:
            admission = replica.judge(record, now_ms, places) if record.header.share == NETWORK_SHARE else Admission.BROKEN
            if admission is Admission.NEW:
                replica.add(record, places)
            elif admission in (Admission.GAP, Admission.STRANGER):
                left.append(record)
        if len(left) == len(waiting):
            break
        waiting = left
    return replica
