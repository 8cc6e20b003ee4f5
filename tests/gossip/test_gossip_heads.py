"""Heads: who says what when, what is believed, and what is answered from them."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest
from gossip_network import Network, Node, entry

from replicad.crypto.hashing import sha256
from replicad.errors import PeerError
from replicad.model.entries import Listed
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.records import Cut, Envelope, Grant, Record, Role
from replicad.protocol.gossip import heads
from replicad.protocol.gossip.announce import CHANGE_MS_MIN, PROGRESS_MS
from replicad.protocol.gossip.events import Accuse
from replicad.protocol.gossip.heads import ENDS_MAX, Head, HeadEnd, Missing
from replicad.protocol.gossip.standing import LINKED_INTERVALS, Kept, Standing
from replicad.protocol.wire import End, Heads, Message


def linked(dice: random.Random, *names: str) -> tuple[Network, list[Node]]:
    net = Network(dice)
    nodes = net.found(names)
    net.mesh()
    net.run(5)
    return net, nodes


def listed(record: Record, content: Digest) -> Listed:
    header = record.header
    return Listed(record.id, header.origin, header.hlc, header.share, "key", "path", "prod", content, 1, content, 0, "", available=True)


def test_everybody_knows_everybodys_heads_and_addresses(dice: random.Random) -> None:
    _, nodes = linked(dice, "one", "two", "three")
    for node in nodes:
        for other in nodes:
            if other is not node:
                assert node.standing.address(other.id) == ((f"https://{other.name}:8440",), None)
                assert node.standing.in_sync(other.id, "munki")
                assert node.standing.linked(other.id, node.network.now.monotonic_ms)


def test_heads_reach_nodes_without_a_link_to_their_author(dice: random.Random) -> None:
    net = Network(dice)
    nodes = net.found([f"n{index}" for index in range(5)])
    for first, second in itertools.pairwise(nodes):
        net.link(first, second)
    net.run(40)
    assert nodes[4].standing.linked(nodes[0].id, net.now.monotonic_ms)
    net.unlink(nodes[3], nodes[4])
    net.run(30 * LINKED_INTERVALS + 5)
    assert not nodes[4].standing.linked(nodes[0].id, net.now.monotonic_ms)


def test_an_old_head_told_by_somebody_does_not_make_its_author_linked(dice: random.Random) -> None:
    net, (one, two, gone) = linked(dice, "one", "two", "gone")
    net.unlink(one, gone)
    net.unlink(two, gone)
    net.run(30 * LINKED_INTERVALS + 5)
    late = Node(net, "late")
    net.unlink(one, two)
    two.standing.clear()
    net.link(one, two)
    net.run(2)
    assert two.standing.head(gone.id) is not None
    assert not two.standing.linked(gone.id, net.now.monotonic_ms)
    assert two.standing.linked(one.id, net.now.monotonic_ms)
    assert late.id not in net.nodes


def test_all_held_is_said_at_once_and_changes_at_most_once_a_second(dice: random.Random) -> None:
    net, (one, two) = linked(dice, "one", "two")
    content = sha256(b"a big file")
    (record,) = one.author("munki", entry("big"))
    net.run(5)
    assert two.standing.percent(one.id, listed(record, content)) == 100
    one.fetch(content, 0)
    assert net.run(1, until=lambda: two.standing.percent(one.id, listed(record, content)) == 0) < 0.1
    said: list[int] = []
    net.spy = lambda sender, _to, message: said.append(net.now.monotonic_ms) or True if sender is one and isinstance(message, Heads) else True
    for percent in range(1, 100):
        one.fetch(content, percent)
        net.run(0.05)
    assert 3 <= len(said) <= 7
    assert all(later - earlier >= CHANGE_MS_MIN for earlier, later in itertools.pairwise(said))
    one.fetch(content, None)
    assert net.run(5, until=lambda: two.standing.percent(one.id, listed(record, content)) == 100) <= 0.3  # people wait for that
    net.run(3)
    said.clear()
    one.fetch(sha256(b"x"), 5)
    assert net.run(1, until=lambda: bool(said)) < 0.1


def test_in_a_large_network_not_everybody_tells_of_a_change_at_once(dice: random.Random) -> None:
    """Three of 500 members are here: each waits up to nine seconds, and says everything that happened meanwhile with one head."""
    net, (one, two, three) = linked(dice, "one", "two", "three")
    one.author("", *(Grant(NodeId(dice.randbytes(32)), f"absent{number}", Role.MIRROR) for number in range(497)))
    net.run(60)
    waited: list[float] = []
    for round_ in range(10):
        said: dict[str, float] = {}
        begun = net.now.monotonic_ms
        net.spy = lambda sender, _to, message, said=said, begun=begun: (
            said.setdefault(sender.name, net.now.monotonic_ms - begun) >= 0
            if isinstance(message, Heads) and heads.order(message.envelopes[0])[0] == "munki"
            else True
        )
        for number in range(5):
            one.author("munki", entry(f"{round_}/{number}"))
            net.run(0.1)
        net.run(15)
        assert said.keys() == {"one", "two", "three"}
        waited += said.values()
        assert two.standing.in_sync(three.id, "munki")
    assert max(waited) <= 10_000
    assert sum(wait > 2_000 for wait in waited) >= 15


def test_progress_is_told_without_being_asked_to(dice: random.Random) -> None:
    """While something is missing the node looks again every three seconds."""
    net, (one, two) = linked(dice, "one", "two")
    content = sha256(b"a big file")
    (record,) = one.author("munki", entry("big"))
    one.fetch(content, 3)
    net.run(2)
    one.missing[content] = 55
    net.run(2.5)
    assert two.standing.percent(one.id, listed(record, content)) == 55
    said: list[int] = []
    net.spy = lambda sender, _to, message: said.append(net.now.monotonic_ms) or True if sender is one and isinstance(message, Heads) else True
    for percent in range(56, 92):
        one.missing[content] = percent
        net.run(0.25)
    assert len(said) == 3
    assert all(later - earlier >= PROGRESS_MS for earlier, later in itertools.pairwise(said))
    assert two.standing.percent(one.id, listed(record, content)) >= 91 - 3 * 4


def test_a_quiet_node_says_its_head_every_interval_only(dice: random.Random) -> None:
    net, (one, _two) = linked(dice, "one", "two")
    net.run(5)
    told: list[Message] = []
    net.spy = lambda sender, _to, message: told.append(message) or True if sender is one and isinstance(message, Heads) else True
    net.run(120)
    assert 8 <= sum(len(message.envelopes) for message in told) <= 10


@pytest.mark.parametrize(("members", "expected"), [(2, 30_000), (60, 30_000), (600, 300_000)])
def test_the_interval_grows_with_the_network(members: int, expected: int) -> None:
    assert heads.interval_ms(members) == expected


def test_replayed_and_older_heads_change_nothing(dice: random.Random) -> None:
    net, (one, two) = linked(dice, "one", "two")
    old = two.standing.find(one.id, "munki")
    assert old is not None
    one.publish("munki", 3)
    net.run(3)
    newer = two.standing.head(one.id, "munki")
    net.transmit(one, two.id, Heads((old.envelope,), (0,)))
    net.run(1)
    assert two.standing.head(one.id, "munki") is newer
    assert newer is not None
    assert newer.order > old.head.order


def test_a_restarted_node_speaks_above_its_former_self_though_its_clock_went_back(dice: random.Random) -> None:
    net, (one, two) = linked(dice, "one", "two")
    before = two.standing.head(one.id)
    again = Node(net, "one")
    for _, record in sorted(one.at.items()):
        again.add(record)
    again.core._announce._incarnation = Stamp(5)
    again.core._announce.rights_changed()
    net.unlink(one, two)
    net.nodes[one.id] = again
    net.link(again, two)
    net.run(3)
    after = two.standing.head(one.id)
    assert before is not None
    assert after is not None
    assert after.order > before.order


@pytest.mark.parametrize("fault", ["garbage", "not JSON", "signature", "other signer", "other network", "ages", "type"])
def test_what_is_not_a_head_of_its_signer_is_an_offence(dice: random.Random, fault: str) -> None:
    net, (one, two) = linked(dice, "one", "two")
    kept = two.standing.find(one.id, "munki")
    assert kept is not None
    newer = msgspec.structs.replace(kept.head, counter=10_000)
    other_network = net.nodes[two.id].key.id
    made = heads.sign(one.key, net.key.id, newer)
    payload = made.payload
    envelope = {
        "garbage": Envelope("head", b'{"share":"munki","incarnation":"x"}', one.id, bytes(64)),
        "not JSON": Envelope("head", b"\x00", one.id, bytes(64)),
        "signature": Envelope("head", payload, one.id, bytes(64)),
        "other signer": heads.sign(two.key, net.key.id, newer),
        "other network": heads.sign(one.key, other_network, newer),
        "ages": made,
        "type": Envelope("entry", payload, one.id, made.signature),
    }[fault]
    three = Node(net, "three")
    del three
    net.transmit(one, two.id, Heads((envelope,), (0, 0) if fault == "ages" else (0,)))
    net.run(1)
    if fault == "other signer":
        assert two.standing.find(one.id, "munki") == kept
    else:
        assert [accused.offence for accused in two.accused] == ["bad-head"]
        assert two.accused[0] == Accuse(one.id, "bad-head", two.accused[0].detail)
    assert two.standing.head(one.id, "munki") == kept.head


def test_a_head_signed_by_one_member_in_anothers_name_is_an_offence(dice: random.Random) -> None:
    net, (_one, two, three) = linked(dice, "one", "two", "three")
    kept = two.standing.find(three.id, "")
    assert kept is not None
    forged = msgspec.structs.replace(kept.head, counter=10_000, node=_one.id)
    with pytest.raises(PeerError, match="another node"):
        heads.peek(heads.sign(three.key, net.key.id, forged))


def test_a_removed_members_heads_are_forgotten(dice: random.Random) -> None:
    net, (one, two, gone) = linked(dice, "one", "two", "gone")
    one.author("", Cut(gone.id, {}, "remove"))
    net.run(1)
    assert two.standing.head(gone.id) is None
    assert two.standing.address(gone.id) == ((), None)


# -- Standing alone -------------------------------------------------------------------------------------------------------------------------------------


class Chains:
    """One's own frontier, for Standing."""

    def __init__(self, digest: Digest, ends: dict[NodeId, tuple[End, ...]]) -> None:
        self.digest = digest
        self.known = ends

    def frontier_hash(self, share: str) -> Digest:  # noqa: ARG002 - one share is enough here
        return self.digest

    def ends(self, origin: NodeId, share: str) -> tuple[End, ...]:  # noqa: ARG002
        return self.known.get(origin, ())


AUTHOR, NODE, OTHER = (NodeId(bytes([n]) * 32) for n in (1, 2, 3))
SAME, DIFFERENT = Digest(b"s" * 32), Digest(b"d" * 32)
CONTENT, ELSE = Digest(b"c" * 32), Digest(b"e" * 32)
ENTRY = Listed(RecordId(bytes(32)), AUTHOR, Stamp.of(500), "munki", "k", "p", "prod", CONTENT, 10, CONTENT, 0, "", available=True)


def head(**changes: object) -> Head:
    return Head(**{"node": NODE, "share": "munki", "incarnation": Stamp(1), "counter": 1, "made_ms": 0, "interval_ms": 30_000, "frontier": SAME, **changes})  # type: ignore[arg-type]


def end(hlc_ms: int, *, incarnation: int = 1, seq: int = 9) -> HeadEnd:
    return HeadEnd(AUTHOR, Stamp(incarnation), seq, Stamp.of(hlc_ms))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, None),
        (head(), 100),
        (head(missing=(Missing(CONTENT, 42),), missing_count=1, missing_since=Stamp.of(400)), 42),
        (head(missing=(Missing(ELSE, 42),), missing_count=1, missing_since=Stamp.of(400)), 100),
        (head(missing=(Missing(ELSE, 42),), missing_count=2, missing_since=Stamp.of(400)), None),
        (head(missing=(Missing(ELSE, 42),), missing_count=2, missing_since=Stamp.of(600)), 100),
        (head(missing=(Missing(ELSE, 42),), missing_count=2), None),
        (head(frontier=DIFFERENT, ends=(end(499),)), 0),
        (head(frontier=DIFFERENT, ends=(end(500),)), 100),
        (head(frontier=DIFFERENT, ends=(end(900),), missing=(Missing(CONTENT, 7),), missing_count=1), 7),
        (head(frontier=DIFFERENT), 0),
        (head(frontier=DIFFERENT, ends_whole=False), None),
    ],
    ids=[
        "nothing told",
        "all held",
        "listed",
        "others listed",
        "more than listed",
        "older than all missing",
        "no time told",
        "end before",
        "end at",
        "end after, missing",
        "author unknown there",
        "not all ends told",
    ],
)
def test_percent_says_what_the_head_says_and_no_more(said: Head | None, expected: int | None) -> None:
    standing = Standing(lambda: Chains(SAME, {AUTHOR: (End(Stamp(1), 9, RecordId(bytes(32))),)}))
    if said is not None:
        standing.add(Kept(said, Envelope("head", b"", NODE, bytes(64)), 0))
    assert standing.percent(NODE, ENTRY) == expected


def test_percent_with_branches_needs_every_branch() -> None:
    ours = (End(Stamp(1), 9, RecordId(bytes(32))), End(Stamp(2), 5, RecordId(b"x" * 32)))
    standing = Standing(lambda: Chains(SAME, {AUTHOR: ours}))
    standing.add(Kept(head(frontier=DIFFERENT, ends=(end(900),)), Envelope("head", b"", NODE, bytes(64)), 0))
    assert standing.percent(NODE, ENTRY) is None
    standing.add(Kept(head(counter=2, frontier=DIFFERENT, ends=(end(900), end(950, incarnation=2, seq=5))), Envelope("head", b"", NODE, bytes(64)), 0))
    assert standing.percent(NODE, ENTRY) == 100


def test_lag_adds_up_over_shares() -> None:
    standing = Standing(lambda: Chains(SAME, {}))
    for share, count, since in (("munki", 3, 900), ("jamf", 2, 700), ("", 0, None)):
        said = msgspec.structs.replace(
            head(missing_count=count, missing_bytes=count * 10, missing_since=None if since is None else Stamp.of(since)), share=share
        )
        standing.add(Kept(said, Envelope("head", b"", NODE, bytes(64)), 0))
    lag = standing.lag(NODE)
    assert (lag.files, lag.bytes, lag.since_ms) == (5, 50, 700)
    assert standing.lag(OTHER).files == 0


def test_hinted_addresses_stand_behind_the_nodes_own() -> None:
    standing = Standing(lambda: Chains(SAME, {}))
    standing.hint(NODE, ("https://token:1",), SAME)
    assert standing.address(NODE) == (("https://token:1",), SAME)
    said = Head(NODE, "", Stamp(1), 1, 0, 30_000, SAME, presence=heads.Presence(urls=("https://own:2",), certificate=DIFFERENT))
    standing.add(Kept(said, Envelope("head", b"", NODE, bytes(64)), 0))
    assert standing.address(NODE) == (("https://own:2", "https://token:1"), DIFFERENT)


def test_a_head_of_a_network_with_many_authors_is_bounded(dice: random.Random) -> None:
    net = Network(dice)
    one, two, *authors = net.found(["one", "two", *(f"a{index}" for index in range(200))])
    for author in authors:
        (record,) = author.publish("munki")
        one.add(record)
        one.committed([record], author.id)
    net.link(one, two)
    net.run(5)
    said = two.standing.head(one.id, "munki")
    kept = two.standing.find(one.id, "munki")
    assert said is not None
    assert kept is not None
    assert not said.ends_whole
    assert len(said.ends) == ENDS_MAX
    assert len(kept.envelope.payload) < 8192
