"""What two nodes share after a handshake: keys, counters and the proof that every data request carries.

A session belongs to one link. Its first secret comes from an X25519 exchange whose transcript both sides signed (``protocol.handshake``); each renewal on the link mixes a fresh exchange into
the last secret, so that every *epoch* lives at most ``EPOCH_MS_MAX``. From an epoch's secret HKDF-SHA-256 (RFC 5869) makes one key per purpose and direction:

- ``request`` keys authenticate data requests: the ``Authorization`` header carries a MAC over method, target, range and a counter. Requests travel on many connections and may overtake each
  other: a window of ``REPLAY_WINDOW`` counters tells a replay from a late arrival.
- ``frame`` keys protect the link's frames where there is no TLS: epoch, counter and MAC before each. Frames cannot overtake: the counter must be exactly the next one.

The module has no clock and starts no thread: the time is an argument. Randomness comes from the operating system unless given.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from dataclasses import dataclass, field
from typing import Self

from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import RuntimeError as SodiumError
from nacl.utils import random as random_bytes

from replicad.errors import InputError, PeerError
from replicad.model.ids import NodeId

EPOCH_MS_MAX = 600_000
"""Protocol.md section 5: a session key is used for at most ten minutes."""
REPLAY_WINDOW = 4096
"""Counters. Sixteen times what one peer may have in flight (a guess with room; a request older than this is refused and simply asked again)."""
_FRAME = struct.Struct(">IQ32s")
FRAME_OVERHEAD = _FRAME.size
_HEADER = re.compile(r"Replicad node=([A-Z2-7-]{64}), session=([0-9a-f]{32}), counter=([1-9][0-9]{0,18}), mac=([0-9a-f]{64})")
_HEADER_CHARACTERS_MAX = 256


def fields(*parts: bytes) -> bytes:
    """The parts, each preceded by its length (32 bits): an encoding in which no two lists of parts look alike."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def transcript_hash(domain: bytes, *parts: bytes) -> bytes:
    """SHA-256 of a domain string and the parts, unambiguously joined."""
    return hashlib.sha256(fields(domain, *parts)).digest()


def derive(secret: bytes, salt: bytes, label: bytes) -> bytes:
    """HKDF-SHA-256 (RFC 5869), one block: 32 bytes."""
    prk = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(prk, label + b"\x01", "sha256")


def nonce() -> bytes:
    """32 random bytes."""
    return random_bytes(32)


class Ephemeral:
    """One X25519 key pair, used for one exchange. ``secret`` is given in simulations and test vectors only."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = random_bytes(32) if secret is None else secret
        self.public = crypto_scalarmult_base(self._secret)

    def exchange(self, other: bytes) -> bytes:
        """The shared 32 bytes. Raises PeerError for a public key of low order, which would make them known to everybody."""
        try:
            return crypto_scalarmult(self._secret, other)
        except (SodiumError, ValueError, TypeError):
            raise PeerError("ephemeral key is not usable", code="bad-handshake") from None


@dataclass(frozen=True, slots=True)
class Credentials:
    """A parsed ``Authorization`` header of a data request. Nothing in it is proven before ``Session.check``."""

    node: NodeId
    session: str
    counter: int
    mac: bytes

    @classmethod
    def parse(cls, header: str | None) -> Self:
        """From the header's value; PeerError("bad-credentials") for anything else."""
        match = _HEADER.fullmatch(header) if header is not None and len(header) <= _HEADER_CHARACTERS_MAX else None
        if match is None:
            raise PeerError("data request without usable credentials", code="bad-credentials")
        try:
            node = NodeId.parse(match[1])
        except InputError as error:
            raise PeerError(error.message, code="bad-credentials") from None
        return cls(node, match[2], int(match[3]), bytes.fromhex(match[4]))


class _Window:
    """Which counters were seen: everything at or below ``top - REPLAY_WINDOW`` counts as seen."""

    __slots__ = ("_seen", "top")

    def __init__(self) -> None:
        self.top = 0
        self._seen = 0

    def has(self, counter: int) -> bool:
        if counter > self.top:
            return False
        behind = self.top - counter
        return behind >= REPLAY_WINDOW or bool(self._seen >> behind & 1)

    def add(self, counter: int) -> None:
        if counter > self.top:
            shift = min(counter - self.top, REPLAY_WINDOW)
            self._seen = self._seen << shift & ((1 << REPLAY_WINDOW) - 1)
            self.top = counter
        self._seen |= 1 << self.top - counter


@dataclass(slots=True)
class _Epoch:
    """The keys of one secret. ``out`` and ``into`` tell this side's directions apart."""

    number: int
    secret: bytes
    started_ms: int
    out: bytes
    into: bytes
    id: str = ""
    keyed: dict[bytes, hmac.HMAC] = field(default_factory=dict)
    window: _Window = field(default_factory=_Window)
    counter: int = 0

    def key(self, label: bytes) -> bytes:
        return derive(self.secret, b"replicad/1 session", label)

    def mac(self, label: bytes, message: bytes) -> bytes:
        """HMAC-SHA-256 under the key of that label. Begun once and copied: ``hmac.digest`` lets other threads run each time, and among threads that hash it had to wait 0.4 ms until it ran again (docs/adr/0009)."""
        if (begun := self.keyed.get(label)) is None:
            begun = self.keyed[label] = hmac.new(self.key(label), digestmod="sha256")
        own = begun.copy()
        own.update(message)
        return own.digest()


class Session:
    """One side of a session with ``peer``. The initiator is the side that opened the link."""

    def __init__(self, *, node: NodeId, peer: NodeId, initiator: bool, secret: bytes, now_ms: int) -> None:
        self.node = node
        self.peer = peer
        self.initiator = initiator
        self._epochs: dict[int, _Epoch] = {}
        self._current = self._install(0, secret, now_ms)
        self._sent_frames = 0
        self._received_frames = 0
        self._received_epoch = 0

    @property
    def id(self) -> str:
        """The current epoch's id: 32 hexadecimal digits, the same on both sides."""
        return self._current.id

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids under which requests are accepted now: the newest two or three epochs."""
        return tuple(epoch.id for epoch in self._epochs.values())

    @property
    def epoch(self) -> int:
        """Number of the epoch this side uses for what it sends."""
        return self._current.number

    def mac(self, purpose: bytes, message: bytes) -> bytes:
        """HMAC-SHA-256 under a key for that purpose, equal on both sides; bound to the current epoch."""
        return self._current.mac(b"purpose " + purpose, message)

    # -- data requests ------------------------------------------------------------------------------------------------------------------------------

    def authorize(self, method: str, target: str, range_: str = "", *, now_ms: int) -> str:
        """The ``Authorization`` value for one request. ``target`` is path and query as sent, ``range_`` the Range header's value ("" without one). Each value is good for one use.
        Raises PeerError("session-expired") when the epoch was not renewed in time.
        """
        epoch = self._current
        _check_age(epoch, now_ms)
        epoch.counter += 1
        proof = _request_mac(epoch, epoch.out, self.node, epoch.counter, (method, target, range_))
        return f"Replicad node={self.node}, session={epoch.id}, counter={epoch.counter}, mac={proof.hex()}"

    def check(self, credentials: Credentials, method: str, target: str, range_: str = "", *, now_ms: int) -> None:
        """Accept exactly one use of what the other side's ``authorize`` made; else PeerError naming the reason: ``bad-credentials``, ``session-expired``, ``replay``."""
        epoch = next((epoch for epoch in self._epochs.values() if epoch.id == credentials.session), None)
        if epoch is None or credentials.node != self.peer:
            raise PeerError("credentials of another session", code="bad-credentials")
        _check_age(epoch, now_ms)
        expected = _request_mac(epoch, epoch.into, self.peer, credentials.counter, (method, target, range_))
        if not hmac.compare_digest(expected, credentials.mac):
            raise PeerError("credentials do not fit the request", code="bad-credentials")
        if epoch.window.has(credentials.counter):
            raise PeerError("data request was replayed", code="replay")
        epoch.window.add(credentials.counter)

    # -- frames without TLS -------------------------------------------------------------------------------------------------------------------------

    def protect(self, frame: bytes) -> bytes:
        """The frame with epoch, counter and MAC before it (``FRAME_OVERHEAD`` bytes)."""
        self._sent_frames += 1
        epoch = self._current
        place = struct.pack(">IQ", epoch.number, self._sent_frames)
        return place + epoch.mac(b"frame " + epoch.out, place + frame) + frame

    def unprotect(self, data: bytes) -> bytes:
        """The frame inside, if it is exactly the next one of the other side; else PeerError("bad-mac")."""
        if len(data) < FRAME_OVERHEAD:
            raise PeerError("frame is shorter than its protection", code="bad-mac")
        number, counter, proof = _FRAME.unpack_from(data)
        epoch = self._epochs.get(number)
        if epoch is None or number < self._received_epoch or counter != self._received_frames + 1:
            raise PeerError("frame is out of order, replayed or of another session", code="bad-mac")
        frame = data[FRAME_OVERHEAD:]
        if not hmac.compare_digest(epoch.mac(b"frame " + epoch.into, data[:12] + frame), proof):
            raise PeerError("frame was altered", code="bad-mac")
        self._received_frames, self._received_epoch = counter, number
        return frame

    # -- renewal ------------------------------------------------------------------------------------------------------------------------------------

    def prepare(self, shared: bytes, binding: bytes, *, now_ms: int) -> None:
        """Derive the next epoch from the last secret and a fresh exchange; accept it from now on, but keep sending under the current one. ``binding`` is both sides' renewal messages."""
        secret = derive(self._current.secret + shared, transcript_hash(b"replicad/1 renew", binding), b"next epoch")
        self._install(self._current.number + 1, secret, now_ms)

    def advance(self) -> None:
        """Send under the prepared epoch from now on. Epochs before the last one are forgotten. Raises PeerError when nothing was prepared."""
        following = self._epochs.get(self._current.number + 1)
        if following is None:
            raise PeerError("renewal confirmed that was never begun", code="bad-renewal")
        self._epochs.pop(self._current.number - 1, None)
        self._current = following

    def _install(self, number: int, secret: bytes, now_ms: int) -> _Epoch:
        out, into = (b"initiator", b"responder") if self.initiator else (b"responder", b"initiator")
        epoch = _Epoch(number, secret, now_ms, out, into)
        epoch.id = epoch.key(b"id")[:16].hex()
        self._epochs[number] = epoch
        return epoch


def _check_age(epoch: _Epoch, now_ms: int) -> None:
    if now_ms - epoch.started_ms > EPOCH_MS_MAX:
        raise PeerError("session key is older than ten minutes", code="session-expired")


def _request_mac(epoch: _Epoch, direction: bytes, node: NodeId, counter: int, request: tuple[str, str, str]) -> bytes:
    message = fields(bytes(node), bytes.fromhex(epoch.id), struct.pack(">Q", counter), *(part.encode("utf-8", "surrogateescape") for part in request))
    return epoch.mac(b"request " + direction, message)
