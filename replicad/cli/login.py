"""login, logout: a person at another machine than the node's."""

from __future__ import annotations

import getpass
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

import click

from replicad.cli import asking, output, remote
from replicad.cli.client import Client, path_of
from replicad.cli.invocation import Invocation, Verb, check_url, pass_invocation
from replicad.cli.output import moment
from replicad.errors import InputError, NotAllowedError, ReplicadError
from replicad.server.admin import nouns, people

CODE_NEEDED = "code-needed"


def _own_name() -> str:
    """Of whoever runs this; empty if this machine has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


@click.command(cls=Verb, prints=nouns.Whoami)
@click.argument("address", metavar="URL")
@click.option("--user", metavar="NAME", default=_own_name, show_default="your login name here", help="Who you are there.")
@click.option(
    "--ca",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Trust the node's certificate by this one (PEM), not by the system's.",
)
@pass_invocation
def login(invocation: Invocation, *, address: str, user: str, ca: Path | None) -> None:
    """Log in at the admin listener of a node: from then on the verbs ask that node, unless --url or --config names another one, until `replicad logout`.

    The password is asked for, or is the first line of standard input; the code of the second factor, if the account has one, is the next.
    """
    url = address.rstrip("/")
    check_url(url, "URL")
    _check_secrecy(url)
    trusted = "" if ca is None else _read(ca)
    client = Client(url=url, ca=trusted)
    answer = _begin(client, user, asking.secret("Password"))
    remote.store(remote.Remote(url, answer.secret or "", trusted))
    who = answer.session
    invocation.out.data(who, output.clean(f"{who.name} at {url}: {who.role}, until {moment(who.expires or '')} or two hours after the last use"))


@click.command(cls=Verb, prints=nouns.Whoami)
@pass_invocation
def logout(invocation: Invocation) -> None:
    """End the session that `replicad login` began."""
    login = remote.load()
    if login is None:
        raise NotAllowedError("nobody is logged in", hint="replicad login URL", code="no-session")
    try:
        who = login.client().ask("DELETE", path_of("sessions", "current"), answer=nouns.Whoami)
    except NotAllowedError:
        remote.forget()
        raise
    remote.forget()
    invocation.out.data(who, output.clean(f"{who.name} is logged out of {login.url}"))


def _begin(client: Client, user: str, password: str) -> nouns.LoggedIn:
    try:
        return _ask(client, user, password, None)
    except ReplicadError as error:
        if error.error_code != CODE_NEEDED or not (code := asking.secret("Code")):
            raise
    return _ask(client, user, password, code)


def _ask(client: Client, user: str, password: str, code: str | None) -> nouns.LoggedIn:
    return client.ask("POST", path_of("sessions"), answer=nouns.LoggedIn, body=people.Login(name=user, password=password, code=code))


def _check_secrecy(url: str) -> None:
    """InputError if the password would cross a network in the clear."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    if parts.scheme != "https" and not is_here:
        raise InputError(
            f"URL {url!r}: the password would cross the network in the clear", hint="use https:// (tls_certificate in [admin]), or a tunnel to 127.0.0.1"
        )


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--ca {file}: not a PEM file that can be read ({getattr(error, 'strerror', None) or 'not ASCII'})") from None
