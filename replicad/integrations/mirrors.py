"""Which nodes a client may download from, and in what order: those nearest to it first.

Every node says in its head where clients reach it. Which networks are near it, an admin says in its grant, or its own head if it is an admin: no other node can draw anybody's clients to itself. The
client is near the nodes that have the longest prefix of its address; then come the nodes of their sites, then the rest. A client that nobody has is near the node that it asks. Among equals its address
decides, so that many clients spread.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from replicad.errors import InputError
from replicad.model.access import Network, check_network
from replicad.model.records import Role
from replicad.model.redirects import check_base_url

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from replicad.model.entries import Listed
    from replicad.model.ids import NodeId, RecordId
    from replicad.model.members import Member
    from replicad.protocol.gossip.heads import Presence
    from replicad.protocol.gossip.standing import Standing

HELD = 100
FRESH_MS = 2_000
"""For so long it is not asked again who is there and who holds a file: heads come at most once a second."""
REMEMBERED_MAX = 1024


@dataclass(frozen=True, slots=True)
class Mirror:
    """A node's door for clients: ``url`` without a trailing slash, and the networks near it."""

    node: NodeId
    name: str
    site: str
    url: str
    networks: tuple[Network, ...]


class Mirrors:
    """``presence`` is this node's own, ``now_ms`` the clock of ``standing``."""

    def __init__(
        self,
        node: NodeId,
        *,
        members: Callable[[], Mapping[NodeId, Member]],
        standing: Standing,
        presence: Callable[[], Presence],
        now_ms: Callable[[], int],
    ) -> None:
        self._node = node
        self._members = members
        self._standing = standing
        self._presence = presence
        self._now_ms = now_ms
        self._everywhere: list[Mirror] = []
        self._asked_ms = now_ms() - FRESH_MS
        self._holding: OrderedDict[RecordId, tuple[int, list[Mirror]]] = OrderedDict()

    def everywhere(self) -> list[Mirror]:
        """This node, and every member whose daemon lives and says where its door is."""
        now_ms = self._now_ms()
        if now_ms - self._asked_ms >= FRESH_MS:
            self._asked_ms, self._everywhere = now_ms, self._doors(self._members().values())
        return self._everywhere

    def holding(self, listed: Listed) -> list[Mirror]:
        """Those of them that hold the entry's content, as far as their heads tell."""
        now_ms = self._now_ms()
        asked_ms, found = self._holding.get(listed.record, (now_ms - FRESH_MS, []))
        if now_ms - asked_ms >= FRESH_MS:
            wanting = [member for member in self._members().values() if member.carries(listed.share, listed.stage)]
            found = self._doors(member for member in wanting if self._holds(member, listed))
            self._holding[listed.record] = now_ms, found
            self._holding.move_to_end(listed.record)
            if len(self._holding) > REMEMBERED_MAX:
                self._holding.popitem(last=False)
        return found

    def nearest(self, mirrors: Sequence[Mirror], address: IPv4Address | IPv6Address | None) -> list[Mirror]:
        """The same, nearest to that client first."""
        distance = self._distance(address)

        def order(mirror: Mirror) -> tuple[tuple[bool, bool], bytes]:
            return distance(mirror.node, mirror.site), hashlib.sha256(str(address).encode() + mirror.node).digest()

        return sorted(mirrors, key=order)

    def nearer(self, listed: Listed, address: IPv4Address | IPv6Address | None) -> Mirror | None:
        """The nearest that holds the entry's content, if it is nearer to that client than this node. Only those that carry the same stages: others may show another version under the name."""
        members, distance = self._members(), self._distance(address)
        own = members.get(self._node)
        if own is None:
            return None
        here = distance(own.id, own.site)
        found = [mirror for mirror in self.holding(listed) if distance(mirror.node, mirror.site) < here and members[mirror.node].stages == own.stages]
        return next(iter(self.nearest(found, address)), None)

    def _distance(self, address: IPv4Address | IPv6Address | None) -> Callable[[NodeId, str], tuple[bool, bool]]:
        """Of a node, by id and site, from that client: near it, at a site near it, elsewhere."""
        matched = {mirror.node: max((_bits(network, address) for network in mirror.networks), default=-1) for mirror in self.everywhere()}
        best = max(matched.values(), default=-1)
        near = {node for node, bits in matched.items() if bits == best >= 0} or {self._node}
        members = self._members()
        sites = {members[node].site for node in near if node in members}
        return lambda node, site: (node not in near, site not in sites)

    def _holds(self, member: Member, listed: Listed) -> bool:
        return listed.available if member.id == self._node else self._standing.percent(member.id, listed) == HELD

    def _doors(self, members: Iterable[Member]) -> list[Mirror]:
        now_ms = self._now_ms()
        found = []
        for member in members:
            own = member.id == self._node
            presence = self._presence() if own else self._standing.presence(member.id) if self._standing.linked(member.id, now_ms) else None
            if presence is not None and (url := _door(presence.downloads or "")):
                found.append(Mirror(member.id, member.name, member.site, url, _networks(_near(member, presence))))
        return found


def _near(member: Member, presence: Presence) -> tuple[str, ...]:
    """The networks near a member: what an admin says; where none does, what it says itself if it is an admin."""
    return member.networks or ((presence.networks or ()) if member.role is Role.ADMIN else ())


@lru_cache(maxsize=1024)
def _door(text: str) -> str:
    """What a head says: what is no plain base URL, without a user, a query and a fragment, is nobody's door (empty) and gets into no answer."""
    try:
        return "" if set(text) & set("@?#\\") else check_base_url(text)
    except InputError:
        return ""


@lru_cache(maxsize=1024)
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """What a head says; what is no network is nobody's."""
    found = []
    for text in texts:
        try:
            found.append(check_network(text))
        except InputError:
            continue
    return tuple(found)


def _bits(network: Network, address: IPv4Address | IPv6Address | None) -> int:
    """The length of the prefix, -1 if the address does not have it."""
    return network.prefixlen if address is not None and address.version == network.version and address in network else -1
