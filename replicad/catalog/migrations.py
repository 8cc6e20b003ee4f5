"""Which schema a catalog file has, and how it gets the current one: ``PRAGMA user_version`` and the numbered files of ``schema/``.

Each file runs in one transaction together with the new version number, so a crash leaves the old or the new schema. Before the first step of an existing catalog the whole file is copied to
``<name>.v<version>.backup``. A catalog that is newer than the program, or not a catalog at all, is refused and left alone.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from replicad.errors import ConfigurationError

APPLICATION_ID = 0x5265706C
"""``PRAGMA application_id``, "Repl": tells ``file`` and us that this database is a catalog."""


def scripts() -> list[str]:
    """The schema files' text; element 0 leads from nothing to version 1. The numbers in the names are consecutive from 0001."""
    files = sorted(
        (file for file in resources.files("replicad.catalog").joinpath("schema").iterdir() if re.fullmatch(r"\d{4}_\w+\.sql", file.name)),
        key=lambda file: file.name,
    )
    return [file.read_text(encoding="utf-8") for file in files]


def version_of(connection: sqlite3.Connection, path: Path, *, known: int) -> int:
    """The file's schema version, 0 for an empty file. Raises ConfigurationError for a newer or a foreign database, sqlite3.Error if it is damaged; changes nothing."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    if application != APPLICATION_ID and (tables or version):
        raise ConfigurationError(f"{path}: this SQLite database is not a replicad catalog", hint="check [node] data")
    if version > known:
        raise ConfigurationError(
            f"{path}: the catalog has schema {version}, this program knows up to {known}", hint="run a newer replicad, or restore the backup"
        )
    return version


def migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[str]) -> None:
    """Bring the file to version ``len(steps)``. Raises as ``version_of``, and sqlite3.Error if the file cannot be written."""
    version = version_of(connection, path, known=len(steps))
    if 0 < version < len(steps):
        back_up(connection, path.with_name(f"{path.name}.v{version}.backup"))
    for number, step in enumerate(steps[version:], start=version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{step}\nPRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;")
        finally:
            if connection.in_transaction:
                connection.rollback()


def back_up(connection: sqlite3.Connection, target: Path, *, pages: int = -1, progress: Callable[[int, int, int], object] | None = None) -> None:
    """A consistent, durable copy of the database at ``target`` (mode 0600); an older one of that name is replaced only when the copy is complete.

    ``progress`` is called after every so many ``pages`` (with SQLite's state, pages left, pages in all); what it raises ends the copy, which leaves nothing behind.
    """
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        copy = sqlite3.connect(unfinished)
        try:
            connection.backup(copy, pages=pages, progress=progress)
        finally:
            copy.close()
        os.fsync(descriptor)
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
