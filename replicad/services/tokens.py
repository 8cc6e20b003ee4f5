"""API tokens: made here, shown once, known afterwards by their hash only."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from replicad.catalog import Catalog, Token
from replicad.errors import NoSpaceError, StorageError, UnauthorizedError
from replicad.model import paths
from replicad.model.callers import AccessRole, Caller
from replicad.model.ids import Digest

MARK = "replicad_"
"""What every token begins with, so that a scanner of source code knows one when it sees it."""
SECRET_BYTES = 32
ID_BYTES = 4
USED_FRESH_MS = 60_000
"""A token's last use is written at most so often: a script that asks all the time must not keep the disk busy."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of this node. ``clock_ms`` is wall clock time."""

    catalog: Catalog
    clock_ms: Callable[[], int]

    async def create(self, *, name: str | None, role: AccessRole, shares: Sequence[str] | None, path: str, expires_s: int | None) -> tuple[Token, str]:
        """A new token and its text, which nobody can ask for again. ``name`` None: its id. ConflictError, BusyError."""
        text = MARK + secrets.token_urlsafe(SECRET_BYTES)
        now_ms, token_id = self.clock_ms(), secrets.token_hex(ID_BYTES)
        limits = None if shares is None else tuple(sorted(set(shares)))
        expires_ms = None if expires_s is None else now_ms + expires_s * 1000
        token = Token(token_id, name or token_id, role, limits, paths.key(path), now_ms, expires_ms)
        await self.catalog.add_token(token, _hash(text))
        return token, text

    async def identify(self, text: str) -> Caller:
        """Whose token this is. UnauthorizedError if it is unknown, revoked or expired."""
        token = await self.catalog.token(_hash(text)) if text.startswith(MARK) else None
        if token is None:
            raise UnauthorizedError("this token is not one of this node, or was revoked", hint="an admin makes one there: replicad token create --role ROLE")
        now_ms = self.clock_ms()
        if token.expires_ms is not None and now_ms >= token.expires_ms:
            raise UnauthorizedError(f"the token {token.name!r} has expired", hint="an admin makes a new one: replicad token create", code="token-expired")
        if token.used_ms is None or not 0 <= now_ms - token.used_ms < USED_FRESH_MS:
            with suppress(NoSpaceError, StorageError):  # who looks what is wrong with the disk gets in
                await self.catalog.use_token(token.id, now_ms)
        return Caller(f"token {token.name}", token.role, None if token.shares is None else frozenset(token.shares), token.path)


def _hash(text: str) -> Digest:
    """Unsalted, because the text has 256 random bits."""
    return Digest(hashlib.sha256(text.encode(errors="surrogateescape")).digest())
