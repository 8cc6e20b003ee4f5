"""Anti-entropy: what it costs, whom it serves, and that nobody can misuse it."""

from __future__ import annotations

import json
import random

import pytest
from gossip_network import Cost, Network, Node, entry

from replicad.crypto.keys import SigningKey
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.records import Cut, Grant, Role
from replicad.protocol.gossip.core import SERVED_PULLS_MAX
from replicad.protocol.gossip.events import Heard, LinkClosed, Read
from replicad.protocol.gossip.pulls import PULL_PATIENCE_MS, PULL_TIMEOUT_MS, PULLS_PER_PEER
from replicad.protocol.wire import Compare, Compared, End, Frontier, Heads, Message, Pull, Records


def pair(dice: random.Random, **options: object) -> tuple[Network, Node, Node]:
    """An admin and a publisher, not linked."""
    net = Network(dice)
    first, second = net.found(["one", "two"], **options)  # type: ignore[arg-type]
    return net, first, second


def in_step(net: Network) -> Cost:
    """Let everything be told, and count from here on."""
    net.run(3, until=net.agree)
    net.run(2)
    net.cost = Cost()
    return net.cost


def next_round(net: Network, *nodes: Node) -> None:
    """Only anti-entropy counts: no news is pushed."""
    net.spy = lambda _sender, _to, message: not isinstance(message, Heads) and not (isinstance(message, Records) and message.pull == 0)
    net.run(70, until=lambda: len({frozenset(node.frontier().items()) for node in nodes}) == 1 and net.cost.messages["Compared"] > 0)


def test_in_sync_an_exchange_costs_under_100_bytes_a_share(dice: random.Random) -> None:
    net, one, two = pair(dice, shares=[f"share-number-{index}" for index in range(10)])
    net.link(one, two)
    cost = in_step(net)
    net.run(40, until=lambda: cost.messages["Compared"] == 1)
    assert cost.messages["Compare"] == 1
    assert cost.bytes["Compare"] + cost.bytes["Compared"] <= 11 * 100


def test_ten_missing_records_of_one_author_cost_under_a_kilobyte_besides(dice: random.Random) -> None:
    net, one, two, *authors = authors_network(dice, 200)
    cost = in_step(net)
    net.spy = lambda *_: False
    authors[0].publish("munki", 10)
    one_learns(authors[0], one)
    net.run(1)
    next_round(net, one, two)
    assert one.frontier() == two.frontier()
    assert cost.overhead <= 1024 + cost.bytes["Compare"] + cost.bytes["Compared"]
    assert cost.bytes["Frontier"] + cost.bytes["Pull"] <= 1024


def test_a_thousand_missing_records_of_a_hundred_authors_cost_under_16_kilobytes_besides(dice: random.Random) -> None:
    net, one, two, *authors = authors_network(dice, 100)
    cost = in_step(net)
    net.spy = lambda *_: False
    for author in authors:
        author.publish("munki", 10)
        one_learns(author, one)
    net.run(1)
    net.cost = cost = Cost()
    next_round(net, one, two)
    assert one.frontier() == two.frontier()
    assert cost.overhead <= 16 * 1024


def authors_network(dice: random.Random, count: int) -> list:
    """[network, one, two, authors...]: one and two linked and in step with what all authors published so far."""
    net = Network(dice)
    one, two, *authors = net.found(["one", "two", *(f"author{index}" for index in range(count))])
    for author in authors:
        author.publish("munki", 1)
        one_learns(author, one)
    net.link(one, two)
    return [net, one, two, *authors]


def one_learns(author: Node, one: Node) -> None:
    """By another way than the link that is measured."""
    new = [record for _, record in sorted(author.at.items()) if record.header.origin == author.id and record.id not in one.places]
    for record in new:
        one.add(record)
    one.committed(new, author.id)


def test_each_chain_is_pulled_from_one_peer_at_a_time(dice: random.Random) -> None:
    net = Network(dice)
    nodes = net.found([f"n{index}" for index in range(6)])
    nodes[1].publish("munki", 300)
    for other in nodes[2:5]:
        for _, record in sorted(nodes[1].at.items()):
            if record.id not in other.places:
                other.add(record)
    late = nodes[5]
    for other in nodes[1:5]:
        net.link(other, late)
    net.run(5, until=lambda: late.frontier() == nodes[1].frontier())
    assert late.frontier() == nodes[1].frontier()
    assert late.duplicates == 0


def test_the_pull_of_a_broken_link_goes_on_with_another_peer(dice: random.Random) -> None:
    net = Network(dice)
    net.batch_bytes = 5_000
    source, holder, late = net.found(["source", "holder", "late"])
    source.publish("munki", 200)
    net.link(source, holder)
    net.run(5, until=net.agree)
    net.link(source, late)
    net.link(holder, late)
    net.run(5, until=lambda: 20 < len(late.at) < 150)
    net.unlink(source, late)
    net.run(2, until=lambda: late.frontier() == holder.frontier())
    assert late.frontier() == holder.frontier()


@pytest.mark.parametrize("first", [True, False], ids=["offered-before", "offered-after"])
def test_while_one_peer_does_not_answer_a_pull_another_is_asked_soon(dice: random.Random, first: bool) -> None:
    net = Network(dice)
    source, holder, late = net.found(["source", "holder", "late"])
    source.publish("munki", 3)
    net.link(source, holder)
    net.run(5, until=net.agree)
    net.spy = lambda sender, _to, message: not (sender is source and isinstance(message, Records))
    net.link(source, late)
    net.run(0.5 if first else PULL_PATIENCE_MS / 1000 + 1)
    net.link(holder, late)
    took_s = net.run(60, until=lambda: late.frontier() == holder.frontier())
    assert late.frontier() == holder.frontier()
    assert took_s <= (PULL_PATIENCE_MS / 1000 + 0.5 if first else 0.5)


def test_a_slow_answer_to_a_pull_still_counts_and_the_rest_is_pulled_once(dice: random.Random) -> None:
    net = Network(dice)
    net.batch_bytes = 5_000
    source, late = net.found(["source", "late"])
    source.publish("munki", 60)
    net.spy = lambda sender, _to, message: (
        not (sender is source and isinstance(message, Records))
        or bool(net.at_ms(net.now.monotonic_ms + 2 * PULL_PATIENCE_MS, lambda: late.handle(Heard(source.id, message))))
    )
    net.link(source, late)
    took_s = net.run(200, until=lambda: late.frontier() == source.frontier())
    assert late.frontier() == source.frontier()
    assert late.duplicates == 0
    assert took_s <= PULL_TIMEOUT_MS / 1000 * 3, "an answer later than patience is no reason to begin again"


def test_a_pull_that_nobody_answers_is_given_up(dice: random.Random) -> None:
    net = Network(dice)
    source, late = net.found(["source", "late"])
    source.publish("munki", 3)
    net.spy = lambda sender, _to, message: not (sender is source and isinstance(message, Records))
    net.link(source, late)
    pulls = net.cost.messages
    net.run(PULL_TIMEOUT_MS / 1000 - 1)
    assert pulls["Pull"] == 1, "nobody else has it: it is waited for"
    net.run(PULL_TIMEOUT_MS / 1000 + 5)
    assert pulls["Pull"] > 1


def test_records_of_a_share_go_to_those_who_are_granted_it_only(dice: random.Random) -> None:
    net = Network(dice)
    nodes = net.found(["admin", "m1", "m2", "both"], shares=("munki", "secret"))
    admin, *others = nodes
    granted = {"admin": {"munki", "secret"}, "m1": {"munki"}, "m2": {"munki"}, "both": {"munki", "secret"}}
    admin.author("", *(Cut(node.id, {}, "change") for node in others))
    admin.author("", *(Grant(node.id, node.name, Role.PUBLISHER, shares=tuple(granted[node.name])) for node in others))
    for node in others:
        net.copy_network(admin, node)
    leaks: list[tuple[str, str]] = []

    def watch(sender: Node, to: NodeId, message: Message) -> bool:
        leaks.extend((net.nodes[to].name, share) for share in shares_of(net, message) if share not in {"", *granted[net.nodes[to].name]})
        return True

    net.spy = watch
    net.mesh()
    for node in (admin, nodes[3]):
        node.publish("secret", 5)
    nodes[1].publish("munki", 5)
    net.run(70)
    assert net.agree()
    assert nodes[3].replica.chains.frontier("secret").keys() == {admin.id, nodes[3].id}
    assert not nodes[1].replica.chains.frontier("secret")
    assert leaks == []


def shares_of(net: Network, message: Message) -> set[str]:
    match message:
        case Records():
            return {net.parse(envelope).header.share for envelope in message.envelopes}
        case Heads():
            return {json.loads(envelope.payload)["share"] for envelope in message.envelopes}
        case Compare():
            return set(message.frontiers)
        case Frontier() | Pull():
            return {message.share}
        case _:
            return set()


def test_a_member_that_was_removed_hears_nothing_more_on_a_link_that_still_stands(dice: random.Random) -> None:
    net = Network(dice)
    admin, gone, other = net.found(["admin", "gone", "other"])
    net.mesh()
    net.run(3)
    heard: list[Message] = []
    net.spy = lambda _sender, to, message: heard.append(message) or True if to == gone.id else True
    admin.author("", Cut(gone.id, {}, "remove"))
    net.run(0.2)
    heard.clear()
    other.publish("munki", 5)
    gone.handle(LinkClosed(other.id))
    net.transmit(gone, admin.id, Pull(1, "munki", other.id, {}))
    net.transmit(gone, admin.id, Compare({"munki": Digest(bytes(32)), "": Digest(bytes(32))}))
    net.run(60)
    assert {repr(message) for message in heard} == {repr(Compared((), ())), repr(Records((), 1))}


def test_a_share_that_a_member_is_granted_later_comes_at_once(dice: random.Random) -> None:
    net = Network(dice)
    admin, reader = net.found(["admin", "reader"], shares=("munki", "later"), role=Role.MIRROR)
    admin.author("", Cut(reader.id, {}, "change"), Grant(reader.id, "reader", Role.MIRROR, shares=("munki",)))
    net.copy_network(admin, reader)
    admin.publish("later", 20)
    net.link(admin, reader)
    net.run(2)
    assert not reader.replica.chains.frontier("later")
    admin.author("", Grant(reader.id, "reader", Role.MIRROR, shares=("later",)))
    net.run(1)
    assert reader.frontier() == admin.frontier()


def test_pulls_beyond_the_bound_are_answered_by_nothing(dice: random.Random) -> None:
    net, one, two = pair(dice)
    one.publish("munki", 1)
    net.link(one, two)
    net.run(1)
    reads = []
    perform = one.perform
    one.perform = lambda effects: (
        reads.extend(effect for effect in effects if isinstance(effect, Read)),
        perform([effect for effect in effects if not isinstance(effect, Read)]),
    )
    answers: list[Message] = []
    net.spy = lambda sender, _to, message: answers.append(message) or True if sender is one else True
    for number in range(1, 100):
        net.transmit(two, one.id, Pull(number, "munki", one.id, {}))
    net.run(1)
    assert len(reads) == SERVED_PULLS_MAX
    assert len([message for message in answers if isinstance(message, Records) and message.pull]) == 99 - SERVED_PULLS_MAX


def test_a_hostile_frontier_costs_a_bounded_number_of_pulls(dice: random.Random) -> None:
    """Ends that nobody has, of known origins: asked for a few times, then dropped."""
    net, one, two = pair(dice)
    one.publish("munki", 5)
    net.link(one, two)
    net.run(2)
    net.cost = Cost()
    lines = {
        one.id: (End(Stamp.of(1 << 40), 1 << 40, RecordId(dice.randbytes(32))),),
        NodeId(dice.randbytes(32)): (End(Stamp(1), 1, RecordId(dice.randbytes(32))),),
    }
    net.transmit(two, one.id, Frontier("munki", lines, whole=True, reply=False))
    net.run(5)
    assert 1 <= net.cost.messages["Pull"] <= 12
    assert net.cost.messages["Compare"] <= 2


@pytest.mark.parametrize("authors", [2100])
def test_a_long_frontier_goes_in_bounded_parts_and_finds_every_line(dice: random.Random, authors: int) -> None:
    net, one, two = pair(dice)
    keys = [SigningKey.generate() for _ in range(authors)]
    one.author("", *(Grant(key.id, f"a{index}", Role.PUBLISHER) for index, key in enumerate(keys)))
    net.copy_network(one, two)
    for index, key in enumerate(keys):
        record = net.say(one.replica, key, "munki", entry(f"p{index}"))
        (one if index % 2 else two).add(record)
    net.link(one, two)
    parts: list[Frontier] = []
    net.spy = lambda _sender, _to, message: parts.append(message) or True if isinstance(message, Frontier) else True
    net.run(30, until=lambda: one.places.keys() == two.places.keys())
    assert net.agree()
    assert len(parts) >= 2
    assert len(one.replica.chains.frontier("munki")) == authors


def test_pulls_under_way_are_bounded(dice: random.Random) -> None:
    net, one, two, *_ = authors_network(dice, 60)
    waiting = {"now": 0, "most": 0}

    def watch(sender: Node, _to: NodeId, message: Message) -> bool:
        if isinstance(message, Pull):
            waiting["now"] += 1
        elif isinstance(message, Records) and message.pull:
            waiting["now"] -= 1
        waiting["most"] = max(waiting.values())
        return True

    net.spy = watch
    net.run(5, until=lambda: one.frontier() == two.frontier())
    assert one.frontier() == two.frontier()
    assert 2 <= waiting["most"] <= PULLS_PER_PEER
