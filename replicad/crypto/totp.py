"""One-time codes of a second factor: TOTP (RFC 6238) as authenticator apps do it: HMAC-SHA-1, six digits, 30 seconds.

A dozen lines rather than a library: those check a code, but do not say of which time step it was, and without that nobody can refuse a code that was used before (section 5.2).
"""

from __future__ import annotations

import base64
import hmac
from urllib.parse import quote, urlencode

SECRET_BYTES = 20
"""As long as the hash (RFC 4226 section 4, R6)."""
STEP_S = 30
DIGITS = 6
SKEW_STEPS = 1
"""Before and after the current one: a clock that is wrong, a person who is slow (section 5.2)."""


def code_of(secret: bytes, step: int) -> str:
    """The code of a time step."""
    found = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    start = found[-1] & 15
    number = int.from_bytes(found[start : start + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}d}"


def step_of(secret: bytes, code: str, now_s: int) -> int | None:
    """The time step near ``now_s`` (seconds since 1970) of which this is the code; None: of none."""
    now = now_s // STEP_S
    given = code.encode()
    return next((step for step in range(max(0, now - SKEW_STEPS), now + SKEW_STEPS + 1) if hmac.compare_digest(code_of(secret, step).encode(), given)), None)


def uri(secret: bytes, *, name: str, issuer: str) -> str:
    """What an authenticator app is given, as text or as a QR code (Key URI Format)."""
    return f"otpauth://totp/{quote(issuer)}:{quote(name)}?{urlencode({'secret': text(secret), 'issuer': issuer}, quote_via=quote)}"


def text(secret: bytes) -> str:
    """For apps that want it typed: base 32 without padding."""
    return base64.b32encode(secret).decode().rstrip("=")
