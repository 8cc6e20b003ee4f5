"""A copy of the catalog for a backup, and a copy becoming a catalog again.

A copy holds everything. What it says about one disk is true only on that disk and at that moment, so it is settled when the copy is taken up: content is held where its file is, whatever else is live
is wanted and comes back from other nodes. Unfinished uploads, invitations and sessions are not taken up: whom an invitation admitted since is not in the copy, and one admits only once; who logged out since must stay so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from replicad.catalog import actions, rows, supply
from replicad.catalog.answers import Action, Copied
from replicad.catalog.migrations import migrate, scripts, version_of
from replicad.catalog.state import State
from replicad.errors import CatalogError, IntegrityError, StorageError
from replicad.model.ids import Digest, NodeId

_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite%' ORDER BY name"
_NOT_TAKEN_UP = ("partial", "damaged", "unneeded", "invite", "session", "upload")
_NOT_WANTED_YET = """
SELECT record FROM entry WHERE content IS NOT NULL AND counts = 1 AND live = 1 AND NOT EXISTS (SELECT 1 FROM wanted WHERE wanted.record = entry.record)
"""
_COUNTS = """
SELECT (SELECT count(*) FROM record), (SELECT total(amount) FROM tally WHERE kind LIKE 'stage/%'), (SELECT count(*) FROM token), (SELECT count(*) FROM action)
"""


class Copies(State):
    """Part of ``Catalog``."""

    async def copy_to(self, target: Path) -> Copied:
        """A consistent copy of the catalog at ``target`` (mode 0600) while everything goes on, in constant memory. An older file there is replaced when the copy is complete."""
        return await self._database.copy(target, _look)

    @property
    def fault(self) -> CatalogError | None:
        """What is wrong with the catalog's file, as far as anybody noticed."""
        return self._database.fault

    @property
    def full(self) -> bool:
        """Whether something could not be written for lack of room in the last three minutes."""
        return self._database.full

    @property
    def size_bytes(self) -> int:
        """At least as much as a copy takes."""
        return self._database.size_bytes


def take_up(path: Path, *, is_on_disk: Callable[[Digest, int], bool], action: Action) -> NodeId:
    """Make the copy at ``path`` the catalog of a node on this machine, with the current schema; returns its network. Blocks; nobody else may use the file.

    ``is_on_disk``: whether the file of a content of so many bytes is here. ``action`` is written into the log of actions. Raises IntegrityError for what is no whole catalog (also one with more in
    its schema than its version has), ConfigurationError for a newer or foreign one, StorageError.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA journal_mode = DELETE")
            _check(connection, path)
            migrate(connection, path, scripts())
            _settle(connection, is_on_disk, action)
            return rows.stored_network(connection)
    except sqlite3.OperationalError as error:
        raise StorageError(f"{path}: {error}") from error
    except sqlite3.Error as error:
        raise IntegrityError(f"{path}: not a whole catalog: {error}") from error


def _look(connection: sqlite3.Connection) -> Copied:
    records, files, tokens, done = connection.execute(_COUNTS).fetchone()
    return Copied(connection.execute("PRAGMA user_version").fetchone()[0], records, int(files), tokens, done)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """It is whole, and a program that opens it meets nothing but the tables and triggers of its version."""
    steps = scripts()
    version = version_of(connection, path, known=len(steps))
    with closing(sqlite3.connect(":memory:")) as fresh:
        for step in steps[:version]:
            fresh.executescript(step)
        expected = fresh.execute(_SCHEMA).fetchall()
    if version == 0 or connection.execute(_SCHEMA).fetchall() != expected:
        raise IntegrityError(f"{path}: this is not a catalog of schema {version}")
    if (fault := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise IntegrityError(f"{path}: the catalog is damaged: {fault}")


def _settle(connection: sqlite3.Connection, is_on_disk: Callable[[Digest, int], bool], action: Action) -> None:
    connection.create_function("is_on_disk", 2, lambda content, size: is_on_disk(Digest(content), size))
    connection.execute("BEGIN")
    for table in _NOT_TAKEN_UP:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - constants only
    connection.execute("DELETE FROM held WHERE NOT is_on_disk(content, size_bytes)")
    supply.want(connection, [number for (number,) in connection.execute(_NOT_WANTED_YET)])
    actions.append(connection, action=action)
    connection.execute("COMMIT")
