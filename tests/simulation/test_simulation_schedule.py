"""Mixed schedules: faults, liars and people at work in one network of twenty nodes; what must hold is looked at while it runs (``watch``), and ``mutations`` shows that it is looked at well."""

from __future__ import annotations

import pytest
from simulation import schedule
from simulation.attacks import ATTACKS
from simulation.mutations import MUTATIONS, caught

QUICK = {
    "merge: the oldest wins",
    "counting: every path",
    "counting: every role",
    "cut: keeps everything",
    "chain check: anything of the same chain follows",
    "signature check: everything is signed",
    "stage rule: the highest is shown",
    "rights: everything to everybody",
}
"""Those of the issue and some more; ``make soak`` tries them all."""


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_honest_nodes_agree_and_believe_only_what_is_signed_and_granted(seed: int) -> None:
    outcome = schedule.run(seed)
    assert outcome.done.total() >= schedule.EVENTS
    assert outcome.rounds <= schedule.ROUNDS_MAX
    assert outcome.checks["settled"] > 1_000
    assert {f"attack: {name}" for name in ATTACKS} <= outcome.done.keys()


@pytest.mark.parametrize("name", sorted(QUICK))
def test_the_judge_sees_each_rule_that_is_broken(name: str) -> None:
    mutation = MUTATIONS[name]
    assert caught(mutation) == (mutation.seed, mutation.invariant)
