"""Passwords of downloading clients: Argon2id (RFC 9106) as libsodium does it, in its text form.

19 MiB and two passes are the least that OWASP's password storage cheat sheet recommends: about 25 ms here, which a whole fleet asking for the first time can afford; a right password is then
remembered by whoever asked.
"""

from __future__ import annotations

import re

from nacl import pwhash
from nacl.exceptions import CryptoError

from replicad.model.access import VERIFIER

PASSWORD_BYTES_MAX = 1024
_PASSES, _MEMORY_BYTES = 2, 19 << 20
_VERIFIER = re.compile(VERIFIER)


def verifier(password: str) -> str:
    """The verifier of a password, with a new salt. Runs for 25 ms: call it in a thread."""
    return pwhash.argon2id.str(password.encode(), opslimit=_PASSES, memlimit=_MEMORY_BYTES).decode()


def matches(stored: str, password: bytes) -> bool:
    """Whether this is the password. Costs what the verifier says, within VERIFIER's bounds; anything that is no such verifier matches nothing. Call it in a thread."""
    if not _VERIFIER.fullmatch(stored) or len(password) > PASSWORD_BYTES_MAX:
        return False
    try:
        return pwhash.verify(stored.encode(), password)
    except CryptoError:
        return False


NOBODY = f"$argon2id$v=19$m={_MEMORY_BYTES >> 10},t={_PASSES},p=1${'A' * 22}${'A' * 43}"
"""A verifier that costs what a real one costs and that no password has: for names that do not exist."""
