"""share: the trees of files that the network replicates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click
from msgspec import UNSET

from replicad.cli import output, values
from replicad.cli.client import Client, path_of
from replicad.cli.invocation import YES, Invocation, Verbs, pass_invocation
from replicad.cli.output import clean, moment
from replicad.errors import InputError, NotFoundError
from replicad.model.callers import PASSWORD_CHARS_MAX
from replicad.model.checksums import ALGORITHMS
from replicad.model.words import plural
from replicad.server.admin import bodies, nouns

ANYWHERE, NONE = "any", "none"
REDIRECT = "Send clients of this network ('any': of every other) for a file to: the nearest node ('nearest'), a cache or CDN (its base URL), nobody ('here'). Repeatable; 'none': no more."


def only_share(client: Client, named: str | None) -> str:
    """The share that is meant: the named one, else the only one there is; with several the error lists them."""
    if named is not None:
        return named
    names = [one.name for one in client.whole(path_of("shares"), answer=nouns.Shares, items="shares").shares]
    if not names:
        raise NotFoundError("there is no share yet", hint="replicad share create NAME")
    if len(names) > 1:
        raise InputError(f"which share? there are several: {', '.join(names)}", hint=f"name one: --share {names[0]}")
    return names[0]


@click.group(cls=Verbs)
def share() -> None:
    """Create and change shares."""


def _facts(one: nouns.Share) -> str:
    kind = "".join(
        [
            f", {one.layout} repository{f' in {one.root}' if one.root else ''}" if one.layout else "",
            ", immutable" if one.immutable else "",
            f", checksums {', '.join(one.checksums)}" if one.checksums else "",
        ]
    )
    lines = [f"{one.name}: {_access(one)}{kind}, stages {' < '.join(one.stages)}, created {moment(one.created)}"]
    lines += [f"networks  {', '.join(one.networks)}" if one.networks else "", f"users     {', '.join(one.users)}" if one.users else ""]
    lines += [f"token     {token.name}{f', {_until(token.expires)}' if token.expires else ''}" for token in one.tokens]
    lines.append("prestage  tokens signed by a Jamf Pro server" if one.prestage else "")
    lines += [f"redirect  {network} to {target}" for network, target in one.redirects.items()]
    return "\n".join(clean(line) for line in lines if line)


def _until(expires: str) -> str:
    return f"until {moment(expires)}{' (expired)' if datetime.fromisoformat(expires) <= datetime.now(UTC) else ''}"


def _access(one: nouns.Share) -> str:
    return "public" if one.public else "private"


LAYOUT = click.Choice(["plain", "munki"])


ROOT = click.option("--root", metavar="PATH", help="The directory of the share where that repository begins ['/': the share itself].")
CHECKSUMS = f"What every node computes of the files besides SHA-256: some of {','.join(ALGORITHMS)}, or none."


def _layout(given: str) -> Literal["", "munki"]:
    return "munki" if given == "munki" else ""


@share.command(prints=nouns.ShareAnswer)
@click.argument("name", callback=values.named)
@click.option("--public/--private", default=False, help="Whether anybody may download from it [private: nobody without a password, token or signed URL].")
@click.option(
    "--immutable",
    is_flag=True,
    help="A published file can never be replaced, only removed; then its name may get a new first version. Cannot be changed later.",
)
@click.option("--stages", metavar="LIST", help="From lowest to highest, for example dev,test,prod (the default). Publishing means the last one.")
@click.option("--layout", type=LAYOUT, default="plain", help="munki: a Munki repository; its catalogs are shown when all that they name is here.")
@ROOT
@click.option("--checksums", metavar="LIST", default=NONE, help=CHECKSUMS)
@pass_invocation
def create(invocation: Invocation, /, *, name: str, public: bool, immutable: bool, stages: str | None, **tree: Any) -> None:
    """Create a share."""
    body = bodies.NewShare(
        name=name,
        public=public,
        immutable=immutable,
        stages=_split(stages) if stages is not None else None,
        layout=_layout(tree["layout"]),
        root=tree["root"] or "",
        checksums=_algorithms(tree["checksums"]),
    )
    answer = invocation.client().ask("POST", path_of("shares"), answer=nouns.ShareAnswer, body=body)
    if not public:
        invocation.out.talk(
            f"It is private: clients get nothing. To let everybody download: replicad share set {name} --public; some: --user, or replicad share token create"
        )
    invocation.out.data(answer, _facts(answer.share))


@share.command(name="list", prints=nouns.Shares)
@pass_invocation
def list_(invocation: Invocation) -> None:
    """List the shares."""
    answer = invocation.client().whole(path_of("shares"), answer=nouns.Shares, items="shares")
    rows = [[one.name, _access(one), "yes" if one.immutable else "no", " < ".join(one.stages), moment(one.created)] for one in answer.shares]
    invocation.out.data(answer, output.table(["NAME", "ACCESS", "IMMUTABLE", "STAGES", "CREATED"], rows))


@share.command(prints=nouns.ShareAnswer)
@click.argument("name", metavar="SHARE", callback=values.named)
@pass_invocation
def show(invocation: Invocation, *, name: str) -> None:
    """Show one share."""
    answer = invocation.client().ask("GET", path_of("shares", name), answer=nouns.ShareAnswer)
    invocation.out.data(answer, _facts(answer.share))


@share.command(name="set", prints=nouns.ShareAnswer)
@click.argument("name", metavar="SHARE", callback=values.named)
@click.option("--public/--private", default=None, help="Whether anybody may download from it.")
@click.option("--stages", metavar="LIST", help="From lowest to highest. A stage that still has files cannot be left out.")
@click.option("--layout", type=LAYOUT, help="munki: a Munki repository; its catalogs are shown when all that they name is here.")
@ROOT
@click.option("--checksums", metavar="LIST", help=CHECKSUMS)
@click.option("--user", metavar="NAME", help="Let a user download with a password (HTTP Basic); changes the password of one that exists.")
@click.option("--password-file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE|-", help="The first line is the password of --user.")
@click.option("--no-user", "gone", multiple=True, metavar="NAME", help="Let that user download no more (repeatable).")
@click.option("--allow", "networks", multiple=True, metavar="CIDR", help="Serve clients of these networks only, public or not (repeatable; 'any': everywhere).")
@click.option("--prestage-key", metavar="FILE", help="Let PreStage tokens of a Jamf Pro server in: its public key (PEM; 'none': no more).")
@click.option("--redirect", "redirects", multiple=True, metavar="CIDR=TARGET", help=REDIRECT)
@pass_invocation
def set_(invocation: Invocation, /, *, name: str, user: str | None, password_file: Path | None, gone: Sequence[str], **wishes: Any) -> None:
    """Change a share on all nodes. What is not named stays."""
    body = _change(_passwords(user, password_file, gone), **wishes)
    if body == bodies.ShareChange():
        raise click.UsageError(
            "nothing to change: give --public, --private, --stages, --layout, --root, --checksums, --user, --no-user, --allow, --prestage-key or --redirect"
        )
    answer = invocation.client().ask("PATCH", path_of("shares", name), answer=nouns.ShareAnswer, body=body)
    if body.redirects and answer.share.layout:
        invocation.out.talk("Munki follows no redirects unless the Macs' FollowHTTPRedirects says so: others get nothing from this share")
    invocation.out.data(answer, _facts(answer.share))


@share.command(prints=nouns.RemovedShare)
@click.argument("name", metavar="SHARE", callback=values.named)
@click.option("--dry-run", is_flag=True, help="Only say how many files would go with it.")
@click.option("--expect", type=click.IntRange(min=0), metavar="N", help="Refuse unless it has exactly so many files; needed if it has any.")
@YES
@pass_invocation
def remove(invocation: Invocation, *, name: str, dry_run: bool, expect: int | None, yes: bool) -> None:
    """End a share on all nodes, and with it whatever it has: clients get 404."""
    client, out = invocation.client(), invocation.out

    def ask(expect: int | None, *, preview: bool) -> nouns.RemovedShare:
        return client.ask("DELETE", path_of("shares", name), answer=nouns.RemovedShare, query={"dry_run": preview, "expect": expect})

    seen = ask(expect, preview=True)
    if not dry_run:
        asks = out.asks and not yes
        out.confirm(f"Remove {clean(seen.share)} and {plural(seen.names, 'file')} of it from all nodes?", yes=yes)
        seen = ask(seen.names if asks else expect, preview=False)
    out.data(seen, f"{'would remove' if dry_run else 'removed'}  {clean(seen.share)}  {plural(seen.names, 'file')}")


def _passwords(user: str | None, password_file: Path | None, gone: Sequence[str]) -> dict[str, str | None]:
    """By user; None: download no more."""
    if (user is None) != (password_file is None):
        raise click.UsageError('--user and --password-file belong together; "--password-file -" reads the password from standard input')
    passwords: dict[str, str | None] = dict.fromkeys(gone)
    if user is not None and password_file is not None:
        passwords[user] = _password(password_file)
    return passwords


def _change(
    passwords: dict[str, str | None],
    *,
    stages: str | None,
    layout: str | None,
    checksums: str | None,
    networks: Sequence[str],
    prestage_key: str | None,
    redirects: Sequence[str],
    **as_said: Any,
) -> bodies.ShareChange:
    return bodies.ShareChange(
        stages=UNSET if stages is None else _split(stages),
        layout=UNSET if layout is None else _layout(layout),
        checksums=UNSET if checksums is None else _algorithms(checksums),
        passwords=passwords,
        networks=[network for network in networks if network != ANYWHERE] if networks else UNSET,
        prestage_key=UNSET if prestage_key is None else "" if prestage_key == NONE else values.text_of(Path(prestage_key)),
        redirects=_redirects(redirects) if redirects else UNSET,
        **{name: value for name, value in as_said.items() if value is not None},
    )


def _redirects(given: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=")[::2] for text in given if text != NONE]
    if len(dict(pairs)) < len(pairs):
        raise InputError("--redirect: one network twice")
    return dict(pairs)


def _password(file: Path) -> str:
    password = values.first_line(file)
    if not 1 <= len(password) <= PASSWORD_CHARS_MAX:
        raise InputError(f"--password-file: a password of 1 to {PASSWORD_CHARS_MAX} characters expected in the first line")
    return password


@share.group(cls=Verbs)
def token() -> None:
    """Tokens with which programs download from a share."""


@token.command(name="create", prints=nouns.MadeShareToken)
@click.argument("share_name", metavar="SHARE", callback=values.named)
@click.argument("name", callback=values.named)
@click.option("--expires", callback=values.duration, metavar="DURATION", help="How long it is good [until it is revoked].")
@pass_invocation
def create_token(invocation: Invocation, *, share_name: str, name: str, expires: float | None) -> None:
    """Make a token for "Authorization: Bearer". It is the output, and kept nowhere."""
    body = bodies.NewShareToken(name=name, expires_s=None if expires is None else int(expires))
    answer = invocation.client().ask("POST", path_of("shares", share_name, "tokens"), answer=nouns.MadeShareToken, body=body)
    invocation.out.data(answer, answer.token)


@token.command(name="revoke", prints=nouns.ShareAnswer)
@click.argument("share_name", metavar="SHARE", callback=values.named)
@click.argument("name", callback=values.named)
@pass_invocation
def revoke_token(invocation: Invocation, *, share_name: str, name: str) -> None:
    """Let nobody in any more who has that token."""
    answer = invocation.client().ask("DELETE", path_of("shares", share_name, "tokens", name), answer=nouns.ShareAnswer)
    invocation.out.data(answer, _facts(answer.share))


@click.group(cls=Verbs)
def url() -> None:
    """Addresses that let whoever has them download one file."""


@url.command(prints=nouns.SignedUrl)
@click.argument("name", metavar=values.IN_SHARE_METAVAR, callback=values.in_share)
@click.option("--expires", callback=values.duration, default="24h", show_default=True, metavar="DURATION", help="How long it is good.")
@pass_invocation
def sign(invocation: Invocation, *, name: tuple[str, str], expires: float) -> None:
    """Print a URL that every node honours until it expires, or until this node leaves the network."""
    body = bodies.SignUrl(path=name[1], expires_s=int(expires))
    answer = invocation.client().ask("POST", path_of("shares", name[0], "urls"), answer=nouns.SignedUrl, body=body)
    invocation.out.data(answer, answer.url)


def _algorithms(given: str) -> list[Any]:
    """The daemon says which there are."""
    return [] if given == NONE else _split(given)


def _split(given: str) -> list[str]:
    return [one.strip() for one in given.split(",")]
