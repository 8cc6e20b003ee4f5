"""Ed25519 keys: a node's own and the network's, and the check of everybody else's signatures.

Verification is libsodium's and therefore strict: it refuses keys and R values of small order, keys that are not canonically encoded and S not below the group order, and it uses the
cofactorless equation. Libraries differ exactly there, so the tests pin each of these with a vector; a second implementation must do the same.

A key file is one line, ``replicad-secret-key:ed25519:<64 hexadecimal digits>``, readable by its owner alone: recognisable to people and to scanners for leaked secrets, and never
mistaken for an id.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Self

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey as _NaclSigningKey
from nacl.signing import VerifyKey as _NaclVerifyKey

from replicad.errors import ConfigurationError, ConflictError, SignatureError
from replicad.model.ids import SIZE_BYTES, NodeId

if TYPE_CHECKING:
    from pathlib import Path

_LABEL = b"replicad-secret-key:ed25519:"
_KEY_FILE = re.compile(_LABEL + rb"([0-9a-f]{64})\n?")
_FILE_BYTES_MAX = len(_LABEL) + 2 * SIZE_BYTES + 1


class SigningKey:
    """A secret key. Never printed, never sent; ``id`` is its public half."""

    __slots__ = ("_key", "id")

    def __init__(self, seed: bytes) -> None:
        """From its 32 secret bytes (RFC 8032's private key)."""
        self._key = _NaclSigningKey(seed)
        self.id = NodeId(bytes(self._key.verify_key))

    def __repr__(self) -> str:
        return f"SigningKey({self.id.short}...)"

    @classmethod
    def generate(cls) -> Self:
        """A new key from the operating system's randomness."""
        return cls(os.urandom(SIZE_BYTES))

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a key file. ConfigurationError if it is missing, unreadable, readable by others than its owner, or not a key."""
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(_FILE_BYTES_MAX + 1)
        except OSError as error:
            raise ConfigurationError(f"{path}: the key cannot be read: {error.strerror}") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigurationError(f"{path}: others may read this key (mode {stat.S_IMODE(mode):04o})", hint=f"chmod 600 {path}")
        return cls.read(text, origin=path)

    @classmethod
    def read(cls, text: bytes, *, origin: Path | str) -> Self:
        """From the text of a key file; ConfigurationError if it is none. ``origin``: what the error calls it."""
        found = _KEY_FILE.fullmatch(text)
        if not found:
            raise ConfigurationError(f"{origin}: not a key file (one line, {_LABEL.decode()} and {2 * SIZE_BYTES} hexadecimal digits, expected)")
        return cls(bytes.fromhex(found[1].decode()))

    def save(self, path: Path) -> None:
        """Make the key file with mode 0600, durable on return. ConflictError if it exists (it is never overwritten), ConfigurationError if it cannot be made."""
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise ConflictError(f"{path}: a key exists already and is never overwritten") from None
        except OSError as error:
            raise ConfigurationError(f"{path}: the key cannot be written: {error.strerror}") from error
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_LABEL + bytes(self._key).hex().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            _sync_directory(path.parent)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise ConfigurationError(f"{path}: the key cannot be written: {error.strerror}") from error

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of Ed25519 (RFC 8032, deterministic). About 20 microseconds."""
        return self._key.sign(message).signature


def take_over(new: Path, place: Path) -> None:
    """Put the key file ``new`` in the place of another, durably and at once: there is always one there, and the former is gone. ConfigurationError if the disk refuses."""
    try:
        new.replace(place)
        _sync_directory(place.parent)
    except OSError as error:
        raise ConfigurationError(f"{place}: the key cannot be replaced: {error.strerror}") from None


def verify(key: NodeId, message: bytes, signature: bytes) -> None:
    """Raise SignatureError unless this is the key's signature of the message. About 55 microseconds; the interpreter lock is released."""
    try:
        _NaclVerifyKey(bytes(key)).verify(message, signature)
    except (BadSignatureError, ValueError):
        raise SignatureError(f"the signature is not that of {key.short}") from None


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
