"""The SQLite file behind the catalog: one writer connection with grouped commits, three readers, one owner that closes all of them on every path.

Work is a plain function of a ``sqlite3.Connection``; a whole transaction is one hop into the connection's thread (aiosqlite's threads; a hop per statement would cost ten times the
statements). ``write`` puts its function into a bounded queue; whoever reaches the writer's thread first runs everything that is queued and commits once: concurrent callers share one
fsync. If one of them fails, the group is rolled back and each runs again by itself, so a unit must be a function of the connection alone. What follows a commit (``after``) is called in
the event loop, in commit order, also when the caller was cancelled meanwhile.

Durability: ``synchronous`` is NORMAL (a crash of the program loses nothing, a power failure may lose the last transactions, never consistency) unless one unit of the group asks for
FULL. Such a unit is promised to somebody: it is refused while the open file is not the one on the disk, which would lose it at the stop. Checkpoints are explicit: after a commit, once the
log is larger than ``LOG_BYTES``; closing the last connection makes one too, so that the main file alone is a complete copy.

Memory that follows the writer's transactions (``mirror``) is told of every commit and every rollback, in the writer's thread, before any other work runs.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import aiosqlite

from replicad.catalog.health import Health, explained
from replicad.catalog.migrations import back_up, migrate, scripts, version_of
from replicad.errors import CatalogError, ConfigurationError, StorageError
from replicad.telemetry.log import get
from replicad.telemetry.priority import step_back

T = TypeVar("T")
Unit = Callable[[sqlite3.Connection], T]

QUEUE_MAX = 256
"""Units waiting for the writer; more callers wait their turn. A guess: far above what services do at once, small enough to be nothing in memory."""
GROUP_MAX = 64
"""Units per commit: bounds how long the first of them waits. A guess."""
LOG_BYTES = 64 << 20
"""Write-ahead log size that starts a checkpoint: SQLite's own default is 4 MiB; with 16 the same page is copied back less often."""
BUSY_MS = 5_000
WRITER_CACHE_KIB = 16 * 1024
READER_CACHE_KIB = 4 * 1024
"""Page caches. Small, because the kernel caches the file as well: a page that SQLite does not have costs 2 to 4 microseconds."""
COPY_PAGES = 1024
"""Of a copy (4 MiB) between two looks whether it is still wanted."""

_LOG = get(__name__)


class Mirror(Protocol):
    """Memory that follows the writer's transactions; called in the writer's thread."""

    def committed(self) -> None:
        """Everything so far is on the disk."""

    def rolled_back(self) -> None:
        """Something since the last ``committed`` was undone: what memory took from it must be forgotten. Must not fail."""


class _Job(Generic[T]):
    """One queued unit and what became of it."""

    def __init__(self, unit: Unit[T], *, durable: bool, after: Callable[[T], None] | None) -> None:
        self.unit = unit
        self.durable = durable
        self.after = after
        self.result: T
        self.error: Exception | None = None

    def finish(self) -> None:
        """In the event loop, after the commit."""
        if self.error is None and self.after is not None:
            self.after(self.result)


class Database:
    """An open catalog file. Made by ``opened`` only."""

    def __init__(
        self, path: Path, writer: aiosqlite.Connection, *, reader: aiosqlite.Connection, scanner: aiosqlite.Connection, checker: aiosqlite.Connection
    ) -> None:
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._health = Health(self._path, self._log)
        self._writer = writer
        self._reader = reader
        self._scanner = scanner
        self._checker = checker
        self._jobs: deque[_Job[Any]] = deque()
        self._room = asyncio.Semaphore(QUEUE_MAX)
        self._loop = asyncio.get_running_loop()
        self.mirror: Mirror | None = None

    async def read(self, unit: Unit[T]) -> T:
        """A short query: milliseconds. Sees every commit that finished before the call."""
        return await self._query(self._reader, unit)

    async def scan(self, unit: Unit[T]) -> T:
        """A longer query: a page of a listing, tens of milliseconds. Does not delay the short ones."""
        return await self._query(self._scanner, unit)

    async def check(self, unit: Unit[T]) -> T:
        """Computation with look-ups in it: the verification of a batch, hundreds of milliseconds. Does not delay queries."""
        return await self._query(self._checker, unit)

    async def _query(self, connection: aiosqlite.Connection, unit: Unit[T]) -> T:
        try:
            return await _hop(connection, partial(_snapshot, unit))
        except sqlite3.Error as error:
            raise self._health.wrapped(error) from error

    async def copy(self, target: Path, look: Unit[T]) -> T:
        """A copy of the whole file at ``target`` (mode 0600) as it is now, while everything goes on; returns what ``look`` finds in it. Takes a thread and a connection of its own.

        Raises NoSpaceError or StorageError; then, and when the caller is cancelled, there is no copy.
        """
        ended = threading.Event()
        unit = partial(_copied, target=target, look=look, ended=ended)
        try:
            if self._health.moved is None:
                return await self._apart(unit, ended)
            return await self._query(self._scanner, unit)  # only a connection that is open already has all of it
        except sqlite3.Error as error:
            raise self._health.wrapped(error) from error
        except OSError as error:
            raise StorageError(f"catalog: it cannot be copied to {target}: {error.strerror}") from error
        finally:
            ended.set()

    async def _apart(self, unit: Unit[T], ended: threading.Event) -> T:
        with ThreadPoolExecutor(1, thread_name_prefix="catalog-copy", initializer=step_back) as thread:
            work = self._loop.run_in_executor(thread, _alone, self._path, unit)
            try:
                return await asyncio.shield(work)
            finally:
                ended.set()
                await asyncio.wait([work])

    @property
    def fault(self) -> CatalogError | None:
        """What is wrong with the file, as far as anybody noticed; None if all is well. Two stats."""
        return self._health.fault

    @property
    def full(self) -> bool:
        """Whether something could not be written for lack of room in the last three minutes."""
        return self._health.full

    @property
    def size_bytes(self) -> int:
        """Of the file and its log: at least as much as a copy takes."""
        return sum(path.stat().st_size for path in (self._path, self._log) if path.exists())

    async def write(self, unit: Unit[T], *, durable: bool = False, after: Callable[[T], None] | None = None) -> T:
        """Run the unit in a transaction and return its result once that is committed; raises what the unit raises, with nothing of it applied.

        Raises NoSpaceError or StorageError if the disk fails, CatalogError for a ``durable`` unit if somebody took the file away. A cancelled caller leaves the unit queued: it may still be
        committed, and ``after`` is called if it is.
        """
        async with self._room:
            job = _Job(unit, durable=durable, after=after)
            self._jobs.append(job)
            await _hop(self._writer, self._drain)
        if job.error is not None:
            raise job.error
        return job.result

    # -- in the writer's thread --

    def _drain(self, connection: sqlite3.Connection) -> None:
        """Commit one group of what is queued. Every queued unit has a call of this behind it, so none is forgotten, and the first caller does not wait for the last."""
        group = [self._jobs.popleft() for _ in range(min(GROUP_MAX, len(self._jobs)))]
        if group and not self._commit(connection, group):
            for job in group:
                self._commit(connection, [job])
        for job in group:
            self._loop.call_soon_threadsafe(job.finish)
        self._checkpoint(connection)

    def _commit(self, connection: sqlite3.Connection, group: list[_Job[Any]]) -> bool:
        """All units of the group in one transaction, or nothing of it and False; then an error belongs to a group of one, and larger groups are to be tried one by one.

        No savepoints: inside one, every further statement costs SQLite (3.40) time in proportion to the pages changed so far (it truncates its in-memory statement journal by walking it).
        """
        durable = any(job.durable for job in group)
        try:
            if durable:
                self._health.check_place()
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            for job in group:
                job.result = job.unit(connection)
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it was, it belongs to the caller, not to this thread
            with suppress(sqlite3.Error):  # on a dead disk even that fails; then every later transaction says so
                connection.rollback()
            if self.mirror is not None:
                self.mirror.rolled_back()
            if len(group) == 1:
                group[0].error = self._health.wrapped(error)
            return False
        if self.mirror is not None:
            self.mirror.committed()
        return True

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        try:
            if self._log.stat().st_size > LOG_BYTES:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except (OSError, sqlite3.Error) as error:
            _LOG.seldom("checkpoint", "checkpoint failed, the write-ahead log keeps growing", path=self._path, error=error)


async def _hop(connection: aiosqlite.Connection, unit: Unit[T]) -> T:
    """Run the function with the raw connection in the connection's own thread."""
    return await connection._execute(partial(_with_raw, connection, unit))  # type: ignore[no-any-return, no-untyped-call]  # noqa: SLF001 - aiosqlite has no public way to run one function; a test watches this


def _snapshot(unit: Unit[T], connection: sqlite3.Connection) -> T:
    """All statements of a reading unit see the same commits."""
    connection.execute("BEGIN")
    try:
        return unit(connection)
    finally:
        connection.rollback()


def _with_raw(connection: aiosqlite.Connection, unit: Unit[T]) -> T:
    return unit(connection._conn)  # noqa: SLF001


def _alone(path: Path, unit: Unit[T]) -> T:
    """In a thread, with a connection of its own."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        _prepare_reader(connection)
        return _snapshot(unit, connection)


def _copied(connection: sqlite3.Connection, *, target: Path, look: Unit[T], ended: threading.Event) -> T:
    """The reading transaction keeps the state that is copied the same while others write; what they write waits in the log meanwhile."""

    def go_on(_state: int, _left: int, _total: int) -> None:
        if ended.is_set():
            raise InterruptedError("the copy is not wanted any more")

    found = look(connection)
    back_up(connection, target, pages=COPY_PAGES, progress=go_on)
    return found


@asynccontextmanager
async def opened(path: Path, *, create: bool) -> AsyncIterator[Database]:
    """The catalog file at ``path``, migrated, with its lock held. Raises ConfigurationError if it is missing (unless ``create``), in use, damaged, newer, or cannot be written."""
    async with AsyncExitStack() as stack:
        with explained(path):
            stack.enter_context(_locked(path, create=create))
            writer = await stack.enter_async_context(_connected(path))
            await _hop(writer, partial(_prepare, path=path))
            readers = [await stack.enter_async_context(_connected(path)) for _ in range(3)]
            for connection in readers:
                await _hop(connection, _prepare_reader)
            for connection in (writer, readers[2]):
                await _hop(connection, lambda _: step_back())
        yield Database(path, writer, reader=readers[0], scanner=readers[1], checker=readers[2])


@contextmanager
def _locked(path: Path, *, create: bool) -> Iterator[None]:
    """One process at a time: memory mirrors the disk, so nobody else may write."""
    if not create and not path.is_file():
        raise ConfigurationError(
            f"{path}: there is no catalog here",
            hint="replicad backup restore FILE; without a backup, in another data directory: replicad init, replicad peer add",
        )
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"{path}: another replicad process uses this catalog", hint="replicad status") from None
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _connected(path: Path) -> AsyncIterator[aiosqlite.Connection]:
    """One connection and its thread, both gone afterwards, whatever happens."""
    connection = aiosqlite.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        await connection
        yield connection
    finally:
        await connection.close()


def _prepare(connection: sqlite3.Connection, *, path: Path) -> None:
    steps = scripts()
    version_of(connection, path, known=len(steps))
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute("PRAGMA trusted_schema = OFF")
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise ConfigurationError(f"{path}: the file system allows no write-ahead log (journal mode {mode})", hint="put [node] data on a local disk")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA journal_size_limit = 0")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
    migrate(connection, path, steps)


def _prepare_reader(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
