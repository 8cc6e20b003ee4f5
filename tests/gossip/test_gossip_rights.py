"""Nothing of a share - no record, head, frontier or name - goes to a node without a grant for it (I17), also while rights change and messages are under way."""

from __future__ import annotations

import json
import random

import pytest
from gossip_network import Network, Node

from replicad.crypto.hashing import sha256
from replicad.model.ids import NodeId
from replicad.model.records import Cut, Grant, Record, Role
from replicad.protocol.gossip.announce import RELAY_MS
from replicad.protocol.wire import Compare, Compared, Frontier, Heads, Message, Pull, Records

SHARES = ("munki", "jamf", "secret")


def named(net: Network, message: Message) -> set[str]:
    """The shares that a message betrays."""
    match message:
        case Records():
            return {net.parse(envelope).header.share for envelope in message.envelopes}
        case Heads():
            return {json.loads(envelope.payload)["share"] for envelope in message.envelopes}
        case Compare():
            return set(message.frontiers)
        case Compared():
            return {*message.same, *message.differ}
        case Frontier() | Pull():
            return {message.share}
        case _:
            return set()


def watched(dice: random.Random, *names: str) -> tuple[Network, list[Node], list[tuple[str, str, str]]]:
    """A network in which every message is compared, when it leaves, with what its sender knows of the receiver's rights."""
    net = Network(dice)
    nodes = net.found(names, shares=SHARES)
    leaks: list[tuple[str, str, str]] = []

    def watch(sender: Node, to: NodeId, message: Message) -> bool:
        member = sender.replica.trust.members(net.now.wall_ms).get(to)
        leaks.extend((type(message).__name__, net.nodes[to].name, share) for share in named(net, message) if share and not (member and member.has_share(share)))
        return True

    net.spy = watch
    return net, nodes, leaks


def grant(admin: Node, node: Node, *shares: str) -> list[Record]:
    return admin.author("", Cut(node.id, {}, "change"), Grant(node.id, node.name, Role.PUBLISHER, shares=shares))


def test_rights_that_come_and_go_never_leak_a_share(dice: random.Random) -> None:
    net, nodes, leaks = watched(dice, "admin", "a", "b", "c", "d")
    net.batch_bytes = 2_000
    admin, *others = nodes
    net.mesh()
    for _ in range(120):
        match dice.randrange(5):
            case 0:
                grant(admin, dice.choice(others), *dice.sample(SHARES, dice.randint(1, 3)))
            case 1:
                first, second = dice.sample(nodes, 2)
                (net.unlink if dice.random() < 0.5 else net.link)(first, second)
            case _:
                author = dice.choice(nodes)
                held = [share for share in SHARES if author.may_have(share)]
                author.publish(dice.choice(held), dice.randint(1, 8))
        net.run(dice.choice([0, 0.01, 0.1, 0.4]))
    net.mesh()
    net.run(300, until=net.agree)
    assert net.agree()
    assert leaks == []
    assert not any(node.accused for node in nodes)


def test_news_that_waits_for_its_batch_stays_here_when_the_right_ends_meanwhile(dice: random.Random) -> None:
    net, (admin, reader), leaks = watched(dice, "admin", "reader")
    net.link(admin, reader)
    net.run(3)
    sent, kept = admin.publish("secret")[0], admin.publish("secret")[0]
    grant(admin, reader, "munki")
    net.run(60)
    assert sent.id in reader.places
    assert kept.id not in reader.places
    assert leaks == []


def test_heads_that_wait_to_be_relayed_stay_here_when_the_right_ends_meanwhile(dice: random.Random) -> None:
    net, (admin, author, reader), leaks = watched(dice, "admin", "author", "reader")
    net.link(admin, author)
    net.link(admin, reader)
    net.run(3)
    for _ in range(20):
        net.run(1.1)
        author.publish("secret")
        author.fetch(sha256(net.dice.randbytes(4)), 1)
        net.run(dice.random() * RELAY_MS / 1000)
        grant(admin, reader, "munki")
        net.run(0.5)
        grant(admin, reader, "munki", "secret")
        net.run(2)
    net.run(40)
    assert reader.standing.head(author.id, "secret") is not None
    assert leaks == []


def test_a_pull_under_way_ends_with_the_right(dice: random.Random) -> None:
    net, (admin, reader), leaks = watched(dice, "admin", "reader")
    net.batch_bytes = 5_000
    admin.publish("secret", 300)
    net.link(admin, reader)
    net.run(5, until=lambda: len(reader.replica.chains.have(admin.id, "secret")) > 0)
    grant(admin, reader, "munki")
    have = len(reader.at)
    net.cost.messages.clear()
    net.run(60)
    assert 0 < have < 300
    assert leaks == []
    assert net.cost.messages["Pull"] <= 4, "it asks for the grants, not again and again for what it may not have"


@pytest.mark.parametrize("share", ["secret", "no-such-share"])
def test_records_of_a_share_that_this_node_has_no_grant_for_are_not_stored(dice: random.Random, share: str) -> None:
    """Whoever sends them: the right is asked at both ends."""
    net, (admin, reader), _ = watched(dice, "admin", "reader")
    net.link(admin, reader)
    grant(admin, reader, "munki")
    net.run(3)
    (record,) = admin.publish(share)
    net.transmit(admin, reader.id, Records((record.envelope,)))
    net.run(3)
    assert record.id in admin.places
    assert record.id not in reader.places
    assert not reader.accused


def test_a_share_and_its_first_records_in_one_message_arrive_at_once(dice: random.Random) -> None:
    """The receiver learns of its right with the message itself; what it had to ignore comes by the comparison that follows."""
    net, (admin, reader), _ = watched(dice, "admin", "reader")
    net.link(admin, reader)
    grant(admin, reader, "munki")
    net.run(3)
    news = [*grant(admin, reader, "munki", "secret"), *admin.publish("secret", 2)]
    net.transmit(admin, reader.id, Records(tuple(record.envelope for record in news)))
    net.run(2)
    assert all(record.id in reader.places for record in news)
