"""From a request's method and fields, and one version of a file, to the exact bytes of an answer's head and the spans of the file that follow.

Pure. RFC 9110 sections 8 (validators), 13 (conditions), 14 (ranges), 15 (status codes); RFC 9530 (Repr-Digest). Every answer with a body has an exact Content-Length; nothing is ever chunked.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from replicad.model.ids import Digest
from replicad.server.downloads.conditions import Fields, Validators, Verdict, http_date, judge, range_applies
from replicad.server.downloads.content_type import OCTETS
from replicad.server.downloads.ranges import Span, select

METHODS = ("GET", "HEAD")
MODIFIED_MAX = 253_402_300_799
"""The last second of the year 9999: HTTP-dates have no more digits."""
_REVALIDATE = "no-cache"
"""For names, which may be replaced at any time: caches may keep them, and ask. A 304 costs next to nothing."""
_FOREVER = "max-age=31536000, immutable"
"""For blobs by hash: RFC 8246. Not "public": what somebody got with a password is nobody else's (RFC 9111 section 3.5)."""


class Version(NamedTuple):
    """One version of one thing to download. ``modified`` in seconds since 1970 (None: it has no date); ``lasting``: this address will never show anything else."""

    content: Digest
    size: int
    modified: int | None
    media_type: str = OCTETS
    lasting: bool = False


class Piece(NamedTuple):
    """``lead`` and then the span of the file."""

    lead: bytes
    span: Span


class Answer(NamedTuple):
    """``fields`` are complete lines, without Date, Connection and the empty line; after the head come ``body``, the ``pieces`` of the file, and ``tail``."""

    status: int
    fields: bytes
    body: bytes = b""
    pieces: tuple[Piece, ...] = ()
    tail: bytes = b""

    @property
    def status_line(self) -> bytes:
        """``HTTP/1.1 200 OK`` and its line end."""
        return _STATUS_LINES[self.status]


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
OK, PARTIAL, NOT_MODIFIED = HTTPStatus.OK.value, HTTPStatus.PARTIAL_CONTENT.value, HTTPStatus.NOT_MODIFIED.value


def answer(method: str, fields: Fields, version: Version, *, now_s: float, boundary: Callable[[], str]) -> Answer:
    """The answer to GET or HEAD of a file that is here. ``boundary`` makes an unguessable token (no content can contain it by design); asked only when there are several parts."""
    described = _described(version.content, version.modified, version.lasting)
    verdict = judge(fields, described.validators, now_s=now_s)
    if verdict is Verdict.FAILED:
        return plain(HTTPStatus.PRECONDITION_FAILED, method)
    if verdict is Verdict.NOT_MODIFIED:
        return Answer(NOT_MODIFIED, described.short)
    wanted = _wanted(method, fields, version.size, described.validators, now_s)
    if wanted is None:
        return _whole(method, version)
    if not wanted:
        return plain(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, method, extra=f"Content-Range: bytes */{version.size}\r\n".encode())
    if len(wanted) > 1:
        return _multipart(described.full, wanted, version, boundary())
    span = wanted[0]
    return Answer(PARTIAL, described.full + _content_range(span, version.size) + _content(version.media_type, span.size), pieces=(Piece(b"", span),))


def plain(status: HTTPStatus, method: str, *, extra: bytes = b"") -> Answer:
    """A short text: for everything that is not a file. The same for every cause of that status, so that it says nothing about what exists."""
    body = f"{status.value} {status.phrase}\n".encode()
    return Answer(status.value, extra + _content("text/plain; charset=utf-8", len(body)), body=b"" if method == "HEAD" else body)


def document(method: str, media_type: str, body: bytes, *, extra: bytes = b"Cache-Control: no-store\r\n") -> Answer:
    """A page made now."""
    return Answer(OK, extra + _content(media_type, len(body)), body=b"" if method == "HEAD" else body)


def field(name: str, value: str) -> bytes:
    """A complete line, for values that others had a hand in. ValueError, which becomes a 500, for one that is not printable ASCII: no value ends its line, or the head (RFC 9110 section 5.5)."""
    if not value.isascii() or not value.isprintable():
        raise ValueError(f"a {name} field that could be taken for more than one: {value[:100]!a}")
    return f"{name}: {value}\r\n".encode()


def page(status: HTTPStatus, method: str, value: object) -> Answer:
    """A JSON object about this node, never cached."""
    body = json.dumps(value).encode() + b"\n"
    return Answer(status.value, b"Cache-Control: no-store\r\n" + _content("application/json", len(body)), body=b"" if method == "HEAD" else body)


class _Described(NamedTuple):
    """``short`` are the fields of a 304 (section 15.4.5), ``full`` those of an answer with content."""

    validators: Validators
    short: bytes
    full: bytes


@lru_cache(maxsize=4096)
def _described(content: Digest, modified: int | None, lasting: bool) -> _Described:
    """The fields that every answer about a version has."""
    validators = Validators(f'"{content}"', modified)
    dated = "" if modified is None else f"Last-Modified: {http_date(modified)}\r\n"
    short = f"ETag: {validators.etag}\r\n{dated}Cache-Control: {_FOREVER if lasting else _REVALIDATE}\r\n".encode()
    digest = base64.b64encode(content).decode()
    return _Described(validators, short, short + f"Accept-Ranges: bytes\r\nRepr-Digest: sha-256=:{digest}:\r\n".encode())


@lru_cache(maxsize=4096)
def _whole(method: str, version: Version) -> Answer:
    """The answer that nearly every request gets, made once."""
    fields = _described(version.content, version.modified, version.lasting).full + _content(version.media_type, version.size)
    return Answer(OK, fields, pieces=(Piece(b"", Span(0, version.size)),) if method == "GET" else ())


def _wanted(method: str, fields: Fields, size: int, validators: Validators, now_s: float) -> tuple[Span, ...] | None:
    """Section 14.2: Range counts for GET alone, once, and only under If-Range."""
    headers = fields.getall("Range", ())
    if method != "GET" or len(headers) != 1 or not range_applies(fields.get("If-Range"), validators, now_s=now_s):
        return None
    return select(headers[0], size)


def _content(media_type: str, length: int) -> bytes:
    return f"Content-Type: {media_type}\r\nX-Content-Type-Options: nosniff\r\nContent-Length: {length}\r\n".encode()


def _content_range(span: Span, size: int) -> bytes:
    return f"Content-Range: bytes {span.start}-{span.stop - 1}/{size}\r\n".encode()


def _multipart(described: bytes, spans: tuple[Span, ...], version: Version, boundary: str) -> Answer:
    """Section 14.6."""
    opening = f"\r\n--{boundary}\r\nContent-Type: {version.media_type}\r\n".encode()
    pieces = tuple(Piece(opening + _content_range(span, version.size) + b"\r\n", span) for span in spans)
    tail = f"\r\n--{boundary}--\r\n".encode()
    length = sum(len(piece.lead) + piece.span.size for piece in pieces) + len(tail)
    return Answer(PARTIAL, described + _content(f"multipart/byteranges; boundary={boundary}", length), pieces=pieces, tail=tail)
