"""Identifiers: what they are in memory (bytes), in JSON and at the CLI (text).

| type     | bytes                                                | text                                                     |
|----------|------------------------------------------------------|----------------------------------------------------------|
| NodeId   | an Ed25519 public key                                | 52 base32 characters in 13 groups of four joined by "-"  |
| Digest   | SHA-256 of content, of a manifest or of a frontier   | 64 lower-case hexadecimal digits                         |
| RecordId | SHA-256 of what was signed                           | 64 lower-case hexadecimal digits                         |
| Stamp    | an integer: 48 bits of milliseconds, 16 bits         | 16 lower-case hexadecimal digits                         |

The first three are subclasses of ``bytes``: SQLite binds them, msgpack carries them as binary, and ``str()`` gives the text form. The network key has a NodeId too (it signs as an
origin); a network's id is that key's ``NodeId``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Self

from replicad.errors import InputError

SIZE_BYTES = 32
SHARE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
STAGE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
STAMP_MAX = (1 << 63) - 1
NODES_REMEMBERED = 8192
"""Spellings of node ids kept in memory: every record and head names some, the same ones again and again, and base32 takes 15 microseconds."""
NETWORK_SHARE = ""
"""The pseudo share of the network-wide chains (grants, cuts, policies)."""


class _Id(bytes):
    __slots__ = ()

    def __new__(cls, value: bytes | bytearray | memoryview) -> Self:
        if len(value) != SIZE_BYTES:
            raise InputError(f"{cls.__name__}: {SIZE_BYTES} bytes expected, got {len(value)}")
        return bytes.__new__(cls, value)

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)[:19]}...)"

    @property
    def short(self) -> str:
        """The first characters, for logs and people; not unique."""
        return str(self)[:12]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the text form; raises InputError."""
        try:
            value = bytes.fromhex(text)
        except ValueError:
            value = b""
        if len(value) != SIZE_BYTES or value.hex() != text:
            raise InputError(f"{cls.__name__}: 64 lower-case hexadecimal digits expected, got {text[:80]!r}")
        return bytes.__new__(cls, value)


class Digest(_Id):
    """SHA-256 of bytes."""

    __slots__ = ()


class RecordId(_Id):
    """SHA-256 of the signed encoding of a record."""

    __slots__ = ()


class NodeId(_Id):
    """An Ed25519 public key: a node, or the network itself."""

    __slots__ = ()

    def __str__(self) -> str:
        return _spell_node(bytes(self))

    @property
    def short(self) -> str:
        """The first two groups, as in ``7KQ2-F4TX``."""
        return str(self)[:9]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the text form; dashes and case do not matter. Raises InputError."""
        return cls(_read_node(text))


@lru_cache(maxsize=NODES_REMEMBERED)
def _spell_node(key: bytes) -> str:
    text = base64.b32encode(key).decode().rstrip("=")
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))


@lru_cache(maxsize=NODES_REMEMBERED)
def _read_node(text: str) -> bytes:
    plain = text.replace("-", "").strip().upper()
    try:
        if len(plain) != 52:
            raise binascii.Error
        found = base64.b32decode(plain + "====")
    except (binascii.Error, ValueError):
        raise InputError(f"not a node id: {text[:80]!r} (52 base32 characters expected)") from None
    if _spell_node(found).replace("-", "") != plain:
        raise InputError(f"not a node id: {text[:80]!r} (non-canonical last character)")
    return found


class Stamp(int):
    """A hybrid logical clock value or an incarnation: 48 bits of milliseconds since 1970, then 16 bits. Text form: 16 hexadecimal digits, which sort like the numbers."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{int(self):016x}"

    @property
    def ms(self) -> int:
        """Milliseconds since 1970 (UTC)."""
        return self >> 16

    @classmethod
    def of(cls, ms: int, low: int = 0) -> Self:
        """From milliseconds and the 16 low bits."""
        return cls(ms << 16 | low)

    @classmethod
    def checked(cls, value: Any) -> Self:
        """From an integer of 0 to ``STAMP_MAX``; raises InputError."""
        if type(value) is not int or not 0 <= value <= STAMP_MAX:
            raise InputError(f"a stamp is an integer of 0 to {STAMP_MAX}, got {str(value)[:40]}")
        return cls(value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the text form; raises InputError."""
        try:
            value = int(text, 16)
        except ValueError:
            value = -1
        if f"{value:016x}" != text:
            raise InputError(f"a stamp is 16 lower-case hexadecimal digits, got {text[:40]!r}")
        return cls.checked(value)


def check_share_name(name: str) -> str:
    """The name itself if it is legal, else InputError."""
    if not SHARE_NAME.fullmatch(name):
        raise InputError(f"share name {name[:80]!r}: 1 to 63 of a-z 0-9 . _ - expected, starting with a letter or digit")
    return name


def check_stage_name(name: str) -> str:
    """The name itself if it is legal, else InputError."""
    if not STAGE_NAME.fullmatch(name):
        raise InputError(f"stage name {name[:80]!r}: 1 to 32 of a-z 0-9 _ - expected, starting with a letter or digit")
    return name


def to_text(value: Any) -> str:
    """msgspec ``enc_hook`` for JSON: identifiers and stamps as their text form."""
    if isinstance(value, _TEXTUAL):
        return str(value)
    raise NotImplementedError(type(value))


def to_binary(value: Any) -> bytes | int:
    """msgspec ``enc_hook`` for msgpack: identifiers as binary, stamps as integers."""
    if isinstance(value, _Id):
        return bytes(value)
    if isinstance(value, Stamp):
        return int(value)
    raise NotImplementedError(type(value))


def from_wire(kind: type, value: Any) -> Any:
    """msgspec ``dec_hook`` for both: text (JSON) or binary (msgpack) to an identifier, text or integer to a stamp; raises InputError. A record has six of them."""
    readers = _READERS.get(kind)
    if readers is None:
        raise NotImplementedError(kind)
    read = readers.get(type(value))
    if read is None:
        raise InputError(f"{kind.__name__}: {' or '.join(form.__name__ for form in readers)} expected, got {type(value).__name__}")
    return read(value)


_TEXTUAL = (_Id, Stamp)
_READERS: dict[type, dict[type, Callable[[Any], Any]]] = {
    Digest: {str: Digest.parse, bytes: Digest},
    RecordId: {str: RecordId.parse, bytes: RecordId},
    NodeId: {str: NodeId.parse, bytes: NodeId},
    Stamp: {str: Stamp.parse, int: Stamp.checked},
}
