"""A secret text under a passphrase: Argon2id (RFC 9106) makes the key, XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) encrypts and authenticates. Both are libsodium's.

Three passes over 256 MiB are libsodium's "moderate" cost: under a second here, and half a day of a core for 100,000 guesses. What is read may ask for more only within bounds.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

from msgspec import Meta, Struct
from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from replicad.errors import DistrustError

PASSPHRASE_BYTES_MIN, PASSPHRASE_BYTES_MAX = 8, 1024
PLAIN_BYTES_MAX = 64 << 10
_PASSES, _MEMORY_BYTES = 3, 256 << 20
_PASSES_MAX, _MEMORY_BYTES_MAX = 16, 1 << 30
_NONCE_BYTES = 24


class Encrypted(Struct, frozen=True, forbid_unknown_fields=True):
    """As JSON (bytes in base64) it can be stored anywhere. ``passes`` and ``memory_bytes`` are Argon2id's cost, with one lane."""

    cipher: Literal["argon2id-xchacha20poly1305"]
    passes: Annotated[int, Meta(ge=1, le=_PASSES_MAX)]
    memory_bytes: Annotated[int, Meta(ge=8 << 10, le=_MEMORY_BYTES_MAX)]
    salt: Annotated[bytes, Meta(min_length=argon2id.SALTBYTES, max_length=argon2id.SALTBYTES)]
    nonce: Annotated[bytes, Meta(min_length=_NONCE_BYTES, max_length=_NONCE_BYTES)]
    text: Annotated[bytes, Meta(max_length=PLAIN_BYTES_MAX + 16)]


def encrypt(plain: bytes, passphrase: str, *, context: bytes) -> Encrypted:
    """At most 64 KiB. ``context`` is authenticated with it: decrypting needs the same. Runs for 0.7 s in 256 MiB."""
    salt, nonce = os.urandom(argon2id.SALTBYTES), os.urandom(_NONCE_BYTES)
    key = _key(passphrase, salt, passes=_PASSES, memory_bytes=_MEMORY_BYTES)
    text = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, context, nonce, key)
    return Encrypted("argon2id-xchacha20poly1305", _PASSES, _MEMORY_BYTES, salt, nonce, text)


def decrypt(given: Encrypted, passphrase: str, *, context: bytes) -> bytes:
    """The plain text. DistrustError("passphrase") if it was encrypted under another passphrase or context, or changed since: nobody can tell these apart."""
    key = _key(passphrase, given.salt, passes=given.passes, memory_bytes=given.memory_bytes)
    try:
        return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(given.text, context, given.nonce, key)
    except CryptoError:
        raise DistrustError("the passphrase is wrong, or what it protects was changed", code="passphrase") from None


def _key(passphrase: str, salt: bytes, *, passes: int, memory_bytes: int) -> bytes:
    return argon2id.kdf(bindings.crypto_aead_xchacha20poly1305_ietf_KEYBYTES, passphrase.encode(), salt, opslimit=passes, memlimit=memory_bytes)
