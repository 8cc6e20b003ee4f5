"""Every code that the API can answer stands in the manual, with its status and its exit code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from replicad import assembly, errors

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "errors.md").read_text()
REMOTE = (errors.PeerError, errors.RecordError)
"""What other nodes do wrong: these codes are of the protocol."""
BELOW = ("server/admin", "integrations", "services", "catalog", "store", "model", "protocol", "crypto")
"""Where the API's errors come from."""
OF_THE_DOOR = {"method": 405, "internal": 500}
"""Documents that no error stands for."""

Codes = dict[str, set[tuple[int, int]]]


def tree(kind: type[errors.ReplicadError]) -> Iterator[type[errors.ReplicadError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from tree(below)


def given(call: ast.Call) -> list[str]:
    """The codes that a call may give to an error."""
    values = [node for one in call.keywords if one.arg == "code" for node in ast.walk(one.value)]
    return [node.value for node in values if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch("[a-z-]+", node.value)]


def answered() -> Codes:
    """Codes, with the statuses and exit codes of the errors that bear them."""
    assert assembly, "which imports whatever the daemon is made of"
    found: Codes = {code: {(status, 1)} for code, status in OF_THE_DOOR.items()}
    kinds = {kind.__name__: kind for kind in tree(errors.ReplicadError) if not issubclass(kind, REMOTE)}
    for kind in kinds.values():
        if kind.__module__ == errors.__name__ or kind.__module__.startswith(tuple(f"replicad.{room.replace('/', '.')}." for room in BELOW)):
            found.setdefault(kind.code, set()).add((kind.http_status, kind.exit_code))
    for path in (path for room in BELOW for path in (ROOT / "replicad" / room).rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            for code in given(call):
                if (kind := kinds.get(call.func.id)) is not None:
                    found.setdefault(code, set()).add((kind.http_status, kind.exit_code))
    return found


def documented(title: str) -> Codes:
    section = DOCUMENT.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| ([0-9, ]*) \| ([0-9, ]+) \| .{10,} \|$", section, re.MULTILINE)
    assert len(rows) == section.count("\n| `") == len({code for code, _, _ in rows})
    numbers = {code: [[int(one) for one in column.split(",")] for column in columns if column.strip()] for code, *columns in rows}
    return {code: {(status, exit_) for status in columns[0] for exit_ in columns[-1]} for code, columns in numbers.items()}


def test_every_code_stands_in_the_manual() -> None:
    told, real = documented("Of the API"), answered()
    assert told.keys() == real.keys()
    assert {code: pairs for code, pairs in real.items() if not pairs <= told[code]} == {}
    assert {code for code, pairs in told.items() if {one for one, _ in pairs} != {one for one, _ in real[code]}} == set()


def test_codes_of_the_command_line_alone() -> None:
    """What never left this machine: usage, files and terminals."""
    found: set[str] = set()
    for path in [*(ROOT / "replicad" / "cli").glob("*.py"), ROOT / "replicad" / "daemon.py", ROOT / "replicad" / "server" / "listening.py"]:
        tree_ = ast.parse(path.read_text())
        found |= {code for node in ast.walk(tree_) if isinstance(node, ast.Call) for code in given(node)}
        found |= {
            node.value.value
            for kind in ast.walk(tree_)
            if isinstance(kind, ast.ClassDef)
            for node in kind.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code" and isinstance(node.value, ast.Constant)
        }
    assert documented("Of the command line").keys() == found - answered().keys()
