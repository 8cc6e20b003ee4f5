"""The list of rules that ``bench mutations`` breaks fits the program: each place exists once, and so does the test that must notice."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
INVARIANTS = {"I1", "I9", "I10", "I11", "I12", "I13", "I15", "I16"}
"""Those of the transfer; the others are broken in the simulator (``tests/simulation/mutations.py``)."""


def test_every_rule_of_the_transfer_can_be_broken_and_names_its_test() -> None:
    rules = runpy.run_path(str(ROOT / "bench" / "rules.py"))["RULES"]
    for rule in rules:
        path, _, test = rule.test.partition("::")
        assert (ROOT / rule.file).read_text().count(rule.old) == 1, rule
        assert f"def {test}(" in (ROOT / path).read_text(), rule
    assert {rule.invariant for rule in rules} == INVARIANTS
