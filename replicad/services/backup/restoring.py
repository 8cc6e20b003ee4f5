"""Restores a node from a backup, beside whatever lies in its data directory, which is left as it is until everything was read, checked and is on the disk.

    staged     everything is written to ``restoring/`` in the data directory: what fails until here leaves nothing
    set aside  what is replaced goes to ``replaced-TIME/``, the catalog first
    in place   the secret files, the catalog last: a data directory without a catalog starts no daemon, so one that is half restored never runs

Nobody else may use the data directory meanwhile (``daemon.locked``). A node is its key: without the secrets in the backup the key must lie in the data directory already, and it must be that of the
backup's node in either case. Content that lies there stays and counts as held.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from replicad.catalog import Action, take_up
from replicad.crypto.keys import SigningKey
from replicad.errors import ConfigurationError, ConflictError, IntegrityError
from replicad.model.ids import Digest
from replicad.services.backup.archive import Archive
from replicad.store.disk import storage_errors
from replicad.store.reading import path_below

_LOGS = ("-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Places:
    """Where a node has its files; all of them lie in ``data`` itself. ``node_key`` is one of the ``secrets``."""

    data: Path
    catalog: Path
    node_key: Path
    secrets: tuple[Path, ...]


def read_secrets(places: Places) -> dict[str, str]:
    """The texts of the secret files that are there, by name. OSError."""
    return {place.name: place.read_text() for place in places.secrets if place.exists()}


def restore(backup: Archive, places: Places, *, passphrase: Callable[[], str], force: bool, caller: str, now_ms: int) -> Path | None:
    """Put the backup's node in place; returns the directory with what it replaced, None if it replaced nothing. ``passphrase`` is asked for if the secrets are inside. Its log of actions says who ``caller`` is.

    Raises ConflictError if another key or catalog is there (``force`` sets them aside) or the key there is of another node; ConfigurationError without a key, or for what only a newer program knows;
    IntegrityError, DistrustError("passphrase"), NoSpaceError, StorageError. Then nothing has changed, except if the disk fails in the last step: then there is no catalog.
    """
    with storage_errors(f"cannot restore into {places.data}"):
        if places.catalog.exists() and not force:
            raise _taken(places.catalog)
        with _staging(places.data / "restoring") as staging:
            with _new(staging / places.catalog.name) as catalog:
                backup.finish(catalog)
            secrets = _stage_secrets(backup, staging, places, passphrase)
            _check_key(backup, staging if secrets else places.data, places.node_key.name)
            if not force:
                for place in secrets:
                    if place.exists() and place.read_bytes() != (staging / place.name).read_bytes():
                        raise _taken(place)
            action = Action(0, now_ms, caller, "restore", "", "POST", "/backup", f"of {backup.backup.created}", 200, "")
            network = take_up(staging / places.catalog.name, is_on_disk=lambda content, size: _is_on_disk(places.data, content, size), action=action)
            if str(network) != backup.backup.network:
                raise IntegrityError("the catalog in the backup is of another network than the backup says", code="bad-backup")
            return _put_in_place(staging, places, secrets, name=f"replaced-{now_ms // 1000}")


def _new(place: Path) -> IO[bytes]:
    return os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


@contextmanager
def _staging(place: Path) -> Iterator[Path]:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _stage_secrets(backup: Archive, staging: Path, places: Places, passphrase: Callable[[], str]) -> list[Path]:
    """Write them, if they are in the backup; returns where they will belong."""
    if not backup.has_identity:
        return []
    known = {place.name: place for place in places.secrets}
    found = backup.identity(passphrase())
    if not found.keys() <= known.keys():
        raise IntegrityError(f"the backup has secrets that no node has: {', '.join(sorted(found.keys() - known.keys()))}", code="bad-backup")
    for name, text in found.items():
        with _new(staging / name) as out:
            out.write(text.encode())
    return [known[name] for name in found]


def _check_key(backup: Archive, directory: Path, name: str) -> None:
    if not (directory / name).exists():
        raise ConfigurationError(
            f"the backup holds no keys, and there is no {name} in {directory}: without its key a node cannot be itself",
            hint="put the node's key there, or take a backup made with --identity; otherwise make a new node: replicad init, replicad peer add",
            code="no-key",
        )
    key = SigningKey.load(directory / name)
    if str(key.id) != backup.backup.node:
        raise ConflictError(f"the key {directory / name} is of node {key.id}, the backup of node {backup.backup.node}", code="other-node")


def _put_in_place(staging: Path, places: Places, secrets: Sequence[Path], *, name: str) -> Path | None:
    _sync(staging)
    logs = [places.catalog.with_name(places.catalog.name + suffix) for suffix in _LOGS]
    former = [place for place in (places.catalog, *logs, *(places.secrets if secrets else ())) if place.exists()]
    aside = places.data / name
    if former:
        aside.mkdir(mode=0o700)
        for place in former:
            place.rename(aside / place.name)
        _sync(places.data)
    for place in (*secrets, places.catalog):
        (staging / place.name).rename(place)
    _sync(places.data)
    return aside if former else None


def _sync(directory: Path) -> None:
    """What is in the directory, and the names, are on the disk."""
    for path in (*(entry for entry in directory.iterdir() if entry.is_file()), directory):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_on_disk(data: Path, content: Digest, size: int) -> bool:
    try:
        return path_below(data / "blobs", content).stat().st_size == size
    except OSError:
        return False


def _taken(place: Path) -> ConflictError:
    return ConflictError(f"{place} exists: that directory belongs to a node", hint="to replace it (what it has is kept aside): --force", code="exists")
