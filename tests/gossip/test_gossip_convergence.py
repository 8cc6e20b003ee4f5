"""Whatever the network does - loses, doubles, reorders, splits - everybody ends up with the same records, within ten anti-entropy rounds after it stops."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest
from gossip_network import Network, Node, Wire, entry

from replicad.model.records import Grant, Role
from replicad.protocol.gossip.core import ROUND_MS
from replicad.protocol.wire import Records

ROUND_S = ROUND_MS / 1000


def network(dice: random.Random, size: int, wire: Wire | None = None, **options: object) -> Network:
    made = Network(dice, wire=wire)
    made.found([f"n{index}" for index in range(size)], **options)  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("size", [3, 8, 50])
def test_a_quiet_network_agrees_at_once(dice: random.Random, size: int) -> None:
    net = network(dice, size)
    net.mesh()
    for node in dice.sample(list(net.nodes.values()), 3):
        node.publish("munki", 5)
    assert net.run(5, until=net.agree) < 1
    assert net.agree()
    assert not any(node.accused for node in net.nodes.values())


@pytest.mark.parametrize(
    ("size", "wire"),
    [
        (3, Wire(loss=0.3)),
        (8, Wire(loss=0.2, duplicate=0.2, reorder=True)),
        (8, Wire(latency_ms=(100, 900), loss=0.1, reorder=True)),
        (20, Wire(loss=0.1, duplicate=0.1)),
    ],
    ids=["loss", "loss-double-reorder", "slow", "twenty"],
)
def test_lost_doubled_and_reordered_messages_are_repaired(dice: random.Random, size: int, wire: Wire) -> None:
    net = network(dice, size, wire, shares=("munki", "jamf"))
    net.mesh()
    nodes = list(net.nodes.values())
    for _ in range(30):
        dice.choice(nodes).publish(dice.choice(["munki", "jamf"]), dice.randint(1, 4))
        net.run(dice.random())
    net.wire = Wire()
    net.run(10 * ROUND_S, until=net.agree)
    assert net.agree()
    assert not any(node.accused for node in nodes)


def test_a_healed_partition_agrees_when_the_links_are_back(dice: random.Random) -> None:
    net = network(dice, 10)
    nodes = list(net.nodes.values())
    left, right = nodes[:4], nodes[4:]
    net.mesh(left)
    net.mesh(right)
    for _ in range(20):
        dice.choice(nodes).publish("munki", 3)
        net.run(0.5)
    assert not net.agree()
    net.mesh()
    assert net.run(10 * ROUND_S, until=net.agree) < 2
    assert net.agree()


def test_a_network_with_a_node_of_a_later_version_agrees(dice: random.Random) -> None:
    """It adds items to every message and says things that the others have never heard of."""
    net = network(dice, 5)
    nodes = list(net.nodes.values())
    later = nodes[2]

    def speak(sender: Node, frame: bytes) -> list[bytes]:
        if sender is not later:
            return [frame]
        return [msgspec.msgpack.encode(["later", {"x": 1}]), msgspec.msgpack.encode([*msgspec.msgpack.decode(frame, strict=False), "more", None])]

    net.dialect = speak
    for first, second in itertools.pairwise(nodes):
        net.link(first, second)
    for node in nodes:
        node.publish("munki", 2)
    net.run(60, until=net.agree)
    assert net.agree()
    assert len(nodes[0].replica.chains.frontier("munki")) == len(nodes)
    assert not any(node.accused for node in nodes)


def test_links_that_come_and_go_do_not_matter(dice: random.Random) -> None:
    net = network(dice, 6)
    nodes = list(net.nodes.values())
    for _ in range(150):
        first, second = dice.sample(nodes, 2)
        (net.link if dice.random() < 0.6 else net.unlink)(first, second)
        if dice.random() < 0.4:
            dice.choice(nodes).publish("munki", dice.randint(1, 5))
        net.run(dice.random() / 10)
    net.mesh()
    net.run(10 * ROUND_S, until=net.agree)
    assert net.agree()


def test_records_cross_nodes_that_only_stand_in_between(dice: random.Random) -> None:
    """A line of nodes, each linked with its neighbours only: pushed records arrive without waiting for a round."""
    net = network(dice, 7)
    nodes = list(net.nodes.values())
    for first, second in itertools.pairwise(nodes):
        net.link(first, second)
    net.run(1)
    nodes[0].publish("munki", 2)
    nodes[-1].publish("munki", 2)
    assert net.run(5, until=net.agree) < 1
    assert net.agree()


def test_a_long_chain_arrives_in_batches_and_goes_on_after_a_broken_link(dice: random.Random) -> None:
    net = network(dice, 3)
    net.batch_bytes = 10_000
    one, two, three = net.nodes.values()
    one.publish("munki", 800)
    net.link(one, three)
    net.run(2, until=lambda: len(three.at) > 100)
    have = len(three.at)
    assert 100 < have < 800
    net.unlink(one, three)
    net.link(one, two)
    net.run(5, until=lambda: two.frontier() == one.frontier())
    net.link(two, three)
    net.run(5, until=net.agree)
    assert net.agree()
    assert three.duplicates == 0


def test_a_restored_database_makes_a_branch_that_everybody_gets(dice: random.Random) -> None:
    net = network(dice, 4)
    net.mesh()
    nodes = list(net.nodes.values())
    writer = nodes[1]
    writer.publish("munki", 5)
    net.run(1)
    clone = restored(net, writer)
    writer.publish("munki", 5)
    net.run(1)
    for other in nodes:
        net.unlink(writer, other)
    net.nodes[writer.id] = clone
    clone.publish("munki", 3)
    net.mesh()
    net.run(10 * ROUND_S, until=net.agree)
    assert net.agree()
    assert len(nodes[0].replica.chains.ends(writer.id, "munki")) == 2


def restored(net: Network, node: Node) -> Node:
    """The node as it was backed up: its records now, in a new process."""
    copy = Node(net, node.name)
    for _, record in sorted(node.at.items()):
        copy.add(record)
    copy.boot()
    return copy


def test_both_halves_of_an_equivocation_reach_everybody(dice: random.Random) -> None:
    net = network(dice, 4)
    nodes = list(net.nodes.values())
    liar = nodes[3]
    liar.publish("munki", 3)
    net.mesh(nodes[:3])
    net.link(nodes[0], liar)
    net.run(1, until=lambda: len({frozenset(node.frontier().items()) for node in nodes}) == 1)
    twin = restored(net, liar)
    twin.replica._opened = dict(liar.replica._opened)
    liar.publish("munki", 2)
    net.run(1)
    net.unlink(nodes[0], liar)
    twin.publish("munki", 4)
    net.nodes[liar.id] = twin
    net.link(nodes[2], twin)
    net.run(10 * ROUND_S, until=net.agree)
    assert net.agree()
    assert len(nodes[1].replica.chains.ends(liar.id, "munki")) == 2


def test_a_member_admitted_while_away_gets_everything_through_whoever_it_meets_first(dice: random.Random) -> None:
    net = network(dice, 4)
    nodes = list(net.nodes.values())
    net.mesh(nodes[:3])
    admin = nodes[0]
    late = Node(net, "late")
    net.nodes[late.id] = late
    admin.author("", Grant(late.id, "late", Role.PUBLISHER))
    nodes[1].publish("munki", 40)
    net.run(1)
    net.copy_network(admin, late)
    net.link(nodes[2], late)
    net.run(1)
    assert late.frontier() == nodes[2].frontier()
    assert late.agreed[nodes[2].id] > 0


def test_ids_of_strangers_bring_nothing_and_cost_nothing(dice: random.Random) -> None:
    """Chains of keys that were never granted anything are not even asked for."""
    net = network(dice, 2)
    one, two = net.nodes.values()
    net.link(one, two)
    net.run(1)
    stranger = Node(net, "stranger")
    record = net.say(one.replica, stranger.key, "munki", entry("evil"))
    net.transmit(two, one.id, Records((record.envelope,)))
    net.run(40)
    assert record.id not in one.places
    assert not one.replica.chains.ends(stranger.id, "munki")
