"""token, whoami: who may use this node's API from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import click

from replicad.cli import output, values
from replicad.cli.client import path_of
from replicad.cli.invocation import Invocation, Verb, Verbs, pass_invocation
from replicad.cli.output import moment
from replicad.model.callers import AccessRole
from replicad.server.admin import bodies, nouns


@click.group(cls=Verbs)
def token() -> None:
    """Make and revoke the tokens with which people and scripts use this node's API from elsewhere."""


@token.command(prints=nouns.MadeToken)
@click.option(
    "--role", type=click.Choice([role.value for role in AccessRole]), required=True, help="What its bearer may do; each role may what those before it may."
)
@click.option("--share", "shares", multiple=True, metavar="SHARE", help="Only in this share; can be repeated [all].")
@click.option("--path", default="", metavar="PREFIX", help="Only this directory and what lies below it [everywhere].")
@click.option("--expires", callback=values.duration, metavar="DURATION", help="How long it is good, for example 90d [until it is revoked].")
@click.option("--name", metavar="NAME", help="What it is called in lists and in the audit log [its id].")
@pass_invocation
def create(invocation: Invocation, *, role: str, shares: Sequence[str], path: str, expires: float | None, name: str | None) -> None:
    """Make a token. It is the last line of the output, and shown this once."""
    body = bodies.NewToken(
        role=AccessRole(role), name=name, shares=list(shares) or None, path=path, expires_s=None if expires is None else max(1, int(expires))
    )
    answer = invocation.client().ask("POST", path_of("tokens"), answer=nouns.MadeToken, body=body)
    invocation.out.talk(f"{_facts(answer.token)}\nKeep it now, it is not shown again. To use it: REPLICAD_TOKEN=TOKEN replicad --url URL ...")
    invocation.out.data(answer, answer.secret)


@token.command(name="list", prints=nouns.Tokens)
@pass_invocation
def list_(invocation: Invocation) -> None:
    """List the tokens, used, unused and expired."""
    answer = invocation.client().whole(path_of("tokens"), answer=nouns.Tokens, items="tokens")
    rows = [
        [one.name, one.id, one.role, limits(one.shares, one.path), moment(one.created), _expiry(one), moment(one.used) if one.used else "never"]
        for one in answer.tokens
    ]
    invocation.out.data(answer, output.table(["NAME", "ID", "ROLE", "LIMITED TO", "CREATED", "EXPIRES", "LAST USED"], rows))


@token.command(prints=nouns.TokenAnswer)
@click.argument("name", callback=values.named)
@pass_invocation
def revoke(invocation: Invocation, *, name: str) -> None:
    """End the token of this name or id: it is refused from now on."""
    answer = invocation.client().ask("DELETE", path_of("tokens", name), answer=nouns.TokenAnswer)
    invocation.out.data(answer, f"revoked: {_facts(answer.token)}")


@click.command(cls=Verb, prints=nouns.Whoami)
@pass_invocation
def whoami(invocation: Invocation) -> None:
    """Show who this node takes you for, and what you may do."""
    answer = invocation.client().ask("GET", path_of("whoami"), answer=nouns.Whoami)
    invocation.out.data(answer, output.clean(f"{answer.name}: {answer.role}, {limits(answer.shares, answer.path)}"))


def _facts(one: nouns.Token) -> str:
    return output.clean(f"{one.name}: {one.role}, {limits(one.shares, one.path)}, expires {_expiry(one)}")


def limits(shares: Sequence[str] | None, path: str) -> str:
    """Within what somebody may act, for people."""
    return ("all shares" if shares is None else ",".join(shares)) + (f" below {path}/" if path else "")


def _expiry(one: nouns.Token) -> str:
    if one.expires is None:
        return "never"
    return f"{moment(one.expires)}{' (expired)' if one.expired else ''}"
