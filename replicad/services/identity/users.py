"""The people whom this node itself knows: made, changed and removed by admins, with a password that they can change and a second factor (TOTP) that they may have."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from replicad.catalog import Catalog, User
from replicad.crypto import totp
from replicad.errors import InputError
from replicad.model import paths
from replicad.model.callers import AccessRole
from replicad.services.identity.argon import Argon


@dataclass(frozen=True, slots=True)
class Users:
    """``clock_ms`` is wall clock time. Names are compared without regard to case; NotFoundError("no-such-user") wherever there must be one."""

    catalog: Catalog
    argon: Argon
    clock_ms: Callable[[], int]

    async def add(self, name: str, password: str, *, role: AccessRole, shares: tuple[str, ...] | None, path: str) -> User:
        """A new person who may log in. ConflictError("user-exists"), BusyError."""
        user = User(name, role, shares, paths.key(path), enabled=True, created_ms=self.clock_ms())
        await self.catalog.add_user(user, await self.argon.verifier(password))
        return user

    async def set_password(self, name: str, password: str) -> User:
        """Another password, and the end of all sessions. BusyError."""
        return await self.catalog.change_user(name, lambda user: user, verifier=await self.argon.verifier(password))

    async def offer_totp(self, name: str) -> bytes:
        """The secret of a second factor, which counts once a code of it is confirmed. ConflictError("totp-enabled") if one counts already."""
        secret = secrets.token_bytes(totp.SECRET_BYTES)
        await self.catalog.offer_totp(name, secret)
        return secret

    async def confirm_totp(self, name: str, code: str) -> User:
        """The offered factor counts from now on. InputError if the code is not of it."""
        await self.catalog.user(name)
        known = await self.catalog.user_secrets(name)
        offered = None if known is None else known.totp_offered
        step = None if offered is None else totp.step_of(offered, code, self.clock_ms() // 1000)
        if offered is None or step is None or not await self.catalog.confirm_totp(name, offered, step):
            raise InputError("code: not the current one of the secret that was shown", hint="look at the clock of both machines")
        return await self.catalog.user(name)
