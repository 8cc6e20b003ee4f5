"""serve, id, version: this node."""

from __future__ import annotations

from typing import Literal

import click
from msgspec import Struct

from replicad import __version__
from replicad.cli.client import path_of
from replicad.cli.invocation import Invocation, Verb, pass_invocation
from replicad.errors import UnreachableError
from replicad.server.admin import nouns


class Identity(Struct, frozen=True):
    """What ``id --json`` prints."""

    id: str


class Version(Struct, frozen=True):
    """What ``version --json`` prints. ``protocol``: the link protocol versions spoken, lowest and highest."""

    version: str
    protocol: tuple[int, int]


@click.command(cls=Verb)
@click.option(
    "--loop",
    type=click.Choice(["auto", "asyncio", "uvloop"]),
    default="auto",
    show_default=True,
    envvar="REPLICAD_LOOP",
    help="The event loop; auto: uvloop where it is installed.",
)
@pass_invocation
def serve(invocation: Invocation, *, loop: Literal["auto", "asyncio", "uvloop"]) -> None:
    """Run the daemon in the foreground."""
    from replicad import assembly, daemon  # noqa: PLC0415 - the whole daemon; no other verb needs it

    config = invocation.config()
    daemon.run(lambda: assembly.build(config), data=config.node.data, loop=loop)


@click.command(cls=Verb, name="id", prints=Identity)
@pass_invocation
def id_(invocation: Invocation) -> None:
    """Print this node's id. Works without the daemon for whoever may read the node's key."""
    try:
        found = invocation.client().ask("GET", path_of("node"), answer=nouns.NodeAnswer).node.id
    except UnreachableError:
        if invocation.is_remote:
            raise
        from replicad.crypto.keys import SigningKey  # noqa: PLC0415 - libsodium is slow to load

        found = str(SigningKey.load(invocation.config().node_key).id)
    invocation.out.data(Identity(found), found)


@click.command(cls=Verb, prints=Version)
@pass_invocation
def version(invocation: Invocation) -> None:
    """Print the program's version and the protocol versions it speaks."""
    from replicad.protocol.wire import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN  # noqa: PLC0415

    spoken = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX)
    text = f"replicad {__version__}, protocol {spoken[0]}" + (f" to {spoken[1]}" if spoken[1] > spoken[0] else "")
    invocation.out.data(Version(__version__, spoken), text)
