"""user: the people whom this node itself knows."""

from __future__ import annotations

from collections.abc import Sequence

import click
from msgspec import UNSET

from replicad.cli import asking, output, values
from replicad.cli.client import path_of
from replicad.cli.invocation import YES, Invocation, Verbs, pass_invocation
from replicad.cli.output import moment
from replicad.cli.token import limits
from replicad.errors import InputError
from replicad.model.callers import AccessRole
from replicad.server.admin import bodies, nouns, people

EVERYTHING = "all"
ROLES = click.Choice([role.value for role in AccessRole])


@click.group(cls=Verbs)
def user() -> None:
    """Say who may log in at this node, and what they may do."""


@user.command(prints=nouns.UserAnswer)
@click.argument("name", callback=values.named)
@click.option("--role", type=ROLES, required=True, help="What that person may do; each role may what those before it may.")
@click.option("--share", "shares", multiple=True, metavar="SHARE", help="Only in this share; can be repeated [all].")
@click.option("--path", default="", metavar="PREFIX", help="Only this directory and what lies below it [everywhere].")
@pass_invocation
def add(invocation: Invocation, *, name: str, role: str, shares: Sequence[str], path: str) -> None:
    """Make a user. The password is asked for, or is the first line of standard input."""
    body = people.NewUser(name=name, password=_new_password(), role=AccessRole(role), shares=list(shares) or None, path=path)
    _show(invocation, invocation.client().ask("POST", path_of("users"), answer=nouns.UserAnswer, body=body))


@user.command(name="list", prints=nouns.Users)
@pass_invocation
def list_(invocation: Invocation) -> None:
    """List the users."""
    answer = invocation.client().ask("GET", path_of("users"), answer=nouns.Users)
    rows = [
        [
            one.name,
            one.role,
            limits(one.shares, one.path),
            "yes" if one.enabled else "no",
            "yes" if one.totp else "no",
            moment(one.created),
            moment(one.login) if one.login else "never",
        ]
        for one in answer.users
    ]
    invocation.out.data(answer, output.table(["NAME", "ROLE", "LIMITED TO", "ENABLED", "TOTP", "CREATED", "LAST LOGIN"], rows))


@user.command(name="set", prints=nouns.UserAnswer)
@click.argument("name", callback=values.named)
@click.option("--role", type=ROLES, help="What that person may do.")
@click.option("--share", "shares", multiple=True, metavar="SHARE", help="Only in this share; can be repeated ('all': in all).")
@click.option("--path", metavar="PREFIX", help="Only this directory and what lies below it ('': everywhere).")
@pass_invocation
def set_(invocation: Invocation, *, name: str, role: str | None, shares: Sequence[str], path: str | None) -> None:
    """Change what a user may do, at once. What is not given stays."""
    if role is None and path is None and not shares:
        raise click.UsageError("nothing to change: give --role, --share or --path")
    chosen: list[str] | None = None if EVERYTHING in shares else list(shares)
    body = people.UserChange(role=AccessRole(role) if role else UNSET, shares=chosen if shares else UNSET, path=UNSET if path is None else path)
    _change(invocation, name, body)


@user.command(prints=nouns.UserAnswer)
@click.argument("name", callback=values.named)
@pass_invocation
def enable(invocation: Invocation, *, name: str) -> None:
    """Let a disabled user log in again."""
    _change(invocation, name, people.UserChange(enabled=True))


@user.command(prints=nouns.UserAnswer)
@click.argument("name", callback=values.named)
@pass_invocation
def disable(invocation: Invocation, *, name: str) -> None:
    """Let a user log in no more, and end all their sessions."""
    _change(invocation, name, people.UserChange(enabled=False))


@user.command(prints=nouns.UserAnswer)
@click.argument("name", callback=values.named)
@YES
@pass_invocation
def remove(invocation: Invocation, *, name: str, yes: bool) -> None:
    """Forget a user, and end all their sessions."""
    invocation.out.confirm(f"Remove the user {name}?", yes=yes)
    _show(invocation, invocation.client().ask("DELETE", path_of("users", name), answer=nouns.UserAnswer), before="removed: ")


@user.command(prints=nouns.UserAnswer)
@click.argument("name", required=False)
@pass_invocation
def passwd(invocation: Invocation, *, name: str | None) -> None:
    """Change the password of a user, or your own (then the current one is asked for first), and end all their sessions.

    Without a terminal each password is a line of standard input.
    """
    client = invocation.client()
    own = client.ask("GET", path_of("whoami"), answer=nouns.Whoami).user
    if name is None and own is None:
        raise InputError("NAME: whose password? You are not logged in as a user")
    is_own = own is not None and (name or own).lower() == own.lower()
    current = asking.secret("Current password") if is_own else None
    body = people.NewPassword(password=_new_password(), current=current)
    _show(invocation, client.ask("PUT", path_of("users", name or own or "", "password"), answer=nouns.UserAnswer, body=body))
    invocation.out.talk("All sessions of this user have ended." + (" Log in again." if is_own else ""))


@user.command(prints=(nouns.OfferedTotp, nouns.UserAnswer))
@click.argument("name", callback=values.named)
@click.argument("what", type=click.Choice(["enable", "disable"]))
@pass_invocation
def totp(invocation: Invocation, *, name: str, what: str) -> None:
    """Let a user need a code of an authenticator app besides the password, or end that.

    The secret is shown once, and counts when a code of it was typed (or is the next line of standard input).
    """
    client = invocation.client()
    if what == "disable":
        _show(invocation, client.ask("DELETE", path_of("users", name, "totp"), answer=nouns.UserAnswer))
        return
    offer = client.ask("POST", path_of("users", name, "totp"), answer=nouns.OfferedTotp, body=bodies.Nothing())
    invocation.out.data(offer, offer.uri)
    invocation.out.talk(f"Give that to the authenticator app, or type: {offer.secret}. It is not shown again.")
    code = asking.secret("Code that it shows")
    if not code:
        raise InputError("code: none was given, so the second factor does not count", hint=f"replicad user totp {name} enable")
    confirmed = client.ask("PUT", path_of("users", name, "totp"), answer=nouns.UserAnswer, body=people.TotpCode(code=code))
    invocation.out.talk(_facts(confirmed.user))


def _new_password() -> str:
    password = asking.secret("New password", twice=True)
    if not password:
        raise InputError("password: none was given")
    return password


def _change(invocation: Invocation, name: str, body: people.UserChange) -> None:
    _show(invocation, invocation.client().ask("PATCH", path_of("users", name), answer=nouns.UserAnswer, body=body))


def _show(invocation: Invocation, answer: nouns.UserAnswer, *, before: str = "") -> None:
    invocation.out.data(answer, before + _facts(answer.user))


def _facts(one: nouns.User) -> str:
    more = [*([] if one.enabled else ["disabled"]), *(["needs a code"] if one.totp else [])]
    return output.clean(", ".join([f"{one.name}: {one.role}", limits(one.shares, one.path), *more]))
