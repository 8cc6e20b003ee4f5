"""backup: this node in one file, and a node from such a file. The daemon gives everything but the secrets; these are read from, and written to, their files by whoever may."""

from __future__ import annotations

import contextlib
import getpass
import os
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click
from msgspec import Struct

from replicad.cli import values
from replicad.cli.client import ANSWER_BYTES_MAX, CONNECT_TIMEOUT_S, Client, error_of, path_of, problem_of
from replicad.cli.files import copy_body, new_private, told_of
from replicad.cli.init import hand_over, write_config, write_token
from replicad.cli.invocation import Invocation, Verbs, pass_invocation
from replicad.cli.output import clean, moment, size
from replicad.cli.scan import unreadable
from replicad.crypto.encryption import PASSPHRASE_BYTES_MAX, PASSPHRASE_BYTES_MIN
from replicad.errors import ConfigurationError, DistrustError, InputError, IntegrityError, ReplicadError
from replicad.model.words import plural
from replicad.services.backup import archive as format_
from replicad.services.backup.archive import Archive, Backup

if TYPE_CHECKING:
    from replicad.config import Config
    from replicad.services.backup.restoring import Places

MAKING_S = 600.0
"""The daemon copies and reads a catalog before it answers: 2.5 s of processor time for a GiB (measured), on a slow disk much more."""
PASSPHRASE_VARIABLE = "REPLICAD_PASSPHRASE_FILE"  # noqa: S105 - the name of a variable


class Described(Struct, frozen=True):
    """What ``backup create --json`` and ``backup inspect --json`` print: what the backup is of; whether the node's secrets are inside, and whether they were decrypted; the file and its size in bytes."""

    backup: Backup
    identity: bool
    decrypted: bool
    file: str
    size: int


class Restored(Struct, frozen=True):
    """What ``backup restore --json`` prints. ``replaced``: the directory with what was there before, null if nothing was."""

    backup: Backup
    config: str
    data: str
    replaced: str | None


PASSPHRASE = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE|-",
    envvar=PASSPHRASE_VARIABLE,
    help=f"The passphrase of the identity, in the first line [${PASSPHRASE_VARIABLE}; asked for on a terminal].",
)
FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group(cls=Verbs)
def backup() -> None:
    """This node in one file: catalog and configuration, and, if asked for, its keys. Not the content: that comes back from the other nodes."""


@backup.command(prints=Described)
@FILE
@click.option("--identity", is_flag=True, help="Also this node's keys and root token, encrypted with a passphrase; needs the right to read them.")
@PASSPHRASE
@pass_invocation
def create(invocation: Invocation, *, file: Path, identity: bool, passphrase_file: Path | None) -> None:
    """Write a backup to FILE (which must not exist; mode 0600) while the daemon works."""
    with new_private(file) as out:
        secrets = _secrets(invocation.config()) if identity else {}
        passphrase = _passphrase(invocation, passphrase_file, confirm=True) if identity else ""
        _receive(invocation.client(), out, file)
        if identity:
            _add_identity(out, file, secrets, passphrase)
        answer = _examine(out, file, passphrase)
    invocation.out.data(answer, render(answer))


@backup.command(prints=Described)
@FILE
@PASSPHRASE
@pass_invocation
def inspect(invocation: Invocation, *, file: Path, passphrase_file: Path | None) -> None:
    """Show what FILE is a backup of and verify it; with a passphrase also that it decrypts the identity. Exit 7 if it is damaged."""
    passphrase = _passphrase(invocation, passphrase_file, confirm=False) if passphrase_file is not None else ""
    with _readable(file) as opened:
        answer = _examine(opened, file, passphrase)
    invocation.out.data(answer, render(answer))


@backup.command(prints=Restored)
@FILE
@PASSPHRASE
@click.option("--force", is_flag=True, help="Replace the node in the data directory; what it has is kept aside there.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def restore(invocation: Invocation, *, file: Path, passphrase_file: Path | None, force: bool, yes: bool) -> None:
    """Make the node of a backup anew, on its machine or another one, while no daemon runs there: the configuration if there is none, its catalog, and its keys if they are in FILE; else the data
    directory must have node.key.
    """
    from replicad import config as configuration  # noqa: PLC0415 - few verbs need all of this
    from replicad.daemon import locked  # noqa: PLC0415
    from replicad.services.backup.restoring import restore as put_back  # noqa: PLC0415

    if force:
        invocation.out.confirm("Replace the node in the data directory by the one in the backup?", yes=yes)
    with _readable(file) as opened, contextlib.ExitStack() as undo:
        found = Archive(opened)
        place = _config_place(invocation, undo, found.config)
        config = configuration.load(place, os.environ)
        _make_data(undo, config.node.data)
        with locked(config.node.data):
            replaced = put_back(
                found,
                _places(config),
                passphrase=lambda: _passphrase(invocation, passphrase_file, confirm=False),
                force=force,
                caller=getpass.getuser(),
                now_ms=time.time_ns() // 1_000_000,
            )
            if not config.admin_token.exists():
                write_token(undo, config.admin_token)
            hand_over(config.node.data)
        undo.pop_all()
    invocation.out.talk(
        f"Users, API tokens and the audit log are as of {moment(found.backup.created)}: revoke and disable again what was since. Next: replicad serve"
    )
    answer = Restored(found.backup, str(place), str(config.node.data), str(replaced) if replaced else None)
    kept = f"; what was there before is in {replaced}" if replaced else ""
    invocation.out.data(answer, f"restored {clean(found.backup.name)}, {found.backup.node}, into {config.node.data} (configuration: {place}){kept}")


def render(answer: Described) -> str:
    """The picture of ``replicad backup inspect``."""
    one = answer.backup
    inside = {
        (False, False): "not inside: to restore, the data directory must have node.key",
        (True, False): "inside, encrypted",
        (True, True): "inside, and the passphrase decrypts it",
    }
    facts = {
        "backup": f"{clean(answer.file)}, {size(answer.size)}, whole",
        "created": f"{moment(one.created)} by replicad {clean(one.release)}, schema {one.schema}",
        "node": f"{clean(one.name)}  {clean(one.node)}",
        "network": f"{clean(one.network)}, {plural(one.members, 'member')}",
        "catalog": f"{plural(one.shares, 'share')}, {plural(one.files, 'file')}, {plural(one.records, 'record')}, {size(one.catalog.size)}",
        "local": f"{plural(one.tokens, 'API token')}, {plural(one.actions, 'action')} in the audit log",
        "identity": inside[answer.identity, answer.decrypted],
    }
    return "\n".join(f"{name:<9} {text}" for name, text in facts.items())


# -- making --


def _receive(client: Client, out: IO[bytes], file: Path) -> None:
    with client.wrapped(), contextlib.closing(client.connect(CONNECT_TIMEOUT_S)) as connection:
        connection.connect()
        connection.sock.settimeout(MAKING_S)
        connection.request("GET", client.target(path_of("backup")), headers=client.headers())
        response = connection.getresponse()
        if response.status != HTTPStatus.OK:
            raise error_of(problem_of(response, response.read(ANSWER_BYTES_MAX)))
        copy_body(response, out, file, lambda _count: None)


def _secrets(config: Config) -> dict[str, str]:
    from replicad.services.backup.restoring import read_secrets  # noqa: PLC0415

    try:
        return read_secrets(_places(config))
    except OSError as error:
        raise ReplicadError(f"{error.filename}: cannot be read: {error.strerror}", hint="run it as root, or as the daemon's user", code="unreadable") from None


def _add_identity(out: IO[bytes], file: Path, secrets: dict[str, str], passphrase: str) -> None:
    with told_of(file):
        format_.add_identity(out, secrets, passphrase)


# -- reading --


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[IO[bytes]]:
    """The file of a backup; what is wrong with it names it."""
    try:
        with file.open("rb") as opened:
            yield opened
    except OSError as error:
        raise unreadable(str(file), error) from None
    except DistrustError as error:
        raise type(error)(f"{file}: {error.message}", hint=error.hint, code=error.error_code) from error


def _examine(opened: IO[bytes], file: Path, passphrase: str) -> Described:
    opened.seek(0)
    found = Archive(opened)
    with Path(os.devnull).open("wb") as nothing:
        found.finish(nothing)
    if found.has_identity and passphrase:
        found.identity(passphrase)
    return Described(found.backup, found.has_identity, found.has_identity and bool(passphrase), str(file), opened.tell())


def _passphrase(invocation: Invocation, file: Path | None, *, confirm: bool) -> str:
    if file is not None:
        found = values.first_line(file)
    elif invocation.out.asks:
        found = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    else:
        raise InputError("the identity needs a passphrase", hint=f"--passphrase-file FILE, or ${PASSPHRASE_VARIABLE}")
    if not PASSPHRASE_BYTES_MIN <= len(found.encode()) <= PASSPHRASE_BYTES_MAX:
        raise InputError(f"passphrase: {PASSPHRASE_BYTES_MIN} to {PASSPHRASE_BYTES_MAX} bytes expected")
    return found


# -- the node's places --


def _places(config: Config) -> Places:
    from replicad.services.backup.restoring import Places  # noqa: PLC0415
    from replicad.services.membership import next_key_path  # noqa: PLC0415

    keys = (config.node_key, next_key_path(config.node_key), config.network_key)
    return Places(config.node.data, config.catalog, config.node_key, (*keys, config.peer_certificate, config.peer_key, config.admin_token))


def _config_place(invocation: Invocation, undo: contextlib.ExitStack, text: bytes) -> Path:
    """The configuration file that is there; else that of the backup, written."""
    with contextlib.suppress(ConfigurationError):
        return invocation.find_config()
    place = invocation.new_config
    try:
        write_config(undo, place, text.decode())
    except UnicodeDecodeError:
        raise IntegrityError("the configuration in the backup is not text", code="bad-backup") from None
    return place


def _make_data(undo: contextlib.ExitStack, data: Path) -> None:
    """The data directory, for its owner alone. A new one goes with what it holds if a step fails."""
    import shutil  # noqa: PLC0415

    if not data.exists():
        undo.callback(shutil.rmtree, data, ignore_errors=True)
        data.mkdir(mode=0o700, parents=True)
