"""check: one line for Nagios, Icinga and whatever speaks their plugin convention, and its exit code: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Any

import click
from msgspec import Struct

from replicad.cli.client import path_of
from replicad.cli.invocation import Invocation, Verb, pass_invocation
from replicad.cli.output import Output, clean, size
from replicad.errors import ReplicadError, StorageError, UnreachableError
from replicad.model.words import plural
from replicad.server.admin import nouns

ANSWER_S = 8.0
"""Monitoring gives a plugin 10 s by default."""
CRITICAL_PROBLEMS = frozenset({"not-a-member", "key-in-use", "equivocation", "disk-full", "damaged", "catalog", "storage"})
"""Codes of problems that endanger content or stop this node; whatever else makes it degraded is a warning."""
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)\s*%?")


class State(IntEnum):
    """Of the plugin convention."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class Health(Struct, frozen=True):
    """What ``check --json`` prints, with the same exit codes. ``state``: ``OK``, ``WARNING``, ``CRITICAL`` or ``UNKNOWN``; figures are in ``status``."""

    state: str
    message: str


class Plugin(Verb):
    """A verb that never leaves the convention: a command line that it does not understand is UNKNOWN."""

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> click.Context:
        """See ``click.Command``."""
        invocation = parent.find_object(Invocation) if parent else None
        out = Output(as_json="--json" in args or bool(invocation and invocation.as_json))
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            with click.Context(self, info_name=info_name, parent=parent):
                raise click.exceptions.Exit(_say(out, State.UNKNOWN, error.format_message())) from None


def _percent(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    found = _PERCENT.fullmatch(value.strip())
    if not found or float(found[1]) > 100:
        raise click.BadParameter(f"{value!r} is not a percentage; write for example 10%")
    return float(found[1])


@click.command(cls=Plugin, prints=Health)
@click.option("-w", "--warning", metavar="P%", default="10%", show_default=True, callback=_percent, help="WARNING when less of the room is free.")
@click.option("-c", "--critical", metavar="P%", default="3%", show_default=True, callback=_percent, help="CRITICAL when less of the room is free.")
@pass_invocation
def check(invocation: Invocation, *, warning: float, critical: float) -> int:
    """Say in one line how this node is, for Nagios and Icinga; exits 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."""
    try:
        answer = invocation.client().ask("GET", path_of("status"), answer=nouns.Status, timeout_s=ANSWER_S)
    except (UnreachableError, StorageError) as error:
        return _say(invocation.out, State.CRITICAL, _with_hint(error.message, error.hint))
    except ReplicadError as error:
        return _say(invocation.out, State.UNKNOWN, error.message)
    return _say(invocation.out, *judge(answer, warning=warning, critical=critical), f" | {_figures(answer)}")


def _say(out: Output, state: State, words: str, figures: str = "") -> State:
    """One line; the bar begins the figures and stands nowhere else."""
    message = clean(" ".join(words.split()))
    out.data(Health(state.name, message), f"REPLICAD {state.name} - {message.replace('|', '/')}{figures}")
    return state


def _with_hint(message: str, hint: str) -> str:
    return clean(message) + (f" -> {clean(hint)}" if hint else "")


def judge(answer: nouns.Status, *, warning: float, critical: float) -> tuple[State, str]:
    """The worst of the problems and of the free room, and what is said of it. Of the room that files may take, ``warning`` and ``critical`` per cent must be free."""
    store = answer.store
    states = [State.CRITICAL if problem.code in CRITICAL_PROBLEMS else State.WARNING for problem in answer.problems]
    said = [
        _with_hint(problem.message, problem.hint if state == State.CRITICAL else "")
        for state, problem in sorted(zip(states, answer.problems, strict=True), key=lambda pair: -pair[0])
    ]
    free = 100 * store.free_bytes / max(1, store.free_bytes + store.used_bytes)
    if free < max(warning, critical):
        states.append(State.CRITICAL if free < critical else State.WARNING)
        said.append(f"{free:.1f} % of the room is free ({size(store.free_bytes)})")
    linked = f"{sum(peer.linked for peer in answer.peers)} of {plural(len(answer.peers), 'peer')} linked"
    return max(states, default=State.OK), "; ".join(
        said
    ) or f"{clean(answer.node.name)}: {plural(store.files, 'file')}, {size(store.free_bytes)} free, {linked}"


def _figures(answer: nouns.Status) -> str:
    store = answer.store
    return (
        f"files={store.files} used={store.used_bytes}B free={store.free_bytes}B wanted={store.wanted} wanted_bytes={store.wanted_bytes}B "
        f"linked={sum(peer.linked for peer in answer.peers)};;;0;{len(answer.peers)} problems={len(answer.problems)}"
    )
