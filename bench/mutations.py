"""The rules of the protocol broken on purpose, one at a time: which seed of the simulator, or which test, notices, and by which invariant. Writes bench/results/mutations.md."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.rules import RULES, Rule
from simulation.mutations import MUTATIONS, caught

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
NOTHING = "**nothing**"


def main(arguments: list[str]) -> None:
    """Try each, print, write. Ends with exit code 1 if one was not noticed."""
    parser = argparse.ArgumentParser(prog="bench mutations", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args(arguments)
    parts = [
        (
            [
                "# Rules broken on purpose",
                "",
                "`make bench BENCH=mutations`. Of records and names: the first seed of the mixed schedule (`tests/simulation`) that notices, and the invariant (section 9 of the design).",
            ],
            ("broken", "seed", "invariant"),
            simulated(options.seeds),
        ),
        (["Of the transfer: the first test that goes red."], ("broken", "invariant", "red"), tested()),
    ]
    lines: list[str] = []
    for words, titles, rows in parts:
        lines += [*words, "", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
        for row in rows:
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
        lines.append("")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "mutations.md").write_text("\n".join(lines))
    if any(NOTHING in line for line in lines):
        raise SystemExit(1)


def simulated(seeds: int) -> Iterator[tuple[str, ...]]:
    """The judge of the simulator."""
    for name, mutation in MUTATIONS.items():
        found = caught(mutation, range(seeds))
        yield (name, str(found[0]), found[1]) if found else (name, NOTHING, "")


def tested() -> Iterator[tuple[str, ...]]:
    """The tests, each rule broken in a copy of the program."""
    with tempfile.TemporaryDirectory(prefix="replicad-mutations-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "results", "__pycache__"))
        for rule in RULES:
            yield rule.broken, rule.invariant, red(copy, rule) or NOTHING


def red(copy: Path, rule: Rule) -> str:
    """The test that fails while this rule is broken; empty if none does."""
    path = copy / rule.file
    sound = path.read_text()
    path.write_text(sound.replace(rule.old, rule.new))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout", "60", rule.test]
        ran = subprocess.run(
            command, cwd=copy, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        )
    finally:
        path.write_text(sound)
    found = re.search(r"^FAILED (?:\S*/)?(\S+)", ran.stdout, re.MULTILINE)
    return f"`{found[1]}`" if found else "" if ran.returncode == 0 else f"exit {ran.returncode}"
