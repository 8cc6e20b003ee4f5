"""Whom a node of a large network links with: few, stable, spread, and together they connect everybody."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from replicad.model.ids import NodeId, Stamp
from replicad.model.members import Member
from replicad.model.records import Role
from replicad.net.links import LinkTable
from replicad.protocol.gossip.neighbours import FULL_MESH_MAX, LINKS_FAR, LINKS_NEAR, SHARE_LINKS_FAR, SHARE_LINKS_NEAR, circles, neighbours
from replicad.services.hub import Hub
from replicad.services.links import Links, _Attempt

LINKS = LINKS_NEAR + LINKS_FAR


def network(dice: random.Random, size: int, sites: int) -> dict[NodeId, Member]:
    ids = [NodeId(dice.randbytes(32)) for _ in range(size)]
    return {node: Member(node, "n", Role.MIRROR, f"site{dice.randrange(sites)}", None, None, Stamp(1), node) for node in ids}


def reached(members: Mapping[NodeId, Member], dialled: Mapping[NodeId, list[NodeId]]) -> set[NodeId]:
    """From any one of them, over links in both directions."""
    links: dict[NodeId, set[NodeId]] = {node: set(dialled[node]) for node in members}
    for node, others in dialled.items():
        for other in others:
            links[other].add(node)
    found = {next(iter(members))}
    waiting = list(found)
    while waiting:
        news = links[waiting.pop()] - found
        found |= news
        waiting += news
    return found


@pytest.mark.parametrize(("size", "sites"), [(33, 1), (33, 5), (33, 33), (100, 1), (100, 12), (1000, 40)])
def test_few_links_connect_everybody(dice: random.Random, size: int, sites: int) -> None:
    members = network(dice, size, sites)
    dialled = {node: neighbours(node, members) for node in members}
    assert reached(members, dialled) == members.keys()
    for node, others in dialled.items():
        assert len(others) == len(set(others)) == LINKS
        assert node not in others
        near = sum(members[other].site == members[node].site for other in members) - 1
        assert sum(members[other].site != members[node].site for other in others) == max(min(size - 1 - near, LINKS_FAR), LINKS - near)


def test_they_connect_whatever_the_hashes_are(dice: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids can be chosen so that a clique stays among itself in every ring of hashes: the ring of ids holds it together."""
    members = network(dice, 60, 1)
    clique = set(sorted(members)[::2])
    in_turn = {node: number for number, node in enumerate(sorted(members, key=lambda node: (node in clique, node)))}

    class Hash:
        def __init__(self, place: bytes) -> None:
            self.place = in_turn[NodeId(place[1:])]

        def digest(self) -> bytes:
            return bytes([self.place])

    monkeypatch.setattr("replicad.protocol.gossip.neighbours.hashlib.sha256", Hash)
    dialled = {node: neighbours(node, members) for node in members}
    assert reached(members, dialled) == members.keys()


def test_all_have_about_as_many_links(dice: random.Random) -> None:
    """Who has fewer than the others gets contents later, and its uplink idles. Two rings may make the same link."""
    members = network(dice, 256, 1)
    counts = Counter(node for pair in {frozenset((node, other)) for node in members for other in neighbours(node, members)} for node in pair)
    assert all(abs(count - 2 * LINKS) <= 4 for count in counts.values())


def test_the_members_of_each_share_are_connected_among_themselves(dice: random.Random) -> None:
    """What passes only among nine of two hundred members passes among all nine, and costs each of them two links."""
    members = network(dice, 200, 8)
    some = dice.sample(sorted(members), 9)
    members = {node: replace(member, shares=frozenset({"few", "most"} if node in some else {"most"})) for node, member in members.items()}
    dialled = {node: sorted(set().union(*(circle.neighbours for circle in circles(node, members)))) for node in members}
    inside = {node: [other for other in dialled[node] if other in some] for node in some}
    assert reached({node: members[node] for node in some}, inside) == set(some)
    assert reached(members, dialled) == members.keys()
    for node, others in dialled.items():
        assert len(others) <= LINKS + (SHARE_LINKS_NEAR + SHARE_LINKS_FAR) * (node in some)


def test_another_member_of_a_share_takes_the_place_of_one_that_cannot_be_reached(dice: random.Random) -> None:
    members = network(dice, 100, 5)
    own, *others = sorted(members)
    some = {own, *dice.sample(others, 5)}
    members = {node: replace(member, shares=frozenset({"few"} if node in some else {"other"})) for node, member in members.items()}
    links = made(members, own, set(members))
    failed: set[NodeId] = set()
    while news := (links._targets() & some) - failed:
        failed |= news
        links._attempts |= {node: _Attempt(("https://somewhere:8440",), error="refused") for node in news}
    assert failed == some - {own}


def test_a_member_more_or_less_changes_little(dice: random.Random) -> None:
    members = network(dice, 200, 4)
    gone = dice.choice(sorted(members))
    fewer = {node: member for node, member in members.items() if node != gone}
    changed = sum(neighbours(node, members) != neighbours(node, fewer) for node in fewer)
    assert changed <= 40


def made(members: Mapping[NodeId, Member], own: NodeId, doors: set[NodeId], *, connect: tuple[str, ...] = ()) -> Links:
    """The service with a table without links; the members in ``doors`` have addresses."""
    nothing: Any = None
    return Links(
        table=LinkTable(own),
        dialer=nothing,
        hub=Hub(),
        identity=nothing,
        members=lambda: members,
        address=lambda node: (("https://somewhere:8440",) if node in doors else (), None),
        dice=lambda: 0.5,
        connect=connect,
    )


def test_up_to_the_bound_everybody_is_dialled(dice: random.Random) -> None:
    members = network(dice, FULL_MESH_MAX, 3)
    own = next(iter(members))
    assert made(members, own, set(members))._targets() == members.keys() - {own}


def test_others_take_the_place_of_those_that_cannot_be_reached(dice: random.Random) -> None:
    """Of a hundred nodes behind firewalls two have a door: everybody finds them, and forgets nobody of its first choice."""
    members = network(dice, 100, 5)
    own, *others = members
    doors = set(others[:2])
    links = made(members, own, doors)
    assert doors | set(neighbours(own, members)) == links._targets()
    links = made(members, own, set(members))
    failed: set[NodeId] = set()
    while news := links._targets() - failed:
        assert len(news) <= LINKS
        failed |= news
        links._attempts |= {node: _Attempt(("https://somewhere:8440",), error="refused") for node in news}
    assert failed == members.keys() - {own}


@dataclass
class LinkThrough:
    """As much of a link as counts here."""

    node: NodeId
    peer_url: str


def test_a_configured_address_through_which_there_is_a_link_wakes_nobody(dice: random.Random) -> None:
    """It would be due all the time: a hundred wake-ups a second for nothing."""
    members = network(dice, 2, 1)
    own, other = members
    links = made(members, own, set(), connect=("https://seed:8440",))
    assert len(list(links._due_later())) == 1
    link: Any = LinkThrough(other, "https://seed:8440")
    links.table._links[other] = link
    assert list(links._due_later()) == []
