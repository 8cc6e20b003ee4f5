"""limits: how fast bytes may flow between this node and others; reload: what the configuration says now."""

from __future__ import annotations

from collections.abc import Sequence

import click

from replicad.cli import output
from replicad.cli.client import path_of
from replicad.cli.invocation import Invocation, Verb, Verbs, pass_invocation
from replicad.cli.output import clean
from replicad.model.limits import NONE, show_rate
from replicad.server.admin import bodies, nouns

WINDOWS = "windows"
DEFAULT = "default"


@click.group(cls=Verbs)
def limits() -> None:
    """Limit transfers with other nodes, always or at certain hours of the week."""


def render_limits(answer: nouns.Limits) -> str:
    """The picture of ``replicad limits show``."""
    rows = [[one.name or one.scope, show_rate(one.now_bytes_s), show_rate(one.bytes_s), one.origin] for one in answer.limits]
    text = output.table(["LIMIT", "NOW", "OUTSIDE WINDOWS", "FROM"], rows)
    if answer.windows:
        text += f"\n\nwindows ({answer.windows_origin}; time zone: {clean(answer.zone)})\n" + "\n".join(f"  {clean(window)}" for window in answer.windows)
    return text + (f"\n\npaused  {', '.join(clean(name) for name in answer.paused)}" if answer.paused else "")


@limits.command(prints=nouns.Limits)
@pass_invocation
def show(invocation: Invocation) -> None:
    """Show every limit: what applies now, what applies outside of windows, and where it comes from."""
    answer = invocation.client().ask("GET", path_of("limits"), answer=nouns.Limits)
    invocation.out.data(answer, render_limits(answer))


@limits.command(name="set", prints=nouns.Limits)
@click.argument("name", metavar="download|upload|site:NAME|windows")
@click.argument("value", metavar="RATE|none|default|WINDOW...", nargs=-1, required=True)
@pass_invocation
def set_(invocation: Invocation, *, name: str, value: tuple[str, ...]) -> None:
    """Change a limit at once and until it is changed again; "default" is what the configuration says.

    A RATE is like 5 MB/s. "windows" replaces all of them ("none": there are none); a WINDOW is like "mon-fri 08:00-18:00 download 1 MB/s".
    """
    body = _windows(value) if name == WINDOWS else bodies.LimitsChange(rates={name: " ".join(value)})
    answer = invocation.client().ask("PATCH", path_of("limits"), answer=nouns.Limits, body=body)
    invocation.out.data(answer, render_limits(answer))


def _windows(given: Sequence[str]) -> bodies.LimitsChange:
    if list(given) == [DEFAULT]:
        return bodies.LimitsChange(windows=None)
    return bodies.LimitsChange(windows=[] if list(given) == [NONE] else list(given))


@click.command(cls=Verb, prints=nouns.Reloaded)
@pass_invocation
def reload(invocation: Invocation) -> None:
    """Have the daemon read its configuration again: what can change while it runs does, and the rest is named."""
    answer = invocation.client().ask("POST", path_of("reload"), answer=nouns.Reloaded)
    lines = [f"changed  {key}" for key in answer.applied] + [f"needs a restart  {key}" for key in answer.restart]
    invocation.out.data(answer, "\n".join(lines) or "nothing has changed")
