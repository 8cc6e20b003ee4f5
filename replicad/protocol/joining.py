"""Joining a network: the token that people pass on, the signed request, the signed answer. No clock, no dice, no wires.

A **token** is text: ``replicad-join-`` and base64url of msgpack and four check bytes. It names the network, up to three members with their peer doors and certificates, what it grants, and a
secret of 128 bits. The secret is the seed of an Ed25519 key; the inviter keeps only that key's public half, and whoever joins signs its request with it. So the secret is never sent, and neither
the inviter's disk nor a member that relays the request could use the token.

A **request** is signed by the node's own key, and by the token's if there is one; without a token it waits for an admin's approval. The **answer** is signed by the member that gives it, over
the request it belongs to, and carries the network's records (each signed by its author) and the newest heads.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from replicad.crypto import keys
from replicad.crypto.hashing import sha256
from replicad.crypto.keys import SigningKey
from replicad.crypto.session import derive, fields
from replicad.errors import InputError, PeerError, SignatureError
from replicad.model.ids import Digest, NodeId, from_wire, to_binary
from replicad.model.records import NAME_MAX, Envelope, Role

PREFIX = "replicad-join-"
SECRET_BYTES = 16
TOKEN_CHARACTERS_MAX = 8192
TOKEN_MEMBERS_MAX = 3
TOKEN_LIFE_S_MAX = 24 * 3600
REQUEST_BYTES_MAX = 16 * 1024
_CHECK_BYTES = 4

_Url = Annotated[str, Meta(min_length=1, max_length=255)]
_Urls = Annotated[tuple[_Url, ...], Meta(max_length=8)]
_Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
_Names = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=63)], ...], Meta(max_length=64)]

T = TypeVar("T")


class Door(Struct, frozen=True, array_like=True):
    """A member and its peer door. ``certificate`` None: no TLS of its own."""

    node: NodeId
    urls: _Urls
    certificate: Digest | None


class Token(Struct, frozen=True, array_like=True):
    """What a join token says. The first of ``members`` made it."""

    network: NodeId
    members: Annotated[tuple[Door, ...], Meta(min_length=1, max_length=TOKEN_MEMBERS_MAX)]
    secret: Annotated[bytes, Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    role: Role
    shares: _Names | None
    stages: _Names | None
    site: Annotated[str, Meta(max_length=NAME_MAX)]
    expires_ms: Annotated[int, Meta(ge=0)]

    @property
    def key(self) -> SigningKey:
        """The key that proves possession of the token."""
        return token_key(self.secret)

    @property
    def id(self) -> Digest:
        """SHA-256 of the secret: what records and catalogs call the token."""
        return sha256(self.secret)


class Asked(Struct, frozen=True, array_like=True):
    """What a node asks. ``network`` and ``invite`` are None without a token; ``inviter`` made the token. ``nonce`` keeps answers apart."""

    node: NodeId
    name: Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]
    door: Door
    network: NodeId | None
    inviter: NodeId | None
    invite: Digest | None
    nonce: Annotated[bytes, Meta(min_length=32, max_length=32)]


class Request(Struct, frozen=True, array_like=True):
    """``asked`` as it was signed: by the node, and by the token's key (empty without one)."""

    asked: Annotated[bytes, Meta(max_length=REQUEST_BYTES_MAX)]
    signature: _Signature
    token_signature: Annotated[bytes, Meta(max_length=64)]


class Answer(Struct, frozen=True, array_like=True):
    """What a member answers. ``pending``: an admin must approve first, then ``records`` and ``heads`` are empty. ``records``: all of the network's own chains, each predecessor first."""

    node: NodeId
    network: NodeId
    pending: bool
    records: tuple[Envelope, ...]
    heads: tuple[Envelope, ...]
    doors: tuple[Door, ...]


class SignedAnswer(Struct, frozen=True, array_like=True):
    """``answer`` as it was signed by its node, over the request's hash."""

    answer: bytes
    signature: _Signature


_ENCODER = msgspec.msgpack.Encoder(enc_hook=to_binary)


_TOKEN: msgspec.msgpack.Decoder[Token] = msgspec.msgpack.Decoder(Token, dec_hook=from_wire)
_ASKED: msgspec.msgpack.Decoder[Asked] = msgspec.msgpack.Decoder(Asked, dec_hook=from_wire)
_REQUEST: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request, dec_hook=from_wire)
_ANSWER: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer, dec_hook=from_wire)
_SIGNED: msgspec.msgpack.Decoder[SignedAnswer] = msgspec.msgpack.Decoder(SignedAnswer, dec_hook=from_wire)


# -- tokens ---------------------------------------------------------------------------------------------------------------------------------------------


def token_key(secret: bytes) -> SigningKey:
    """The signing key that belongs to a token's secret."""
    return SigningKey(derive(secret, b"replicad/1 join token", b"signing key"))


def write_token(token: Token) -> str:
    """The token as text."""
    packed = _ENCODER.encode(token)
    return PREFIX + base64.urlsafe_b64encode(packed + sha256(packed)[:_CHECK_BYTES]).decode().rstrip("=")


def read_token(text: str) -> Token:
    """From text; spaces and line breaks that mail put in do not matter. Raises InputError("token-mangled") for anything else than a whole, unaltered token."""
    plain = "".join(text.split())
    if not plain.startswith(PREFIX) or len(plain) > TOKEN_CHARACTERS_MAX:
        raise InputError(f"that is not a join token (it would begin with {PREFIX})", code="token-mangled")
    body = plain[len(PREFIX) :]
    try:
        packed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        packed = b""
    content, check = packed[:-_CHECK_BYTES], packed[-_CHECK_BYTES:]
    if not content or sha256(content)[:_CHECK_BYTES] != check:
        raise InputError("the join token is mangled: a part of it is missing or altered; copy it again", code="token-mangled")
    try:
        return _TOKEN.decode(content)
    except (msgspec.DecodeError, InputError, ValueError, RecursionError):
        raise InputError("the join token was made by a version that this one does not understand", code="token-mangled") from None


# -- requests and answers -------------------------------------------------------------------------------------------------------------------------------


def make_request(key: SigningKey, asked: Asked, token: Token | None) -> bytes:
    """The body of ``POST /peer/v1/join``."""
    packed = _ENCODER.encode(asked)
    signed = _signed(b"request", packed)
    return _ENCODER.encode(Request(packed, key.sign(signed), token.key.sign(signed) if token else b""))


def read_request(body: bytes) -> tuple[Request, Asked]:
    """Verified against the node's own key. Raises PeerError("bad-join")."""
    if len(body) > 2 * REQUEST_BYTES_MAX:
        raise PeerError("join request is too long", code="bad-join")
    request = _decode(_REQUEST, body)
    asked = _decode(_ASKED, request.asked)
    _verify(asked.node, b"request", request.asked, request.signature)
    if asked.door.node != asked.node:
        raise PeerError("join request names somebody else's door", code="bad-join")
    return request, asked


def check_token_proof(request: Request, token_public: NodeId) -> None:
    """Raises PeerError("bad-join") unless whoever made the request holds the token."""
    _verify(token_public, b"request", request.asked, request.token_signature)


def make_answer(key: SigningKey, answer: Answer, request: bytes) -> bytes:
    """The answer to a request body."""
    packed = _ENCODER.encode(answer)
    return _ENCODER.encode(SignedAnswer(packed, key.sign(_signed(b"answer", sha256(request), packed))))


def read_answer(body: bytes, request: bytes) -> Answer:
    """Verified against the key of the node that the answer names, for that request only. Who may answer is the caller's to check. Raises PeerError("bad-join")."""
    signed = _decode(_SIGNED, body)
    answer = _decode(_ANSWER, signed.answer)
    _verify(answer.node, b"answer", sha256(request), signed.answer, signed.signature)
    return answer


def words(first: NodeId, second: NodeId) -> str:
    """Four pronounceable words from two keys, the same on both sides: for people to compare by telephone. 64 bits, spelled as proquints (Wilkerson 2009)."""
    digest = sha256(fields(b"replicad/1 words", *sorted((bytes(first), bytes(second)))))
    return " ".join(_proquint(int.from_bytes(digest[i : i + 2], "big")) for i in range(0, 8, 2))


def _proquint(number: int) -> str:
    consonants, vowels = "bdfghjklmnprstvz", "aiou"
    return "".join(
        table[number >> shift & (len(table) - 1)] for table, shift in ((consonants, 12), (vowels, 10), (consonants, 6), (vowels, 4), (consonants, 0))
    )


def _signed(kind: bytes, *parts: bytes) -> bytes:
    return fields(b"replicad/1 join", kind, *parts)


def _verify(node: NodeId, kind: bytes, *parts: bytes) -> None:
    """The last part is the signature of those before it."""
    try:
        keys.verify(node, _signed(kind, *parts[:-1]), parts[-1])
    except SignatureError:
        raise PeerError(f"the join {kind.decode()} is not signed as it must be", code="bad-join") from None


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, InputError, ValueError, RecursionError) as error:
        raise PeerError(f"join message does not decode: {error}", code="bad-join") from None
