"""Sessions: what a person bears after a login instead of the password. The text is new at each login, shown once and known afterwards by its hash only; it ends when it is not used for a while, or at the end of
a working day.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from replicad.catalog import Catalog, Session
from replicad.errors import NoSpaceError, StorageError, UnauthorizedError
from replicad.model.callers import Account
from replicad.model.ids import Digest

MARK = "replicad_session_"
"""What every session's text begins with."""
SECRET_BYTES = 32
IDLE_S, LIFE_S = 2 * 3600, 12 * 3600
"""A guess: a long lunch, and a working day. OWASP's session management cheat sheet asks for 4 to 8 hours at most for an office application used all day, and for an idle limit."""
USED_FRESH_MS = 60_000
"""As with tokens."""


class Opened(NamedTuple):
    """A session that has just begun, and its text."""

    session: Session
    text: str


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of this node. ``clock_ms`` is wall clock time."""

    catalog: Catalog
    clock_ms: Callable[[], int]

    async def begin(self, account: Account, *, verifier: str | None = None) -> Opened:
        """A new session of somebody who has proved to be that person. ``verifier``: as for ``Catalog.add_session``. UnauthorizedError if the account changed meanwhile."""
        text, now_ms = MARK + secrets.token_urlsafe(SECRET_BYTES), self.clock_ms()
        await self.catalog.end_sessions_before(created_ms=now_ms - LIFE_S * 1000, used_ms=now_ms - IDLE_S * 1000)
        if not await self.catalog.add_session(account, _hash(text), now_ms=now_ms, verifier=verifier):
            raise UnauthorizedError(f"the account {account.name!r} was changed while it logged in", hint="log in again", code="wrong-login")
        return Opened(Session(account, now_ms, now_ms), text)

    async def identify(self, text: str) -> Session:
        """Whose session this is. UnauthorizedError("session-ended") if it is over or never began."""
        now_ms = self.clock_ms()
        session = await self.catalog.session(_hash(text))
        if session is None or not now_ms < ends_ms(session):
            raise UnauthorizedError("this session has ended", hint="log in again: replicad login URL", code="session-ended")
        if not 0 <= now_ms - session.used_ms < USED_FRESH_MS:
            with suppress(NoSpaceError, StorageError):  # who looks what is wrong with the disk gets in
                await self.catalog.use_session(_hash(text), now_ms)
        return session

    async def end(self, text: str) -> None:
        """It is refused from now on."""
        await self.catalog.end_session(_hash(text))


def ends_ms(session: Session) -> int:
    """When it will be over if it is not used until then."""
    return min(session.created_ms + LIFE_S * 1000, session.used_ms + IDLE_S * 1000)


def csrf_of(text: str) -> str:
    """What a page that may use the session's cookie shows with each write, and no other page can know: it follows from the text, so it need not be kept."""
    return hmac.digest(text.encode(errors="surrogateescape"), b"replicad csrf", "sha256").hex()


def _hash(text: str) -> Digest:
    """Unsalted, because the text has 256 random bits."""
    return Digest(hashlib.sha256(text.encode(errors="surrogateescape")).digest())
