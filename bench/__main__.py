"""Measurements: `python -m bench` lists them, `python -m bench NAME [ARGUMENTS]` runs one, `python -m bench all` runs every one with its defaults, one after the other.

A measurement is a module of this folder with `main(arguments: list[str]) -> None` that prints what it saw. Each compares its own runs side by side (with nginx, openssl, cp ...), because
the machine is shared and absolute numbers are worth little.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import platform
import sys
from pathlib import Path
from typing import TextIO, cast

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))  # for the harness of real daemons, support.network


def measurements() -> dict[str, str]:
    """Name to the first line of the module's docstring, for the modules that have a `main`."""
    found = {}
    for path in sorted(HERE.glob("*.py")):
        tree = ast.parse(path.read_text())
        if path.stem != "__main__" and any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


class _Both:
    """What is printed goes to the screen, and is kept."""

    def __init__(self, screen: TextIO) -> None:
        self._screen = screen
        self.kept: list[str] = []

    def write(self, text: str) -> int:
        self.kept.append(text)
        return self._screen.write(text)

    def flush(self) -> None:
        self._screen.flush()


def run(name: str, arguments: list[str]) -> None:
    """One measurement, with a line about the machine before it. What it prints with its defaults also goes to ``results/NAME.txt``, unless it writes a page of its own there."""
    module = importlib.import_module(f"bench.{name}")
    both = _Both(sys.stdout)
    with contextlib.redirect_stdout(cast("TextIO", both)):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
        print(f"== {name}: {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}", flush=True)
        module.main(arguments)
    if not arguments and not hasattr(module, "RESULTS"):
        (HERE / "results" / f"{name}.txt").write_text("".join(both.kept))


def main() -> int:
    """The command."""
    known = measurements()
    names, arguments = sys.argv[1:2], sys.argv[2:]
    if not names or names[0] not in {"all", *known}:
        print("usage: python -m bench all | NAME [ARGUMENTS]     (make bench BENCH='NAME ARGUMENTS')\n")
        print("\n".join(f"  {name:<20} {sentence}" for name, sentence in known.items()))
        return 0 if not names else 2
    for name in known if names[0] == "all" else names:
        run(name, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
