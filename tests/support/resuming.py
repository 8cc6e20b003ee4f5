"""A client whose connections keep breaking: it resumes what it has where the server lets it, and starts again where the server says so."""

from __future__ import annotations

import hashlib
import http.client
import random
from collections.abc import Callable
from dataclasses import dataclass

from support.waiting import wait_for

READ_BYTES = 1 << 18


@dataclass(frozen=True)
class Downloaded:
    """A complete file, as its headers and its bytes say. ``pieces``: answers it was put together from."""

    tag: str
    sha256: str
    pieces: int


class Resuming:
    """One file at a time. ``if_range``: as RFC 9110 would have it; else as Munki does it, which asks for the rest and compares ETag and Last-Modified itself. ``pace`` is called with the bytes of
    every piece, and with 0 where there is no file now. ``restarts`` counts parts that were given up, because the rest was of another version or there was none.
    """

    def __init__(
        self,
        port: int,
        path: str,
        dice: random.Random,
        *,
        if_range: bool,
        cut_bytes: int,
        ended: Callable[[], bool] = lambda: False,
        pace: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._port = port
        self._path = path
        self._dice = dice
        self._if_range = if_range
        self._cut_bytes = cut_bytes
        self._ended = ended
        self._pace = pace
        self.restarts = 0
        self._forget()

    def _forget(self) -> None:
        self._hashed = hashlib.sha256()
        self._have = self._pieces = 0
        self._size = -1
        self._validators: tuple[str | None, str | None] = (None, None)

    def download(self, *, deadline_s: float) -> Downloaded | None:
        """The whole file, over as many connections as it takes; None if it ``ended`` before."""
        self._forget()
        found: Downloaded | None = None

        def attempt() -> bool:
            nonlocal found
            found = self._attempt()
            return found is not None or self._ended()

        wait_for(attempt, what=f"a download of {self._path}", deadline_s=deadline_s)
        return found

    def _attempt(self) -> Downloaded | None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request("GET", self._path, headers=self._headers())
            response = connection.getresponse()
            if self._take(response):
                self._read(response)
        except (http.client.HTTPException, OSError):
            pass
        finally:
            connection.close()
        return Downloaded(self._validators[0] or "", self._hashed.hexdigest(), self._pieces) if self._have == self._size else None

    def _headers(self) -> dict[str, str]:
        if not self._have:
            return {}
        resume = {"Range": f"bytes={self._have}-"}
        return {**resume, "If-Range": self._validators[0] or ""} if self._if_range else resume

    def _take(self, response: http.client.HTTPResponse) -> bool:
        """Whether the body goes on where we are. Anything but 206 of the same version is a new start."""
        validators = response.getheader("ETag"), response.getheader("Last-Modified")
        goes_on = response.status == 206 and validators == self._validators and int(response.getheader("Content-Length", "0")) + self._have == self._size
        if goes_on:
            return True
        self.restarts += self._have > 0
        self._forget()
        if response.status == 200:
            self._validators, self._size = validators, int(response.getheader("Content-Length", "-1"))
        else:
            self._pace(0)
        return response.status == 200

    def _read(self, response: http.client.HTTPResponse) -> None:
        self._pieces += 1
        until = self._have + self._dice.randrange(self._cut_bytes)
        while self._have < until and not self._ended() and (piece := response.read(min(READ_BYTES, until - self._have))):
            self._hashed.update(piece)
            self._have += len(piece)
            self._pace(len(piece))
