"""The options that say what a member may do and gets, for the verbs that invite, admit and change one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from replicad.cli import values
from replicad.model.records import Role

ROLES = click.Choice([role.value for role in Role])
EVERYTHING, NONE = "*", "none"
ALL = object()
"""Given, and no limit: null for the API."""

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def rights_of(wording: str) -> Callable[[Decorated], Decorated]:
    """The options that say what a member may do and gets; ``wording`` ends the help of those that leave something out."""
    options = [
        click.option("--role", type=ROLES, help="What the node may do; each includes the ones before it."),
        click.option("--share", "shares", multiple=True, metavar="SHARE", help=f"A share it gets (repeatable; {wording})."),
        click.option("--stage", "stages", multiple=True, metavar="STAGE", help=f"A stage it carries (repeatable; {wording})."),
        click.option("--path", "paths", multiple=True, metavar="PREFIX", help=f"A directory below which a publisher may publish (repeatable; {wording})."),
        click.option(
            "--network",
            "networks",
            multiple=True,
            metavar="CIDR",
            help="A network near it, whose clients other nodes may send there and name it first to (repeatable; none: nobody's).",
        ),
        click.option("--site", metavar="SITE", help="Where it stands; links inside a site are cheap."),
        click.option(
            "--life",
            callback=values.life,
            metavar="DURATION",
            help="How long its grant lasts; renewed by the admin that gives it while the node is linked ['*': without end].",
        ),
    ]

    def decorate(verb: Decorated) -> Decorated:
        for option in reversed(options):
            verb = option(verb)
        return verb

    return decorate


def wishes(
    *, role: str | None, shares: Sequence[str], stages: Sequence[str], paths: Sequence[str], networks: Sequence[str], site: str | None, life: float | str | None
) -> dict[str, Any]:
    """The fields of ``bodies.Rights`` that were given."""
    given = {
        "role": None if role is None else Role(role),
        "shares": _chosen(shares),
        "stages": _chosen(stages),
        "paths": _chosen(paths),
        "networks": ([] if NONE in networks else list(networks)) if networks else None,
        "site": site,
        "life_s": ALL if life == EVERYTHING else life,
    }
    return {name: None if value is ALL else value for name, value in given.items() if value is not None}


def _chosen(names: Sequence[str]) -> list[str] | object | None:
    if not names:
        return None
    return ALL if EVERYTHING in names else list(names)
