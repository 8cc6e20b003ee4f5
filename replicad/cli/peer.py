"""peer: who belongs to the network."""

from __future__ import annotations

import sys

import click
import msgspec

from replicad.cli import output, values
from replicad.cli.client import Client, path_of
from replicad.cli.invocation import Invocation, Verbs, pass_invocation
from replicad.cli.output import Output, clean, moment, plural, since, size
from replicad.errors import InputError, UnreachableError
from replicad.model.ids import NodeId
from replicad.model.records import Role
from replicad.server.admin import bodies, nouns

ROLES = click.Choice([role.value for role in Role])
TOKEN_CHARS_MAX = 8192


@click.group(cls=Verbs)
def peer() -> None:
    """Invite, admit, examine and remove nodes."""


@peer.command()
@click.option("--role", type=ROLES, default="mirror", show_default=True, help="What the node may do; each includes the ones before it.")
@click.option("--share", "shares", multiple=True, metavar="SHARE", help="A share it gets (repeatable; none: all).")
@click.option("--site", default="", metavar="SITE", help="Where it stands; links inside a site are cheap.")
@click.option("--stage", "stages", multiple=True, metavar="STAGE", help="A stage it carries (repeatable; none: all).")
@click.option("--expires", callback=values.duration, default="24h", show_default=True, metavar="DURATION", help="How long the token is good, at most 24h.")
@pass_invocation
def invite(invocation: Invocation, *, role: str, shares: tuple[str, ...], site: str, stages: tuple[str, ...], expires: float) -> None:
    """Make a token that admits one node; it is the last line of the output."""
    body = bodies.Invite(role=Role(role), shares=list(shares) or None, stages=list(stages) or None, site=site, expires_s=int(expires))
    answer = invocation.client().ask("POST", path_of("invites"), answer=nouns.Invited, body=body)
    invocation.out.talk(f"Run on the new node, before {moment(answer.expires)}:  replicad peer add TOKEN   (one node, once)")
    invocation.out.data(answer, answer.token)


@peer.command()
@click.argument("ticket", metavar="TOKEN|-|URL")
@click.option("--key", metavar="NODE_ID", help="With a URL: the id of the node that must answer there.")
@click.option("--merge", is_flag=True, help="This node has published files of its own: bring them along.")
@pass_invocation
def add(invocation: Invocation, *, ticket: str, key: str | None, merge: bool) -> None:
    """Join the network that the token is of ("-" reads it from standard input), or ask a member at URL to be admitted. Returns when grants, shares and catalog are synchronised."""
    is_url = ticket.startswith(("http://", "https://"))
    if is_url != (key is not None):
        raise click.UsageError("a URL needs --key NODE_ID (replicad id on that node prints it), a token must not have it")
    if is_url and merge:
        raise click.UsageError("--merge goes with a token")
    if ticket == "-":
        ticket = sys.stdin.read(TOKEN_CHARS_MAX + 1).strip()
        if not ticket:
            raise InputError("no token on standard input")
    client, out = invocation.client(), invocation.out
    if key is not None:
        _tell_words(client, out, key)
    body = bodies.Join(url=ticket, key=key) if is_url else bodies.Join(token=ticket, merge=merge)
    while (answer := client.ask("POST", path_of("members", "join"), answer=nouns.Joined, body=body, timeout_s=None)).state == "pending":
        out.detail("still waiting for approval")
    out.data(answer, f"joined network {answer.network}")


def _tell_words(client: Client, out: Output, key: str) -> None:
    """Without a token people must make sure that they mean the same two nodes."""
    from replicad.protocol.joining import words  # noqa: PLC0415 - brings libsodium

    own = client.ask("GET", path_of("node"), answer=nouns.NodeAnswer).node.id
    out.talk(f"An admin must approve it there; both sides see these words: {words(NodeId.parse(own), NodeId.parse(key))}")
    out.talk("There: replicad peer list; replicad peer approve NODE   (Ctrl-C here does not withdraw the request)")


def _lag(one: nouns.Peer) -> str:
    if one.lag is None:
        return "?"
    return f"{plural(one.lag.files, 'file')}, {size(one.lag.bytes)}" if one.lag.files else "none"


def _names(names: list[str] | None) -> str:
    return "all" if names is None else ",".join(names)


def render_peers(answer: nouns.Peers) -> str:
    """The picture of ``replicad peer list``."""
    rows = [
        [
            one.name,
            one.id[:9],
            one.role,
            one.site,
            _names(one.shares),
            "linked" if one.linked else f"OFFLINE {since(one.since) if one.since else ''}".rstrip(),
            _lag(one),
        ]
        for one in answer.peers
    ]
    text = output.table(["NAME", "ID", "ROLE", "SITE", "SHARES", "STATE", "LAG"], rows)
    if answer.pending:
        waiting = [[one.name, one.id, moment(one.asked), one.words] for one in answer.pending]
        text += "\n\n" + output.table(["WAITS FOR APPROVAL", "ID", "ASKED", "WORDS"], waiting)
    return text


@peer.command(name="list")
@pass_invocation
def list_(invocation: Invocation) -> None:
    """List the other members, and who waits for approval."""
    answer = invocation.client().ask("GET", path_of("members"), answer=nouns.Peers)
    invocation.out.data(answer, render_peers(answer))


def render_detail(answer: nouns.PeerDetail) -> str:
    """The picture of ``replicad peer show``."""
    one = answer.peer
    state = "linked" if one.linked else "OFFLINE"
    reachable = {True: "answers", False: "does not answer us", None: "not known"}[answer.reachable]
    facts = [
        ("name", one.name),
        ("id", one.id),
        ("role", f"{one.role}, admitted {moment(answer.admitted)} by {answer.admitted_by_name or answer.admitted_by[:9]}"),
        ("site", one.site or "-"),
        ("shares", _names(one.shares)),
        ("stages", _names(one.stages)),
        ("state", f"{state} {since(one.since) if one.since else ''}".rstrip()),
        ("delay", "-" if one.rtt_ms is None else f"{one.rtt_ms:.1f} ms"),
        ("holds", "not known" if one.percent is None else f"{one.percent} %"),
        ("lag", _lag(one)),
        ("address", " ".join(answer.urls) or "none known"),
        ("door", reachable),
    ]
    lines = [f"{name:<8} {clean(value)}" for name, value in facts]
    lines += [f"blamed   {moment(blame.when)} {clean(blame.offence)}: {clean(blame.detail)}" for blame in answer.blames]
    return "\n".join(lines)


@peer.command()
@click.argument("node", metavar="NODE")
@pass_invocation
def show(invocation: Invocation, *, node: str) -> None:
    """Show one member: its rights, its link, how far it is, and what it is blamed for."""
    answer = invocation.client().ask("GET", path_of("members", node), answer=nouns.PeerDetail)
    invocation.out.data(answer, render_detail(answer))


@peer.command(name="set")
@click.argument("node", metavar="NODE")
@click.option("--role", type=ROLES, help="Its new role.")
@click.option("--share", "shares", multiple=True, metavar="SHARE", help="Its shares from now on (repeatable; '*': all).")
@click.option("--stage", "stages", multiple=True, metavar="STAGE", help="Its stages from now on (repeatable; '*': all).")
@click.option("--site", metavar="SITE", help="Where it stands.")
@pass_invocation
def set_(invocation: Invocation, *, node: str, role: str | None, shares: tuple[str, ...], stages: tuple[str, ...], site: str | None) -> None:
    """Change what a member may do and what it gets. What is not named stays."""
    if role is None and not shares and not stages and site is None:
        raise click.UsageError("nothing to change: give --role, --share, --stage or --site")
    body = bodies.MemberChange(
        role=msgspec.UNSET if role is None else Role(role),
        shares=_chosen(shares),
        stages=_chosen(stages),
        site=msgspec.UNSET if site is None else site,
    )
    answer = invocation.client().ask("PATCH", path_of("members", node), answer=nouns.Changed, body=body)
    invocation.out.data(answer, f"changed {clean(answer.name)} ({answer.id})")


def _chosen(names: tuple[str, ...]) -> list[str] | msgspec.UnsetType | None:
    if not names:
        return msgspec.UNSET
    return None if "*" in names else list(names)


@peer.command()
@click.argument("node", metavar="NODE")
@click.option("--role", type=ROLES, default="mirror", show_default=True, help="What the node may do.")
@click.option("--share", "shares", multiple=True, metavar="SHARE", help="A share it gets (repeatable; none: all).")
@click.option("--stage", "stages", multiple=True, metavar="STAGE", help="A stage it carries (repeatable; none: all).")
@click.option("--site", default="", metavar="SITE", help="Where it stands.")
@pass_invocation
def approve(invocation: Invocation, *, node: str, role: str, shares: tuple[str, ...], stages: tuple[str, ...], site: str) -> None:
    """Admit a node that asked to join (see "peer list"; compare the words with the other side first)."""
    body = bodies.Approve(role=Role(role), shares=list(shares) or None, stages=list(stages) or None, site=site)
    answer = invocation.client().ask("POST", path_of("members", node, "approve"), answer=nouns.Changed, body=body)
    invocation.out.data(answer, f"admitted {clean(answer.name)} ({answer.id})")


@peer.command()
@click.argument("node", metavar="NODE")
@click.option("--dry-run", is_flag=True, help="Only say who would be removed.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def remove(invocation: Invocation, *, node: str, dry_run: bool, yes: bool) -> None:
    """Let a member leave in good standing: everything it has published goes on counting."""
    client, out = invocation.client(), invocation.out
    found = client.ask("GET", path_of("members", node), answer=nouns.PeerDetail).peer
    if dry_run:
        out.data(nouns.Changed(id=found.id, name=found.name), f"would remove {clean(found.name)} ({found.id})")
        return
    out.confirm(f"Remove {clean(found.name)} ({found.id}) from the network?", yes=yes)
    answer = client.ask("DELETE", path_of("members", found.id), answer=nouns.Changed)
    out.data(answer, f"removed {clean(answer.name)} ({answer.id})")


@peer.command()
@click.argument("node", metavar="NODE")
@pass_invocation
def check(invocation: Invocation, *, node: str) -> int:
    """Try to reach a member step by step; exits 5 if a step fails."""
    answer = invocation.client().ask("POST", path_of("members", node, "check"), answer=nouns.Checked, timeout_s=120.0)
    words = {True: "ok", False: "FAILED", None: "-"}
    invocation.out.data(answer, "\n".join(f"{words[step.ok]:<8} {clean(step.step)}: {clean(step.detail)}" for step in answer.steps))
    return 0 if answer.ok else UnreachableError.exit_code
