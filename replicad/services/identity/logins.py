"""Logging in: throttled, then the password, then the second factor, then a new session. Whoever guesses is told nothing but that it was wrong, and waits as long for a name that does not exist.

This node's own users are known here; every other name is asked of the directories, in their order. So a directory that is down keeps nobody out whom this node knows itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replicad.catalog import Catalog, UserSecrets
from replicad.crypto import totp
from replicad.crypto.passwords import NOBODY
from replicad.errors import BusyError, UnauthorizedError, UnreachableError
from replicad.model.callers import Account, Authenticator
from replicad.services.identity.argon import Argon
from replicad.services.identity.guesses import Guesses
from replicad.services.identity.sessions import Opened, Sessions


@dataclass(frozen=True, slots=True)
class Logins:
    """``clock_ms`` is wall clock time, for codes."""

    catalog: Catalog
    sessions: Sessions
    argon: Argon
    guesses: Guesses
    clock_ms: Callable[[], int]
    directories: Sequence[Authenticator] = ()

    async def login(self, name: str, password: str, *, code: str | None, address: str) -> Opened:
        """A new session. ``address``: who tries. UnauthorizedError("wrong-login"), UnauthorizedError("code-needed") if only the second factor is missing, BusyError, UnreachableError if a directory does not
        answer.
        """
        self._take(name, address)
        try:
            known = await self.catalog.user_secrets(name)
            account = await self._account(known, name, password)
            if known is not None and known.totp_secret is not None and account is not None:
                await self._check_code(known.user.name, known.totp_secret, code)
            if account is None:
                raise UnauthorizedError("wrong name or password", code="wrong-login")
        except (BusyError, UnreachableError, CodeNeededError):
            self.guesses.give_back(name, address)
            raise
        opened = await self.sessions.begin(account, verifier=None if known is None else known.verifier)
        self.guesses.right(name, address)
        return opened

    async def check_password(self, name: str, password: str, *, address: str) -> None:
        """That of a local user, asked for again before something that a session alone must not do. UnauthorizedError("wrong-login"), BusyError."""
        self._take(name, address)
        known = await self.catalog.user_secrets(name)
        if known is None or await self._account(known, name, password) is None:
            raise UnauthorizedError("the current password is wrong", code="wrong-login")
        self.guesses.right(name, address)

    def _take(self, name: str, address: str) -> None:
        wait_s = self.guesses.take(name, address)
        if wait_s:
            raise BusyError("too many wrong passwords", hint=f"try again in {math.ceil(wait_s)} s", code="too-many-guesses", retry_s=wait_s)

    async def _account(self, known: UserSecrets | None, name: str, password: str) -> Account | None:
        if await self.argon.matches(NOBODY if known is None else known.verifier, password):
            return known.user.account if known is not None and known.user.enabled else None
        if known is None:
            for directory in self.directories:
                if (found := await directory.authenticate(name, password)) is not None:
                    return found
        return None

    async def _check_code(self, name: str, secret: bytes, code: str | None) -> None:
        """Each code is good once."""
        if code is None:
            raise CodeNeededError("this account has a second factor: its current code is needed, too")
        step = totp.step_of(secret, code, self.clock_ms() // 1000)
        if step is None or not await self.catalog.take_totp_step(name, step):
            raise UnauthorizedError("wrong code", hint="each code is good once: wait for the next one", code="wrong-login")


class CodeNeededError(UnauthorizedError):
    """The password is right and the second factor is missing."""

    code = "code-needed"
