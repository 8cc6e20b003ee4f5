"""The catalog's public face, and how it is opened and closed."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from functools import partial
from pathlib import Path

from replicad.catalog import rows
from replicad.catalog.actions import Actions
from replicad.catalog.checksums import Checksums
from replicad.catalog.contents import Contents
from replicad.catalog.copies import Copies
from replicad.catalog.database import opened
from replicad.catalog.entries import Entries
from replicad.catalog.health import RESTORE, refused
from replicad.catalog.history import History
from replicad.catalog.journal import Journal
from replicad.catalog.keeping import Keeping
from replicad.catalog.ledger import Ledger
from replicad.catalog.memory import HeldSet
from replicad.catalog.peers import Peers
from replicad.catalog.sessions import Sessions
from replicad.catalog.tokens import Tokens
from replicad.catalog.uploads import Uploads
from replicad.catalog.users import Users
from replicad.crypto.keys import SigningKey
from replicad.errors import ConfigurationError, DistrustError, ReplicadError
from replicad.model.ids import NodeId


class Catalog(Journal, Entries, History, Contents, Checksums, Keeping, Peers, Users, Sessions, Tokens, Actions, Uploads, Copies):
    """Everything this node knows. One per process, made by ``open``; every method is for the event loop's thread.

    ``replica`` is the committed state of clock, chains and trust: it never runs ahead of the disk and never falls behind. ``move`` replaces it, so read ``catalog.replica`` and ``catalog.network``
    afresh each time. ``on_event`` is called in the event loop after each commit, in commit order; it must not raise. ``check_clock`` is called before
    anything is signed and raises if this node's clock cannot be trusted. ``retention`` is how long actions are kept. Every method may raise StorageError (the disk failed) or NoSpaceError.
    """

    @classmethod
    def open(
        cls, path: Path, *, node: SigningKey, clock_ms: Callable[[], int], random16: Callable[[], int], network: NodeId | None = None
    ) -> AbstractAsyncContextManager[Catalog]:
        """The catalog at ``path``, closed on every path out of the context.

        ``network``: make the file if it is missing, and insist on that network; None: it must exist and says itself which network it belongs to. ``clock_ms`` (milliseconds since 1970) and
        ``random16`` are called from another thread. Raises ConfigurationError if the file is missing, damaged, of another program or network, newer than this one, in use or not writable.
        """
        return _open(path, key=node, clock_ms=clock_ms, random16=random16, network=network)


@asynccontextmanager
async def _open(path: Path, *, key: SigningKey, clock_ms: Callable[[], int], random16: Callable[[], int], network: NodeId | None) -> AsyncIterator[Catalog]:
    # The set of held contents is outermost: a cancelled start closes the connections and waits for their threads, one of which may still be filling it.
    with closing(HeldSet()) as held:
        async with opened(path, create=network is not None) as database:
            ledger = Ledger(key, clock_ms=clock_ms, random16=random16)
            try:
                await database.write(partial(_enter, network=network, path=path), durable=True)
                await database.read(held.load)
                replica = await database.write(ledger.begin)
            except ConfigurationError:
                raise
            except DistrustError as error:
                raise ConfigurationError(f"{path}: the catalog is damaged: {error.message}", hint=RESTORE) from error
            except ReplicadError as error:
                raise refused(path, error) from error
            database.mirror = ledger
            catalog = Catalog(database, ledger, replica=replica, held=held, key=key, clock_ms=clock_ms)
            await catalog._settle()  # noqa: SLF001 - the last step of making it
            yield catalog


def _enter(connection: sqlite3.Connection, *, network: NodeId | None, path: Path) -> None:
    """See to it that the catalog belongs to a network, and to the right one."""
    if network is None:
        rows.stored_network(connection)
        return
    if connection.execute("SELECT 1 FROM meta WHERE name = 'network'").fetchone() is None:
        rows.store_network(connection, network)
    elif rows.stored_network(connection) != network:
        raise ConfigurationError(f"{path}: the catalog belongs to another network", hint="replicad peer add moves a node to another network")
