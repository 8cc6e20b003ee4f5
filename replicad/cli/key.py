"""key: the network's key and this node's. Showing and exporting work on the key files, so they need their owner's rights and no daemon."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
from msgspec import Struct

from replicad.cli.client import Client, path_of
from replicad.cli.invocation import YES, Invocation, Verbs, pass_invocation
from replicad.crypto.keys import SigningKey
from replicad.errors import ConfigurationError, NotAllowedError, NotFoundError, ReplicadError, UnreachableError
from replicad.server.admin import bodies, nouns

TOKEN_CHARS_MAX = 8192
ROTATE_S = 120.0
RESTART_S = 30.0
LOOK_S = 0.1


class Keys(Struct, frozen=True):
    """What ``key show --json`` prints. ``network`` is null when the network's key does not lie on this node (anymore)."""

    node: str
    node_file: str
    network: str | None
    network_file: str | None


class Exported(Struct, frozen=True):
    """What ``key export --json`` prints. ``moved``: the key does not lie on this node any more."""

    file: str
    network: str
    moved: bool


@click.group(cls=Verbs)
def key() -> None:
    """The network's key and this node's."""


@key.command(prints=Keys)
@pass_invocation
def show(invocation: Invocation) -> None:
    """Show the ids of the keys that lie on this node (never the secrets)."""
    config = invocation.config()
    node = SigningKey.load(config.node_key).id
    network = SigningKey.load(config.network_key).id if config.network_key.exists() else None
    answer = Keys(str(node), str(config.node_key), str(network) if network else None, str(config.network_key) if network else None)
    second = (
        f"network  {network}  {config.network_key}   (move it to a safe place: replicad key export --move FILE)"
        if network
        else "network  its key is not on this node"
    )
    invocation.out.data(answer, f"node     {node}  {config.node_key}\n{second}")


@key.command(prints=Exported)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--move", is_flag=True, help="Then remove it from this node, where a thief of the node would find it.")
@YES
@pass_invocation
def export(invocation: Invocation, *, file: Path, move: bool, yes: bool) -> None:
    """Write the network's key to FILE (which must not exist; mode 0600). Keep it offline: it replaces a lost or stolen first admin."""
    place = invocation.config().network_key
    if not place.exists():
        raise NotFoundError("the network's key is not on this node", hint="it lies where the network was founded, or wherever it was exported to")
    found = SigningKey.load(place)
    try:
        found.save(file)
    except ConfigurationError as error:  # the file is the caller's, not the node's
        kind = NotAllowedError if isinstance(error.__cause__, PermissionError) else ReplicadError
        raise kind(error.message, code="unwritable") from error
    if SigningKey.load(file).id != found.id:
        raise ReplicadError(f"{file} does not hold what was written to it; the key is still on this node")
    if move:
        invocation.out.confirm(f"The key is in {file} now. Remove it from this node?", yes=yes)
        place.unlink()
    else:
        invocation.out.talk(f"It still lies on this node as well; once {file} is safe elsewhere: rm {place}")
    invocation.out.data(Exported(str(file), str(found.id), move), f"exported the key of network {found.id} to {file}")


@key.command(prints=nouns.Rotated)
@click.argument("token", metavar="[TOKEN|-]", required=False)
@pass_invocation
def rotate(invocation: Invocation, *, token: str | None) -> None:
    """Give this node a new key; the old one is ended everywhere, what it has said counts. An admin's node does it by itself, others with a token of "peer invite --replace" ("-": from standard input)."""
    if token == "-":  # noqa: S105 - no password
        token = sys.stdin.read(TOKEN_CHARS_MAX + 1).strip()
    client = invocation.client()
    answer = client.ask("POST", path_of("node", "rotate"), answer=nouns.Rotated, body=bodies.Rotate(token or None), timeout_s=ROTATE_S)
    _wait_for(client, answer.id)
    invocation.out.data(answer, f"this node is {answer.id} now; {answer.former} has ended")


def _wait_for(client: Client, node: str) -> None:
    """Until the daemon answers under its new key."""
    end_s = time.monotonic() + RESTART_S
    while True:
        try:
            if client.ask("GET", path_of("node"), answer=nouns.NodeAnswer).node.id == node:
                return
            trouble = UnreachableError("the key is replaced, but the daemon still runs with the former", hint="restart it")
        except UnreachableError as error:
            trouble = error
        if time.monotonic() > end_s:
            raise trouble
        time.sleep(LOOK_S)
