"""config: is it right, what does it say, what could it say. Works without the daemon."""

from __future__ import annotations

import click
from msgspec import Struct

from replicad import config as configuration
from replicad.cli import output
from replicad.cli.invocation import Invocation, Verbs, pass_invocation
from replicad.server.admin import nouns


class Good(Struct, frozen=True):
    """What ``config check --json`` prints when the configuration is right."""

    file: str
    ok: bool = True


class Example(Struct, frozen=True):
    """What ``config example --json`` prints."""

    example: str


@click.group(cls=Verbs)
def config() -> None:
    """Check, show and explain the configuration."""


@config.command(prints=Good)
@pass_invocation
def check(invocation: Invocation) -> None:
    """Read the configuration as the daemon would; exits 10 with everything that is wrong."""
    found = invocation.config()
    invocation.out.data(Good(str(found.path)), f"{found.path}: ok")


@config.command(prints=nouns.Settings)
@click.option("--origin", is_flag=True, help="Also say where each value comes from.")
@pass_invocation
def show(invocation: Invocation, *, origin: bool) -> None:
    """Show every key with its value."""
    found = invocation.config()
    settings = [nouns.Setting(row.key, row.text, row.origin if origin else "") for row in found.rows()]
    rows = [[one.key, one.value, *([one.origin] if origin else [])] for one in settings]
    heads = ["KEY", "VALUE", *(["ORIGIN"] if origin else [])]
    invocation.out.data(nouns.Settings(str(found.path), settings), output.table(heads, rows))


@config.command(prints=Example)
@pass_invocation
def example(invocation: Invocation) -> None:
    """Print a configuration file with every key, its default and what it is for."""
    text = configuration.example()
    invocation.out.data(Example(text), text.rstrip("\n"))
