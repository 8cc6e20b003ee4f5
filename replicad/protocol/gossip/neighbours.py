"""Who links with whom in a network too large for everybody to link with everybody: few links, that connect all members, and those of each share among themselves."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.model.ids import NodeId
    from replicad.model.members import Member

FULL_MESH_MAX = 32
LINKS_NEAR = 4
LINKS_FAR = 2
"""Protocol.md section 5: at most 32 nodes: full mesh; more: 6 links, 4 in the site and 2 outside."""
SHARE_LINKS_NEAR = 1
SHARE_LINKS_FAR = 1


@dataclass(frozen=True)
class Circle:
    """Members that must be connected among themselves, this node one of them, and whom of them it dials: ``near`` at its site and ``far`` outside."""

    members: Mapping[NodeId, Member]
    near: int
    far: int
    neighbours: frozenset[NodeId] = frozenset()

    def of(self, own: NodeId, members: Mapping[NodeId, Member]) -> set[NodeId]:
        """Whom it would dial if there were only these members."""
        return set(neighbours(own, members, near=self.near, far=self.far))


def circles(own: NodeId, members: Mapping[NodeId, Member]) -> tuple[Circle, ...]:
    """All members, and those of each of this node's shares that not everybody has; equal ones once."""
    named = {share for member in members.values() for share in member.shares or ()}
    groups = {frozenset(node for node, member in members.items() if member.has_share(share)) for share in named if members[own].has_share(share)}
    found = [Circle(members, LINKS_NEAR, LINKS_FAR)]
    found += [Circle({node: members[node] for node in group}, SHARE_LINKS_NEAR, SHARE_LINKS_FAR) for group in groups - {frozenset(members)}]
    return tuple(replace(circle, neighbours=frozenset(circle.of(own, circle.members))) for circle in found)


def neighbours(own: NodeId, members: Mapping[NodeId, Member], *, near: int = LINKS_NEAR, far: int = LINKS_FAR) -> list[NodeId]:
    """Whom a node of a large network dials: of its site and of the others whoever follows it in the order of ids, and then those with whom it has the greatest rendezvous weight (the same from
    both sides). The first makes a ring through all members, so that the links connect the network whatever the weights are; the second make it wide.
    """
    others = members.keys() - {own}
    following = min((node for node in others if node > own), default=min(others, default=own))

    def weight(node: NodeId) -> tuple[bool, bytes]:
        return node == following, hashlib.sha256(bytes(min(own, node)) + bytes(max(own, node))).digest()

    ranked = sorted(others, key=weight, reverse=True)
    chosen = [node for node in ranked if members[node].site == members[own].site][:near]
    chosen += [node for node in ranked if members[node].site != members[own].site][:far]
    rest = [node for node in ranked if node not in chosen]
    return chosen + rest[: near + far - len(chosen)]
