"""completion: what a shell needs to complete command lines; and the names that it may offer, asked of the daemon.

Whoever presses a key waits: the daemon gets a second, and without an answer nothing is offered and nothing is said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, TypeVar

import click
from click.shell_completion import get_completion_class
from msgspec import Struct

from replicad.cli.client import PAGE_ITEMS, path_of
from replicad.cli.invocation import Invocation, Verb, pass_invocation
from replicad.errors import ReplicadError
from replicad.server.admin import nouns

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_REPLICAD_COMPLETE"
"""Of the environment: set when a shell asks, see click's shell completion."""
ANSWER_S = 1.0

T = TypeVar("T")


class Script(Struct, frozen=True):
    """What ``completion --json`` prints."""

    script: str


@click.command(cls=Verb, prints=Script)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
@pass_invocation
def completion(invocation: Invocation, context: click.Context, *, shell: str) -> None:
    """Print the script that makes a shell complete verbs, options, members, shares and paths: source it, or store it where the shell looks."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - one of SHELLS
    completing = kind(context.find_root().command, {}, "replicad", VARIABLE)
    script = completing.source_template % completing.source_vars()
    invocation.out.data(Script(script), script.rstrip("\n"))


def offer(context: click.Context, metavar: str, begun: str) -> list[str]:
    """What may stand where ``metavar`` is expected and begins so."""
    if metavar == "NODE":
        answer = _ask(context, path_of("members"), nouns.Peers)
        found = [one.name for one in answer.peers] if answer else []
    elif metavar == "SHARE":
        found = [one.name for one in _shares(context)]
    elif metavar == "STAGE":
        found = list(dict.fromkeys(stage for one in _shares(context) for stage in one.stages))
    elif metavar.startswith(("SHARE/", "[SHARE[/")):
        return _places(context, begun)
    else:
        found = []
    return [name for name in found if name.startswith(begun)]


def _places(context: click.Context, begun: str) -> list[str]:
    """``SHARE/PATH``, one directory at a time; of one with very many files the first ones."""
    share, slash, path = begun.partition("/")
    if not slash:
        found = [one.name for one in _shares(context) if one.name.startswith(begun)]
        if len(found) != 1:
            return [f"{name}/" for name in found]
        share, begun = found[0], f"{found[0]}/"
    answer = _ask(context, path_of("entries"), nouns.Entries, {"share": share, "prefix": path.rpartition("/")[0], "limit": PAGE_ITEMS})
    return next_steps([f"{one.share}/{one.path}" for one in answer.entries], begun) if answer else []


def next_steps(names: Iterable[str], begun: str) -> list[str]:
    """Of the names that begin so: as far as the next slash, each once. A directory that is the only one is gone into."""
    while True:
        rests = [name[len(begun) :].partition("/") for name in names if name.startswith(begun)]
        found = sorted({f"{begun}{head}{slash}" for head, slash, _ in rests})
        if len(found) != 1 or not found[0].endswith("/") or found[0] == begun:
            return found
        begun = found[0]


def _shares(context: click.Context) -> list[nouns.Share]:
    answer = _ask(context, path_of("shares"), nouns.Shares)
    return answer.shares if answer else []


def _ask(context: click.Context, path: str, kind: type[T], query: dict[str, Any] | None = None) -> T | None:
    invocation = context.find_object(Invocation)
    with contextlib.suppress(ReplicadError):
        return invocation.client().ask("GET", path, answer=kind, query=query, timeout_s=ANSWER_S) if invocation else None
    return None
