"""The people whom this node itself knows, with what they prove it by. Nothing of this is replicated.

Whatever takes away trust in a person's sessions (another password, being disabled or removed) ends them in the same transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from functools import partial

from replicad.catalog.answers import User, UserSecrets
from replicad.catalog.state import State
from replicad.errors import BusyError, ConflictError, NotFoundError
from replicad.model.callers import AccessRole, Source

USERS_MAX = 1000
"""A guess: more people than that come from a directory."""
_COLUMNS = "name, role, shares, path, enabled, created_ms, login_ms, totp_secret IS NOT NULL"


class Users(State):
    """Part of ``Catalog``. Names are compared without regard to case; NotFoundError("no-such-user") wherever there must be one."""

    async def users(self) -> list[User]:
        """All of them, by name."""
        return await self._database.read(_all)

    async def user(self, name: str) -> User:
        """The one of that name."""
        return await self._database.read(partial(_user, name=name))

    async def user_secrets(self, name: str) -> UserSecrets | None:
        """What that person can be known by; None if there is nobody of that name."""
        return await self._database.read(partial(_secrets, name=name))

    async def add_user(self, user: User, verifier: str) -> None:
        """Keep it, durably. ConflictError("user-exists"), BusyError beyond 1000."""
        await self._write(partial(_add, user=user, verifier=verifier), durable=True)

    async def change_user(self, name: str, change: Callable[[User], User], *, verifier: str | None = None) -> User:
        """What ``change`` makes of that person, and another password if there is one, durably. It may change role, shares, path and enabled."""
        return await self._write(partial(_change, name=name, change=change, verifier=verifier), durable=True)

    async def remove_user(self, name: str) -> User:
        """Forget that person, durably."""
        return await self._write(partial(_remove, name=name), durable=True)

    async def offer_totp(self, name: str, secret: bytes) -> None:
        """Keep a second factor that does not count yet, in place of another one. ConflictError("totp-enabled") if one counts."""
        await self._write(partial(_offer, name=name, secret=secret))

    async def confirm_totp(self, name: str, secret: bytes, step: int) -> bool:
        """The offered factor counts from now on, durably; ``step`` is that of the code that proved it. False if it is not (any more) the one on offer."""
        sql = "UPDATE user SET totp_secret = totp_offered, totp_offered = NULL, totp_step = ? WHERE name = ? AND totp_offered = ?"
        return await self._write(lambda connection: connection.execute(sql, (step, name, secret)).rowcount == 1, durable=True)

    async def drop_totp(self, name: str) -> User:
        """No second factor from now on, durably."""
        return await self._write(partial(_drop_totp, name=name), durable=True)

    async def take_totp_step(self, name: str, step: int) -> bool:
        """Whether no code of this time step or a later one was taken before; then it is taken, durably."""
        sql = "UPDATE user SET totp_step = ?1 WHERE name = ?2 AND totp_step < ?1"
        return await self._write(lambda connection: connection.execute(sql, (step, name)).rowcount == 1, durable=True)


def _all(connection: sqlite3.Connection) -> list[User]:
    return [_from_row(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM user ORDER BY name")]  # noqa: S608 - constants only


def _from_row(row: tuple[str, str, str | None, str, int, int, int | None, int]) -> User:
    name, role, shares, path, enabled, created_ms, login_ms, totp = row
    return User(name, AccessRole(role), None if shares is None else tuple(json.loads(shares)), path, bool(enabled), created_ms, login_ms, bool(totp))


def _text(shares: tuple[str, ...] | None) -> str | None:
    return None if shares is None else json.dumps(shares)


def _user(connection: sqlite3.Connection, *, name: str) -> User:
    row = connection.execute(f"SELECT {_COLUMNS} FROM user WHERE name = ?", (name,)).fetchone()  # noqa: S608 - constants only
    if row is None:
        raise NotFoundError(f"there is no user called {name[:80]!r} here", hint="replicad user list", code="no-such-user")
    return _from_row(row)


def _secrets(connection: sqlite3.Connection, *, name: str) -> UserSecrets | None:
    row = connection.execute("SELECT verifier, totp_secret, totp_offered FROM user WHERE name = ?", (name,)).fetchone()
    return None if row is None else UserSecrets(_user(connection, name=name), *row)


def _add(connection: sqlite3.Connection, *, user: User, verifier: str) -> None:
    if connection.execute("SELECT 1 FROM user WHERE name = ?", (user.name,)).fetchone():
        raise ConflictError(f"there is a user called {user.name!r} already", hint="replicad user list", code="user-exists")
    if connection.execute("SELECT count(*) FROM user").fetchone()[0] >= USERS_MAX:
        raise BusyError(f"there are {USERS_MAX} users already", hint="remove some: replicad user list")
    connection.execute(
        "INSERT INTO user (name, verifier, role, shares, path, enabled, created_ms, totp_step) VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
        (user.name, verifier, user.role, _text(user.shares), user.path, user.enabled, user.created_ms),
    )


def _change(connection: sqlite3.Connection, *, name: str, change: Callable[[User], User], verifier: str | None) -> User:
    user = change(_user(connection, name=name))
    connection.execute(
        "UPDATE user SET role = ?, shares = ?, path = ?, enabled = ?, verifier = coalesce(?, verifier) WHERE name = ?",
        (user.role, _text(user.shares), user.path, user.enabled, verifier, name),
    )
    if verifier is not None or not user.enabled:
        _end_sessions(connection, name)
    return user


def _remove(connection: sqlite3.Connection, *, name: str) -> User:
    user = _user(connection, name=name)
    connection.execute("DELETE FROM user WHERE name = ?", (name,))
    _end_sessions(connection, name)
    return user


def _end_sessions(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM session WHERE source = ? AND name = ?", (Source.LOCAL, name))


def _offer(connection: sqlite3.Connection, *, name: str, secret: bytes) -> None:
    if _user(connection, name=name).totp:
        raise ConflictError(f"{name} has a second factor already", hint=f"an admin ends it first: replicad user totp {name} disable", code="totp-enabled")
    connection.execute("UPDATE user SET totp_offered = ? WHERE name = ?", (secret, name))


def _drop_totp(connection: sqlite3.Connection, *, name: str) -> User:
    connection.execute("UPDATE user SET totp_secret = NULL, totp_offered = NULL WHERE name = ?", (name,))
    return _user(connection, name=name)
