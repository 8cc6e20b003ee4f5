"""The house keeps its shape: sizes, names, habits. Each allowance below is a debt with its exact size; it may only shrink, and a paid one must be struck off."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = sorted((ROOT / "replicad").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MODULE_LINES_MAX = 350
FUNCTION_LINES_MAX = 70

LONG_MODULES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}
SLEEPING = {"tests/support/waiting.py": 2, "tests/support/relay.py": 1}
"""Between two looks; and a relay that delays bytes."""
SKIPPING = {"tests/conftest.py": 1, "tests/net/test_net_sendfile.py": 1}
"""The rule itself; and a file system that keeps every page cannot show what happens without."""

EMPTY_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|base|managers?|misc)(_|$)")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
UNSTRUCTURED = {"create_task": {"asyncio", "loop"}, "ensure_future": {"asyncio"}, "gather": {"asyncio"}, "get_event_loop": {"asyncio"}}
SPEAKS = re.compile(
    r"\bassert\b|\braises\b|\bwarns\b|\b(check|expect|verify|must|refuses|assert)\w*\(|\bwait_for\w*\(|_and_wait\(|\buntil\(|\bfail\(|\blimit_s="
)
FOREIGN = re.compile("|".join([r"py" + r"pi\.org", "python" + "hosted", "npm" + r"js\.(org|com)", r"deb\.deb" + r"ian\.org", "/" + "work/", "/" + "farm/"]))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def unparsed(path: Path) -> str:
    """Its code in one form, without comments."""
    return ast.unparse(tree(path))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(what it is called on, name) of every call ``x.name(...)`` or ``name(...)``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield ast.unparse(node.func.value), node.func.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield "", node.func.id


def test_modules_are_short() -> None:
    long = {name(path): lines for path in PROGRAM if (lines := path.read_text().count("\n")) > MODULE_LINES_MAX}
    assert long == LONG_MODULES


def test_functions_are_short() -> None:
    long = {}
    for path in PROGRAM:
        for node in functions(path):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                long[f"{name(path)}:{node.name}"] = lines
    assert long == LONG_FUNCTIONS


def test_names_say_something() -> None:
    empty = [name(path) for path in [*PROGRAM, *TESTS] if EMPTY_NAMES.search(path.stem)]
    empty += [f"{name(path)}/" for path in (ROOT / "replicad").rglob("*") if path.is_dir() and EMPTY_NAMES.search(path.name)]
    assert empty == []


def test_tests_are_named_after_their_room() -> None:
    files = [path for path in TESTS if path.name.startswith("test_")]
    wrong = [name(path) for path in files if not path.stem.startswith(f"test_{path.parent.name}_")]
    twice = {path.name for path in files if [other.name for other in files].count(path.name) > 1}
    packages = [name(path) for path in TESTS if path.name == "__init__.py"]
    assert (wrong, twice, packages) == ([], set(), [])


def test_nothing_is_left_unfinished() -> None:
    found = [f"{name(path)}:{number}" for path in [*PROGRAM, *TESTS] for number, line in enumerate(path.read_text().splitlines(), 1) if UNFINISHED.search(line)]
    assert [place for place in found if not place.startswith(name(Path(__file__)))] == []


def test_no_function_only_says_that_it_is_not_implemented() -> None:
    """``msgspec``'s hooks must raise NotImplementedError for types they do not know; as a whole body it is a stub."""
    stubs = []
    for path in PROGRAM:
        for node in functions(path):
            body = [part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
            if len(body) == 1 and isinstance(body[0], ast.Raise) and "NotImplementedError" in ast.unparse(body[0]):
                stubs.append(f"{name(path)}:{node.name}")
    assert stubs == []


def test_tasks_have_owners() -> None:
    """Structured concurrency: task groups only."""
    loose = [f"{name(path)}: {on}.{called}" for path in PROGRAM for on, called in calls(tree(path)) if on.split(".")[-1] in UNSTRUCTURED.get(called, set())]
    assert loose == []


def test_only_the_doors_import_the_web_server() -> None:
    """The import contract cannot see ``aiohttp.web`` apart from ``aiohttp``."""
    guilty = []
    for path in PROGRAM:
        if path.is_relative_to(ROOT / "replicad" / "server"):
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom):
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            guilty += [f"{name(path)}: {module}" for module in modules if module.startswith("aiohttp.web")]
    assert guilty == []


def test_tests_wait_for_conditions_and_never_for_time() -> None:
    sleeping: dict[str, int] = {}
    for path in TESTS:
        count = len(re.findall(r"\bsleep\((?!0\))", unparsed(path)))
        if count and path != Path(__file__):
            sleeping[name(path)] = count
    assert sleeping == SLEEPING


def test_tests_are_not_skipped() -> None:
    """What a system may lack is said with ``@pytest.mark.needs("program")``; conftest.py decides what follows."""
    skipping: dict[str, int] = {}
    for path in TESTS:
        text = unparsed(path)
        count = len(re.findall(r"pytest\.(?:skip|xfail|importorskip)\(|mark\.(?:skip|skipif|xfail)\b|\bSkipTest\b", text))
        if count and path != Path(__file__):
            skipping[name(path)] = count
    assert skipping == SKIPPING


def speaking(path: Path) -> set[str]:
    """The functions of a file in which something can fail, directly or in a function of the same file that they call."""
    found = list(functions(path))
    names = {node.name for node in found if SPEAKS.search(ast.unparse(node))}
    while more := {node.name for node in found if node.name not in names and names & {called for on, called in calls(node) if on in {"", "self"}}}:
        names |= more
    return names


def test_every_test_can_fail() -> None:
    silent = []
    for path in TESTS:
        tests = [node for node in functions(path) if node.name.startswith("test_")]
        names = speaking(path) if tests else set()
        silent += [f"{name(path)}:{node.lineno} {node.name}" for node in tests if node.name not in names]
    assert silent == []


def test_no_download_addresses_and_no_paths_of_a_machine() -> None:
    kinds = {".py", ".md", ".toml", ".sql", ".service", ".conf", ".lock", ".html", ".js", ".css", ".cfg", ".txt", ".json", ""}
    found = []
    for path in [*ROOT.iterdir(), *(one for folder in ("replicad", "tests", "docs", "systemd", "bench", ".ci") for one in (ROOT / folder).rglob("*"))]:
        if path.is_file() and path.suffix in kinds and "_build" not in path.parts:
            found += [f"{name(path)}:{number}" for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1) if FOREIGN.search(line)]
    assert found == []
