"""News: at once, in batches, to everybody once."""

from __future__ import annotations

import itertools
import random

import pytest
from gossip_network import Cost, Network

from replicad.model.ids import NodeId
from replicad.protocol.gossip.push import BATCH_BYTES, BATCH_MS
from replicad.protocol.gossip.routes import ORIGINS_MAX, Routes
from replicad.protocol.wire import Eager, Message, Records


def test_a_record_is_on_its_way_in_the_moment_it_is_committed(dice: random.Random) -> None:
    net = Network(dice)
    one, two = net.found(["one", "two"])
    net.link(one, two)
    net.run(2)
    told: list[int] = []
    net.spy = lambda _sender, _to, message: told.append(net.now.monotonic_ms) or True if isinstance(message, Records) else True
    began = net.now.monotonic_ms
    one.publish("munki")
    assert told == [began]


def test_what_follows_within_a_batch_interval_shares_messages(dice: random.Random) -> None:
    net = Network(dice)
    one, two = net.found(["one", "two"])
    net.link(one, two)
    net.run(2)
    told: list[tuple[int, int]] = []
    net.spy = lambda _sender, _to, message: told.append((net.now.monotonic_ms, len(message.envelopes))) or True if isinstance(message, Records) else True
    for _ in range(20):
        one.publish("munki")
        net.run(0.005)
    net.run(1)
    assert sum(count for _, count in told) == 20
    assert len(told) <= 4
    assert all(later - earlier >= BATCH_MS for (earlier, _), (later, _) in itertools.pairwise(told))
    assert two.frontier() == one.frontier()


def test_a_large_commit_goes_in_messages_of_bounded_size(dice: random.Random) -> None:
    net = Network(dice)
    one, two = net.found(["one", "two"])
    net.link(one, two)
    net.run(2)
    sizes: list[int] = []
    net.spy = lambda _sender, _to, message: (
        sizes.append(sum(len(envelope.payload) for envelope in message.envelopes)) or True if isinstance(message, Records) else True
    )
    one.publish("munki", 600)
    net.run(1)
    assert two.frontier() == one.frontier()
    assert max(sizes) <= BATCH_BYTES


@pytest.mark.parametrize("size", [4, 12])
def test_in_a_full_mesh_only_authors_speak_once_that_is_known(dice: random.Random, size: int) -> None:
    net = Network(dice)
    nodes = net.found([f"n{index}" for index in range(size)])
    net.mesh()
    net.run(5)
    for node in nodes:
        node.publish("munki")
        net.run(0.5)
    net.cost, before = Cost(), sum(node.duplicates for node in nodes)
    for node in nodes:
        node.publish("munki")
        net.run(0.5)
    assert net.agree()
    assert net.cost.messages["Records"] == size * (size - 1)
    assert sum(node.duplicates for node in nodes) == before


def test_when_the_way_by_which_news_came_breaks_the_others_tell_again(dice: random.Random) -> None:
    """Author, two relays, reader; the reader has no link with the author. Within ``QUIET_MS`` of the first record, which took every link, the next ones take a tree."""
    net = Network(dice)
    author, left, right, reader = net.found(["author", "left", "right", "reader"])
    for relay in (left, right):
        net.link(author, relay)
        net.link(relay, reader)
    net.run(2)
    for _ in range(3):
        author.publish("munki")
        net.run(0.25)
    net.cost = Cost()
    author.publish("munki")
    net.run(0.2)
    assert net.cost.messages["Records"] == 3
    for relay in (left, right):
        net.unlink(relay, reader)
        author.publish("munki")
        assert net.run(2, until=lambda: reader.frontier() == author.frontier()) < 2
        net.link(relay, reader)
        net.run(2)


def test_news_is_not_sent_back_to_whom_it_came_from(dice: random.Random) -> None:
    net = Network(dice)
    one, two = net.found(["one", "two"])
    net.link(one, two)
    net.run(2)
    back: list[Message] = []
    net.spy = lambda sender, _to, message: back.append(message) or True if sender is two and isinstance(message, Records) else True
    one.publish("munki", 3)
    net.run(40)
    assert back == []


def test_a_gap_in_what_is_pushed_is_closed_at_once(dice: random.Random) -> None:
    net = Network(dice)
    one, two = net.found(["one", "two"])
    net.link(one, two)
    net.run(2)
    net.spy = lambda *_: False
    one.publish("munki", 5)
    net.run(0.1)
    net.spy = None
    one.publish("munki")
    assert net.run(5, until=lambda: two.frontier() == one.frontier()) < 0.5


def test_declined_origins_are_bounded(dice: random.Random) -> None:
    routes = Routes()
    one, other = NodeId(dice.randbytes(32)), NodeId(dice.randbytes(32))
    routes.open(one)
    routes.open(other)
    for _ in range(10):
        routes.hear(one, Eager(tuple(NodeId(dice.randbytes(32)) for _ in range(1000)), wanted=False))
    assert len(routes._declined_by[one]) == ORIGINS_MAX
    origins = [NodeId(dice.randbytes(32)) for _ in range(10_000)]
    out: list = []
    routes.arrived(other, fresh=origins, repeated=(), out=out)
    for start in range(0, len(origins), 500):
        routes.arrived(one, fresh=(), repeated=origins[start : start + 500], out=out)
    assert sum(len(effect.message.origins) for effect in out) <= ORIGINS_MAX


def test_who_tells_one_thing_twice_need_not_tell_what_is_heard_directly(dice: random.Random) -> None:
    routes = Routes()
    teller, *linked = [NodeId(dice.randbytes(32)) for _ in range(5)]
    for node in (teller, *linked):
        routes.open(node)
    out: list = []
    routes.arrived(teller, fresh=[], repeated=[teller], out=out)
    assert not out
    routes.arrived(teller, fresh=[], repeated=linked[:1], out=out)
    assert [(effect.node, effect.message) for effect in out] == [(teller, Eager(tuple(sorted(linked)), wanted=False))]
    out.clear()
    routes.arrived(teller, fresh=[], repeated=linked, out=out)
    assert not out
    routes.close(linked[0], out)
    assert [(effect.node, effect.message) for effect in out] == [(teller, Eager((), wanted=True))]


def test_the_last_one_who_tells_is_never_declined(dice: random.Random) -> None:
    routes = Routes()
    nodes = [NodeId(dice.randbytes(32)) for _ in range(3)]
    origin = NodeId(dice.randbytes(32))
    for node in nodes:
        routes.open(node)
    out: list = []
    for _ in range(5):
        for node in dice.sample(nodes, 3):
            routes.arrived(node, fresh=(), repeated=[origin], out=out)
    declined = {effect.node for effect in out}
    assert len(declined) == 2
    out.clear()
    routes.close(next(iter(set(nodes) - declined)), out)
    assert {effect.node for effect in out} == declined
    assert all(effect.message == Eager((), wanted=True) for effect in out)


def test_what_push_lost_is_noticed_by_the_next_head(dice: random.Random) -> None:
    net = Network(dice)
    one, two = net.found(["one", "two"])
    net.link(one, two)
    net.run(5)
    net.spy = lambda _sender, _to, message: not (isinstance(message, Records) and message.pull == 0)
    one.publish("munki", 3)
    assert net.run(20, until=lambda: two.frontier() == one.frontier()) < 2


@pytest.mark.parametrize(("away", "relayed"), [(0, 0), (1, 2)], ids=["full mesh", "somebody is not linked"])
def test_beyond_a_full_mesh_single_news_is_told_also_to_who_declined_it(dice: random.Random, away: int, relayed: int) -> None:
    """The first record after a pause takes every way, what follows in a burst only the tree; where everybody has a link with the author nobody relays."""
    net = Network(dice)
    one, two, three, *_ = net.found(["one", "two", "three", *[f"away{number}" for number in range(away)]])
    net.mesh([one, two, three])
    one.publish("munki")
    net.run(5)
    told: list[bool] = []
    net.spy = lambda sender, _to, message: told.append(sender is not one) or True if isinstance(message, Records) else True
    one.publish("munki", 3)
    net.run(0.5)
    assert sum(told) == relayed
    told.clear()
    one.publish("munki")
    net.run(0.5)
    assert told == [False, False]
