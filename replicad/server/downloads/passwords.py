"""Checking passwords of downloading clients: what is known is remembered, what is new costs 20 ms in a thread, one at a time, and whoever guesses is slowed.

Every guess that was not made before takes from two allowances, the client's and the account's; a right one gives it back. A fleet that still has an old password repeats *one* wrong guess, which is
answered from memory and takes nothing; one that comes a hundred times at once is looked at once. An account that does not exist is treated like one that does, in every respect.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from replicad.crypto import passwords
from replicad.errors import BusyError

REMEMBERED_MAX = 8192
"""Answers of each kind, about 150 bytes each."""
WAITING_MAX = 256
"""Different guesses that wait for their turn with Argon2: five seconds of it."""
ALLOWANCES_MAX = 16_384
"""Clients and accounts whose guesses are counted; the longest unseen is forgotten first."""
GUESSES, EVERY_S = 20, 3.0
"""So many wrong passwords at once, and one more every so many seconds: 28,800 a day. A guess: people mistype, and one office address has many Macs."""


class Attempt(NamedTuple):
    """A name and a password for a share, and the verifier that must match (``passwords.NOBODY`` if there is none). ``client`` is whose allowance it takes from."""

    share: str
    user: str
    password: bytes
    verifier: str
    client: str


class Allowances:
    """How many guesses each has left, as the time at which its allowance will be full again (GCRA)."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._full_s: OrderedDict[str, float] = OrderedDict()

    def take(self, *names: str) -> float:
        """One guess of each of them, or of none; how many seconds they must wait, 0.0 if it was taken."""
        now_s = self._now_s()
        full_s = {name: max(now_s, self._full_s.get(name, 0.0)) + EVERY_S for name in names}
        wait_s = max(full_s.values()) - now_s - GUESSES * EVERY_S
        if wait_s > 0:
            return wait_s
        for name, at_s in full_s.items():
            self._full_s[name] = at_s
            self._full_s.move_to_end(name)
        while len(self._full_s) > ALLOWANCES_MAX:
            self._full_s.popitem(last=False)
        return 0.0

    def give_back(self, *names: str) -> None:
        """The guess was right."""
        for name in names:
            if name in self._full_s:
                self._full_s[name] -= EVERY_S


class Passwords:
    """``now_s`` is monotonic."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._key = os.urandom(32)
        self._answers: dict[bool, OrderedDict[bytes, None]] = {True: OrderedDict(), False: OrderedDict()}
        self._allowances = Allowances(now_s)
        self._turn = asyncio.Lock()
        self._checking: set[bytes] = set()

    async def are_right(self, attempt: Attempt) -> bool:
        """BusyError, with the seconds to wait as ``retry_s``, for whoever guesses too fast and while too many wait."""
        name = self._digest(attempt)
        known = self._recall(name)
        if known is not None:
            return known
        payers = f"client {attempt.client}", f"account {attempt.share} {attempt.user}"
        is_first = name not in self._checking
        if is_first:
            wait_s = self._allowances.take(*payers) if len(self._checking) < WAITING_MAX else 1.0
            if wait_s:
                raise TooManyGuessesError(wait_s)
            self._checking.add(name)
        try:
            async with self._turn:
                known = self._recall(name)
                if known is None:
                    known = await asyncio.to_thread(passwords.matches, attempt.verifier, attempt.password)
                    self._remember(name, known)
        finally:
            if is_first:
                self._checking.discard(name)
        if known and is_first:
            self._allowances.give_back(*payers)
        return known

    def _digest(self, attempt: Attempt) -> bytes:
        """The verifier is part of it: a new password makes every answer about the old one worthless."""
        parts = (attempt.share.encode(), attempt.user.encode(errors="surrogatepass"), attempt.password, attempt.verifier.encode())
        return hashlib.blake2b(b"".join(b"%d:%b" % (len(part), part) for part in parts), key=self._key, digest_size=32).digest()

    def _recall(self, name: bytes) -> bool | None:
        for answer, names in self._answers.items():
            if name in names:
                names.move_to_end(name)
                return answer
        return None

    def _remember(self, name: bytes, answer: bool) -> None:
        names = self._answers[answer]
        names[name] = None
        if len(names) > REMEMBERED_MAX:
            names.popitem(last=False)


class TooManyGuessesError(BusyError):
    """``retry_s``: after how many seconds another guess will be looked at."""

    def __init__(self, retry_s: float) -> None:
        super().__init__("too many wrong passwords", retry_s=retry_s)
