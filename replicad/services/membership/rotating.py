"""A new key for this node: the same member under another id.

An admin's node signs for itself: a grant for the new key, then, when another member has that, the cut of its own. Any other node needs a token that an admin made to replace it: whoever redeems that
with the new key is granted what the old one had, and the old one is cut, in one transaction. The cut is what decides. The new key lies beside the old one from before the grant until it takes its
place, so a crash at any moment leaves a node with a key that is a member, and repeating the command goes on where it stopped.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from replicad.crypto import keys
from replicad.crypto.keys import SigningKey
from replicad.errors import ConfigurationError, ConflictError, PeerError, UnreachableError
from replicad.model.events import HeadsChanged, LinkDown
from replicad.model.ids import NETWORK_SHARE
from replicad.protocol import joining
from replicad.services.membership import changes
from replicad.services.membership.joiner import Joiner
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container
    from pathlib import Path

    from replicad.model.ids import NodeId
    from replicad.protocol.joining import Answer, Token
    from replicad.services.membership.local import Local

log = get(__name__)

KNOWN_WAIT_S = 30.0
"""How long another member may take to show that it has the new key's grant: a head is due within a second of a change."""


def next_key_path(node_key: Path) -> Path:
    """Where a new key lies until it takes its place."""
    return node_key.with_name(node_key.name + ".next")


def finish(node_key: Path, key: SigningKey, members: Container[NodeId]) -> SigningKey:
    """At start: the node's key. It is the new one if a rotation was decided before the process ended."""
    place = next_key_path(node_key)
    following = _load(place)
    if following is None or not _is_decided(members, key.id, following.id):
        return key
    keys.take_over(place, node_key)
    return following


class Rotating:
    """Part of ``Membership``."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._rotating = asyncio.Lock()

    async def rotate(self, text: str | None) -> NodeId:
        """Give this node a new key, by itself or with a token that replaces it; the daemon must start anew then. Returns the new id.

        Raises NotAllowedError (no admin and no token), ConflictError (a token of another network, or not for this node), UnreachableError (nobody there yet who would know the new key), InputError.
        """
        async with self._rotating:
            place = next_key_path(self._local.node_key)
            key = _load(place)
            if key is None or not _is_decided(self._local.members(), self._local.own, key.id):
                token = self._checked(text)
                key = key or _make(place)
                await (self._by_itself(key) if token is None else self._with_token(key, token))
            keys.take_over(place, self._local.node_key)
            log.info("this node has a new key", node=key.id.short, former=self._local.own.short)
            return key.id

    def _checked(self, text: str | None) -> Token | None:
        """What can be refused before anything is made."""
        if text is None:
            hint = "on an admin's node: replicad peer invite --replace NODE; then here: replicad key rotate TOKEN"
            self._local.check_admin("replace its own key without a token", hint=hint)
            return None
        token = joining.read_token(text)
        if token.network != self._local.catalog.network:
            raise ConflictError("this token is of another network", code="other-network")
        return token

    async def _by_itself(self, key: SigningKey) -> None:
        local = self._local
        member = local.member(local.own)
        if key.id not in local.members():
            await local.author([changes.of_member(member).grant(key.id, member.name, at=local.now())])
        alone = local.members().keys() <= {local.own, key.id}
        await self._until(
            lambda: alone or any(local.standing.in_sync(link.node, NETWORK_SHARE) for link in local.links.all()),
            "no linked member has heard of the new key, so nothing was changed; repeat when one is linked",
        )
        await local.cut(local.own, reason="rotate")

    async def _with_token(self, key: SigningKey, token: Token) -> None:
        local = self._local
        own, admin = local.member(local.own), token.members[0].node
        shares = [NETWORK_SHARE, *filter(own.has_share, local.catalog.replica.trust.shares())]
        await self._until(
            lambda: not local.links.all() or all(local.standing.in_sync(admin, share) for share in shares),
            "the node that made the token does not have everything yet that this node has said, so nothing was changed; repeat later",
        )
        newcomer = replace(local, key=key, name=own.name, door=lambda: msgspec.structs.replace(local.door(), node=key.id))
        answer = await _answered(own.name, Joiner(newcomer).ask_members(token))
        await local.catalog.receive(answer.records, source=answer.node)
        if key.id not in local.members():
            raise PeerError("the answer does not hold a grant for the new key", code="bad-join")
        if local.own in local.members():
            raise _other_node(own.name)

    async def _until(self, look: Callable[[], bool], trouble: str) -> None:
        """Until other members' heads make it true: what the former key has said must have been heard before it ends."""
        with self._local.hub.subscribe(HeadsChanged, LinkDown) as news:
            try:
                async with asyncio.timeout(KNOWN_WAIT_S):
                    while not look():
                        await news.wait()
            except TimeoutError:
                raise UnreachableError(trouble, hint="replicad peer list") from None


async def _answered(name: str, asking: Awaitable[Answer]) -> Answer:
    """Of a node that asks by the name it has as a member: this is taken unless the token replaces that member."""
    try:
        return await asking
    except ConflictError as refusal:
        raise _other_node(name) if refusal.error_code == "name-taken" else refusal from None


def _other_node(name: str) -> ConflictError:
    return ConflictError(
        f"this token is not for {name}: it does not replace this node's key",
        hint=f"replicad peer invite --replace {name}, on an admin's node",
        code="other-node",
    )


def _is_decided(members: Container[NodeId], former: NodeId, following: NodeId) -> bool:
    return following in members and former not in members


def _load(place: Path) -> SigningKey | None:
    """The key that lies there; None if there is none, or one that was not written to its end (and so was never granted anything)."""
    try:
        return SigningKey.load(place)
    except ConfigurationError:
        return None


def _make(place: Path) -> SigningKey:
    place.unlink(missing_ok=True)
    key = SigningKey.generate()
    key.save(place)
    return key
