"""The admin API's client: http.client over the daemon's Unix socket, or over TCP with a bearer token.

One request at a time on a connection of its own; ``connect`` gives a raw connection for uploads and downloads. Every failure becomes an error of ``replicad.errors``: a problem document keeps
its code, its sentence and its hint, whatever the transport says becomes UnreachableError.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from replicad import errors
from replicad.server.admin.nouns import Problem

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 60.0
"""Most verbs answer in milliseconds; a daemon that is busy with a large transaction may take seconds. A guess."""
ANSWER_BYTES_MAX = 256 * 1024 * 1024
PAGE_ITEMS = 5000
"""Rows of one page of a list: as many as the API gives, so that a directory of a few thousand files is one question."""
PREFIX = "/api/v1"

T = TypeVar("T")


class Page(Protocol):
    """An answer that may go on: ``next`` is what ``after`` takes for the following one."""

    @property
    def next(self) -> str | int | None:
        """None at the end."""


P = TypeVar("P", bound=Page)


def _tree(kind: type[errors.ReplicadError]) -> Iterator[type[errors.ReplicadError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


def error_of(problem: Problem) -> errors.ReplicadError:
    """The error that a problem document describes: by its code if that is an error's own, else by its status, so that an unknown code still gives the right exit code."""
    kinds = list(_tree(errors.ReplicadError))
    by_code = {kind.code: kind for kind in kinds}
    by_status = {kind.http_status: kind for kind in reversed(kinds)} | {HTTPStatus.UNAUTHORIZED: errors.NotAllowedError}
    kind = by_code.get(problem.code) or by_status.get(problem.status, errors.ReplicadError)
    return kind(problem.detail, hint=problem.hint, code=problem.code)


def path_of(*segments: str, file: str = "") -> str:
    """An API path of percent-encoded segments. ``file`` is a path inside a share: its slashes stay."""
    return "/".join([PREFIX, *(quote(segment, safe="") for segment in segments), *([quote(file)] if file else [])])


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: str, *, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


class Client(msgspec.Struct, frozen=True):
    """Where the daemon is: ``socket_path`` (trusted), or ``url`` with ``token``. ``ca``: certificates (PEM) that are trusted instead of the system's; empty: the system's."""

    socket_path: str = ""
    url: str = ""
    token: str = ""
    ca: str = ""

    @property
    def place(self) -> str:
        """For messages."""
        return self.url or self.socket_path

    def connect(self, timeout_s: float = ANSWER_TIMEOUT_S) -> http.client.HTTPConnection:
        """A connection that connects with its first request."""
        if not self.url:
            return UnixConnection(self.socket_path, timeout_s=timeout_s)
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.netloc, timeout=timeout_s, context=ssl.create_default_context(cadata=self.ca or None))
        return http.client.HTTPConnection(parts.netloc, timeout=timeout_s)

    def target(self, path: str, query: dict[str, Any] | None = None) -> str:
        """The request target of an API path, below the URL's own path if it has one."""
        given = {key: _text(value) for key, value in (query or {}).items() if value is not None}
        return urlsplit(self.url).path.rstrip("/") + path + ("?" + urlencode(given) if given else "")

    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @contextlib.contextmanager
    def wrapped(self) -> Iterator[None]:
        """Turns what the transport says into errors for people."""
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise errors.UnreachableError(f"{self.place}: its certificate cannot be verified ({error.verify_message})") from error
        except PermissionError as error:
            raise errors.NotAllowedError(f"no permission to use {self.place}", hint="run it as root or as a member of the group replicad") from error
        except TimeoutError as error:
            raise errors.UnreachableError(f"the daemon at {self.place} did not answer in time") from error
        except (OSError, http.client.HTTPException) as error:
            hint = f"is {self.url} the daemon's admin listener?" if self.url else "start it: replicad serve   (or: systemctl start replicad)"
            raise errors.UnreachableError(f"the daemon does not answer at {self.place} ({_reason(error)})", hint=hint) from error

    def ask(
        self,
        method: str,
        path: str,
        *,
        answer: type[T],
        query: dict[str, Any] | None = None,
        body: msgspec.Struct | None = None,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
    ) -> T:
        """One request and its decoded answer. ``timeout_s`` None waits as long as the daemon works."""
        headers = self.headers()
        encoded = None
        if body is not None:
            encoded = msgspec.json.encode(body)
            headers["Content-Type"] = "application/json"
        with self.wrapped(), contextlib.closing(self.connect(min(CONNECT_TIMEOUT_S, timeout_s or CONNECT_TIMEOUT_S))) as connection:
            connection.connect()
            connection.sock.settimeout(timeout_s)
            connection.request(method, self.target(path, query), body=encoded, headers=headers)
            return decode(connection.getresponse(), answer)

    def pages(self, path: str, *, answer: type[P], query: dict[str, Any] | None = None) -> Iterator[P]:
        """A list, page by page, each when it is asked for."""
        asked = {"limit": PAGE_ITEMS, **(query or {})}
        while True:
            page = self.ask("GET", path, answer=answer, query=asked)
            yield page
            if page.next is None:
                return
            asked["after"] = page.next

    def whole(self, path: str, *, answer: type[P], items: str, query: dict[str, Any] | None = None) -> P:
        """A list: the last page with the ``items`` of all."""
        found: list[Any] = []
        for page in self.pages(path, answer=answer, query=query):
            found += getattr(page, items)
        return msgspec.structs.replace(page, **{items: found})  # type: ignore[type-var]  # the nouns are structs


def decode(response: http.client.HTTPResponse, answer: type[T]) -> T:
    """The decoded body of a good answer; raises the error that a problem document describes."""
    content = response.read(ANSWER_BYTES_MAX)
    if response.status >= HTTPStatus.BAD_REQUEST:
        raise error_of(problem_of(response, content))
    try:
        return msgspec.json.decode(content, type=answer)
    except msgspec.DecodeError as error:
        raise errors.UnreachableError(f"the answer is not of the admin API: {error}") from error


def problem_of(response: http.client.HTTPResponse, content: bytes) -> Problem:
    """The problem document of an answer, or one made from its status line when something else answered."""
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(content, type=Problem)
    return Problem(status=response.status, title=response.reason, code="http", detail=f"the daemon answered {response.status} {response.reason}")


def _text(value: Any) -> str:
    return ("false", "true")[value] if isinstance(value, bool) else str(value)


def _reason(error: Exception) -> str:
    if isinstance(error, BrokenPipeError | ConnectionResetError):
        return "it ended the connection"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
