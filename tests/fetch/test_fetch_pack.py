"""How much of the small contents is asked for at once, and what is left to others."""

from __future__ import annotations

import random

import pytest
from fetch_simulator import node_id, wanted

from replicad.model.entries import Wanted
from replicad.model.ids import NodeId
from replicad.protocol.fetch import events as ev
from replicad.protocol.fetch.config import BATCH_BYTES, BATCH_BYTES_LEAST, OWNER_S, FetchConfig
from replicad.protocol.fetch.plan import Plan
from replicad.protocol.wire import Hold, Seek, Small

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


def seeking(dice: random.Random, contents: list[Wanted], *holders: NodeId, rival: bool = False) -> tuple[Plan, list[ev.GetBatch]]:
    """A plan that hears that these have all of them, and what it asks for; with a rival another node seeks the same."""
    plan = Plan(OWN, FetchConfig(), dice.randrange)
    for node in (*holders, PEER):
        plan.handle(ev.PeerUp(node), 0.0)
    plan.handle(ev.Wants(tuple(contents)), 0.0)
    if rival:
        plan.handle(ev.Sought(PEER, Seek(smalls(contents))), 0.0)
    return plan, [request for node in holders for request in batches(plan.handle(ev.Told(node, Hold(smalls(contents))), 0.0))]


def answered(plan: Plan, asked: list[ev.GetBatch]) -> list[list[Wanted]]:
    """Answer every request whole, oldest first, until nothing is asked any more; the batches in the order in which they were asked for. Ends before patience with others does."""
    found, now = [], 0.0
    while asked:
        request = asked.pop(0)
        found.append(list(request.wanted))
        now += EACH * len(request.wanted) / RATE
        asked += batches(plan.handle(ev.Ended(request.number, good=tuple(range(len(request.wanted)))), now))
    assert now < OWNER_S
    return found


def test_batches_begin_small_grow_with_what_came_and_end_small(dice: random.Random) -> None:
    contents = many(640)
    plan, asked = seeking(dice, contents, *HOLDERS)
    assert {EACH * len(request.wanted) for request in asked} == {BATCH_BYTES_LEAST}
    sizes = [EACH * len(batch) for batch in answered(plan, asked)]
    assert sum(sizes) == EACH * len(contents), "nothing twice"
    assert max(sizes) >= BATCH_BYTES
    assert sizes[-1] <= BATCH_BYTES_LEAST


def test_whoever_has_what_it_owns_takes_over_from_one_who_still_has_much_ahead(dice: random.Random) -> None:
    contents = many(200)
    taken = [one for batch in answered(*seeking(dice, contents, SOURCE, rival=True)) for one in batch]
    own = [one for one in contents if one in taken]
    assert len(taken) == len(own), "nothing twice"
    left_bytes = EACH * (len(contents) - len(own))
    assert left_bytes <= BATCH_BYTES / 2, "as much as the owner may be fetching now"


@pytest.mark.parametrize("count", [1, BATCH_BYTES // 2 // EACH])
def test_of_what_one_batch_brings_nobody_takes_what_another_owns(dice: random.Random, count: int) -> None:
    contents = many(count)
    taken = [one for batch in answered(*seeking(dice, contents, SOURCE, rival=True)) for one in batch]
    alone = [one for batch in answered(*seeking(dice, contents, SOURCE)) for one in batch]
    weights = {node: {one: int.from_bytes(one.content[:8]) * (int.from_bytes(node[:8]) | 1) % 2**64 for one in contents} for node in (OWN, PEER)}
    assert {one.content for one in taken} == {one.content for one in contents if weights[OWN][one] < weights[PEER][one]}
    assert {one.content for one in alone} == {one.content for one in contents}
