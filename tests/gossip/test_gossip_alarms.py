"""Alarms: a member that lags, stands still, withholds or went back is named; one that is slow, quiet or was away is not."""

from __future__ import annotations

import random

import pytest
from gossip_network import Network, Node

from replicad.crypto.hashing import sha256
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.records import Cut, Envelope, Grant, Role
from replicad.protocol.gossip.alarms import FROZEN_MS, LAG_MS, WENT_BACK_SHOWN_MS, Alarm
from replicad.protocol.gossip.announce import AGE_S_MAX
from replicad.protocol.gossip.heads import Head, HeadEnd, Presence
from replicad.protocol.gossip.standing import Kept, Standing
from replicad.protocol.wire import End, Message, Records

AUTHOR, OTHER, NODE = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))
OURS, THEIRS, LATER = (Digest(bytes([number]) * 32) for number in (7, 8, 9))
EVERY_MS = 30_000


class Chains:
    """This node has the records 1 to 9 of one author."""

    def frontier_hash(self, _share: str) -> Digest:
        return OURS

    def ends(self, origin: NodeId, _share: str) -> tuple[End, ...]:
        return (End(Stamp(1), 9, RecordId(bytes(32))),) if origin == AUTHOR else ()

    def have(self, origin: NodeId, _share: str) -> dict[Stamp, int]:
        return {Stamp(1): 9} if origin == AUTHOR else {}


class Said:
    """Heads of one member, one every 30 seconds unless told otherwise."""

    def __init__(self) -> None:
        self.standing = Standing(Chains)
        self.now_ms = 0
        self.counter = 0

    def say(self, *, times: int = 1, every_ms: int = EVERY_MS, **more: object) -> Said:
        for _ in range(times):
            self.counter += 1
            self.now_ms += every_ms
            fields = {"share": "munki", "frontier": OURS, "ends": (end(20),), **more}
            head = Head(node=NODE, incarnation=Stamp(1), counter=self.counter, made_ms=0, interval_ms=EVERY_MS, **fields)  # type: ignore[arg-type]
            assert self.standing.add(Kept(head, Envelope("head", b"", NODE, bytes(64)), self.now_ms))
        return self

    def alarms(self, *, later_ms: int = 0) -> list[tuple[str, str]]:
        return [(alarm.kind, alarm.share) for alarm in self.standing.alarms(NODE, self.now_ms + later_ms)]


def end(hlc: int, *, origin: NodeId = AUTHOR, seq: int = 9, incarnation: int = 1) -> HeadEnd:
    return HeadEnd(origin, Stamp(incarnation), seq, Stamp(hlc))


ROUNDS = FROZEN_MS // EVERY_MS


def test_a_frontier_that_stands_still_while_there_is_more_is_frozen() -> None:
    said = Said().say(times=20).say(frontier=THEIRS, ends=(end(20, seq=5),), times=ROUNDS)
    assert said.alarms() == []
    assert said.say(frontier=THEIRS, ends=(end(20, seq=5),)).alarms() == [("frozen", "munki")]
    assert said.standing.alarms(NODE, said.now_ms) == [Alarm("frozen", "munki", FROZEN_MS)]
    assert said.say().alarms() == []


def test_the_same_with_ends_that_are_not_here_is_withholding() -> None:
    assert Said().say(frontier=THEIRS, ends=(end(20, seq=10),), times=ROUNDS + 1).alarms() == [("withholds", "munki")]
    assert Said().say(frontier=THEIRS, ends=(end(5, origin=OTHER, seq=1),), times=ROUNDS + 1).alarms() == [("withholds", "munki")]


def test_whoever_moves_however_slowly_is_not_frozen() -> None:
    said = Said()
    for step in range(3 * ROUNDS):
        said.say(frontier=Digest(bytes([100 + step]) * 32), ends=(end(step),), times=3)
    assert said.alarms() == []


def test_a_quiet_network_that_wakes_up_alarms_nobody() -> None:
    """In step for hours; what we publish now is other than its last head says, and that is no standing still."""
    said = Said().say(times=500)
    said.standing.chains = type("Changed", (Chains,), {"frontier_hash": lambda _self, _share: LATER})
    assert said.alarms() == []


def test_whoever_was_away_gets_its_time_again() -> None:
    said = Said().say(frontier=THEIRS, missing_count=3).say(frontier=THEIRS, missing_count=3, every_ms=7 * 86_400_000)
    assert said.alarms() == []
    assert said.say(frontier=THEIRS, missing_count=3, times=ROUNDS).alarms() == [("frozen", "munki")]


def test_old_heads_of_a_silent_member_raise_no_alarm_of_standing_still() -> None:
    said = Said().say(frontier=THEIRS, times=ROUNDS + 1)
    assert said.alarms() == [("frozen", "munki")]
    assert said.alarms(later_ms=3 * EVERY_MS) == []


def test_a_disk_without_room_is_told_while_the_newest_head_says_so() -> None:
    said = Said().say(share="", presence=Presence(disk_used=7, disk_free=1))
    assert said.alarms() == []
    assert said.say(share="", presence=Presence(disk_used=7)).alarms(later_ms=2 * EVERY_MS) == [("disk-full", "")]
    assert said.alarms(later_ms=3 * EVERY_MS) == []
    assert said.say(share="", presence=Presence()).alarms() == [], "that one does not say"


def test_lag_is_told_after_a_while_and_ends_with_the_last_content() -> None:
    said = Said().say(missing_count=2, missing_bytes=10, times=LAG_MS // EVERY_MS)
    assert said.alarms() == []
    assert said.say(missing_count=1, missing_bytes=5).alarms() == [("lags", "")]
    assert said.say().alarms() == []


def test_what_was_said_before_this_node_started_is_no_lag_of_a_hundred_years() -> None:
    """Saved heads have an age beyond all others until their author is heard again."""
    said = Said()
    said.now_ms = -AGE_S_MAX * 1000
    said.say(missing_count=1, missing_bytes=5)
    said.now_ms = 0
    assert said.alarms() == []
    assert said.say(missing_count=1, missing_bytes=5, times=LAG_MS // EVERY_MS).alarms() == []
    assert said.say(missing_count=1, missing_bytes=5).alarms() == [("lags", "")]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"ends": (end(9),)}, {"ends": (end(8),)}),
        ({"ends": (end(9), end(4, origin=OTHER))}, {"ends": (end(9),)}),
        ({"ends": (end(9, incarnation=2), end(7))}, {"ends": (end(7),)}),
    ],
    ids=["shorter", "origin gone", "branch gone"],
)
def test_a_later_head_that_knows_less_went_back(before: dict[str, object], now: dict[str, object]) -> None:
    said = Said().say(frontier=THEIRS, **before).say(frontier=LATER, **now)
    assert said.alarms() == [("went-back", "munki")]
    assert said.say(times=2).alarms() == [("went-back", "munki")]
    assert said.alarms(later_ms=WENT_BACK_SHOWN_MS) == []


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"ends": (end(9),)}, {"ends": (end(9),)}),
        ({"ends": (end(9),)}, {"ends": (end(10, incarnation=2, seq=10),)}),
        ({"ends": (end(9), end(4, origin=OTHER))}, {"ends": (end(9),), "ends_whole": False}),
        ({"ends": (end(9), end(12, incarnation=2))}, {"ends": (end(13, incarnation=2), end(5, seq=5))}),
    ],
    ids=["the same", "another incarnation goes on", "not all are told", "a fork was found"],
)
def test_what_only_looks_like_going_back_is_not(before: dict[str, object], now: dict[str, object]) -> None:
    assert Said().say(frontier=THEIRS, **before).say(frontier=LATER, **now).alarms() == []


# -- with the real core -----------------------------------------------------------------------------------------------------------------------------------


def linked(dice: random.Random) -> tuple[Network, list[Node]]:
    net = Network(dice)
    nodes = net.found(["one", "two", "three"])
    net.mesh()
    net.run(5)
    return net, nodes


def kinds(node: Node, of: Node) -> set[str]:
    return {alarm.kind for alarm in node.standing.alarms(of.id, node.network.now.monotonic_ms)}


def test_a_node_that_takes_no_records_is_named_by_the_others_and_forgiven_when_it_does(dice: random.Random) -> None:
    net, (one, two, three) = linked(dice)

    def deaf(_sender: Node, to: NodeId, message: Message) -> bool:
        return not (to == three.id and isinstance(message, Records))

    net.spy = deaf
    one.publish("munki", 3)
    net.run(FROZEN_MS / 1000 - 60)
    assert kinds(one, three) == kinds(two, three) == set()
    net.run(120)
    assert kinds(one, three) == kinds(two, three) == {"frozen"}
    assert kinds(one, two) == set()
    net.spy = None
    net.run(120)
    assert net.agree()
    assert kinds(one, three) == kinds(two, three) == set()


def test_a_node_that_hands_nothing_on_is_named_by_who_misses_it(dice: random.Random) -> None:
    net, (one, two, three) = linked(dice)
    net.spy = lambda sender, _to, message: not (sender is three and isinstance(message, Records))
    three.publish("munki", 3)
    net.run(FROZEN_MS / 1000 + 60)
    assert kinds(one, three) == kinds(two, three) == {"withholds"}
    assert kinds(one, two) == set()


def test_a_restored_backup_is_noticed_by_everybody(dice: random.Random) -> None:
    net, (one, two, three) = linked(dice)
    backup = Node(net, "three")
    for _, record in sorted(three.at.items()):
        backup.add(record)
    one.publish("munki", 5)
    net.run(40)
    for other in (one, two):
        net.unlink(three, other)
    net.run(600)
    backup.boot()
    net.nodes[three.id] = backup
    net.spy = lambda *_: True
    net.link(backup, one)
    net.run(40)
    assert net.agree()
    assert "went-back" in kinds(one, three)
    net.link(two, one)
    net.run(40)
    assert "went-back" in kinds(two, three)


def test_a_narrowed_members_heads_of_the_lost_share_are_forgotten(dice: random.Random) -> None:
    """Otherwise it would lag for ever in a share that it may not even see."""
    net = Network(dice)
    admin, reader = net.found(["admin", "reader"], shares=("munki", "jamf"))
    net.mesh()
    reader.fetch(sha256(b"big"), 3)
    net.run(5)
    assert admin.standing.lag(reader.id).files == 2
    admin.author("", Cut(reader.id, {}, "change"), Grant(reader.id, "reader", Role.MIRROR, shares=("munki",)))
    net.run(5)
    assert admin.standing.head(reader.id, "jamf") is None
    assert admin.standing.lag(reader.id).files == 1
