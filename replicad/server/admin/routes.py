"""A route: method, path, what may be asked, and who answers. The table itself stands in ``application``.

A handler gets a ``Call``; what was asked is decoded and checked before it runs: the query string of GET, HEAD, OPTIONS and DELETE, the JSON body of POST, PUT and PATCH. It answers with a noun, or with a
finished response when it streams.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import msgspec
from aiohttp import web

from replicad.errors import InputError
from replicad.model.callers import AccessRole, Caller
from replicad.model.ids import check_share_name
from replicad.model.paths import check
from replicad.server.admin.services import Services

PREFIX = "/api/v1"
"""Of every route."""
BODY_BYTES_MAX = 1 << 20
BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
"""Methods whose query string is what is asked."""
MANY_BYTES_MAX = 64 << 20
"""Of a body that lists many files (ENTRIES_PER_CALL_MAX of them, with long names)."""

_AT = re.compile(r"(.+) - at `(?:key in )?\$\.?(.+)`", re.DOTALL)

A = TypeVar("A")
Answer = msgspec.Struct | msgspec.Raw | web.StreamResponse


@dataclass(frozen=True, slots=True)
class Call(Generic[A]):
    """One request to the API."""

    services: Services
    request: web.Request
    asked: A
    caller: Caller

    @property
    def share(self) -> str:
        """The share named in the path; InputError if it cannot be one."""
        return check_share_name(self.request.match_info["share"])

    @property
    def path(self) -> str:
        """The file's path named in the path; InputError if it cannot be one."""
        return check(self.request.match_info["path"])


@dataclass(frozen=True, slots=True)
class Route(Generic[A]):
    """``asks`` is the type of the query string or JSON body. ``raw``: the body is content, ``asks`` describes the query string. ``body_bytes_max`` bounds a JSON body.

    ``role`` is the least one that may ask; ``open``: anybody may, because it is how people become known. ``scoped``: a caller limited to shares or a directory may ask without naming any, and the handler keeps to its limits (see ``authority``). ``changes``:
    whether it is a write, or written down like one; absent: whatever is not GET. ``state`` tells what can be edited there: its hash is the ETag of GET, and
    what If-Match of a write is compared with (see ``editing``). ``headers`` are those that the handler looks at: name, pattern, what it is for.
    ``answers`` is the status when all is well; any other than 200, and HEAD, has no body.
    """

    method: str
    path: str
    handler: Callable[[Call[A]], Awaitable[Answer]]
    asks: type[A]
    raw: bool = False
    body_bytes_max: int = BODY_BYTES_MAX
    role: AccessRole = field(kw_only=True)
    open: bool = field(default=False, kw_only=True)
    scoped: bool = field(default=False, kw_only=True)
    changes: bool | None = field(default=None, kw_only=True)
    state: Callable[[Call[Any]], Awaitable[msgspec.Struct]] | None = field(default=None, kw_only=True)
    headers: tuple[tuple[str, str, str], ...] = field(default=(), kw_only=True)
    answers: HTTPStatus = field(default=HTTPStatus.OK, kw_only=True)

    @property
    def writes(self) -> bool:
        """Whether asking it may change anything."""
        return self.method != "GET" if self.changes is None else self.changes

    @property
    def repeatable(self) -> bool:
        """Whether asking it again under the same Idempotency-Key is answered again. Content is known by its hash, so sending it twice is the same as once; a login
        is new each time.
        """
        return self.writes and not self.raw and not self.open and self.method != "GET"

    async def decode(self, request: web.Request) -> A:
        """What is asked; InputError names the field and the bound."""
        if self.raw or self.method in BODILESS:
            return convert_query(request, self.asks)
        body = await read_bounded(request, self.body_bytes_max)
        try:
            return msgspec.json.decode(body or b"{}", type=self.asks)
        except (msgspec.DecodeError, RecursionError) as error:
            raise _named(error, "request body") from None


def convert_query(request: web.Request, kind: type[A]) -> A:
    """The query string as ``kind``; a parameter given twice or not known is refused."""
    if len(set(request.query)) != len(request.query):
        raise InputError("query string: a parameter is given twice")
    return convert(request.query, kind, "query string")


def convert(given: Mapping[str, str], kind: type[A], whole: str) -> A:
    """Texts as ``kind``; InputError names the field and the bound, or the ``whole``."""
    try:
        return msgspec.convert(dict(given), kind, strict=False)
    except msgspec.ValidationError as error:
        raise _named(error, whole) from None


def _named(error: Exception, whole: str) -> InputError:
    """What msgspec says, with the field in front where it names one: ``Expected `int` <= 5 - at `$.limit` `` becomes ``limit: expected `int` <= 5``."""
    found = _AT.fullmatch(str(error))
    return InputError(f"{found[2]}: {found[1][0].lower()}{found[1][1:]}" if found else f"{whole}: {error}")


async def read_bounded(request: web.Request, bytes_max: int) -> bytes:
    """The whole body; InputError beyond the bound, before it is read where its length is announced."""
    if (request.content_length or 0) > bytes_max:
        raise too_long(bytes_max)
    pieces: list[bytes] = []
    total = 0
    async for piece in request.content.iter_any():
        total += len(piece)
        if total > bytes_max:
            raise too_long(bytes_max)
        pieces.append(piece)
    return b"".join(pieces)


def too_long(bytes_max: int) -> InputError:
    """The error of a body beyond its bound."""
    return InputError(f"request body: at most {bytes_max} bytes", code="too-long")
