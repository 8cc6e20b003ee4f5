"""What a request target means: the file or a directory of a share, a blob by its hash, the node's own pages, or nothing.

Pure. The target is taken as it came (RFC 9112 section 3.2), so that nobody normalises ``..`` or ``%2F`` before the one check of paths sees them. A target that cannot be decoded is an
InputError (400); one that could never name anything is None, like a file that does not exist (404).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from replicad.errors import InputError
from replicad.model import paths
from replicad.model.ids import SHARE_NAME, Digest


class FileTarget(NamedTuple):
    """A name in a share; ``key`` is its collision key."""

    share: str
    key: str


class DirectoryTarget(NamedTuple):
    """A directory of a share; ``key`` is the collision key of its path, empty for the share itself."""

    share: str
    key: str


class BlobTarget(NamedTuple):
    """Content by its hash."""

    content: Digest


class MetalinkTarget(NamedTuple):
    """The metalink of a file."""

    file: FileTarget


class MdmTarget(NamedTuple):
    """The MDM manifest of a package."""

    file: FileTarget


class Page(Enum):
    """The node about itself."""

    HEALTH = "health"
    READY = "ready"
    NEAREST = "nearest"


Target = FileTarget | DirectoryTarget | BlobTarget | MetalinkTarget | MdmTarget | Page
OWN = "-"
"""The first segment of the node's own pages; no share can be called that."""
_BLOB = "blob/"
_DESCRIBED: tuple[tuple[str, str, Callable[[FileTarget], MetalinkTarget | MdmTarget]], ...] = (
    ("metalink/", ".meta4", MetalinkTarget),
    ("mdm/", ".plist", MdmTarget),
)
"""Prefix and suffix of what describes the file between them."""
_ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SHORT = 512
"""Targets up to here are remembered: a few thousand names that everybody asks for, a few MiB at most."""


def parse(target: str) -> Target | None:
    """From the request line, undecoded, bytes outside ASCII as surrogates. Raises InputError."""
    return _remembered(target) if len(target) <= _SHORT else _parse(target)


def _parse(target: str) -> Target | None:
    if not target.startswith("/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise InputError("request target: a path or an http(s) URL expected")
        target = target[absolute.end() :]
    first, slash, rest = target.partition("?")[0][1:].partition("/")
    first, rest = _decoded(first), _decoded(rest)
    if first == OWN:
        return _own(rest)
    return _named(first, rest) if slash else None


def _named(share: str, path: str) -> FileTarget | DirectoryTarget | None:
    if not SHARE_NAME.fullmatch(share):
        return None
    if not path:
        return DirectoryTarget(share, "")
    try:
        key = paths.key(paths.check(path.removesuffix("/")))
    except InputError:
        return None
    return DirectoryTarget(share, key) if path.endswith("/") else FileTarget(share, key)


_remembered = lru_cache(maxsize=4096)(_parse)


def _own(rest: str) -> Target | None:
    if rest.startswith(_BLOB):
        try:
            return BlobTarget(Digest.parse(rest.removeprefix(_BLOB)))
        except InputError:
            return None
    for prefix, suffix, kind in _DESCRIBED:
        if rest.startswith(prefix) and rest.endswith(suffix):
            share, _, path = rest.removeprefix(prefix).removesuffix(suffix).partition("/")
            file = _named(share, path)
            return kind(file) if isinstance(file, FileTarget) else None
    return next((page for page in Page if page.value == rest), None)


def _decoded(text: str) -> str:
    if text.isascii() and "%" not in text:
        return text
    if _BAD_ESCAPE.search(text):
        raise InputError('request target: "%" must be followed by two hexadecimal digits')
    try:
        return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8")
    except UnicodeError:
        raise InputError("request target: not UTF-8") from None
