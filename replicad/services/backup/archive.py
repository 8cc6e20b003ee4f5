"""A backup's file: a tar archive, not compressed, of regular files in this order, so that ``tar`` lists and unpacks it, and so that reading it needs no trust in it.

    backup.json      {"format", "sha256", "backup"}: the format's version, and the SHA-256 of what stands under "backup": whose backup it is, and size and SHA-256 of the next two
    replicad.toml    the configuration
    catalog.sqlite   the catalog
    identity.json    only if it was asked for: the node's secret files, encrypted with a passphrase and bound to the first file

Everything else is refused, and so is an end anywhere before the end. Of tar's headers only name, kind and size count. The checksums find what a disk or a wire did; whoever can write the file can also write
its checksums, except where a passphrase is asked for.
"""

from __future__ import annotations

import hashlib
import tarfile
from typing import IO, Annotated, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from replicad.crypto.encryption import Encrypted, decrypt, encrypt
from replicad.crypto.hashing import sha256
from replicad.errors import ConfigurationError, IntegrityError

FORMAT = 1
LABEL, CONFIG, CATALOG, IDENTITY = "backup.json", "replicad.toml", "catalog.sqlite", "identity.json"
SMALL_BYTES_MAX = 1 << 20
"""Of every file but the catalog."""
CATALOG_BYTES_MAX = 1 << 40
BLOCK_BYTES = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK_BYTES)
PIECE_BYTES = 1 << 20

T = TypeVar("T")
_Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_Text = Annotated[str, Meta(max_length=256)]
_Count = Annotated[int, Meta(ge=0)]


class Part(Struct, frozen=True):
    """Size in bytes and SHA-256 of one file."""

    size: Annotated[int, Meta(ge=0, le=CATALOG_BYTES_MAX)]
    sha256: _Sha256


class Backup(Struct, frozen=True):
    """What a backup is of. ``created`` is ISO 8601 with zone; ``release`` of the program and ``schema`` of the catalog; what it counts as of then: members, shares, living files, records, tokens, actions."""

    node: _Text
    name: _Text
    network: _Text
    created: _Text
    release: _Text
    schema: _Count
    members: _Count
    shares: _Count
    files: _Count
    records: _Count
    tokens: _Count
    actions: _Count
    config: Part
    catalog: Part


class _Label(Struct, frozen=True):
    format: int
    sha256: _Sha256
    backup: Raw


class _Secrets(Struct, frozen=True, forbid_unknown_fields=True):
    """The plain text of the identity: the text of each file by its name."""

    files: dict[str, str]


def start(backup: Backup, config: bytes) -> bytes:
    """The archive up to the catalog's first byte."""
    encoded = msgspec.json.encode(backup)
    label = msgspec.json.encode(_Label(FORMAT, str(sha256(encoded)), Raw(encoded)))
    return _whole(LABEL, label) + _whole(CONFIG, config) + _header(CATALOG, backup.catalog.size)


def padding(size: int) -> bytes:
    """What follows a file of that size up to the next header."""
    return bytes(-size % BLOCK_BYTES)


def add_identity(file: IO[bytes], files: dict[str, str], passphrase: str) -> None:
    """Put it at the end of a whole archive that has none. ``file`` is open for reading and writing."""
    file.seek(0)
    label = _small(file, LABEL)
    encrypted = encrypt(msgspec.json.encode(_Secrets(files)), passphrase, context=label)
    file.seek(-len(END), 2)
    file.write(_whole(IDENTITY, msgspec.json.encode(encrypted)) + END)


class Archive:
    """An archive that is read once, from beginning to end, from an open file. Every method may raise IntegrityError: then it is no backup, or not whole; OSError is the caller's."""

    def __init__(self, file: IO[bytes]) -> None:
        """Reads everything before the catalog. ConfigurationError if the format is newer than this program."""
        self._file = file
        self._label = _small(file, LABEL)
        self.backup = _backup(self._label)
        self.config = _small(file, CONFIG)
        _compare(CONFIG, self.backup.config, len(self.config), str(sha256(self.config)))
        self._identity: Encrypted | None = None

    @property
    def has_identity(self) -> bool:
        """After ``finish``: whether the node's secrets are inside."""
        return self._identity is not None

    def finish(self, catalog: IO[bytes]) -> None:
        """Copy the catalog, compare its checksum, and read on to the end."""
        size = self.backup.catalog.size
        _expect(self._file, CATALOG, size)
        whole, left = hashlib.sha256(), size
        while left:
            piece = _read(self._file, min(PIECE_BYTES, left))
            whole.update(piece)
            catalog.write(piece)
            left -= len(piece)
        _read(self._file, len(padding(size)))
        _compare(CATALOG, self.backup.catalog, size, whole.hexdigest())
        block = _read(self._file, BLOCK_BYTES)
        if any(block):
            self._identity = _decoded(_content(self._file, block, IDENTITY), Encrypted, IDENTITY)
            block = _read(self._file, BLOCK_BYTES)
        if any(block) or any(_read(self._file, BLOCK_BYTES)) or self._file.read(1):
            raise IntegrityError("more follows where the backup should end", code="bad-backup")

    def identity(self, passphrase: str) -> dict[str, str]:
        """After ``finish``: the secret files' texts by name. DistrustError("passphrase")."""
        assert self._identity is not None  # noqa: S101 - asked before
        plain = decrypt(self._identity, passphrase, context=self._label)
        return _decoded(plain, _Secrets, IDENTITY).files


def _backup(label: bytes) -> Backup:
    found = _decoded(label, _Label, LABEL)
    if found.format > FORMAT:
        raise ConfigurationError(f"the backup has format {found.format}, this program reads up to {FORMAT}", hint="run a newer replicad", code="newer-format")
    if str(sha256(bytes(found.backup))) != found.sha256:
        raise IntegrityError(f"{LABEL} is not as it was written", code="bad-backup")
    return _decoded(bytes(found.backup), Backup, LABEL)


def _decoded(encoded: bytes, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(encoded, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise IntegrityError(f"{name} is not as a backup has it: {error}", code="bad-backup") from None


def _compare(name: str, expected: Part, size: int, digest: str) -> None:
    if (size, digest) != (expected.size, expected.sha256):
        raise IntegrityError(f"{name} in the backup is not as it was written: SHA-256 {digest} instead of {expected.sha256}", code="bad-backup")


# -- tar: one header block and a file, padded to whole blocks --


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    return entry.tobuf(format=tarfile.GNU_FORMAT)


def _whole(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + padding(len(content))


def _small(file: IO[bytes], name: str) -> bytes:
    return _content(file, _read(file, BLOCK_BYTES), name)


def _content(file: IO[bytes], block: bytes, name: str) -> bytes:
    size = _size(block, name)
    if size > SMALL_BYTES_MAX:
        raise IntegrityError(f"{name} in the backup has {size} bytes; at most {SMALL_BYTES_MAX}", code="bad-backup")
    content = _read(file, size)
    _read(file, len(padding(size)))
    return content


def _expect(file: IO[bytes], name: str, size: int) -> None:
    if (found := _size(_read(file, BLOCK_BYTES), name)) != size:
        raise IntegrityError(f"{name} in the backup has {found} bytes instead of {size}", code="bad-backup")


def _size(block: bytes, name: str) -> int:
    """Of the regular file with this name, whose header the block must be."""
    try:
        found = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError):
        raise IntegrityError(f"this is no backup: {name} expected", code="bad-backup") from None
    if found.name != name or found.type != tarfile.REGTYPE or found.size < 0:
        raise IntegrityError(f"this is no backup: the file {name} expected, and not {found.name!r}", code="bad-backup")
    return found.size


def _read(file: IO[bytes], size: int) -> bytes:
    found = file.read(size)
    if len(found) < size:
        raise IntegrityError("the backup is cut off", code="bad-backup")
    return found
