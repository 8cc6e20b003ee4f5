"""Several sites: about one copy crosses the WAN to each, whoever fails."""

from __future__ import annotations

import random

import pytest
from fetch_simulator import Node, Swarm, node_id, wanted

from replicad.model.entries import Wanted
from replicad.protocol.fetch import events as ev
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import MISS_S, OVERDUE_S_MIN, FetchConfig
from replicad.protocol.fetch.owners import Owners
from replicad.protocol.fetch.plan import Plan
from replicad.protocol.wire import Have

MIB = 1 << 20
RATE = 25e6
CONTENT = wanted(1, 32 * MIB)


def _sites(seed: int, *, sites: int, each: int, content: Wanted = CONTENT) -> tuple[Swarm, list[list[Node]]]:
    """One source at the first site; everybody else wants the content. Linked as the product links."""
    swarm = Swarm(seed, latency_s=0.02)
    nodes = [[swarm.add(up=RATE, down=RATE, site=f"site{site}", linked=False) for _ in range(each)] for site in range(sites)]
    swarm.hold(nodes[0][0], [content])
    swarm.link_like_the_product()
    for node in (node for site in nodes for node in site if node is not nodes[0][0]):
        swarm.want(node, [content])
    return swarm, nodes


def _all_have(swarm: Swarm, nodes: list[list[Node]]) -> bool:
    return all(node.complete or not node.alive for site in nodes for node in site if node is not nodes[0][0])


def _copies(swarm: Swarm) -> list[float]:
    return [received / CONTENT.size for received in swarm.abroad.values()]


def test_about_one_copy_crosses_the_wan_to_each_site(seed: int) -> None:
    for sites, each in ((3, 5), (5, 7)):  # a full mesh, and a network beyond it
        swarm, nodes = _sites(seed, sites=sites, each=each)
        swarm.run(lambda swarm=swarm, nodes=nodes: _all_have(swarm, nodes), limit_s=60)  # type: ignore[misc]
        assert max(_copies(swarm)) <= 1.05
        assert not any(node.blamed for site in nodes for node in site)


def test_when_owners_crash_their_chunks_pass_to_the_next_and_less_than_two_copies_cross(seed: int) -> None:
    swarm, nodes = _sites(seed, sites=3, each=6)
    for number, site in enumerate(nodes[1:]):
        for victim in site[:2]:
            swarm.later(0.5 + 0.3 * number, lambda victim=victim: swarm.crash(victim))  # type: ignore[misc]
    swarm.run(lambda: _all_have(swarm, nodes), limit_s=60)
    assert max(_copies(swarm)) <= 2


def test_an_owner_that_stands_still_is_skipped_and_a_waiting_client_waits_for_no_owner(seed: int) -> None:
    swarm = Swarm(seed)
    source = swarm.add(up=RATE, down=RATE, site="there")
    node, still = (swarm.add(up=RATE, down=RATE, site="here") for _ in range(2))
    swarm.hold(source, [CONTENT])
    swarm.want(node, [CONTENT])
    target = ev.Target(CONTENT.content, CONTENT.manifest)
    owners = Owners(node.id, (node.id, still.id), content=CONTENT.content, count=32, now=0)
    swarm.run(lambda: node.held.get(target, 0) == owners.mine, limit_s=60)
    assert swarm.now < MISS_S
    asked = sets.lowest(~owners.mine)
    swarm.tell(node, ev.Awaits(CONTENT, (asked,)))
    swarm.run(lambda: bool(node.held[target] >> asked & 1), limit_s=60)
    assert swarm.now < MISS_S, "a client does not wait for an owner"
    swarm.tell(node, ev.Awaits(CONTENT, ()))
    have = node.held[target]
    swarm.run(lambda: bool(node.complete), limit_s=60)
    assert have.bit_count() < 32
    assert MISS_S <= swarm.now <= MISS_S + 4


def test_what_comes_from_another_site_is_asked_for_twice_only_when_it_is_overdue(dice: random.Random) -> None:
    own, near, quick, silent = (node_id(number) for number in range(1, 5))
    plan, target = Plan(own, FetchConfig(), dice.randrange), ev.Target(CONTENT.content, CONTENT.manifest)
    for node in (near, quick, silent):
        plan.handle(ev.PeerUp(node), 0.0)
    plan.handle(ev.Wants((CONTENT,)), 0.0)
    for node in (quick, silent):
        plan.handle(ev.Told(node, Have(*target, b"", complete=True)), 0.0)
    theirs = sets.full(32) & ~Owners(own, (own, near), content=CONTENT.content, count=32, now=0).mine
    plan.handle(ev.Told(near, Have(*target, sets.to_bitmap(theirs, 32), complete=False)), 0.0)
    plan.handle(ev.Crew(target, frozenset({own, near})), 0.0)
    now, asked, at = 0.0, plan.handle(ev.Opened(target, manifest=True), 0.0), dict[int, list[float]]()
    while now < MISS_S:
        requests = [effect for effect in asked if isinstance(effect, ev.GetExtent)]
        for request in requests:
            for chunk in request.extent.chunks:
                at.setdefault(chunk, []).append(now)
        answers = [ev.Ended(request.number, good=tuple(range(request.extent.count))) for request in requests if request.node != silent]
        due = plan.next_deadline() or MISS_S
        now = now + 0.01 if answers else max(now, due)
        asked = [effect for event in answers or [ev.Tick()] for effect in plan.handle(event, now)]
    twice = [times for times in at.values() if len(times) > 1]
    assert twice, "the silent one was asked for something"
    assert all(later - first >= OVERDUE_S_MIN for first, later, *_ in twice)


def test_everybody_of_a_site_names_the_same_owners_and_each_has_its_share() -> None:
    crew = [node_id(number) for number in range(10)]
    owned = {own: Owners(own, crew, content=CONTENT.content, count=1000, now=0) for own in crew}
    masks = [owners.mine for owners in owned.values()]
    assert sets.union(masks) == sets.full(1000)
    assert sum(mask.bit_count() for mask in masks) == 1000
    assert all(60 <= mask.bit_count() <= 145 for mask in masks)
    for owners in owned.values():
        owners.skip(crew[3])
    moved = [new.mine & ~old for new, old in zip((owned[own] for own in crew if own != crew[3]), (masks[at] for at in range(10) if at != 3), strict=True)]
    assert sets.union(moved) == masks[3], "only what the skipped one owned has another owner now"


def test_who_is_expected_to_be_slow_gets_more_time() -> None:
    crew = [node_id(number) for number in range(2)]
    owners = Owners(crew[0], crew, content=CONTENT.content, count=48, now=0)
    theirs = sets.full(48) & ~owners.mine
    assert not owners.look(theirs, 0, running_s=0)
    assert not owners.look(theirs, MISS_S - 0.1, running_s=0)
    assert not owners.look(theirs, MISS_S + 5, running_s=4), "a request of ours takes long, too"
    assert not owners.look(theirs & theirs - 1, MISS_S + 8, running_s=0), "one chunk came: patience begins afresh"
    assert not owners.look(theirs & theirs - 1, MISS_S + 12, running_s=0)
    assert owners.look(theirs & theirs - 1, 2 * MISS_S + 8, running_s=0)
    assert owners.mine == sets.full(48)


@pytest.mark.parametrize("fault", [ev.Fault.BUSY, ev.Fault.REFUSED, ev.Fault.BROKEN, None])
def test_a_neighbour_that_gives_nothing_of_what_it_says_it_has_keeps_nobody_from_asking_another_site(dice: random.Random, fault: ev.Fault | None) -> None:
    """It is busy for ever, refuses, breaks off, or says nothing at all (None)."""
    own, near, far = (node_id(number) for number in range(1, 4))
    plan, target = Plan(own, FetchConfig(), dice.randrange), ev.Target(CONTENT.content, CONTENT.manifest)
    plan.handle(ev.PeerUp(near), 0.0)
    plan.handle(ev.PeerUp(far), 0.0)
    plan.handle(ev.Wants((CONTENT,)), 0.0)
    for node in (near, far):
        plan.handle(ev.Told(node, Have(*target, b"", complete=True)), 0.0)
    plan.handle(ev.Crew(target, frozenset({own, near})), 0.0)
    now, asked = 0.0, plan.handle(ev.Opened(target, manifest=True), 0.0)
    first_far, got = None, 0
    while got.bit_count() < 32:
        assert now < 5 * MISS_S, "it comes from the other site"
        answers = []
        for request in (effect for effect in asked if isinstance(effect, ev.GetExtent)):
            if request.node == far:
                first_far = now if first_far is None else first_far
                got |= sets.run(request.extent.first, request.extent.count)
                answers.append(ev.Ended(request.number, good=tuple(range(request.extent.count))))
            elif fault is not None:
                answers.append(ev.Ended(request.number, fault=fault))
        due = plan.next_deadline()
        assert answers or due is not None
        now = now + 0.01 if answers else max(now, due or now)
        asked = [effect for event in answers or [ev.Tick()] for effect in plan.handle(event, now)]
    assert first_far is not None
    assert first_far >= (OVERDUE_S_MIN if fault is None else MISS_S), "not before it had its chance"


def test_who_gives_something_now_and_then_is_believed_again_and_whom_we_pause_ourselves_is_not() -> None:
    own, near = (node_id(number) for number in range(2))
    owners = Owners(own, (own, near), content=CONTENT.content, count=32, now=0)
    owners.asked(near, 1, 1, brought=False)
    assert not owners.look(0, 1 + 2 * MISS_S, running_s=0), "once is no proof"
    owners.asked(near, 1, 1 + 2 * MISS_S, brought=False)
    assert owners.look(0, 1 + 2 * MISS_S, running_s=0)
    assert owners.giving == frozenset()
    owners.asked(near, 1, 2 + 2 * MISS_S, brought=True)
    assert owners.giving == {near}


def test_a_neighbour_that_our_own_limits_let_nothing_come_from_keeps_us_from_nothing(dice: random.Random) -> None:
    own, near, far = (node_id(number) for number in range(1, 4))
    plan, target = Plan(own, FetchConfig(), dice.randrange), ev.Target(CONTENT.content, CONTENT.manifest)
    for node in (near, far):
        plan.handle(ev.PeerUp(node), 0.0)
    plan.handle(ev.Limited(nodes={near: 0}), 0.0)
    plan.handle(ev.Wants((CONTENT,)), 0.0)
    for node in (near, far):
        plan.handle(ev.Told(node, Have(*target, b"", complete=True)), 0.0)
    plan.handle(ev.Crew(target, frozenset({own, near})), 0.0)
    now, asked = 0.0, plan.handle(ev.Opened(target, manifest=True), 0.0)
    while not any(isinstance(effect, ev.GetExtent) for effect in asked):
        due = plan.next_deadline()
        assert due is not None
        assert due <= 2 * MISS_S
        now = due
        asked = plan.handle(ev.Tick(), now)
    assert {effect.node for effect in asked if isinstance(effect, ev.GetExtent)} == {far}
