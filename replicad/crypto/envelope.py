"""Signed envelopes: what exactly a signature covers, and the id that follows from it.

The signed bytes are a pre-authentication encoding in the manner of DSSE: the domain string ``replicad/1``, then network id (32 bytes), type (UTF-8) and payload, each preceded by a space, its
length in bytes in decimal, and a space::

    b"replicad/1" b" 32 " network b" 5 " b"entry" b" 412 " payload

Every field's length is signed, so no two different triples have the same encoding, and a signature is worthless for any other type, network or purpose. A record's id is the SHA-256 of these
bytes. The payload is never re-serialised: the bytes that were signed are the bytes that are stored, sent and verified.
"""

from __future__ import annotations

import hashlib

from replicad.crypto import keys
from replicad.errors import SignatureError
from replicad.model.ids import NodeId, RecordId
from replicad.model.records import PAYLOAD_BYTES_MAX, Envelope

DOMAIN = b"replicad/1"
TYPE_BYTES_MAX = 32


def signed_bytes(network: NodeId, type_: str, payload: bytes) -> bytes:
    """What a signature covers and an id hashes."""
    name = type_.encode(errors="surrogatepass")
    return b"%b %d %b %d %b %d %b" % (DOMAIN, len(network), network, len(name), name, len(payload), payload)


def record_id(network: NodeId, type_: str, payload: bytes) -> RecordId:
    """The id of the record with that payload. It does not depend on the signature."""
    return _id(signed_bytes(network, type_, payload))


def seal(key: keys.SigningKey, network: NodeId, type_: str, payload: bytes) -> Envelope:
    """Sign a payload. SignatureError if type or payload is beyond its bound, for nobody would accept it."""
    _check_bounds(type_, payload)
    return Envelope(type_, payload, key.id, key.sign(signed_bytes(network, type_, payload)))


def verify(envelope: Envelope, network: NodeId) -> RecordId:
    """The record id, after checking bounds and signature; raises SignatureError. Says nothing about the payload's sense or the key's rights. About 60 microseconds."""
    _check_bounds(envelope.type, envelope.payload)
    message = signed_bytes(network, envelope.type, envelope.payload)
    keys.verify(envelope.key, message, envelope.signature)
    return _id(message)


def _id(message: bytes) -> RecordId:
    return RecordId(hashlib.sha256(message).digest())


def _check_bounds(type_: str, payload: bytes) -> None:
    if not 1 <= len(type_.encode(errors="surrogatepass")) <= TYPE_BYTES_MAX:
        raise SignatureError(f"envelope type {type_[:40]!a}: 1 to {TYPE_BYTES_MAX} bytes expected")
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise SignatureError(f"envelope payload of {len(payload)} bytes, at most {PAYLOAD_BYTES_MAX}")
