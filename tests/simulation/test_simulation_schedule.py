"""Mixed schedules: faults, liars and people at work in one network of twenty nodes. What must hold is looked at while it runs (``watch``); that it is looked at well is shown by breaking the rules (``mutations``)."""

from __future__ import annotations

import pytest

from simulation import schedule
from simulation.attacks import ATTACKS
from simulation.mutations import MUTATIONS, caught

SEEDS = 20
SLOW = {"gossip: nothing is pulled"}
"""It shows only when peace does not come; ``bench/mutations.py`` tries all."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_honest_nodes_agree_whatever_happens_and_believe_only_what_is_signed_and_granted(seed: int) -> None:
    outcome = schedule.run(seed)
    assert outcome.done.total() >= schedule.EVENTS
    assert outcome.rounds <= schedule.ROUNDS_MAX
    assert {"crash", "restore", "clone", "clock", *(f"attack: {name}" for name in ATTACKS)} <= outcome.done.keys()
    assert min(outcome.checks[name] for name in ("stored", "settled", "overheard")) > schedule.EVENTS


@pytest.mark.parametrize("name", sorted(MUTATIONS.keys() - SLOW))
def test_the_judge_sees_each_rule_that_is_broken(name: str) -> None:
    assert caught(MUTATIONS[name], range(5)) is not None
