"""How much of the small contents is asked for at once, and what is waited for because others were just given it."""

from __future__ import annotations

import random

import pytest
from fetch_simulator import node_id, wanted

from replicad.model.entries import Wanted
from replicad.model.ids import NodeId
from replicad.protocol.fetch import events as ev
from replicad.protocol.fetch.config import BATCH_BYTES, BATCH_BYTES_LEAST, GIVEN_S, OVERDUE_S_MIN, SUSPICION_S, FetchConfig
from replicad.protocol.fetch.peers import Peer
from replicad.protocol.fetch.plan import Plan
from replicad.protocol.wire import Hold, Small

KIB = 1 << 10
EACH = 64 * KIB
OWN, SOURCE, PEER = node_id(1), node_id(2), node_id(3)
HOLDERS = [node_id(number) for number in range(4, 8)]
RATE = 25e6
"""Bytes per second, of all answers together."""


def batches(effects: list[ev.Effect]) -> list[ev.GetBatch]:
    return [effect for effect in effects if isinstance(effect, ev.GetBatch)]


def many(count: int) -> list[Wanted]:
    return [wanted(number, EACH, age=number) for number in range(count)]


def smalls(contents: list[Wanted]) -> tuple[Small, ...]:
    return tuple(Small(one.content, one.size) for one in contents)


def seeking(dice: random.Random, contents: list[Wanted], *holders: NodeId, others: tuple[NodeId, ...] = (PEER,)) -> tuple[Plan, list[ev.GetBatch]]:
    """A plan that hears that these have all of them, and what it asks for; ``others`` seek small contents, too."""
    plan = Plan(OWN, FetchConfig(), dice.randrange)
    for node in (*holders, *others):
        plan.handle(ev.PeerUp(node), 0.0)
    for node in others:
        plan.handle(ev.Rival(node, None, active=True), 0.0)
    plan.handle(ev.Wants(tuple(contents)), 0.0)
    return plan, [request for node in holders for request in batches(plan.handle(ev.Told(node, Hold(smalls(contents))), 0.0))]


def answered(plan: Plan, asked: list[ev.GetBatch], now: float = 0.0) -> list[list[Wanted]]:
    """Answer every request whole, oldest first, until nothing is asked any more; the batches in the order in which they were asked for."""
    found = []
    while asked:
        request = asked.pop(0)
        found.append(list(request.wanted))
        now += EACH * len(request.wanted) / RATE
        asked += batches(plan.handle(ev.Ended(request.number, good=places(request)), now))
    return found


def places(request: ev.GetBatch) -> tuple[int, ...]:
    """All that it asks for."""
    return tuple(range(len(request.wanted)))


def spread(plan: Plan, asked: list[ev.GetBatch], now: float) -> list[ev.GetBatch]:
    """Another was just given whatever is asked for: the requests, until nothing is asked any more."""
    told = []
    while asked:
        request = asked.pop(0)
        told.append(request)
        asked += batches(plan.handle(ev.Ended(request.number, spread=places(request)), now))
    return told


def test_batches_begin_small_grow_with_what_came_and_end_small(dice: random.Random) -> None:
    contents = many(640)
    plan, asked = seeking(dice, contents, *HOLDERS)
    assert {EACH * len(request.wanted) for request in asked} == {BATCH_BYTES_LEAST}
    sizes = [EACH * len(batch) for batch in answered(plan, asked)]
    assert sum(sizes) == EACH * len(contents), "nothing twice"
    assert max(sizes) >= BATCH_BYTES
    assert sizes[-1] <= BATCH_BYTES_LEAST


def test_what_another_was_just_given_is_waited_for_once_and_then_asked_for_firmly(dice: random.Random) -> None:
    contents = many(200)
    plan, asked = seeking(dice, contents, SOURCE)
    told = spread(plan, asked, 0.0)
    assert all(request.patient for request in told)
    assert sorted(one.content for request in told for one in request.wanted) == sorted(one.content for one in contents), "each once"
    assert plan.next_deadline() == OVERDUE_S_MIN
    assert not batches(plan.handle(ev.Tick(), OVERDUE_S_MIN - 0.01))
    firm = batches(plan.handle(ev.Tick(), OVERDUE_S_MIN))
    assert firm
    assert not any(request.patient for request in firm)
    assert sum(len(batch) for batch in answered(plan, firm, OVERDUE_S_MIN)) == len(contents)


def test_the_longer_an_answer_takes_the_longer_others_are_waited_for_up_to_a_bound(dice: random.Random) -> None:
    for batch_s, patience_s in ((2.0, 4.0), (60.0, GIVEN_S)):
        plan, asked = seeking(dice, many(200), SOURCE)
        now = 0.0
        for _ in range(4):
            slow, now = asked.pop(0), now + batch_s
            asked += batches(plan.handle(ev.Ended(slow.number, good=places(slow)), now))
        spread(plan, asked, now)
        due = plan.next_deadline()
        assert due is not None
        assert now + patience_s <= due <= now + GIVEN_S
        assert not batches(plan.handle(ev.Tick(), due - 0.01))
        assert batches(plan.handle(ev.Tick(), due))


def test_what_is_due_is_still_due_when_a_peer_says_nothing_new(dice: random.Random) -> None:
    contents = many(2)
    plan, asked = seeking(dice, contents, SOURCE)
    spread(plan, asked, 0.0)
    plan.handle(ev.Tick(), OVERDUE_S_MIN - 0.01)
    assert plan.handle(ev.Told(SOURCE, Hold(smalls(contents))), OVERDUE_S_MIN + 0.01) == []
    assert plan.next_deadline() == OVERDUE_S_MIN


@pytest.mark.parametrize("gone", [False, True])
def test_what_is_waited_for_is_taken_from_whoever_has_it_then(dice: random.Random, gone: bool) -> None:
    contents = many(2)
    plan, asked = seeking(dice, contents, SOURCE)
    spread(plan, asked, 0.0)
    if gone:
        plan.handle(ev.PeerDown(SOURCE), 0.4)
    (request,) = batches(plan.handle(ev.Told(PEER, Hold(smalls(contents[:1]))), 0.5))
    assert (request.node, list(request.wanted)) == (PEER, contents[:1])


@pytest.mark.parametrize("fault", [None, ev.Fault.BUSY])
def test_answers_that_bring_nothing_say_nothing_about_the_rate(dice: random.Random, fault: ev.Fault | None) -> None:
    plan, asked = seeking(dice, many(200), SOURCE)
    now = 0.1
    asked += batches(plan.handle(ev.Ended(asked.pop(0).number, good=(0, 1, 2, 3)), now))
    (rate,) = plan.sources(plan.jobs()[0]).values()
    assert rate == 4 * EACH / now
    for _ in range(4):
        request, now = asked.pop(0), now + 1
        empty = ev.Ended(request.number, fault=fault) if fault else ev.Ended(request.number, spread=places(request))
        asked += batches(plan.handle(empty, now)) + batches(plan.handle(ev.Tick(), now + 0.5))
        assert list(plan.sources(plan.jobs()[0]).values()) in ([rate], [])


def test_while_something_comes_time_counts_whatever_else_brings_nothing() -> None:
    peer = Peer(SOURCE, slots=4)
    for number, begun in ((1, 0.0), (2, 1.0), (3, 2.0)):
        peer.started(number, EACH, begun)
    peer.ended(1, EACH, received=None, now=3.0)
    peer.ended(3, EACH, received=None, now=4.0)
    peer.ended(2, EACH, received=EACH, now=5.0)
    assert peer.rate.value() == EACH / 4, "since that request began"


@pytest.mark.parametrize("change", [None, ev.Rival(PEER, None, active=False), ev.PeerDown(PEER), ev.Rival(SOURCE, None, active=True)])
def test_nobody_waits_when_no_other_peer_seeks_anything(dice: random.Random, change: ev.Event | None) -> None:
    """Nobody could pass it on: others of its peers are not told what it seeks, or have what they want."""
    contents = many(100)
    plan, _ = seeking(dice, contents, others=(PEER,) if change else ())
    for event in (ev.PeerUp(SOURCE), ev.PeerUp(HOLDERS[0]), *([change] if change else [])):
        plan.handle(event, 0.0)
    if isinstance(change, ev.Rival) and change.active:
        plan.handle(ev.Rival(PEER, None, active=False), 0.0)
    asked = batches(plan.handle(ev.Told(SOURCE, Hold(smalls(contents))), 0.0))
    assert asked
    assert not any(request.patient for request in asked)


@pytest.mark.parametrize("holders", [[SOURCE], [SOURCE, PEER]])
def test_what_cannot_wait_is_asked_for_by_itself(dice: random.Random, holders: list[NodeId]) -> None:
    contents = many(4)
    plan = Plan(OWN, FetchConfig(), dice.randrange)
    for node in (SOURCE, PEER):
        plan.handle(ev.PeerUp(node), 0.0)
    for event in (
        ev.Halt(1.0),
        ev.Wants(tuple(contents)),
        ev.Awaits(contents[2], (0,)),
        ev.Rival(PEER, None, active=True),
        *(ev.Told(node, Hold(smalls(contents))) for node in holders),
    ):
        plan.handle(event, 0.0)
    first, *others = batches(plan.handle(ev.Tick(), 1.0))
    assert (list(first.wanted), first.patient) == ([contents[2]], False)
    assert first.node not in {request.node for request in others}, "nor anything else meanwhile"
    others += batches(plan.handle(ev.Ended(first.number, good=(0,)), 1.1))
    assert {one.content for request in others for one in request.wanted} == {contents[at].content for at in (0, 1, 3)}
    assert {request.patient for request in others} == {len(holders) == 1}


def test_who_tells_others_to_wait_is_not_cleared_of_what_is_suspected(dice: random.Random) -> None:
    plan, asked = seeking(dice, many(100), SOURCE)
    first, second, *_ = asked
    plan.handle(ev.Ended(first.number, fault=ev.Fault.CUT), 0.1)
    plan.handle(ev.Ended(second.number, spread=places(second)), 0.2)
    blamed = [effect for effect in plan.handle(ev.Tick(), 0.1 + SUSPICION_S) if isinstance(effect, ev.Blame)]
    assert [(effect.node, effect.offence) for effect in blamed] == [(SOURCE, ev.Fault.SHORT)]


def test_whoever_a_client_waits_for_is_not_told_to_wait(dice: random.Random) -> None:
    contents = many(100)
    plan, asked = seeking(dice, contents, SOURCE)
    told = spread(plan, asked, 0.0)
    awaited = told[0].wanted[0]
    (request,) = batches(plan.handle(ev.Awaits(awaited, (0,)), 0.5))
    assert (list(request.wanted), request.patient) == ([awaited], False)


def test_nobody_who_is_asked_for_what_several_have_says_that_others_were_given_it(dice: random.Random) -> None:
    _, asked = seeking(dice, many(100), *HOLDERS)
    assert [request.patient for request in asked if request.node == HOLDERS[0]][:1] == [True], "nobody else had said so yet"
    assert not any(request.patient for request in asked if request.node != HOLDERS[0])


@pytest.mark.parametrize("later_s", [0.1, OVERDUE_S_MIN])
def test_nobody_waits_for_what_comes_into_places_whose_contents_were_waited_for(dice: random.Random, later_s: float) -> None:
    plan, asked = seeking(dice, many(4), SOURCE)
    spread(plan, asked, 0.0)
    for request in batches(plan.handle(ev.Tick(), later_s)):
        plan.handle(ev.Ended(request.number, fault=ev.Fault.BUSY), later_s)
    others = [wanted(number, EACH, age=number) for number in range(10, 14)]
    now = later_s + 1
    plan.handle(ev.Wants(tuple(others)), now)
    asked = batches(plan.handle(ev.Told(SOURCE, Hold(smalls(others))), now))
    assert sorted(one.content for request in asked for one in request.wanted) == sorted(one.content for one in others)
    told = spread(plan, asked, now)
    assert all(request.patient for request in told)
    assert not batches(plan.handle(ev.Tick(), now + OVERDUE_S_MIN - 0.01)), "each waits its own time"
    assert batches(plan.handle(ev.Tick(), now + OVERDUE_S_MIN))
