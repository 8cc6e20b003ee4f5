"""Group commit: verified files get their final names, durably, as many at once as have queued up.

A rename happens only after the file's bytes were synced, and is announced only after its directory was. While one group is on the disk the next one gathers, so 2,000 small files cost some dozens
of directory syncs instead of 2,000, and a lone file waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from replicad.errors import ReplicadError
from replicad.store.disk import Disk, storage_error
from replicad.store.hops import Lane, settled
from replicad.store.space import Space


@dataclass(slots=True, eq=False)
class Commit:
    """One file on its way to its final name. ``fd`` is synced first unless it is None (already durable). Afterwards ``named`` tells whether it has its final name
    and ``error`` what went wrong; both if only the directory's sync failed: the content is right then, but a power failure may take its name.
    """

    source: Path
    target: Path
    fd: int | None = None
    named: bool = False
    error: ReplicadError | None = None


@dataclass(slots=True, eq=False)
class _Group:
    files: Sequence[Commit]
    done: asyncio.Future[None]


class Committer:
    """Runs one group at a time; callers that come meanwhile form the next. The number of files on the way is bounded by the callers: uploads, partials and small groups all are."""

    def __init__(self, *, executor: Executor, disk: Disk, space: Space) -> None:
        self._disk = disk
        self._space = space
        self._lane: Lane[_Group] = Lane(executor, work=self._run, done=self._settle)

    async def commit(self, files: Sequence[Commit]) -> None:
        """Sync, rename and make durable; afterwards each file's ``named`` and ``error`` tell the outcome. Not abandoned by a cancellation: that goes on when the files are done."""
        group = _Group(files, asyncio.get_running_loop().create_future())
        self._lane.push(group)
        await settled(group.done)

    def _settle(self, groups: list[_Group]) -> None:
        for group in groups:
            if self._lane.error is None:
                group.done.set_result(None)
            else:
                group.done.set_exception(self._lane.error)

    def _run(self, groups: list[_Group]) -> None:
        files = [file for group in groups for file in group.files]
        for file in files:
            if file.fd is not None:
                self._disk.start_writeback(file.fd, 0, 0)
        for file in files:
            self._finish(file)
        for directory in {file.target.parent for file in files if file.error is None}:
            failed = _attempt("making names durable", lambda: self._disk.sync_directory(directory))  # noqa: B023 - called at once
            for file in files:
                if failed is not None and file.error is None and file.target.parent == directory:
                    file.error = failed

    def _finish(self, file: Commit) -> None:
        if file.fd is not None:
            fd = file.fd
            file.error = _attempt(f"making {file.target.name} durable", lambda: self._disk.sync(fd))
        if file.error is None:
            file.error = _attempt(f"naming {file.target.name}", lambda: self._name(file))

    def _name(self, file: Commit) -> None:
        replaced = file.target.stat().st_size if file.target.exists() else 0
        self._disk.rename(file.source, file.target)
        file.named = True
        self._space.release(replaced)


def _attempt(action: str, step: Callable[[], None]) -> ReplicadError | None:
    try:
        step()
    except OSError as error:
        return storage_error(action, error)
    return None
