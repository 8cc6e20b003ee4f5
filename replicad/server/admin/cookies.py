"""Sessions of browsers: the cookie, and that it is used by our own pages only.

A browser sends a cookie along whichever page makes it ask. So the cookie is SameSite=Strict, and whatever is asked with it, other than to read, must show what only a page that may read our answers can know
(``X-CSRF-Token``), and must not come from elsewhere (``Origin``, RFC 6454).
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from aiohttp import web

from replicad.errors import NotAllowedError
from replicad.server.admin.trace import trace
from replicad.services.identity.sessions import LIFE_S, csrf_of

CSRF_HEADER = "X-CSRF-Token"
NAME = "replicad"
SECURE_NAME = "__Host-replicad"
"""Where TLS is: a browser takes such a name only over TLS, from this host, for this host (RFC 6265bis section 4.1.3.2)."""
_READS = ("GET", "HEAD")


def session_of(request: web.Request) -> str | None:
    """The text of the session that a browser bears."""
    return request.cookies.get(SECURE_NAME) or request.cookies.get(NAME)


def check(request: web.Request) -> None:
    """NotAllowedError("csrf") for a write with a cookie that our own page did not ask for."""
    if request.method in _READS:
        return
    check_origin(request)
    expected = csrf_of(trace(request).session_text)
    if not hmac.compare_digest(request.headers.get(CSRF_HEADER, "").encode(errors="surrogateescape"), expected.encode()):
        raise NotAllowedError(
            f"a write with a cookie needs the header {CSRF_HEADER}", hint="its value is `csrf` in the answer of the login and of GET /whoami", code="csrf"
        )


def check_origin(request: web.Request) -> None:
    """NotAllowedError("csrf") if a browser says that a page from elsewhere asks."""
    given = request.headers.get("Origin")
    if given is not None and urlsplit(given).netloc != request.host:
        raise NotAllowedError(f"Origin: this is {request.host}, and the page that asks is of {given[:200]}", code="csrf")


def put(request: web.Request, response: web.StreamResponse, *, is_https: bool = False) -> None:
    """Give the cookie to the browser, or take it away, as the trace says. TLS may end at a proxy, but the browser says what it speaks, where it is not known otherwise (``is_https``)."""
    text = trace(request).cookie
    if text is None:
        return
    secure = request.secure or is_https or request.headers.get("Origin", "").startswith("https://")
    name = SECURE_NAME if secure else NAME
    if text:
        response.set_cookie(name, text, max_age=LIFE_S, path="/", secure=secure, httponly=True, samesite="Strict")
    else:
        response.del_cookie(name, path="/", secure=secure, httponly=True, samesite="Strict")
