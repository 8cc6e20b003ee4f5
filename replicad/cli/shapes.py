"""What every verb prints with --json, as a page of the manual made from the types that are printed (`make man`)."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import msgspec
from msgspec import Struct

from replicad.cli.invocation import Verb, Verbs
from replicad.cli.manual import tree
from replicad.cli.output import Failure

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}

HEAD = """# JSON

With `--json` a verb prints one object on stdout; `status --watch` and `transfers --watch` print one each time, a line each (JSON Lines). If it fails, the object on stderr is a [Failure](#failure), and the
[exit code](commands.md#exit-codes) is the same as without. Sizes are bytes, dates ISO 8601 with zone, nodes are named by `id` and shown by `name`; `null` in a list of rights means all.
These objects are also those of the [API](api.md). Names and meanings stay; new fields may come, so ignore what you do not know.

This page is made from the program (`make man`).
"""


def page(program: click.Group) -> str:
    """The page as Markdown."""
    verbs = [one for one in tree(program, click.Context(program, info_name="replicad")) if printed(one.command)]
    rows = [f"| `{one.command_path}` | {' or '.join(_link(kind) for kind in printed(one.command))} |" for one in verbs]
    found = objects(kind for one in verbs for kind in printed(one.command))
    return "\n".join([HEAD, "## Verbs", "", "| verb | prints |", "|---|---|", *rows, "", "## Objects", "", *(line for kind in found for line in _object(kind))])


def printed(command: click.Command) -> tuple[type[Struct], ...]:
    """What a verb prints."""
    return command.prints if isinstance(command, Verb | Verbs) else ()


def objects(printed_ones: Iterable[type[Struct]]) -> list[type[Struct]]:
    """These types and all within them, by name."""
    found: set[type[Struct]] = set()
    waiting: list[type[Struct]] = [Failure, *printed_ones]
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.add(kind)
            waiting += [inner for field in msgspec.structs.fields(kind) for inner in _inside(field.type)]
    return sorted(found, key=lambda kind: kind.__name__)


def _inside(kind: Any) -> Iterator[type[Struct]]:
    if isinstance(kind, type) and issubclass(kind, Struct):
        yield kind
    for argument in get_args(kind):
        yield from _inside(argument)


def _object(kind: type[Struct]) -> Iterator[str]:
    yield from (f"### {kind.__name__}", "", " ".join((kind.__doc__ or "").split()).replace("``", "`"), "", "| field | type |", "|---|---|")
    for field in msgspec.structs.fields(kind):
        absent = " (absent: " + msgspec.json.encode(field.default).decode() + ")" if kind.__struct_config__.omit_defaults and not field.required else ""
        yield f"| `{field.encode_name}` | {_words(field.type)}{absent} |"
    yield ""


def _link(kind: type[Struct]) -> str:
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def _words(kind: Any) -> str:
    """A type for people who do not read Python."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(one) for one in arguments)
    if origin is list:
        return f"list of {_words(arguments[0])}"
    if origin is dict:
        return f"object of {_words(arguments[1])}"
    if origin is tuple:
        return f"[{', '.join(_words(one) for one in arguments)}]"
    if origin is Literal:
        return " or ".join(f'`"{one}"`' for one in arguments)
    return _PLAIN.get(kind) or _link(kind)
