"""The rules of the protocol broken on purpose, one at a time: which seed of the simulator notices, and by which invariant. Writes bench/results/mutations.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from simulation.mutations import MUTATIONS, caught

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str]) -> None:
    """Try each, print, write."""
    parser = argparse.ArgumentParser(prog="bench mutations", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args(arguments)
    lines = [
        "# Rules broken on purpose",
        "",
        "`make bench BENCH=mutations`: the first seed of the mixed schedule that notices, and the invariant (section 9 of the design).",
        "",
    ]
    lines += ["| broken | seed | invariant |", "|---|---|---|"]
    for name, mutation in MUTATIONS.items():
        found = caught(mutation, range(options.seeds))
        lines.append(f"| {name} | {found[0]} | {found[1]} |" if found else f"| {name} | none of {options.seeds} | |")
        print(lines[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "mutations.md").write_text("\n".join(lines) + "\n")
