"""API tokens of this node: who may use its admin door over TCP. Nothing of this is replicated."""

from __future__ import annotations

import json
import sqlite3
from functools import partial

from replicad.catalog.answers import Token
from replicad.catalog.state import State
from replicad.errors import BusyError, ConflictError, NotFoundError
from replicad.model.callers import AccessRole
from replicad.model.ids import Digest

TOKENS_MAX = 1000
"""A guess: a script and a person each have one, and nobody can look through more."""
_COLUMNS = "id, name, role, shares, path, created_ms, expires_ms, used_ms"


class Tokens(State):
    """Part of ``Catalog``."""

    async def tokens(self) -> list[Token]:
        """All of them, oldest first."""
        return await self._database.read(_all)

    async def token(self, secret_hash: Digest) -> Token | None:
        """The token whose text has this SHA-256, expired or not."""
        return await self._database.read(partial(_token, secret_hash=secret_hash))

    async def add_token(self, token: Token, secret_hash: Digest) -> None:
        """Keep it, durably. ConflictError("token-exists") if there is one of that name, BusyError beyond 1000."""
        await self._write(partial(_add, token=token, secret_hash=secret_hash), durable=True)

    async def use_token(self, token_id: str, now_ms: int) -> None:
        """Note that it was used."""
        await self._write(lambda connection: connection.execute("UPDATE token SET used_ms = ? WHERE id = ?", (now_ms, token_id)).rowcount)

    async def revoke_token(self, named: str) -> Token:
        """Forget the token of this name or id, durably: it is refused from now on. NotFoundError."""
        return await self._write(partial(_revoke, named=named), durable=True)


def _from_row(row: tuple[str, str, str, str | None, str, int, int | None, int | None]) -> Token:
    token_id, name, role, shares, path, created_ms, expires_ms, used_ms = row
    limits = None if shares is None else tuple(json.loads(shares))
    return Token(token_id, name, AccessRole(role), limits, path, created_ms, expires_ms, used_ms)


def _all(connection: sqlite3.Connection) -> list[Token]:
    return [_from_row(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM token ORDER BY created_ms, id")]  # noqa: S608 - constants only


def _token(connection: sqlite3.Connection, *, secret_hash: Digest) -> Token | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM token WHERE hash = ?", (secret_hash,)).fetchone()  # noqa: S608 - constants only
    return None if row is None else _from_row(row)


def _add(connection: sqlite3.Connection, *, token: Token, secret_hash: Digest) -> None:
    if connection.execute("SELECT 1 FROM token WHERE name = ?1 OR id = ?1", (token.name,)).fetchone():
        raise ConflictError(f"there is a token called {token.name!r} already", hint="replicad token list", code="token-exists")
    if connection.execute("SELECT count(*) FROM token").fetchone()[0] >= TOKENS_MAX:
        raise BusyError(f"there are {TOKENS_MAX} tokens already", hint="revoke some: replicad token list")
    shares = None if token.shares is None else json.dumps(token.shares)
    connection.execute(
        f"INSERT INTO token ({_COLUMNS}, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants only
        (token.id, token.name, token.role, shares, token.path, token.created_ms, token.expires_ms, token.used_ms, secret_hash),
    )


def _revoke(connection: sqlite3.Connection, *, named: str) -> Token:
    row = connection.execute(f"DELETE FROM token WHERE name = ?1 OR id = ?1 RETURNING {_COLUMNS}", (named,)).fetchone()  # noqa: S608 - constants only
    if row is None:
        raise NotFoundError(f"there is no token called {named[:80]!r}", hint="replicad token list", code="no-such-token")
    return _from_row(row)
