"""One request, as the parser read it: what the rest of this door asks of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from aiohttp import HttpVersion10
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

if TYPE_CHECKING:
    from asyncio import Transport
    from http import HTTPStatus

_UNREADABLE = RawRequestMessage("UNKNOWN", "/", HttpVersion10, CIMultiDictProxy(CIMultiDict()), (), True, None, False, False, URL("/"))
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[A-Za-z0-9._~:%-]+\])(?::[0-9]*)?")


def is_flawed(message: RawRequestMessage, *, has_body: bool) -> bool:
    """What the parser lets through and this door does not: another major version; a Host that is none (RFC 9112 section 3.2); a Transfer-Encoding without a body, so that where it ends is anybody's guess."""
    headers = message.headers
    return message.version.major != 1 or (not has_body and "Transfer-Encoding" in headers) or not _HOST.fullmatch(headers.get("Host", ""))


class Peer(Protocol):
    """The connection a request came by."""

    @property
    def transport(self) -> Transport | None:
        """None when the client is gone."""

    async def drain(self) -> None:
        """Return when the transport's buffer has room; ConnectionResetError when the client is gone."""


class Request:
    """``raw_path`` is the target as it came, bytes outside ASCII as surrogates. ``is_last``: nothing after it is answered: it has a body, which nobody asked
    for, or would change the protocol. ``refused``: what it gets, if it could not be parsed.
    """

    __slots__ = ("_peer", "headers", "keep_alive", "method", "raw_path", "refused", "version")

    def __init__(self, message: RawRequestMessage, peer: Peer, *, is_last: bool = False, refused: HTTPStatus | None = None) -> None:
        self._peer = peer
        self.method = message.method
        self.raw_path = message.path
        self.version = message.version
        self.headers = message.headers
        self.keep_alive = not (message.should_close or is_last)
        self.refused = refused

    @property
    def transport(self) -> Transport | None:
        """Of the client's connection; None when it is gone."""
        return self._peer.transport

    async def drain(self) -> None:
        """Return when the transport's buffer has room; ConnectionResetError when the client is gone."""
        await self._peer.drain()


def unreadable(peer: Peer, status: HTTPStatus) -> Request:
    """In the place of one that could not be parsed, or should not be answered."""
    return Request(_UNREADABLE, peer, refused=status)
