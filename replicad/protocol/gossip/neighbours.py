"""Who links with whom in a network too large for everybody to link with everybody: few links, that connect all members, and those of each share among themselves."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sized

    from replicad.model.ids import NodeId
    from replicad.model.members import Member

FULL_MESH_MAX = 32
LINKS_NEAR = 2
LINKS_FAR = 2
"""Dialled; as many more dial this node: about 4 links in the site and 4 outside, or 8 where there is one site (docs/adr/0006)."""
SHARE_LINKS_NEAR = 1
SHARE_LINKS_FAR = 1


def is_full_mesh(members: Sized) -> bool:
    """Whether the network is so small that everybody links with everybody."""
    return len(members) <= FULL_MESH_MAX


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
    """Whom a node of a large network dials: who follows it in ``near`` rings through its site, and in ``far`` rings who follows it of the other sites. If there are too few of either, others take their
    places. The first ring is in the order of ids, so that the links connect the network whatever the hashes of the others are; those make it wide. Each is dialled by about as many as it dials.
    """
    others = members.keys() - {own}
    home = {node for node in others if members[node].site == members[own].site}
    chosen: list[NodeId] = []
    for ring in range(min(near, len(home))):
        chosen.append(_following(own, home.difference(chosen), ring))
    for ring in range(min(far, len(others) - len(home))):
        chosen.append(_following(own, (others - home).difference(chosen), ring))
    for ring in range(len(chosen), min(near + far, len(others))):
        chosen.append(_following(own, others.difference(chosen), ring))
    return chosen


def _following(own: NodeId, nodes: Iterable[NodeId], ring: int) -> NodeId:
    """The one of them that comes after ``own`` in this ring, after the last the first."""

    def place(node: NodeId) -> tuple[bytes, NodeId]:
        return hashlib.sha256(bytes([ring]) + node).digest() if ring else b"", node

    start = place(own)
    return min(nodes, key=lambda node: ((there := place(node)) < start, there))
