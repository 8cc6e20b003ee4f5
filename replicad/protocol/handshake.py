"""The handshake of a link: who are you, of which network, and is there nobody between us?

    opener                                                     answerer
    ClientHello (versions, network, node, X25519, nonce,
                 certificate seen)              ->
                                                <-   ServerHello (version, node, X25519, nonce, own certificate, signature)
    Finish (signature)                          ->

Both sign one transcript that holds every field of both hellos; the labels differ, so neither signature can be used as the other. The session's secret is derived from the X25519 exchange and
the transcript, so it is fresh, forward secret, and equal only if both saw the same hellos.

- *Relay*: somebody who terminates TLS in the middle shows a certificate of its own. The answerer compares the certificate that the opener saw with its own; the opener compares the one it saw
  with the one that the answerer signed. Either mismatch ends the handshake ("relayed").
- *Downgrade*: the versions offered and the absence of a certificate are signed as well. An answerer with a certificate refuses an opener who saw none. An answerer without one (plain HTTP, or
  a TLS proxy before it) signs that, and then every frame carries a MAC ("protected").

A known fingerprint of the answerer is not an argument here: its signature over the certificate is the proof, so a node may change its certificate at any time.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.crypto import keys
from replicad.crypto.session import Ephemeral, Session, derive, transcript_hash
from replicad.crypto.session import nonce as fresh_nonce
from replicad.errors import PeerError, SignatureError
from replicad.model.ids import Digest
from replicad.protocol.wire import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, ClientHello, Fault, Finish, Handshake, ServerHello

if TYPE_CHECKING:
    from replicad.crypto.keys import SigningKey
    from replicad.model.ids import NodeId

_SIGNED_BY_ANSWERER = b"replicad/1 link answerer"
_SIGNED_BY_OPENER = b"replicad/1 link opener"


@dataclass(frozen=True)
class Identity:
    """This node, for handshakes. ``certificate`` is the fingerprint of its peer door's TLS certificate, None without TLS."""

    key: SigningKey
    network: NodeId
    certificate: Digest | None
    versions: tuple[int, int] = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX)


@dataclass(frozen=True)
class Established:
    """What a finished handshake proved. ``certificate`` is the other side's TLS certificate, None if it has none or (at the answerer) the handshake does not tell. ``protected``: the answerer
    has no TLS, so every frame of the link must carry the session's MAC.
    """

    node: NodeId
    version: int
    certificate: Digest | None
    protected: bool
    session: Session


class Opener:
    """The side that connected. ``hello`` first, then ``answer`` with what came back. ``saw`` is the certificate that the TLS connection showed; ``expect`` the node that must answer, if known."""

    def __init__(
        self, identity: Identity, *, saw: Digest | None, expect: NodeId | None = None, ephemeral: Ephemeral | None = None, nonce: bytes | None = None
    ) -> None:
        self._identity = identity
        self._expect = expect
        self._ephemeral = ephemeral or Ephemeral()
        low, high = identity.versions
        self.hello = ClientHello(low, high, identity.network, identity.key.id, self._ephemeral.public, nonce or fresh_nonce(), saw or b"")

    def answer(self, message: Handshake, *, now_ms: int) -> tuple[Finish, Established]:
        """The last message to send and what is proven now. PeerError names what is wrong with the answer. ``now_ms`` is monotonic."""
        if isinstance(message, Fault):
            raise PeerError(f"the peer refuses the link: {message.message}", code=message.code)
        if not isinstance(message, ServerHello):
            raise PeerError("handshake message out of place", code="bad-handshake")
        if self._expect is not None and message.node != self._expect:
            raise PeerError(f"node {message.node.short} answers where {self._expect.short} was expected", code="wrong-node")
        if message.node == self._identity.key.id:
            raise PeerError("this address is our own", code="own-address")
        low, high = self._identity.versions
        if not low <= message.version <= high:
            raise PeerError(f"protocol version {message.version} chosen where {low} to {high} was offered", code="version")
        if message.certificate and message.certificate != self.hello.certificate:
            raise PeerError("the TLS certificate seen is not the one the node signs as its own: somebody stands in between", code="relayed")
        transcript = _transcript(self.hello, message)
        _verify(message.node, _SIGNED_BY_ANSWERER + transcript, message.signature)
        finish = Finish(self._identity.key.sign(_SIGNED_BY_OPENER + transcript))
        secret = derive(self._ephemeral.exchange(message.ephemeral), transcript, b"replicad/1 link secret")
        session = Session(node=self._identity.key.id, peer=message.node, initiator=True, secret=secret, now_ms=now_ms)
        certificate = Digest(message.certificate) if message.certificate else None
        return finish, Established(message.node, message.version, certificate, certificate is None, session)


class Answerer:
    """The side that was connected to. ``welcome`` with the first message, then ``finish`` with the second."""

    def __init__(self, identity: Identity, *, ephemeral: Ephemeral | None = None, nonce: bytes | None = None) -> None:
        self._identity = identity
        self._ephemeral = ephemeral or Ephemeral()
        self._nonce = nonce or fresh_nonce()
        self._hellos: tuple[ClientHello, ServerHello] | None = None

    def welcome(self, message: Handshake) -> ServerHello:
        """The answer to a ClientHello. PeerError names why there is none."""
        if not isinstance(message, ClientHello) or self._hellos is not None:
            raise PeerError("handshake message out of place", code="bad-handshake")
        identity = self._identity
        if message.network != identity.network:
            raise PeerError("another network", code="other-network")
        if message.node == identity.key.id:
            raise PeerError("this address is our own", code="own-address")
        low, high = identity.versions
        version = min(high, message.version_max)
        if version < max(low, message.version_min):
            raise PeerError(f"no common protocol version: {message.version_min} to {message.version_max} offered, {low} to {high} spoken here", code="version")
        certificate = identity.certificate or b""
        if certificate and message.certificate != certificate:
            raise PeerError("the connecting node did not see this node's TLS certificate: somebody stands in between", code="relayed")
        unsigned = ServerHello(version, identity.key.id, self._ephemeral.public, self._nonce, certificate, bytes(64))
        signature = identity.key.sign(_SIGNED_BY_ANSWERER + _transcript(message, unsigned))
        answer = ServerHello(version, identity.key.id, self._ephemeral.public, self._nonce, certificate, signature)
        self._hellos = message, answer
        return answer

    def finish(self, message: Handshake, *, now_ms: int) -> Established:
        """What is proven now. PeerError if the opener's signature is not over what we both said. ``now_ms`` is monotonic."""
        if isinstance(message, Fault):
            raise PeerError(f"the peer refuses the link: {message.message}", code=message.code)
        if not isinstance(message, Finish) or self._hellos is None:
            raise PeerError("handshake message out of place", code="bad-handshake")
        (hello, answer), self._hellos = self._hellos, None
        transcript = _transcript(hello, answer)
        _verify(hello.node, _SIGNED_BY_OPENER + transcript, message.signature)
        secret = derive(self._ephemeral.exchange(hello.ephemeral), transcript, b"replicad/1 link secret")
        session = Session(node=self._identity.key.id, peer=hello.node, initiator=False, secret=secret, now_ms=now_ms)
        return Established(hello.node, answer.version, None, self._identity.certificate is None, session)


def _transcript(hello: ClientHello, answer: ServerHello) -> bytes:
    """SHA-256 over every field of both hellos except the answerer's signature."""
    numbers = struct.pack(">HHH", hello.version_min, hello.version_max, answer.version)
    opener = (bytes(hello.network), bytes(hello.node), hello.ephemeral, hello.nonce, bytes(hello.certificate))
    return transcript_hash(b"replicad/1 link", numbers, *opener, bytes(answer.node), answer.ephemeral, answer.nonce, bytes(answer.certificate))


def _verify(node: NodeId, message: bytes, signature: bytes) -> None:
    try:
        keys.verify(node, message, signature)
    except SignatureError:
        raise PeerError(f"{node.short} did not sign this handshake", code="bad-signature") from None
