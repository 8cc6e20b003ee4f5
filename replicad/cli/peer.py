"""peer: who belongs to the network."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from replicad.cli import output, values
from replicad.cli.client import Client, path_of
from replicad.cli.invocation import YES, Invocation, Verbs, pass_invocation
from replicad.cli.output import Output, clean, moment, since, size
from replicad.cli.rights import rights_of, wishes
from replicad.errors import InputError, UnreachableError
from replicad.model.ids import NodeId
from replicad.model.limits import show_rate
from replicad.model.records import Role
from replicad.model.words import plural
from replicad.server.admin import bodies, nouns

TOKEN_CHARS_MAX = 8192
KEY_CHARS_MAX = 256

NODE = click.argument("node", metavar="NODE", callback=values.named)
NETWORK_KEY = click.option(
    "--network-key",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE|-",
    help="Sign with the network's exported key (\"-\" reads it from standard input) instead of this node's: it replaces a lost or stolen admin.",
)


def _key_text(invocation: Invocation, file: Path | None) -> str | None:
    """The network's key as the daemon is told it, over the Unix socket only."""
    if file is None:
        return None
    if invocation.is_remote:
        raise click.UsageError("--network-key works on the node itself, not with --url or after a login: the key must not travel")
    if str(file) == "-":
        return sys.stdin.read(KEY_CHARS_MAX)
    from replicad.crypto.keys import SigningKey  # noqa: PLC0415 - brings libsodium

    SigningKey.load(file)
    return file.read_text("ascii")


@click.group(cls=Verbs)
def peer() -> None:
    """Invite, admit, examine and remove nodes."""


@peer.command(prints=nouns.Invited)
@rights_of("none: all")
@click.option("--expires", callback=values.duration, default="24h", show_default=True, metavar="DURATION", help="How long the token is good, at most 24h.")
@click.option("--replace", metavar="NODE", help='Not a new node but a new key for this member: it runs "replicad key rotate TOKEN".')
@pass_invocation
def invite(invocation: Invocation, /, *, expires: float, replace: str | None, **rights: Any) -> None:
    """Make a token that admits one node, as a mirror unless told otherwise; it is the last line of the output."""
    body = bodies.Invite(expires_s=int(expires), replaces=replace, **wishes(**rights))
    answer = invocation.client().ask("POST", path_of("invites"), answer=nouns.Invited, body=body)
    run = "on the new node, before {}:  replicad peer add TOKEN   (one node, once)" if replace is None else "there, before {}:  replicad key rotate TOKEN"
    invocation.out.talk(f"Run {run.format(moment(answer.expires))}")
    invocation.out.data(answer, answer.token)


@peer.command(prints=nouns.Joined)
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
            ("linked" if one.linked else f"OFFLINE {since(one.since) if one.since else ''}".rstrip()) + (" PAUSED" if one.paused else ""),
            _lag(one),
        ]
        for one in answer.peers
    ]
    text = output.table(["NAME", "ID", "ROLE", "SITE", "SHARES", "STATE", "LAG"], rows)
    if answer.pending:
        waiting = [[one.name, one.id, moment(one.asked), one.words] for one in answer.pending]
        text += "\n\n" + output.table(["WAITS FOR APPROVAL", "ID", "ASKED", "WORDS"], waiting)
    return text


@peer.command(name="list", prints=nouns.Peers)
@pass_invocation
def list_(invocation: Invocation) -> None:
    """List the other members, and who waits for approval."""
    answer = invocation.client().whole(path_of("members"), answer=nouns.Peers, items="peers")
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
        ("paths", _names(one.paths)),
        ("networks", ",".join(one.networks) or "-"),
        ("until", "without end" if one.until is None else moment(one.until)),
        ("state", f"{state} {since(one.since) if one.since else ''}".rstrip()),
        ("limit", f"{show_rate(one.limit_bytes_s)}{'   PAUSED' if one.paused else ''}"),
        ("delay", "-" if one.rtt_ms is None else f"{one.rtt_ms:.1f} ms"),
        ("holds", "not known" if one.percent is None else f"{one.percent} %"),
        ("lag", _lag(one)),
        ("address", " ".join(answer.urls) or "none known"),
        ("door", reachable),
    ]
    lines = [f"{name:<8} {clean(value)}" for name, value in facts]
    lines += [
        f"forked   {fork.share or 'the network'}, place {fork.seq}: signed {' and '.join(record[:12] for record in fork.records)}" for fork in answer.forks
    ]
    lines += [f"blamed   {moment(blame.when)} {clean(blame.offence)}: {clean(blame.detail)}" for blame in answer.blames]
    return "\n".join(lines)


@peer.command(prints=nouns.PeerDetail)
@NODE
@pass_invocation
def show(invocation: Invocation, *, node: str) -> None:
    """Show one member: its rights, its link, how far it is, and what it is blamed for."""
    answer = invocation.client().ask("GET", path_of("members", node), answer=nouns.PeerDetail)
    invocation.out.data(answer, render_detail(answer))


@peer.command(name="set", prints=nouns.Changed)
@NODE
@rights_of("'*': all")
@NETWORK_KEY
@pass_invocation
def set_(invocation: Invocation, /, *, node: str, network_key: Path | None, **rights: Any) -> None:
    """Change what a member may do and what it gets. What is not named stays."""
    changes = wishes(**rights)
    if not changes:
        raise click.UsageError("nothing to change: give --role, --share, --stage, --path, --network, --site or --life")
    body = bodies.MemberChange(network_key=_key_text(invocation, network_key), **changes)
    answer = invocation.client().ask("PATCH", path_of("members", node), answer=nouns.Changed, body=body)
    invocation.out.data(answer, f"changed {clean(answer.name)} ({answer.id})")


@peer.command(prints=nouns.Changed)
@NODE
@rights_of("none: all")
@NETWORK_KEY
@pass_invocation
def approve(invocation: Invocation, /, *, node: str, network_key: Path | None, **rights: Any) -> None:
    """Admit a node that asked to join, as a mirror unless told otherwise (see "peer list"; compare the words with the other side first)."""
    body = bodies.MemberChange(network_key=_key_text(invocation, network_key), **wishes(**rights))
    answer = invocation.client().ask("POST", path_of("members", node, "approve"), answer=nouns.Changed, body=body)
    invocation.out.data(answer, f"admitted {clean(answer.name)} ({answer.id})")


@peer.command(prints=nouns.Changed)
@NODE
@click.option("--dry-run", is_flag=True, help="Only say who would be removed.")
@YES
@pass_invocation
def remove(invocation: Invocation, *, node: str, dry_run: bool, yes: bool) -> None:
    """Let a member leave in good standing: everything it has published goes on counting."""
    client, out = invocation.client(), invocation.out
    found = client.ask("GET", path_of("members", node), answer=nouns.PeerDetail).peer
    what = f"{clean(found.name)} ({found.id}{_if_itself(client, found.id)})"
    if dry_run:
        out.data(nouns.Changed(id=found.id, name=found.name), f"would remove {what}")
        return
    out.confirm(f"Remove {what} from the network?", yes=yes)
    answer = client.ask("DELETE", path_of("members", found.id), answer=nouns.Changed)
    out.data(answer, f"removed {what}")


def _if_itself(client: Client, node: str) -> str:
    """What people should know if it is the node that they ask which leaves."""
    if client.ask("GET", path_of("node"), answer=nouns.NodeAnswer).node.id != node:
        return ""
    others = client.whole(path_of("members"), answer=nouns.Peers, items="peers").peers
    admins = sorted(clean(one.name) for one in others if one.role == Role.ADMIN)
    return f"; this node itself; admins that remain: {', '.join(admins) or 'none, so it is refused'}"


@peer.command(prints=nouns.Revoked)
@NODE
@click.option("--from", "since", callback=values.moment, metavar="TIME", help="When the key was stolen, as 2026-11-12T14:03 or with a zone [now].")
@click.option("--dry-run", is_flag=True, help="Only say what would become void.")
@YES
@NETWORK_KEY
@pass_invocation
def revoke(invocation: Invocation, *, node: str, since: datetime | None, dry_run: bool, yes: bool, network_key: Path | None) -> None:
    """A node's key is stolen: end its membership, and take the effect from everything that the key signed from TIME on."""
    client, out = invocation.client(), invocation.out
    body = bodies.Revoke(since=since, dry_run=True, network_key=_key_text(invocation, network_key))
    found = client.ask("POST", path_of("members", node, "revoke"), answer=nouns.Revoked, body=body)
    what = f"{plural(found.records, 'record')} of it void, {plural(found.names, 'name')} among them"
    if dry_run:
        out.data(found, f"would revoke {clean(found.name)} ({found.id}): {what}")
        return
    out.confirm(f"Revoke {clean(found.name)} ({found.id})? That makes {what}.", yes=yes)
    answer = client.ask("POST", path_of("members", found.id, "revoke"), answer=nouns.Revoked, body=msgspec.structs.replace(body, dry_run=False))
    out.data(answer, f"revoked {clean(answer.name)} ({answer.id}): {what}")


@peer.command(prints=nouns.Checked)
@NODE
@pass_invocation
def check(invocation: Invocation, *, node: str) -> int:
    """Try to reach a member step by step; exits 5 if a step fails."""
    answer = invocation.client().ask("POST", path_of("members", node, "check"), answer=nouns.Checked, timeout_s=120.0)
    words = {True: "ok", False: "FAILED", None: "-"}
    invocation.out.data(answer, "\n".join(f"{words[step.ok]:<8} {clean(step.step)}: {clean(step.detail)}" for step in answer.steps))
    return 0 if answer.ok else UnreachableError.exit_code


@peer.command(prints=nouns.Changed)
@NODE
@click.argument("rate", metavar="RATE|none", nargs=-1, required=True)
@pass_invocation
def limit(invocation: Invocation, *, node: str, rate: tuple[str, ...]) -> None:
    """Limit what this node exchanges with a member, in each direction: a RATE like 5 MB/s, or "none". Kept over a restart."""
    answer = invocation.client().ask("PUT", path_of("members", node, "limit"), answer=nouns.Changed, body=bodies.PeerLimit(" ".join(rate)))
    invocation.out.data(answer, f"limited {clean(answer.name)} ({answer.id}): {' '.join(rate)}")


@peer.command(prints=nouns.Changed)
@NODE
@pass_invocation
def pause(invocation: Invocation, *, node: str) -> None:
    """Exchange no content with a member, in neither direction, until "resume"; everything else goes on. Kept over a restart."""
    answer = invocation.client().ask("POST", path_of("members", node, "pause"), answer=nouns.Changed)
    invocation.out.data(answer, f"paused {clean(answer.name)} ({answer.id})")


@peer.command(prints=nouns.Changed)
@NODE
@pass_invocation
def resume(invocation: Invocation, *, node: str) -> None:
    """Exchange content with a paused member again."""
    answer = invocation.client().ask("POST", path_of("members", node, "resume"), answer=nouns.Changed)
    invocation.out.data(answer, f"resumed {clean(answer.name)} ({answer.id})")
