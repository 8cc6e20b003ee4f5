"""init: a configuration, keys and a network of one. Nothing that exists is ever overwritten, and nothing is left behind if a step fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import click
from msgspec import Struct

from replicad import config as configuration
from replicad.cli.invocation import Invocation, Verb, pass_invocation
from replicad.errors import ConfigurationError, ConflictError

SYSTEM_DATA = Path("/var/lib/replicad")
TOKEN_BYTES = 32


class Initialised(Struct, frozen=True):
    """What ``init --json`` prints."""

    id: str
    network: str
    config: str
    data: str


@click.command(cls=Verb, prints=Initialised)
@click.option("--name", required=True, metavar="NAME", help="What people call this node.")
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help=f"Where keys, database and files live [{SYSTEM_DATA}; not root: ~/.local/share/replicad]."
)
@click.option("--site", metavar="SITE", help="Where the node stands.")
@click.option("--downloads", metavar="HOST:PORT", help="Where clients download [:8480].")
@click.option("--peers", metavar="HOST:PORT", help="Where other nodes connect [:8440].")
@click.option("--admin", metavar="HOST:PORT", help='Where scripts connect with a token [127.0.0.1:8441; "off": only the Unix socket].')
@click.option("--peers-url", metavar="URL", help="How other nodes reach this one [https:// and --peers].")
@pass_invocation
def init(
    invocation: Invocation,
    *,
    name: str,
    data: Path | None,
    site: str | None,
    downloads: str | None,
    peers: str | None,
    admin: str | None,
    peers_url: str | None,
) -> None:
    """Write the configuration, make this node's key, found a network of one, and print the node's id."""
    file = invocation.new_config
    data = (data or (SYSTEM_DATA if os.geteuid() == 0 else Path.home() / ".local" / "share" / "replicad")).absolute()
    text = configuration.initial(
        {
            "node.name": name,
            "node.data": str(data),
            "node.site": site or "",
            "downloads.listen": downloads or "",
            "peers.listen": peers or "",
            "peers.url": peers_url or "",
            "admin.listen": admin or "",
        }
    )
    with contextlib.ExitStack() as undo:
        write_config(undo, file, text)
        found = configuration.load(file, os.environ)
        _make_data(undo, found.node.data)
        answer = asyncio.run(_found(undo, found))
        write_token(undo, found.admin_token)
        hand_over(found.node.data)
        undo.pop_all()
    invocation.out.talk(f"wrote {file} and {found.node.data}")
    invocation.out.talk("next: replicad serve   (and move the network's key to a safe place: replicad key export --move FILE)")
    invocation.out.data(answer, answer.id)


def write_config(undo: contextlib.ExitStack, file: Path, text: str) -> None:
    """A configuration file that was not there; ConflictError, ConfigurationError."""
    with _explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as out:
            undo.callback(file.unlink)
            out.write(text)


def _make_data(undo: contextlib.ExitStack, data: Path) -> None:
    """The data directory, for its owner alone. One that has a key or a database already belongs to another node."""
    with _explained(data):
        for taken in ("node.key", "network.key", "catalog.sqlite"):
            if (data / taken).exists():
                raise ConflictError(f"{data / taken} exists already: that directory belongs to a node", hint="another one: --data DIR", code="exists")
        if not data.exists():
            undo.callback(shutil.rmtree, data, ignore_errors=True)
            data.mkdir(mode=0o700, parents=True)
        data.chmod(0o700)


async def _found(undo: contextlib.ExitStack, found: configuration.Config) -> Initialised:
    """Both keys, and the catalog with the grant that makes this node the first admin."""
    from replicad.catalog import Catalog  # noqa: PLC0415 - the database and libsodium; few verbs need them
    from replicad.crypto.keys import SigningKey  # noqa: PLC0415
    from replicad.services.membership import found as found_network  # noqa: PLC0415

    node, network = SigningKey.generate(), SigningKey.generate()
    for key, path in ((node, found.node_key), (network, found.network_key)):
        key.save(path)
        undo.callback(path.unlink, missing_ok=True)
    for suffix in ("", "-wal", "-shm", ".lock"):
        undo.callback(found.catalog.with_name(found.catalog.name + suffix).unlink, missing_ok=True)
    async with Catalog.open(
        found.catalog, node=node, clock_ms=lambda: time.time_ns() // 1_000_000, random16=lambda: secrets.randbelow(1 << 16), network=network.id
    ) as catalog:
        await found_network(catalog, network, name=found.node.name, site=found.node.site)
    return Initialised(str(node.id), str(network.id), str(found.path), str(found.node.data))


def write_token(undo: contextlib.ExitStack, path: Path) -> None:
    """A new root token for the admin door."""
    with _explained(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        undo.callback(path.unlink)
        with os.fdopen(handle, "w") as out:
            out.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
            out.flush()
            os.fsync(out.fileno())


def hand_over(data: Path) -> None:
    """Root prepares a directory that belongs to the daemon's user: then what is in it must belong to that user too."""
    owner = data.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in (*data.glob("*"), *data.glob("replaced-*/*")):
            os.chown(path, owner.st_uid, owner.st_gid)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise ConflictError(
            f"{path} exists already; init never overwrites", hint="another place: replicad --config FILE init ... --data DIR", code="exists"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{error.filename or path}: {(error.strerror or str(error)).lower()}") from error
