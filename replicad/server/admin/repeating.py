"""``Idempotency-Key``: a write that is asked for again, because its answer got lost, is answered again and not done again.

Kept in memory: the answers of writes that went well, each for a day, the newest thousand. A write that failed has changed nothing, so it is simply done. After a restart of the daemon a key is new.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from replicad.crypto.hashing import sha256
from replicad.errors import ConflictError, InputError
from replicad.model.ids import Digest
from replicad.server.admin.routes import Call

HEADER = "Idempotency-Key"
KEY_PATTERN = "^[!-~]{1,128}$"
KEPT_MS = 24 * 3600 * 1000
KEPT_MAX = 1000
"""A guess: what scripts ask in a few minutes; the answer of a large publication has a few MB, so bytes are bounded, too."""
KEPT_BYTES_MAX = 16 << 20
_KEY = re.compile(KEY_PATTERN)

Work = Callable[[], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class _Kept:
    """``body`` None: still being done."""

    fingerprint: Digest
    at_ms: int
    body: bytes | None = None
    tag: str | None = None


def given_key(request: web.Request) -> str | None:
    """The key of the request; InputError if it cannot be one."""
    key = request.headers.get(HEADER)
    if key is not None and not _KEY.fullmatch(key):
        raise InputError(f"{HEADER}: 1 to 128 printable ASCII characters without spaces expected")
    return key


def fingerprint(call: Call[Any]) -> Digest:
    """What is asked: equal for equal requests, whatever the order of their fields."""
    return sha256(msgspec.json.encode([call.request.method, call.request.path_qs, call.asked]))


class Answers:
    """One per application."""

    def __init__(self, monotonic_ms: Callable[[], int]) -> None:
        self._monotonic_ms = monotonic_ms
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._bytes = 0

    async def once(self, key: tuple[str, str], asked: Digest, work: Work) -> web.StreamResponse:
        """The answer of ``work``, or the one that the caller got under this key. ConflictError if the key stands for another request, or for one that is still being done."""
        self._forget_old()
        known = self._kept.get(key)
        if known is not None:
            return _again(key[1], known, asked)
        kept = self._kept[key] = _Kept(asked, self._monotonic_ms())
        try:
            response = await work()
        except BaseException:
            del self._kept[key]
            raise
        if isinstance(response, web.Response) and isinstance(response.body, bytes):
            kept.body, kept.tag = response.body, response.headers.get("ETag")
            self._bytes += len(response.body)
        return response

    def _forget_old(self) -> None:
        """Oldest first; what is still being done stays."""
        horizon_ms = self._monotonic_ms() - KEPT_MS
        for key, kept in list(self._kept.items()):
            if len(self._kept) < KEPT_MAX and self._bytes <= KEPT_BYTES_MAX and kept.at_ms > horizon_ms:
                return
            if kept.body is not None:
                self._bytes -= len(kept.body)
                del self._kept[key]


def _again(key: str, known: _Kept, asked: Digest) -> web.Response:
    if known.fingerprint != asked:
        raise ConflictError(f"{HEADER} {key!r} was used for another request", hint="use a new key for each thing to be done", code="key-reused")
    if known.body is None:
        raise ConflictError(f"the request with the {HEADER} {key!r} is still being done", hint="ask again a little later", code="key-in-use")
    headers = {"Cache-Control": "no-store", "Idempotency-Replayed": "true", **({"ETag": known.tag} if known.tag else {})}
    return web.Response(body=known.body, content_type="application/json", headers=headers)
