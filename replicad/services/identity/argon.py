"""Argon2id in threads, a few at a time: 19 MiB and 25 ms each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from replicad.crypto import passwords
from replicad.errors import BusyError

T = TypeVar("T")

AT_ONCE = 2
WAITING_MAX = 64
"""Those that are being computed and that wait: a second of it (a guess)."""


class Argon:
    """One for all people of the node."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def verifier(self, password: str) -> str:
        """What a password is kept as. BusyError."""
        return await self._work(lambda: passwords.verifier(password))

    async def matches(self, verifier: str, password: str) -> bool:
        """Whether this is the password. BusyError."""
        return await self._work(lambda: passwords.matches(verifier, password.encode()))

    async def _work(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise BusyError("too many people log in at the same time", retry_s=1.0)
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1
