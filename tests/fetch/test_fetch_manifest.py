"""The manifest of a content is asked for until it is here, and then no more: whoever opened a content twice would finish it twice."""

from __future__ import annotations

import random

import pytest
from fetch_simulator import node_id, wanted

from replicad.model.ids import NodeId
from replicad.protocol.fetch import events as ev
from replicad.protocol.fetch.config import FetchConfig
from replicad.protocol.fetch.plan import Plan
from replicad.protocol.wire import Have

MIB = 1 << 20
CONTENT = wanted(1, 3 * MIB)
TARGET = ev.Target(CONTENT.content, CONTENT.manifest)
ONE, OTHER = node_id(1), node_id(2)


def nameless(dice: random.Random, *holders: NodeId) -> tuple[Plan, list[ev.GetManifest]]:
    """A plan that wants the content, knows these holders and lacks the manifest; and what it asked."""
    plan = Plan(node_id(9), FetchConfig(), dice.randrange)
    for holder in holders:
        plan.handle(ev.PeerUp(holder), 0.0)
    plan.handle(ev.Wants((CONTENT,), cut=False), 0.0)
    told = [effect for holder in holders for effect in plan.handle(ev.Told(holder, Have(*TARGET, b"", complete=True)), 0.1)]
    assert ev.Open(TARGET) in told
    return plan, asked(plan.handle(ev.Opened(TARGET, manifest=False), 0.2))


def asked(effects: list[ev.Effect]) -> list[ev.GetManifest]:
    return [effect for effect in effects if isinstance(effect, ev.GetManifest)]


def test_between_the_manifest_and_the_open_partial_it_is_not_asked_for_again(dice: random.Random) -> None:
    plan, (request,) = nameless(dice, ONE, OTHER)
    assert not asked(plan.handle(ev.Ended(request.number), 0.3))
    assert not asked(plan.handle(ev.Tick(), 30.0))
    opened = plan.handle(ev.Opened(TARGET, manifest=True), 30.1)
    assert any(isinstance(effect, ev.GetExtent) for effect in opened)


def test_a_second_request_for_it_is_given_up(dice: random.Random) -> None:
    plan, (request,) = nameless(dice, ONE, OTHER)
    (second,) = asked(plan.handle(ev.Tick(), 20.0))
    assert second.node != request.node
    assert ev.Cancel(second.number) in plan.handle(ev.Ended(request.number), 20.1)


@pytest.mark.parametrize("ended", [{"fault": ev.Fault.BROKEN}, {"bad": (0,), "fault": ev.Fault.BAD_MANIFEST}], ids=["broken", "wrong"])
def test_a_request_that_failed_is_made_again(dice: random.Random, ended: dict[str, object]) -> None:
    plan, (request,) = nameless(dice, ONE, OTHER)
    again = asked(plan.handle(ev.Ended(request.number, **ended), 0.3))  # type: ignore[arg-type]
    assert again or asked(plan.handle(ev.Tick(), 60.0))
