"""A link: the authenticated, long-lived connection between this node and one other member.

A ``Link`` carries ``protocol.wire`` messages over ``Frames`` (a WebSocket, or the in-memory pipe of ``net.memory``) after the handshake yielded a ``Session``. It answers pings, measures
the round trip, renews the session's keys and, where there is no TLS, protects every frame. Both directions are bounded: what a slow peer does not take in time overflows its queue and closes
the link (the records reach it later by anti-entropy); reading stops while a handler works.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from replicad.crypto.session import Credentials, Ephemeral, Session, fields, nonce
from replicad.errors import PeerError
from replicad.model.ids import Digest, NodeId
from replicad.protocol.wire import Fault, Message, Ping, Pong, Renew, decode, encode
from replicad.telemetry.log import get

log = get(__name__)


UNPROVEN = frozenset({"bad-mac", "bad-frame"})
"""Without TLS somebody in between may have done it."""
PINGS_MAX = 8
"""Pings whose answer is still waited for: a peer that never answers them costs no more."""


@dataclass(frozen=True)
class LinkConfig:
    """Bounds of one link. All are guesses from common practice (WebSocket proxies drop idle connections after 60 s and more); none decides correctness."""

    ping_s: float = 10.0
    dead_s: float = 35.0
    renew_s: float = 300.0
    queue_messages: int = 4096
    queue_bytes: int = 16 << 20
    farewell_s: float = 1.0
    parting_s: float = 5.0


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
    """What the handshake proved about the other side. ``certificate`` is its TLS certificate's fingerprint, if it is known. ``outgoing``: we opened the link."""

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
        """Fingerprint of the TLS certificate of the peer's door, which data requests pin: from the handshake, or (it linked to us) from its head. None: no TLS, or not known yet."""
        self.session = session
        self.peer_url: str | None = None
        """Base URL of the member's peer door (``https://host:port``), if any is known."""
        self.reachable = False
        """Whether that door answers us: data may be fetched from it directly."""
        self.rtt_s: float | None = None
        self.since_ms = int(time.time() * 1000)
        self.protected = False
        """Every frame carries the session's MAC (there is no TLS between us)."""
        self.offence = ""
        """Code of what the peer did that no honest one does, if that ended the link."""
        self._config = config or LinkConfig()
        self._frames = frames
        self._opened_s = time.monotonic()
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._reason = ""
        self._fault: Fault | None = None
        self._parting: Message | None = None
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

    def close(self, reason: str, *, code: str = "", parting: Message | None = None) -> None:
        """Close the link at once. With a ``code`` the peer is told why before, and before that is sent ``parting``."""
        if self.closed:
            return
        self._reason = reason
        self._parting = parting
        self._fault = Fault(code, reason[:500]) if code else None
        self._closing.set()
        self._wake.set()

    def authorize(self, method: str, target: str, range_: str = "") -> str:
        """The ``Authorization`` header for one data request to this member. Raises PeerError when the session's keys are too old."""
        return self.session.authorize(method, target, range_, now_ms=monotonic_ms())

    def check(self, credentials: Credentials, method: str, target: str, range_: str = "") -> None:
        """Check what the member sent with a data request; PeerError unless it is genuine and new."""
        self.session.check(credentials, method, target, range_, now_ms=monotonic_ms())

    async def run(self, dispatch: Callable[[Link, Message], Awaitable[None] | None]) -> str:
        """Move messages until the link ends; returns the reason. PeerErrors of ``dispatch`` end the link with their code; its other exceptions too, and are logged."""
        try:
            async with asyncio.TaskGroup() as group:
                jobs = [group.create_task(self._guarded(job)) for job in (self._write, partial(self._read, dispatch), self._keep)]
                await self._closing.wait()
                for job in jobs:
                    job.cancel()
        finally:
            self.close("stopped")
            await self._end()
        return self._reason

    async def _guarded(self, job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except Exception:
            log.exception("link failed", peer=self.node.short)
            self.close("internal error", code="internal")

    async def _end(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        try:
            async with asyncio.timeout(self._config.farewell_s if self._parting is None else self._config.parting_s):
                for last in (self._parting, self._fault):
                    if last is not None:
                        await self._send_frame(encode(last))
        except (TimeoutError, ConnectionError):
            log.debug("link ended without a farewell", peer=self.node.short)
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
                if message is not None and not self._own(message) and (working := dispatch(self, message)) is not None:
                    self._handling = True
                    await working
                    self._handling = False
                    self._heard_s = time.monotonic()
            self.close("closed by the peer")
        except PeerError as error:
            log.seldom((self.node, error.error_code), "link dropped", peer=self.node.short, code=error.error_code, reason=error.message)
            self.offence = "" if self.protected and error.error_code in UNPROVEN else error.error_code
            self.close(error.message, code=error.error_code)
        except ConnectionError as error:
            self.close(f"connection lost ({error or type(error).__name__})")

    async def _keep(self) -> None:
        """Ping, notice silence, renew keys."""
        renewed_s = time.monotonic()
        while True:
            self._ping_number += 1
            self._pings[self._ping_number] = time.monotonic()
            self._pings.pop(self._ping_number - PINGS_MAX, None)
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
        self.session.prepare(own[0].exchange(message.ephemeral), binding, now_ms=monotonic_ms())
        if message.step == 0:
            self.send(answer)
        else:
            self.session.advance()
            self.send(Renew(2))


def monotonic_ms() -> int:
    """The monotonic clock that sessions are aged by."""
    return int(time.monotonic() * 1000)
