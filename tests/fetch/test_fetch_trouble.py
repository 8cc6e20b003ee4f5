"""Peers that are slow, silent, or behind a network that breaks connections: how soon others are asked instead, and how soon they are asked again."""

from __future__ import annotations

import random

import pytest
from fetch_simulator import Swarm, node_id, wanted

from replicad.model.chunks import Extent
from replicad.model.entries import Wanted
from replicad.model.ids import NodeId
from replicad.protocol.fetch import events as ev
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import BACKOFF_S, OVERDUE_S_MIN, SUSPICION_S, FetchConfig
from replicad.protocol.fetch.plan import Plan
from replicad.protocol.wire import Have, HaveMore, Hold

MIB = 1 << 20
RATE = 25e6
COUNT = 256
CONTENT = wanted(1, COUNT * MIB)
TARGET = ev.Target(CONTENT.content, CONTENT.manifest)
ONE = node_id(1)


def extents(effects: list[ev.Effect]) -> list[ev.GetExtent]:
    return [effect for effect in effects if isinstance(effect, ev.GetExtent)]


def fetching(dice: random.Random, *holders: NodeId, now: float) -> tuple[Plan, list[ev.GetExtent]]:
    """A plan that fetches the content from these, has had some answers from each, and what is under way then."""
    plan = Plan(node_id(9), FetchConfig(), dice.randrange)
    for holder in holders:
        plan.handle(ev.PeerUp(holder), 0.0)
    plan.handle(ev.Wants((CONTENT,)), 0.0)
    for holder in holders:
        plan.handle(ev.Told(holder, Have(*TARGET, b"", complete=True)), 0.0)
    asked = extents(plan.handle(ev.Opened(TARGET, manifest=True), 0.0))
    for answer in range(1, 13):
        request = asked.pop(0)
        asked += extents(plan.handle(whole(request), now * answer / 12))
    return plan, asked


def whole(request: ev.GetExtent) -> ev.Ended:
    return ev.Ended(request.number, good=tuple(range(request.extent.count)))


def after(plan: Plan, now: float, *, until: float) -> list[tuple[float, ev.Effect]]:
    """What it does by itself, and when."""
    done: list[tuple[float, ev.Effect]] = []
    while (due := plan.next_deadline()) is not None and due <= until:
        now = max(now, due)
        done += [(now, effect) for effect in plan.handle(ev.Tick(), now)]
    return done


def test_what_breaks_together_is_one_failure_after_which_one_chunk_is_asked_for(dice: random.Random) -> None:
    plan, asked = fetching(dice, ONE, now=2.0)
    assert len(asked) == FetchConfig().requests_per_peer
    for request in asked:
        assert not extents(plan.handle(ev.Ended(request.number, fault=ev.Fault.BROKEN), 2.0))
    again = [(at, effect) for at, effect in after(plan, 2.0, until=10.0) if isinstance(effect, ev.GetExtent)]
    ((at, request),) = again
    assert at <= 2.0 + 1.5 * BACKOFF_S
    assert request.extent.count == 1
    assert len(extents(plan.handle(whole(request), at + 0.1))) == len(asked), "it works again"


def test_who_breaks_again_and_again_is_asked_ever_more_seldom(dice: random.Random) -> None:
    plan, asked = fetching(dice, ONE, now=2.0)
    now, waits = 2.0, []
    for _ in range(5):
        for request in asked:
            plan.handle(ev.Ended(request.number, fault=ev.Fault.BROKEN), now)
        at, asked = next((at, [effect]) for at, effect in after(plan, now, until=now + 60) if isinstance(effect, ev.GetExtent))
        waits.append(at - now)
        now = at
    assert waits[4] > 4 * waits[0] > 0


def test_an_answer_that_broke_off_after_good_chunks_is_no_offence_one_without_any_is(dice: random.Random) -> None:
    for good in ((0,), ()):
        plan, asked = fetching(dice, ONE, now=2.0)
        request = max(asked, key=lambda request: request.extent.count)
        effects = plan.handle(ev.Ended(request.number, good=good, fault=ev.Fault.CUT), 2.0)
        effects += [effect for _, effect in after(plan, 2.0, until=2.1 + SUSPICION_S)]
        assert any(isinstance(effect, ev.Blame) for effect in effects) == (not good)


def test_who_lacks_what_it_said_it_has_is_not_asked_for_that_again(dice: random.Random) -> None:
    plan, (lacks, *asked) = fetching(dice, ONE, now=2.0)
    lacked, now, got = sets.run(lacks.extent.first, lacks.extent.count), 2.0, 0
    asked += extents(plan.handle(ev.Ended(lacks.number, fault=ev.Fault.ABSENT), now))
    while asked:
        request, *asked = asked
        got |= sets.run(request.extent.first, request.extent.count)
        now += 0.1
        asked += extents(plan.handle(whole(request), now))
        if not asked:
            later = after(plan, now, until=now + 5)
            now, asked = max([now, *(at for at, _ in later)]), extents([effect for _, effect in later])
    assert got.bit_count() > COUNT / 2
    assert not got & lacked


def test_the_last_chunks_of_a_silent_peer_are_asked_of_another_before_they_are_overdue(seed: int) -> None:
    """On a network so fast that nothing happens any more when the silence begins to show."""
    swarm = Swarm(seed)
    sources = [swarm.add(up=10 * RATE, down=10 * RATE) for _ in range(2)]
    content = wanted(1, 48 * MIB)
    for source in sources:
        swarm.hold(source, [content])
    node = swarm.add(up=10 * RATE, down=10 * RATE)
    swarm.want(node, [content])
    swarm.run(lambda: node.plan.statistics().bytes >= 36 * MIB, limit_s=60)
    swarm.afflict(sources[0], "frozen")
    frozen_at = swarm.now
    swarm.run(lambda: bool(node.complete), limit_s=60)
    assert 0.1 < swarm.now - frozen_at < OVERDUE_S_MIN / 2
    assert not node.blamed


def test_whoever_is_late_is_not_asked_for_the_same_again_but_others_are(dice: random.Random) -> None:
    """Whatever it suggested: else it could be asked as often as anybody may be, and nobody else."""
    other = node_id(2)
    plan = Plan(node_id(9), FetchConfig(), dice.randrange)
    plan.handle(ev.PeerUp(ONE), 0.0)
    plan.handle(ev.Wants((CONTENT,)), 0.0)
    plan.handle(ev.Told(ONE, HaveMore(*TARGET, (5,), (5,))), 0.0)
    (request,) = extents(plan.handle(ev.Opened(TARGET, manifest=True), 0.0))
    assert (request.node, request.extent) == (ONE, Extent(5, 1))
    now = 20 * OVERDUE_S_MIN
    assert not extents([effect for _, effect in after(plan, 0.0, until=now)])
    assert not extents(plan.handle(ev.Told(ONE, HaveMore(*TARGET, (), (5,))), now))
    plan.handle(ev.PeerUp(other), now)
    asked = extents(plan.handle(ev.Told(other, HaveMore(*TARGET, (5,), ())), now))
    assert [(again.node, again.extent) for again in asked] == [(other, Extent(5, 1))]


@pytest.mark.parametrize("frozen_s", [0.5, 1.0, 4.0])
def test_a_node_that_freezes_in_the_middle_of_a_swarm_delays_the_others_little(seed: int, frozen_s: float) -> None:
    """Its links stay, and it never answers what it was asked."""
    took_s = []
    for delay_s in (frozen_s, 1000.0):
        swarm = Swarm(seed)
        source, *others = [swarm.add(up=RATE, down=RATE) for _ in range(9)]
        swarm.hold(source, [CONTENT])
        for node in others:
            swarm.want(node, [CONTENT])
        swarm.later(delay_s, lambda swarm=swarm, victim=others[0]: swarm.afflict(victim, "frozen"))  # type: ignore[misc]
        took_s.append(swarm.run(lambda others=others: all(node.complete for node in others[1:]), limit_s=60))  # type: ignore[misc]
    assert took_s[0] < 1.5 * took_s[1]


def test_a_slow_peer_is_asked_only_for_what_the_others_would_not_have_brought_long_before(seed: int) -> None:
    """By expected completion time: of a content that the fast ones bring in a second nothing, of one that takes them half a minute its part."""
    one, other, short, long = (wanted(number, mib * MIB, age=number) for number, mib in enumerate((2, 48, 48, 1024), start=1))
    swarm = Swarm(seed)
    slow, *fast = (swarm.add(up=rate, down=RATE) for rate in (RATE / 200, RATE, RATE))
    node = swarm.add(up=RATE, down=RATE)
    for content, holders in ((one, [slow]), (other, fast)):
        for holder in holders:
            swarm.hold(holder, [content])
    swarm.want(node, [one, other])
    swarm.run(lambda: len(node.complete) == 2, limit_s=60)
    for content, used in ((short, False), (long, True)):
        before = slow.sent_bytes
        for source in fast:
            swarm.hold(source, [content])
        swarm.want(node, [content])
        begun = node.plan.statistics().bytes
        swarm.run(lambda begun=begun: node.plan.statistics().bytes > begun, limit_s=60)  # type: ignore[misc]
        swarm.hold(slow, [content])
        swarm.run(lambda content=content: content.content in node.complete, limit_s=100)  # type: ignore[misc]
        assert (slow.sent_bytes > before) is used


def test_what_only_a_peer_has_that_seems_slow_is_asked_of_it_while_others_bring_the_rest(seed: int) -> None:
    """A tiny content takes as long as a message does, so whoever gave only that seems to be slow."""
    tiny, only, *rest = (wanted(number, size, age=number) for number, size in enumerate((50, 900_000, *[500_000] * 200)))
    swarm = Swarm(seed, latency_s=0.02)
    node, other, seems_slow = (swarm.add(up=RATE, down=RATE) for _ in range(3))
    swarm.hold(seems_slow, [tiny, only])
    swarm.hold(other, rest)
    swarm.want(node, [tiny])
    swarm.run(lambda: bool(node.complete), limit_s=1)
    swarm.want(node, rest)
    swarm.run(lambda: node.plan.statistics().in_flight > 0, limit_s=1)
    swarm.want(node, [*rest, only])
    swarm.run(lambda: only.content in node.complete, limit_s=2)
    assert len(node.complete) < len(rest)


def test_who_was_passed_over_as_slow_is_asked_when_the_others_bring_nothing_more(dice: random.Random) -> None:
    tiny, first, second = (wanted(number, size) for number, size in enumerate((50, 900_000, 900_000)))
    plan, other = Plan(node_id(9), FetchConfig(requests_per_peer=1), dice.randrange), node_id(2)

    def asked(event: ev.Event, now: float) -> list[tuple[NodeId, tuple[Wanted, ...]]]:
        return [(effect.node, effect.wanted) for effect in plan.handle(event, now) if isinstance(effect, ev.GetBatch)]

    plan.handle(ev.PeerUp(ONE), 0.0)
    plan.handle(ev.PeerUp(other), 0.0)
    plan.handle(ev.Wants((tiny,)), 0.0)
    assert asked(ev.Told(ONE, Hold((ev.small_of(tiny),))), 0.0) == [(ONE, (tiny,))]
    plan.handle(ev.Ended(1, good=(0,)), 1.0)
    plan.handle(ev.Wants((first, second)), 1.0)
    assert asked(ev.Told(other, Hold((ev.small_of(first),))), 1.0) == [(other, (first,))]
    assert not asked(ev.Told(other, Hold((ev.small_of(second),))), 1.0), "it is asked for one thing at a time"
    assert not asked(ev.Told(ONE, Hold((ev.small_of(second),))), 1.0), "the other would have it long before"
    plan.handle(ev.Told(other, Hold((ev.small_of(second),), held=False)), 1.0)
    assert asked(ev.Ended(2, good=(0,)), 1.1) == [(ONE, (second,))]


def test_the_holders_of_one_content_are_all_used(dice: random.Random) -> None:
    plan, asked = fetching(dice, *(node_id(number) for number in range(1, 4)), now=1.0)
    assert {request.node for request in asked} == {node_id(number) for number in range(1, 4)}
    chunks = [sets.run(request.extent.first, request.extent.count) for request in asked]
    assert sets.union(chunks).bit_count() == sum(map(int.bit_count, chunks)), "nothing is asked for twice"
    assert plan.statistics().repeated == 0


def test_the_last_small_contents_are_asked_of_others_when_one_peer_is_slow_with_them(seed: int) -> None:
    contents = [wanted(number, 64 << 10, age=number) for number in range(400)]
    swarm = Swarm(seed)
    holders = [swarm.add(up=RATE, down=RATE) for _ in range(4)]
    for holder in holders:
        swarm.hold(holder, contents)
    node = swarm.add(up=RATE, down=RATE)
    swarm.want(node, contents)
    swarm.run(lambda: len(node.complete) >= 100)
    swarm.afflict(holders[0], "slow")
    swarm.afflict(holders[1], "frozen")
    began = swarm.now
    took_s = swarm.run(lambda: len(node.complete) == len(contents), limit_s=60) - began
    assert took_s <= 3.0
    assert not node.blamed


@pytest.mark.parametrize("limit", [None, MIB])
def test_who_is_late_with_all_that_may_be_under_way_makes_room_for_others(dice: random.Random, limit: int | None) -> None:
    """It was fast until as much was asked of it as may be, or there is a limit so low that one chunk is that much; then it dribbles. Another that has the same comes, with a second content."""
    plan, asked = fetching(dice, ONE, now=0.1)
    two, now = node_id(2), 0.1
    while plan.statistics().in_flight_bytes < 28 * MIB:
        now += 0.03
        asked += extents(plan.handle(whole(asked.pop(0)), now))
    plan.handle(ev.Limited(total=limit), now)
    second = wanted(2, 3 * MIB)
    key = ev.Target(second.content, second.manifest)
    effects = plan.handle(ev.PeerUp(two), now)
    effects += plan.handle(ev.Wants((CONTENT, second)), now)
    effects += plan.handle(ev.Told(two, Have(*TARGET, b"", complete=True)), now)
    effects += plan.handle(ev.Told(two, Have(*key, b"", complete=True)), now)
    effects += plan.handle(ev.Opened(key, manifest=True), now)
    got = {TARGET: 0, key: 0}
    while got[key].bit_count() < 3 or got[TARGET].bit_count() < 8:
        assert now < 30.0
        answers = [whole(request) for request in extents(effects) if request.node == two]
        for request in extents(effects):
            got[request.target] |= sets.run(request.extent.first, request.extent.count) if request.node == two else 0
        due = plan.next_deadline()
        now = now + 0.1 if answers else max(now, due or now)
        effects = [effect for event in answers or [ev.Tick()] for effect in plan.handle(event, now)]
    assert not any(isinstance(effect, ev.Blame) for effect in effects), "being slow is no offence"
