"""What ``publish`` is about to send: every file below the given paths and its name in the share, checked before a single byte moves.

Symbolic links are followed. Everything that stands in the way - unreadable files, loops, devices and sockets, names that a share cannot hold, two files under one name - is reported at once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from replicad.errors import ConflictError, InputError, NotAllowedError, NotFoundError, ReplicadError
from replicad.model import paths
from replicad.server.admin.bodies import ENTRIES_PER_CALL_MAX

PROBLEMS_SHOWN_MAX = 50


@dataclass(frozen=True, slots=True)
class Source:
    """A file to publish: where it lies, its path in the share, its size in bytes, and what ``identity`` said when it was scanned."""

    file: str
    path: str
    size: int
    identity: tuple[int, ...]


def identity(found: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is replaced or written to."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(slots=True)
class _Scan:
    found: list[Source] = field(default_factory=list)
    problems: list[ReplicadError] = field(default_factory=list)
    names: dict[str, Source] = field(default_factory=dict)
    directories: dict[str, str] = field(default_factory=dict)

    def add(self, file: str, path: str, status: os.stat_result) -> None:
        """Check one file and note it."""
        try:
            paths.check(path)
            self._check_readable(file)
        except ReplicadError as error:
            self.problems.append(error)
            return
        source = Source(file, path, status.st_size, identity(status))
        key = paths.key(path)
        if (other := self.names.setdefault(key, source)) is not source:
            self.problems.append(ConflictError(f"{shown(file)} and {shown(other.file)} would be one name in the share, {path!r}"))
            return
        for above in paths.parents(key):
            self.directories.setdefault(above, file)
        self.found.append(source)

    @staticmethod
    def _check_readable(file: str) -> None:
        try:
            os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            raise unreadable(file, error) from error

    def finish(self) -> list[Source]:
        """The files, or one error with every problem."""
        for key, source in self.names.items():
            if below := self.directories.get(key):
                self.problems.append(ConflictError(f"{source.path!r} would be a file ({shown(source.file)}) and a directory (of {shown(below)})"))
        if self.problems:
            raise _together(self.problems)
        return self.found


def scan(given: Sequence[Path], target: str) -> list[Source]:
    """Every file below ``given``. A directory's contents land below ``target`` (empty: the share's root), a file under its own name; a single file takes ``target`` as its path unless that is
    empty or ends in "/". Raises one error that lists all problems: its class is theirs if they agree.
    """
    work = _Scan()
    below = target.rstrip("/")
    for one in given:
        try:
            status = os.stat(one)  # noqa: PTH116 - the plain result is what identity needs
        except OSError as error:
            work.problems.append(unreadable(str(one), error))
            continue
        if stat.S_ISDIR(status.st_mode):
            _walk(work, str(one), below, status)
        elif not stat.S_ISREG(status.st_mode):
            work.problems.append(_special(str(one)))
        elif len(given) == 1 and target and not target.endswith("/"):
            work.add(str(one), target, status)
        else:
            work.add(str(one), _join(below, one.name), status)
    if not work.found and not work.problems:
        raise NotFoundError(f"no file below {', '.join(shown(str(one)) for one in given)}: nothing to publish")
    return work.finish()


def _walk(work: _Scan, top: str, target: str, status: os.stat_result) -> None:
    """Breadth does not matter, depth is bounded by the loop check: a directory inside itself is a problem, not an endless walk."""
    waiting: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(top, target, frozenset({(status.st_dev, status.st_ino)}))]
    while waiting:
        directory, below, inside = waiting.pop()
        for entry in _entries(work, directory):
            path = _join(below, entry.name)
            try:
                status = entry.stat()
            except OSError as error:
                work.problems.append(unreadable(entry.path, error))
                continue
            place = (status.st_dev, status.st_ino)
            if stat.S_ISREG(status.st_mode):
                work.add(entry.path, path, status)
            elif not stat.S_ISDIR(status.st_mode):
                work.problems.append(_special(entry.path))
            elif place in inside:
                work.problems.append(InputError(f"{shown(entry.path)} leads back to a directory that it lies in (a loop of symbolic links)", code="loop"))
            else:
                waiting.append((entry.path, path, inside | {place}))
        if len(work.found) > ENTRIES_PER_CALL_MAX:
            raise InputError(f"more than {ENTRIES_PER_CALL_MAX} files in one publication, with those below {shown(top)}; publish it in parts")


def _entries(work: _Scan, directory: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as listing:
            found = sorted(listing, key=lambda entry: entry.name, reverse=False)
    except OSError as error:
        work.problems.append(unreadable(directory, error))
        return
    yield from found


def _join(below: str, name: str) -> str:
    return f"{below}/{name}" if below else name


def shown(file: str) -> str:
    """A file's name for messages: what is not UTF-8 in it is shown as escapes, and "." and ".." as the directory that they are here."""
    if file.rpartition("/")[2] in {".", ".."}:
        try:
            file = os.path.realpath(file)
        except OSError:
            file = f"{file} in a directory that was removed"
    return file.encode(errors="surrogateescape").decode(errors="backslashreplace")


def unreadable(file: str, error: OSError) -> ReplicadError:
    """The error for people: its class says whether the file is missing, forbidden, or on a disk that fails."""
    reason = (error.strerror or str(error)).lower()
    kinds = {FileNotFoundError: NotFoundError, PermissionError: NotAllowedError}
    kind = next((kind for foreign, kind in kinds.items() if isinstance(error, foreign)), ReplicadError)
    return kind(f"cannot read {shown(file)}: {reason}", code="unreadable")


def _special(file: str) -> ReplicadError:
    return InputError(f"{shown(file)} is neither a file nor a directory", code="special-file")


def _together(problems: list[ReplicadError]) -> ReplicadError:
    """One error for all problems: of their class and code where they agree."""
    if len(problems) == 1:
        return problems[0]
    kinds = {type(problem) for problem in problems}
    codes = {problem.error_code for problem in problems}
    lines = [f"  {problem.message}" for problem in problems[:PROBLEMS_SHOWN_MAX]]
    if len(problems) > PROBLEMS_SHOWN_MAX:
        lines.append(f"  and {len(problems) - PROBLEMS_SHOWN_MAX} more")
    kind = kinds.pop() if len(kinds) == 1 else ReplicadError
    return kind("\n".join([f"{len(problems)} problems, nothing was sent:", *lines]), code=codes.pop() if len(codes) == 1 else "cannot-publish")
