"""Sessions of people who logged in: kept here so that they outlive a restart. Nothing of this is replicated."""

from __future__ import annotations

import json
import sqlite3
from functools import partial

from replicad.catalog.answers import Session
from replicad.catalog.state import State
from replicad.model.callers import AccessRole, Account, Source
from replicad.model.ids import Digest

SESSIONS_PER_PERSON_MAX = 10
SESSIONS_MAX = 5000
"""Guesses: a person has a browser or two and a few terminals. Beyond them the one that was not used for the longest time ends."""
_SESSION = """
SELECT session.name, source, coalesce(user.role, session.role), iif(source = 'local', user.shares, session.shares), coalesce(user.path, session.path), session.created_ms, used_ms, user.name
FROM session LEFT JOIN user ON source = 'local' AND user.name = session.name AND enabled WHERE hash = ?
"""


class Sessions(State):
    """Part of ``Catalog``."""

    async def session(self, secret_hash: Digest) -> Session | None:
        """The one whose text has this SHA-256, however old; what a local user may do is as it stands now. None if it never began or was ended."""
        return await self._database.read(partial(_session, secret_hash=secret_hash))

    async def add_session(self, account: Account, secret_hash: Digest, *, now_ms: int, verifier: str | None = None) -> bool:
        """Begin one. ``verifier``: that of the local user's password, which was right a moment ago; False, and nothing begins, if it is another one now, or the user is gone or disabled."""
        return await self._write(partial(_add, account=account, secret_hash=secret_hash, now_ms=now_ms, verifier=verifier), durable=True)

    async def use_session(self, secret_hash: Digest, now_ms: int) -> None:
        """Note that it was used."""
        await self._write(lambda connection: connection.execute("UPDATE session SET used_ms = ? WHERE hash = ?", (now_ms, secret_hash)).rowcount)

    async def end_session(self, secret_hash: Digest) -> None:
        """It is known no more, durably."""
        await self._write(lambda connection: connection.execute("DELETE FROM session WHERE hash = ?", (secret_hash,)).rowcount, durable=True)

    async def end_sessions_before(self, *, created_ms: int, used_ms: int) -> None:
        """Forget those that began, or were used last, before these times."""
        sql = "DELETE FROM session WHERE created_ms < ? OR used_ms < ?"
        await self._write(lambda connection: connection.execute(sql, (created_ms, used_ms)).rowcount)


def _session(connection: sqlite3.Connection, *, secret_hash: Digest) -> Session | None:
    row = connection.execute(_SESSION, (secret_hash,)).fetchone()
    if row is None:
        return None
    name, source, role, shares, path, created_ms, used_ms, user = row
    if source == Source.LOCAL and user is None:
        return None
    account = Account(user or name, Source(source), AccessRole(role), None if shares is None else frozenset(json.loads(shares)), path)
    return Session(account, created_ms, used_ms)


def _add(connection: sqlite3.Connection, *, account: Account, secret_hash: Digest, now_ms: int, verifier: str | None) -> bool:
    rights: tuple[str, str | None, str] | tuple[None, None, None] = (None, None, None)
    if account.source is Source.LOCAL:
        sql = "UPDATE user SET login_ms = ? WHERE name = ? AND verifier = ? AND enabled"
        if connection.execute(sql, (now_ms, account.name, verifier)).rowcount == 0:
            return False
    else:
        rights = account.role, None if account.shares is None else json.dumps(sorted(account.shares)), account.path
    connection.execute(
        "INSERT INTO session (hash, name, source, role, shares, path, created_ms, used_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (secret_hash, account.name, account.source, *rights, now_ms, now_ms),
    )
    excess = "DELETE FROM session WHERE hash IN (SELECT hash FROM session WHERE {} ORDER BY used_ms DESC, hash = ? DESC LIMIT -1 OFFSET ?)"
    connection.execute(excess.format("source = ? AND name = ?"), (account.source, account.name, secret_hash, SESSIONS_PER_PERSON_MAX))
    connection.execute(excess.format("1"), (secret_hash, SESSIONS_MAX))
    return True
