"""munki: repositories for Munki's clients."""

from __future__ import annotations

import click

from replicad.cli.client import path_of
from replicad.cli.invocation import Invocation, Verbs, pass_invocation
from replicad.cli.output import clean, moment
from replicad.model.words import plural
from replicad.server.admin import nouns

SHOWN_MAX = 5


@click.group(cls=Verbs)
def munki() -> None:
    """Munki repositories (shares with the layout munki)."""


@munki.command(prints=nouns.MunkiStatus)
@click.option("--share", metavar="SHARE", help="Only this one.")
@pass_invocation
def status(invocation: Invocation, *, share: str | None) -> None:
    """Show which catalogs and manifests this node does not show yet, and what they wait for."""
    answer = invocation.client().ask("GET", path_of("munki"), answer=nouns.MunkiStatus, query={"share": share})
    lines = [line for repository in answer.repositories for line in _lines(repository)]
    invocation.out.data(answer, "\n".join(lines) or "no share is a Munki repository   -> replicad share set NAME --layout munki")


def _lines(repository: nouns.MunkiRepository) -> list[str]:
    waiting = repository.waiting
    lines = [
        f"{repository.share}{f'/{clean(repository.root)}' if repository.root else ''}  {repository.indexes} catalogs and manifests, {len(waiting)} held back"
    ]
    for held in waiting:
        instead = f"clients get that of {moment(held.shown)}" if held.shown else "clients get 404"
        lines.append(f"  {clean(held.path)}  of {moment(held.published)} waits for {plural(len(held.missing), 'file')}; {instead}")
        lines += [f"    {clean(path)}" for path in held.missing[:SHOWN_MAX]]
        lines += [f"    and {len(held.missing) - SHOWN_MAX} more"] if len(held.missing) > SHOWN_MAX else []
    return lines
