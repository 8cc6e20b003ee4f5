"""May this member have this content? Asked for every request and every message about content, against the records as they are now.

It may if an entry that counts names the content in a share which exists and which the member is granted, and no takedown stands on it. Which shares name a content only grows, so that is remembered; what a member is granted is
looked up afresh each time: an expelled node's right ends with the commit of the record.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from replicad.protocol.wire import Have, HaveMore, Hold, Interest, Seek

if TYPE_CHECKING:
    from replicad.model.ids import Digest, NodeId
    from replicad.protocol.fetch.events import Say
    from replicad.protocol.replica import Replica

REMEMBERED_MAX = 16_384
"""Contents whose shares are remembered: about 3 MiB."""


_NOWHERE: frozenset[str] = frozenset()


class Names(Protocol):
    """What the rights need of the catalog."""

    replica: Replica

    async def named_by_many(self, contents: Iterable[Digest]) -> Mapping[Digest, set[str]]:
        """The shares in which entries that count name each content."""


class Rights:
    """Answers from the records as they are. ``present`` says which members run, linked or not."""

    def __init__(self, names: Names, *, clock_ms: Callable[[], int], present: Callable[[NodeId], bool] = lambda _node: False) -> None:
        self._names = names
        self.clock_ms = clock_ms
        self.present = present
        self._named: OrderedDict[Digest, frozenset[str]] = OrderedDict()

    async def granted(self, node: NodeId, contents: Iterable[Digest]) -> set[Digest]:
        """Those of the contents that the member may have."""
        asked = dict.fromkeys(contents)
        if self._all_allowed(node, asked):
            return set(asked)
        taken_down = self._names.replica.trust.taken_down()
        wanted = [content for content in asked if content not in taken_down]
        allowed = self._allowed(node, wanted)
        unknown = [content for content in wanted if content not in allowed]
        if unknown:
            for content, shares in (await self._names.named_by_many(unknown)).items():
                self._remember(content, frozenset(shares))
            allowed |= self._allowed(node, unknown)
        return allowed

    async def may_have(self, node: NodeId, content: Digest) -> bool:
        """The same for one."""
        return content in await self.granted(node, (content,))

    async def permitted(self, say: Say) -> Interest | Have | HaveMore | Seek | Hold | None:
        """What of a message about content its receiver may know."""
        message = say.message
        if isinstance(message, Seek | Hold):
            granted = await self.granted(say.node, [small.content for small in message.contents])
            if len(granted) == len(message.contents):
                return message
            contents = tuple(small for small in message.contents if small.content in granted)
            return msgspec.structs.replace(message, contents=contents) if contents else None
        return message if await self.may_have(say.node, message.content) else None

    def site(self, node: NodeId) -> str:
        """Where it stands, as far as its grants say; "" if they do not, or there is none."""
        member = self._names.replica.trust.members(self.clock_ms()).get(node)
        return member.site if member is not None else ""

    async def crew(self, own: NodeId, content: Digest, *, linked: Callable[[NodeId], bool]) -> frozenset[NodeId]:
        """The members at the site of ``own`` that may have the content and are ``linked`` or present, itself among them; empty if no site was named or the network has no other."""
        members = self._names.replica.trust.members(self.clock_ms())
        site = members[own].site if own in members else ""
        near = [node for node, member in members.items() if member.site == site]
        if not site or len(near) == len(members):
            return frozenset()
        allowed = await self.granted(own, (content,))
        shares = self._named.get(content, frozenset())
        return frozenset(node for node in near if allowed and (node == own or ((linked(node) or self.present(node)) and self._allows(node, shares))))

    def forget(self) -> None:
        """The network is another one now, or entries ceased to count."""
        self._named.clear()

    def _remember(self, content: Digest, shares: frozenset[str]) -> None:
        self._named[content] = shares
        self._named.move_to_end(content)
        if len(self._named) > REMEMBERED_MAX:
            self._named.popitem(last=False)

    def _all_allowed(self, node: NodeId, contents: Collection[Digest]) -> bool:
        """Whether it is remembered of all of them, which is usual, that the member may have them: no step for each in Python."""
        remembered = set(map(self._named.get, contents))
        return self._names.replica.trust.taken_down().keys().isdisjoint(contents) and all(
            shares is not None and self._allows(node, shares) for shares in remembered
        )

    def _allowed(self, node: NodeId, contents: Iterable[Digest]) -> set[Digest]:
        """As far as remembered: the same shares, which most contents of a question are in, are judged once."""
        judged: dict[frozenset[str], bool] = {}
        allowed: set[Digest] = set()
        for content in contents:
            shares = self._named.get(content, _NOWHERE)
            if shares not in judged:
                judged[shares] = self._allows(node, shares)
            if judged[shares]:
                allowed.add(content)
        return allowed

    def _allows(self, node: NodeId, shares: frozenset[str]) -> bool:
        trust = self._names.replica.trust
        member = trust.members(self.clock_ms()).get(node)
        if member is None or not shares:
            return False
        existing = trust.shares()
        return any(member.has_share(share) and share in existing for share in shares)
