"""What is wrong with the catalog's file, in words: SQLite's errors as ours, and whether the open file is still the one under its name."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from replicad.errors import CatalogError, ConfigurationError, NoSpaceError, StorageError

RESTORE = "replicad backup restore FILE --force, with the daemon stopped (docs/backup.md); without a backup, in another data directory: replicad init, replicad peer add"
RESCUE = "replicad backup create FILE now, while the daemon still has everything; then stop it, and: replicad backup restore FILE --force (docs/backup.md)"
FULL_S = 180.0
"""A write that found no room is told for so long: on a full disk small ones succeed now and then, and news that was not taken is asked for again every half minute."""
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Health:
    """Of an open catalog, made when it was opened. Remembers damage that anybody met: who asks for other pages would not see it; and a while that there was no room."""

    def __init__(self, path: Path, log: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._opened = {place: found for place in (path, log) if (found := _found(place)) is not None}
        self._damage: CatalogError | None = None
        self._monotonic = monotonic
        self._full_at: float | None = None

    @property
    def fault(self) -> CatalogError | None:
        """What is wrong, as far as anybody noticed; None if nothing is. Two stats."""
        return self.moved or self._damage

    @property
    def full(self) -> bool:
        """Whether something could not be written for lack of room in the last ``FULL_S``."""
        return self._full_at is not None and self._monotonic() - self._full_at < FULL_S

    @property
    def moved(self) -> CatalogError | None:
        """Somebody took the file or its log away: SQLite goes on with what it has open, which goes with it."""
        for place, opened in self._opened.items():
            found = _found(place)
            if found is None or not os.path.samestat(found, opened):
                what = "is another file than the daemon has open" if found else "is not there any more"
                return CatalogError(f"{place} {what}: the catalog is lost when the daemon stops, and takes no changes until then", hint=RESCUE)
        return None

    def check_place(self) -> None:
        """Before anything is promised to last. CatalogError if it could not, because the file or its log was taken away."""
        if (moved := self.moved) is not None:
            raise moved

    def wrapped(self, error: Exception) -> Exception:
        """SQLite's errors as ours; others as they are."""
        found = _wrapped(error, self._path)
        if isinstance(found, CatalogError) and found is not error:
            self._damage = found
        elif isinstance(found, NoSpaceError):
            self._full_at = self._monotonic()
        return found


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of opening as ConfigurationError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise refused(path, _wrapped(error, path)) from error


def refused(path: Path, error: Exception) -> ConfigurationError:
    """What a start says that cannot use the file."""
    if isinstance(error, CatalogError):
        return ConfigurationError(error.message, hint=error.hint)
    reason = error.strerror if isinstance(error, OSError) else str(error).removeprefix("catalog: ")
    return ConfigurationError(f"{path}: cannot be used as catalog: {reason}", hint="look at the directory and the disk of [node] data")


def _found(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _wrapped(error: Exception, path: Path) -> Exception:
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
        return CatalogError(f"{path}: the catalog is damaged: {error}", hint=RESTORE)
    if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
        return NoSpaceError(f"catalog: {error}", hint="make room on the disk of [node] data")
    if isinstance(error, sqlite3.Error):
        return StorageError(f"catalog: {error}")
    return error
