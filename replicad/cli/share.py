"""share: the trees of files that the network replicates."""

from __future__ import annotations

import click
import msgspec

from replicad.cli import output, values
from replicad.cli.client import Client, path_of
from replicad.cli.invocation import Invocation, Verbs, pass_invocation
from replicad.cli.output import moment
from replicad.errors import InputError, NotFoundError
from replicad.server.admin import bodies, nouns


def only_share(client: Client, named: str | None) -> str:
    """The share that is meant: the named one, else the only one there is; with several the error lists them."""
    if named is not None:
        return named
    names = [one.name for one in client.ask("GET", path_of("shares"), answer=nouns.Shares).shares]
    if not names:
        raise NotFoundError("there is no share yet", hint="replicad share create NAME")
    if len(names) > 1:
        raise InputError(f"which share? there are several: {', '.join(names)}", hint=f"name one: --share {names[0]}")
    return names[0]


@click.group(cls=Verbs)
def share() -> None:
    """Create and change shares."""


def _facts(one: nouns.Share) -> str:
    access = "public" if one.public else "private"
    return f"{one.name}: {access}{', immutable' if one.immutable else ''}, stages {' < '.join(one.stages)}, created {moment(one.created)}"


@share.command()
@click.argument("name", callback=values.named)
@click.option("--public/--private", default=False, help="Whether anybody may download from it [private: clients get 404].")
@click.option("--immutable", is_flag=True, help="A published file can never be replaced, only deleted. Cannot be changed later.")
@click.option("--stages", metavar="LIST", help="From lowest to highest, for example dev,test,prod (the default). Publishing means the last one.")
@pass_invocation
def create(invocation: Invocation, *, name: str, public: bool, immutable: bool, stages: str | None) -> None:
    """Create a share."""
    body = bodies.NewShare(name=name, public=public, immutable=immutable, stages=_split(stages) if stages is not None else None)
    answer = invocation.client().ask("POST", path_of("shares"), answer=nouns.ShareAnswer, body=body)
    if not public:
        invocation.out.talk(f"It is private: clients get 404. To let everybody download: replicad share set {name} --public")
    invocation.out.data(answer, _facts(answer.share))


@share.command(name="list")
@pass_invocation
def list_(invocation: Invocation) -> None:
    """List the shares."""
    answer = invocation.client().ask("GET", path_of("shares"), answer=nouns.Shares)
    rows = [
        [one.name, "public" if one.public else "private", "yes" if one.immutable else "no", " < ".join(one.stages), moment(one.created)]
        for one in answer.shares
    ]
    invocation.out.data(answer, output.table(["NAME", "ACCESS", "IMMUTABLE", "STAGES", "CREATED"], rows))


@share.command()
@click.argument("name", callback=values.named)
@pass_invocation
def show(invocation: Invocation, *, name: str) -> None:
    """Show one share."""
    answer = invocation.client().ask("GET", path_of("shares", name), answer=nouns.ShareAnswer)
    invocation.out.data(answer, _facts(answer.share))


@share.command(name="set")
@click.argument("name", callback=values.named)
@click.option("--public/--private", default=None, help="Whether anybody may download from it.")
@click.option("--stages", metavar="LIST", help="From lowest to highest. A stage that still has files cannot be left out.")
@pass_invocation
def set_(invocation: Invocation, *, name: str, public: bool | None, stages: str | None) -> None:
    """Change a share. What is not named stays."""
    if public is None and stages is None:
        raise click.UsageError("nothing to change: give --public, --private or --stages")
    body = bodies.ShareChange(
        public=msgspec.UNSET if public is None else public,
        stages=msgspec.UNSET if stages is None else _split(stages),
    )
    answer = invocation.client().ask("PATCH", path_of("shares", name), answer=nouns.ShareAnswer, body=body)
    invocation.out.data(answer, _facts(answer.share))


def _split(stages: str) -> list[str]:
    return [stage.strip() for stage in stages.split(",")]
