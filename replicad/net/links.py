"""Links: the authenticated, long-lived connections between this node and other members, and the table in which everybody finds them.

A ``Link`` carries ``protocol.wire`` messages over ``Frames`` (a WebSocket, or the in-memory pipe of ``net.memory``) after the handshake yielded a ``Session``. It answers pings, measures
the round trip, renews the session's keys and, where there is no TLS, protects every frame. Both directions are bounded: what a slow peer does not take in time overflows its queue and closes
the link (the records reach it later by anti-entropy); reading stops while a handler works.

``LinkTable`` holds at most one link per member, routes messages to handlers and authenticates data requests against the sessions of its links. When two nodes dial each other at the same
moment both keep the same one of the two links (``supersedes``).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from replicad.crypto.session import Credentials, Ephemeral, Session, fields, nonce
from replicad.errors import PeerError
from replicad.model.ids import Digest, NodeId
from replicad.protocol.wire import Fault, Message, Ping, Pong, Renew, decode, encode

log = logging.getLogger(__name__)

SIMULTANEOUS_S = 15.0
"""Two links younger than this may come from both sides dialling at once: longer than a handshake may take (10 s) plus a margin."""
RETIRED_SESSION_S = 30.0
RETIRED_SESSIONS_MAX = 1024

M = TypeVar("M", bound=Message)
Handler = Callable[["Link", M], Awaitable[None] | None]


@dataclass(frozen=True)
class LinkConfig:
    """Bounds of one link. All are guesses from common practice (WebSocket proxies drop idle connections after 60 s and more); none decides correctness."""

    ping_s: float = 10.0
    dead_s: float = 35.0
    renew_s: float = 300.0
    queue_messages: int = 4096
    queue_bytes: int = 16 << 20
    farewell_s: float = 1.0


class Frames(Protocol):
    """Whole frames over some carrier, in order."""

    async def send(self, frame: bytes) -> None:
        """Hand one frame to the carrier; returns when it may take the next. Raises ConnectionError when it is gone."""

    async def receive(self) -> bytes:
        """The next frame; ``b""`` when the other side closed. Raises PeerError for a frame beyond the bound or of a wrong kind."""

    async def close(self) -> None:
        """Close the carrier within a few seconds; safe to repeat, never raises."""


@dataclass(frozen=True)
class Peer:
    """What the handshake proved about the other side. ``certificate`` is its TLS certificate's fingerprint (None: it runs without TLS). ``outgoing``: we opened the link."""

    node: NodeId
    version: int
    certificate: Digest | None
    outgoing: bool


class Link:
    """One link. ``run`` moves its messages until it ends; everything else is for the event loop's thread and never waits."""

    def __init__(self, frames: Frames, peer: Peer, session: Session, *, config: LinkConfig | None = None) -> None:
        self.node = peer.node
        self.version = peer.version
        self.outgoing = peer.outgoing
        self.certificate = peer.certificate
        """Fingerprint of the peer's TLS certificate; None when its peer door runs without TLS."""
        self.session = session
        self.peer_url: str | None = None
        """Base URL of the member's peer door (``https://host:port``), if any is known."""
        self.reachable = False
        """Whether that door answers us: data may be fetched from it directly."""
        self.rtt_s: float | None = None
        self.since_ms = int(time.time() * 1000)
        self.protected = False
        """Every frame carries the session's MAC (there is no TLS between us)."""
        self._config = config or LinkConfig()
        self._frames = frames
        self._opened_s = time.monotonic()
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._reason = ""
        self._fault: Fault | None = None
        self._pings: dict[int, float] = {}
        self._ping_number = 0
        self._heard_s = time.monotonic()
        self._handling = False
        self._renewal: tuple[Ephemeral, bytes] | None = None

    def __repr__(self) -> str:
        return f"Link({self.node.short}, {'to' if self.outgoing else 'from'} {self.peer_url})"

    @property
    def age_s(self) -> float:
        """Seconds since the handshake."""
        return time.monotonic() - self._opened_s

    @property
    def closed(self) -> bool:
        """Whether the link is closing or closed: ``send`` drops what it is given."""
        return self._closing.is_set()

    @property
    def reason(self) -> str:
        """Why the link closed; empty while it is open."""
        return self._reason

    @property
    def queued_bytes(self) -> int:
        """Bytes waiting to be sent."""
        return self._queued_bytes

    def send(self, message: Message) -> None:
        """Queue a message. A full queue closes the link: its peer is too slow, and what it misses it will ask for when it is back. Nothing is queued on a closed link."""
        if self.closed:
            return
        frame = encode(message)
        if len(self._queue) >= self._config.queue_messages or self._queued_bytes + len(frame) > self._config.queue_bytes:
            self.close("the peer takes messages too slowly")
            return
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self._wake.set()

    def close(self, reason: str, *, code: str = "") -> None:
        """Close the link at once. With a ``code`` the peer is told why before."""
        if self.closed:
            return
        self._reason = reason
        self._fault = Fault(code, reason[:500]) if code else None
        self._closing.set()
        self._wake.set()

    def authorize(self, method: str, target: str, range_: str = "") -> str:
        """The ``Authorization`` header for one data request to this member. Raises PeerError when the session's keys are too old."""
        return self.session.authorize(method, target, range_, now_ms=_monotonic_ms())

    def check(self, credentials: Credentials, method: str, target: str, range_: str = "") -> None:
        """Check what the member sent with a data request; PeerError unless it is genuine and new."""
        self.session.check(credentials, method, target, range_, now_ms=_monotonic_ms())

    async def run(self, dispatch: Callable[[Link, Message], Awaitable[None] | None]) -> str:
        """Move messages until the link ends; returns the reason. PeerErrors of ``dispatch`` end the link with their code; its other exceptions too, and are logged."""
        try:
            async with asyncio.TaskGroup() as group:
                jobs = [group.create_task(self._guarded(job)) for job in (self._write(), self._read(dispatch), self._keep())]
                await self._closing.wait()
                for job in jobs:
                    job.cancel()
        finally:
            self.close("stopped")
            await self._end()
        return self._reason

    async def _guarded(self, job: Coroutine[Any, Any, None]) -> None:
        try:
            await job
        except Exception:
            log.exception("link failed", extra={"peer": self.node.short})
            self.close("internal error", code="internal")

    async def _end(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        try:
            async with asyncio.timeout(self._config.farewell_s):
                if self._fault is not None:
                    await self._send_frame(encode(self._fault))
        except (TimeoutError, ConnectionError):
            log.debug("link ended without a farewell", extra={"peer": self.node.short})
        finally:
            await self._frames.close()

    # -- the three jobs -----------------------------------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            while self._queue:
                frame = self._queue.popleft()
                try:
                    await self._send_frame(frame)
                except ConnectionError as error:
                    self.close(f"connection lost ({error or type(error).__name__})")
                    return
                self._queued_bytes -= len(frame)
            self._wake.clear()
            await self._wake.wait()

    async def _send_frame(self, frame: bytes) -> None:
        await self._frames.send(self.session.protect(frame) if self.protected else frame)

    async def _read(self, dispatch: Callable[[Link, Message], Awaitable[None] | None]) -> None:
        try:
            while frame := await self._frames.receive():
                self._heard_s = time.monotonic()
                message = decode(self.session.unprotect(frame) if self.protected else frame)
                if not self._own(message) and (working := dispatch(self, message)) is not None:
                    self._handling = True
                    await working
                    self._handling = False
                    self._heard_s = time.monotonic()
            self.close("closed by the peer")
        except PeerError as error:
            log.warning("link dropped", extra={"peer": self.node.short, "code": error.error_code, "reason": error.message})
            self.close(error.message, code=error.error_code)
        except ConnectionError as error:
            self.close(f"connection lost ({error or type(error).__name__})")

    async def _keep(self) -> None:
        """Ping, notice silence, renew keys."""
        renewed_s = time.monotonic()
        while True:
            self._ping_number += 1
            self._pings[self._ping_number] = time.monotonic()
            self.send(Ping(self._ping_number))
            await asyncio.sleep(self._config.ping_s)
            now_s = time.monotonic()
            if now_s - self._heard_s > self._config.dead_s and not self._handling:
                self.close(f"nothing heard for {self._config.dead_s:.0f} s")
            if self.outgoing and now_s - renewed_s >= self._config.renew_s:
                renewed_s = now_s
                self.renew()

    # -- the link's own messages --------------------------------------------------------------------------------------------------------------------

    def _own(self, message: Message) -> bool:
        """Handle pings, renewals and faults here; True when it was one."""
        if isinstance(message, Ping):
            self.send(Pong(message.number))
        elif isinstance(message, Pong):
            self._measure(message.number)
        elif isinstance(message, Renew):
            self._renew(message)
        elif isinstance(message, Fault):
            self.close(f"the peer says: {message.message}")
        else:
            return False
        return True

    def _measure(self, number: int) -> None:
        if (sent_s := self._pings.pop(number, None)) is None:
            return
        for older in [known for known in self._pings if known < number]:
            del self._pings[older]
        sample = time.monotonic() - sent_s
        self.rtt_s = sample if self.rtt_s is None else 0.75 * self.rtt_s + 0.25 * sample

    def renew(self) -> None:
        """Begin a renewal of the session's keys; only the side that opened the link does."""
        self._renewal = Ephemeral(), nonce()
        self.send(Renew(0, self._renewal[0].public, self._renewal[1]))

    def _renew(self, message: Renew) -> None:
        """Step 0 at the side that was dialled, step 1 at the dialler, step 2 again at the first."""
        if (message.step == 1) != self.outgoing or (message.step != 2 and len(message.ephemeral) + len(message.nonce) != 64):
            raise PeerError(f"renewal step {message.step} out of place", code="bad-renewal")
        if message.step == 2:
            self.session.advance()
            return
        if message.step == 0:
            own = Ephemeral(), nonce()
            offer, answer = message, Renew(1, own[0].public, own[1])
        elif self._renewal is not None:
            own, self._renewal = self._renewal, None
            offer, answer = Renew(0, own[0].public, own[1]), message
        else:
            raise PeerError("renewal answered that was never begun", code="bad-renewal")
        binding = fields(offer.ephemeral, offer.nonce, answer.ephemeral, answer.nonce)
        self.session.prepare(own[0].exchange(message.ephemeral), binding, now_ms=_monotonic_ms())
        if message.step == 0:
            self.send(answer)
        else:
            self.session.advance()
            self.send(Renew(2))


def supersedes(new: Link, old: Link, own: NodeId) -> bool:
    """Whether ``new`` replaces ``old`` to the same member; both sides decide alike.

    Opened by the same side: the newer one (its opener has lost the other). By different sides at about the same moment: the one opened by the smaller node id. Otherwise the newer one: a
    node that has a link does not dial.
    """
    if new.outgoing == old.outgoing or old.age_s - new.age_s > SIMULTANEOUS_S:
        return True
    return new.outgoing == (own < new.node)


@dataclass
class _Retired:
    node: NodeId
    session: Session
    until_s: float


@dataclass
class LinkTable:
    """The links of this node. ``own`` is its id; ``may_link`` is asked for every data request and for every new link whether that node is a member now."""

    own: NodeId
    may_link: Callable[[NodeId], bool] = lambda _node: True
    _links: dict[NodeId, Link] = field(default_factory=dict)
    _handlers: dict[type, Handler[Any]] = field(default_factory=dict)
    _up: list[Callable[[Link], None]] = field(default_factory=list)
    _down: list[Callable[[Link, str], None]] = field(default_factory=list)
    _retired: deque[_Retired] = field(default_factory=lambda: deque(maxlen=RETIRED_SESSIONS_MAX))
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def get(self, node: NodeId) -> Link | None:
        """The working link to that member, if any."""
        return self._links.get(node)

    def all(self) -> tuple[Link, ...]:
        """All working links."""
        return tuple(self._links.values())

    def route(self, message_type: type[M], handler: Handler[M]) -> None:
        """Let ``handler(link, message)`` have every message of that type, in order per link. An awaitable it returns is awaited before the link's next message is read. One handler a type."""
        if message_type in self._handlers:
            raise ValueError(f"{message_type.__name__} has a handler already")
        self._handlers[message_type] = handler

    def on_up(self, callback: Callable[[Link], None]) -> None:
        """Call back with every link that begins to work."""
        self._up.append(callback)

    def on_down(self, callback: Callable[[Link, str], None]) -> None:
        """Call back with every link that ended (also when another to the same member replaces it: then its successor is up already) and the reason."""
        self._down.append(callback)

    def authenticate(self, authorization: str | None, method: str, target: str, range_: str = "") -> Link:
        """The link of the member that made a data request, if its ``Authorization`` value proves it. ``target`` is the raw path and query, ``range_`` the Range header's value.

        Raises PeerError: ``bad-credentials``, ``session-expired``, ``replay``, ``not-a-member``. The link may be a newer one than the request was made under.
        """
        credentials = Credentials.parse(authorization)
        link = self._links.get(credentials.node)
        if link is None or link.closed:
            raise PeerError("no link with the node that asks", code="bad-credentials")
        if not self.may_link(link.node):
            raise PeerError("the node that asks is not a member", code="not-a-member")
        if credentials.session in link.session.ids:
            link.check(credentials, method, target, range_)
            return link
        for retired in self._retired:
            if retired.node == link.node and retired.until_s > time.monotonic() and credentials.session in retired.session.ids:
                retired.session.check(credentials, method, target, range_, now_ms=_monotonic_ms())
                return link
        raise PeerError("credentials of another session", code="bad-credentials")

    async def run(self, link: Link) -> str:
        """Serve a link until it ends; returns the reason. It is in the table meanwhile, unless its member is none any more or another link to it is the better one."""
        listed = self._add(link)
        try:
            return await link.run(self._dispatch)
        finally:
            if listed:
                self._remove(link)

    def close_all(self, reason: str) -> None:
        """Close every link."""
        for link in self.all():
            link.close(reason, code="bye")

    def _add(self, link: Link) -> bool:
        old = self._links.get(link.node)
        if not self.may_link(link.node):
            link.close("not a member of the network", code="not-a-member")
            return False
        if old is not None and not old.closed and not supersedes(link, old, self.own):
            self._retire(link)
            link.close("another link to this member stays", code="duplicate")
            return False
        self._links[link.node] = link
        if old is not None:
            self._retire(old)
            old.close("replaced by a newer link", code="duplicate")
        log.info("link up", extra={"peer": link.node.short, "outgoing": link.outgoing})
        for callback in self._up:
            callback(link)
        return True

    def _retire(self, link: Link) -> None:
        """Data requests made a moment ago under the session of a link that lost against another one are still good."""
        self._retired.append(_Retired(link.node, link.session, time.monotonic() + RETIRED_SESSION_S))

    def _remove(self, link: Link) -> None:
        if self._links.get(link.node) is link:
            del self._links[link.node]
        log.info("link down", extra={"peer": link.node.short, "reason": link.reason})
        for callback in self._down:
            callback(link, link.reason)

    def _dispatch(self, link: Link, message: Message) -> Awaitable[None] | None:
        handler = self._handlers.get(type(message))
        if handler is None or self._links.get(link.node) is not link:
            return None
        result = handler(link, message)
        return result if inspect.isawaitable(result) else None


def _monotonic_ms() -> int:
    return int(time.monotonic() * 1000)
