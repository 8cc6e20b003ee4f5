"""Mixed schedules: faults, liars and people at work in one network of twenty nodes. What must hold is looked at while it runs (``watch``); that it is looked at well is shown by breaking the rules (``mutations``)."""

from __future__ import annotations

import pytest

from simulation import schedule
from simulation.mutations import MUTATIONS, caught

SEEDS = 6
"""Each broken rule shows in the first of them (bench/results/mutations.md); ``make soak`` tries hundreds."""
SLOW = {"gossip: nothing is pulled"}
"""It shows only when peace does not come; ``bench/mutations.py`` tries all."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_honest_nodes_agree_whatever_happens_and_believe_only_what_is_signed_and_granted(seed: int) -> None:
    outcome = schedule.run(seed)
    assert outcome.done.total() >= schedule.EVENTS
    assert outcome.rounds <= schedule.ROUNDS_MAX
    assert outcome.done.keys() >= schedule.SURVIVED
    assert outcome.looked > schedule.EVENTS


@pytest.mark.parametrize("name", sorted(MUTATIONS.keys() - SLOW))
def test_the_judge_sees_each_rule_that_is_broken(name: str) -> None:
    assert caught(MUTATIONS[name], range(5)) is not None
