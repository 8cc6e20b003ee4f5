"""The connecting side of the peer doors: opens links, asks whether a member's door answers us, and puts the few questions that need no link (join).

``Dialer`` owns one HTTP client. Foreign exceptions end here: whoever calls sees UnreachableError with a sentence for people, or PeerError.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec

from replicad.errors import InputError, PeerError, UnreachableError
from replicad.net.establish import open_link
from replicad.net.tls import abort, check_pin, client_context, seen_certificate
from replicad.protocol.wire import FRAME_BYTES_MAX

if TYPE_CHECKING:
    from replicad.model.ids import Digest, NodeId
    from replicad.net.link import Link, LinkConfig
    from replicad.protocol.handshake import Identity

LINK_PATH = "/peer/v1/link"
PING_PATH = "/peer/v1/ping"
JOIN_PATH = "/peer/v1/join"
CONNECT_TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 32 << 20
PING_BYTES_MAX = 4096
SOCKET_FRAME_BYTES_MAX = FRAME_BYTES_MAX + 256
CONNECTIONS_MAX = 1024
LABEL_BYTES_MAX = 63
"""RFC 1035: a label of a host name; the resolver raises UnicodeError for a longer or an empty one."""
_CLOSE_TIMEOUT_S = 2.0


class Socket(Protocol):
    """What aiohttp's WebSockets, client or server, have in common."""

    async def receive(self) -> aiohttp.WSMessage:
        """The next message."""

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message."""

    async def close(self) -> bool:
        """Close the connection."""


class _LentSocket(socket.socket):
    """A socket that whoever connects with it closes, and that being forgotten does not close.

    aiohttp connects it and hands it to the loop. uvloop then closes the descriptor itself, and forgets to tell this object if the connection ends in the very moment in which it was made
    (uvloop 0.23, ``create_connection``): closing it here a second time would close whatever got that number since.
    """

    def __del__(self) -> None:
        self.detach()


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    return _LentSocket(family, kind, protocol)


class WebSocketFrames:
    """``net.links.Frames`` over a WebSocket."""

    def __init__(self, websocket: Socket) -> None:
        self._socket = websocket

    async def send(self, frame: bytes) -> None:
        """Send one binary message."""
        try:
            await self._socket.send_bytes(frame)
        except (aiohttp.ClientError, RuntimeError) as error:
            raise ConnectionResetError(str(error)) from None

    async def receive(self) -> bytes:
        """The next binary message. Raises PeerError for text, for a message beyond the bound and for broken framing."""
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            return bytes(message.data)
        if message.type is aiohttp.WSMsgType.TEXT:
            raise PeerError("text message on a link", code="bad-frame")
        if message.type is aiohttp.WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
            raise PeerError(f"WebSocket: {message.data}", code="bad-frame")
        return b""

    async def close(self) -> None:
        """Close the connection."""
        await self._socket.close()


@dataclass(frozen=True)
class Ping:
    """A peer door's answer to a member: its wall clock, its release, and how long the answer took."""

    clock_ms: int
    release: str
    elapsed_s: float


class PingBody(msgspec.Struct, frozen=True):
    """JSON of ``GET /peer/v1/ping``."""

    clock_ms: Annotated[int, msgspec.Meta(ge=0, lt=1 << 48)]
    release: Annotated[str, msgspec.Meta(max_length=40)]


class Dialer:
    """Connects to peer doors. An async context manager."""

    def __init__(self, *, link_config: LinkConfig | None = None) -> None:
        self._link_config = link_config
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ssl=client_context(), force_close=True, socket_factory=_socket)
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        self._client = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def resolve(self, url: str) -> list[str]:
        """The addresses of a peer door's host. Raises UnreachableError."""
        base = urlsplit(check_url(url))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                found = await asyncio.get_running_loop().getaddrinfo(base.hostname, base.port or 443, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            raise _unreachable(url, error) from None
        return sorted({str(address[4][0]) for address in found})

    async def examine(self, url: str) -> tuple[Digest | None, float]:
        """Connect and look: the certificate that the door shows (None: no TLS), and the seconds it took. Raises UnreachableError."""
        base = urlsplit(check_url(url))
        tls = client_context() if base.scheme == "https" else None
        host, port = base.hostname or "", base.port or (443 if tls else 80)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                transport, _ = await loop.create_connection(asyncio.Protocol, host, port, ssl=tls, server_hostname=host if tls else None)
        except (OSError, TimeoutError) as error:
            raise _unreachable(url, error) from None
        seen, elapsed_s = seen_certificate(transport), loop.time() - started
        abort(transport)
        return seen, elapsed_s

    async def link(self, url: str, identity: Identity, *, expect: NodeId | None = None) -> Link:
        """A new link to the peer door at that base URL, handshake done, ready to run. Raises UnreachableError, PeerError."""
        base = check_url(url)
        closing = aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT_S)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                websocket = await self._http.ws_connect(base + LINK_PATH, max_msg_size=SOCKET_FRAME_BYTES_MAX, compress=0, timeout=closing)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(base, error) from None
        link = await open_link(WebSocketFrames(websocket), identity, saw=seen_certificate(websocket), expect=expect, config=self._link_config)
        link.peer_url = base
        link.reachable = True
        return link

    async def ping(self, link: Link, url: str) -> Ping:
        """Ask the member's peer door at that base URL, under the link's session and pin: the proof that it can be reached from here. Raises UnreachableError, PeerError."""
        base = check_url(url)
        started = asyncio.get_running_loop().time()
        headers = {"Authorization": link.authorize("GET", PING_PATH)}
        status, body = await self._request("GET", base + PING_PATH, pin=link.certificate, headers=headers, timeout_s=CONNECT_TIMEOUT_S)
        if status != 200:
            raise PeerError(f"the peer door at {base} answers {status} to a ping", code="bad-answer")
        try:
            answer = msgspec.json.decode(body, type=PingBody)
        except (msgspec.DecodeError, RecursionError) as error:
            raise PeerError(f"the peer door at {base} answers nonsense to a ping: {error}", code="bad-answer") from None
        return Ping(answer.clock_ms, answer.release, asyncio.get_running_loop().time() - started)

    async def ask(self, url: str, path: str, *, pin: Digest | None, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        """POST a small body to a peer door whose certificate must be ``pin`` (None: any); returns status and body. Raises UnreachableError, PeerError("wrong-pin")."""
        headers = {"Content-Type": "application/json"}
        return await self._request("POST", check_url(url) + path, pin=pin, headers=headers, timeout_s=timeout_s, body=body, answer_bytes_max=ANSWER_BYTES_MAX)

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._client is None:
            raise RuntimeError("the dialer is used outside its context")
        return self._client

    async def _request(
        self,
        method: str,
        target: str,
        *,
        pin: Digest | None,
        headers: dict[str, str],
        timeout_s: float,
        body: bytes = b"",
        answer_bytes_max: int = PING_BYTES_MAX,
    ) -> tuple[int, bytes]:
        # The pin is checked by aiohttp when the connection is made, before the request is written: a wrong door learns nothing.
        ssl: Any = aiohttp.Fingerprint(bytes(pin)) if pin is not None else client_context()
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._http.request(method, target, data=body or None, headers=headers, ssl=ssl, allow_redirects=False) as answer,
            ):
                if pin is not None and answer.connection is not None:
                    check_pin(answer.connection.transport, pin)
                content = bytearray()
                while len(content) <= answer_bytes_max and (more := await answer.content.readany()):
                    content += more
        except aiohttp.ServerFingerprintMismatch:
            raise PeerError(f"{target}: the TLS certificate is not the pinned one", code="wrong-pin") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(target, error) from None
        if len(content) > answer_bytes_max:
            raise PeerError(f"{target}: the answer is longer than {answer_bytes_max} bytes", code="bad-answer")
        return answer.status, bytes(content)


def check_url(url: str) -> str:
    """A peer door's base URL without a trailing slash: http or https, host and port, nothing else, all in ASCII. Raises InputError. Members and tokens name doors, so this may be anything."""
    try:
        parts = urlsplit(url)
        labels = (parts.hostname or "").rstrip(".").split(".")
        is_host = url.isascii() and url.isprintable() and all(0 < len(label) <= LABEL_BYTES_MAX for label in labels)
        ok = is_host and parts.scheme in ("http", "https") and parts.port != 0 and not parts.query and not parts.fragment and not parts.username
    except ValueError:
        ok = False
    if not ok or len(url) > 255 or parts.path not in ("", "/"):
        raise InputError(f"peer URL {url[:100]!r}: http(s)://HOST:PORT expected, nothing behind it")
    return f"{parts.scheme}://{parts.netloc}"


def _unreachable(url: str, error: BaseException) -> UnreachableError:
    """A sentence for people instead of a client library's exception."""
    place = urlsplit(url).netloc
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, TimeoutError):
        reason = f"no answer within {CONNECT_TIMEOUT_S:.0f} s from {place}"
    elif isinstance(cause, ConnectionRefusedError):
        reason = f"connection refused at {place}"
    elif isinstance(cause, socket.gaierror):
        reason = f"no address is known for {place}"
    elif isinstance(error, aiohttp.WSServerHandshakeError):
        reason = f"the door at {place} answers {error.status} instead of a link"
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        reason = f"{place} closed the connection"
    else:
        reason = f"cannot connect to {place}: {str(cause) or type(cause).__name__}"
    return UnreachableError(reason)
