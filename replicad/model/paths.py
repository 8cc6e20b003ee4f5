"""Paths inside a share: which are legal, and when two of them are the same name.

A path is kept as its author wrote it; what identifies a file is the *collision key* ``NFC(casefold(NFC(path)))``, so that ``Foo.pkg``, ``foo.pkg`` and the decomposed form that macOS sends are one name.
Every door (API, watched folder, peer) uses this one check: protocol.md section 4. Keys are compared segment by segment: ``a`` contains ``a/b`` and not ``ab``.
"""

from __future__ import annotations

import re
import unicodedata

from replicad.errors import InputError
from replicad.model.unicode14 import VERSION, is_assigned

SEGMENT_BYTES_MAX = 255
PATH_BYTES_MAX = 1024
FORBIDDEN = '\\:*?"<>|'
"""What Windows, SMB and HFS+ cannot store; besides "/", which separates, and control characters."""
_SUSPECT = re.compile("[^" + "".join(re.escape(chr(code)) for code in range(0x20, 0x7F) if chr(code) not in FORBIDDEN) + "]")
"""Every character that needs a closer look; names of packages seldom have one. Said by what is left out: the set of all others takes milliseconds to compile."""


def check(path: str) -> str:
    """The path as written if it is legal; otherwise InputError naming the reason and the bound."""
    size_bytes = _size_bytes(path)
    if not path:
        raise _refused(path, "it is empty")
    if size_bytes > PATH_BYTES_MAX:
        raise _refused(path, f"{size_bytes} bytes of UTF-8, at most {PATH_BYTES_MAX}")
    if path.startswith("/"):
        raise _refused(path, 'it must be relative, without a leading "/"')
    for suspect in _SUSPECT.finditer(path):
        _check_character(path, suspect[0])
    for segment in path.split("/"):
        _check_segment(path, segment)
    return path


def key(path: str) -> str:
    """The collision key of a path: equal keys are the same name. Idempotent. Does not check the path; of an illegal one the key is meaningless but harmless."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def is_below(key: str, prefix_key: str) -> bool:
    """Whether a key is the prefix itself or lies in it, segment-wise; everything is below the empty prefix."""
    return not prefix_key or key == prefix_key or key.startswith(f"{prefix_key}/")


def parents(key: str) -> list[str]:
    """The keys of the directories above, outermost first: ``a/b/c`` -> ``a``, ``a/b``."""
    segments = key.split("/")
    return ["/".join(segments[:count]) for count in range(1, len(segments))]


def _size_bytes(path: str) -> int:
    try:
        return len(path.encode())
    except UnicodeEncodeError as error:
        raise _refused(path, f"not valid Unicode (a lone surrogate at character {error.start})") from None


def _check_character(path: str, character: str) -> None:
    if character in FORBIDDEN:
        raise _refused(path, f"{character!r} is not allowed (none of {' '.join(FORBIDDEN)})")
    if unicodedata.category(character) == "Cc":
        raise _refused(path, f"control character U+{ord(character):04X} is not allowed")
    if not character.isascii() and not is_assigned(character):
        raise _refused(path, f"U+{ord(character):04X} is not assigned in Unicode {VERSION}")


def _check_segment(path: str, segment: str) -> None:
    if not segment:
        raise _refused(path, 'it has an empty segment ("//" or a trailing "/")')
    if segment in {".", ".."}:
        raise _refused(path, f'"{segment}" is not allowed as a segment')
    if segment.endswith((".", " ")):
        raise _refused(path, f"segment {segment[:60]!r} ends in a dot or a space")
    if (size_bytes := len(segment.encode())) > SEGMENT_BYTES_MAX:
        raise _refused(path, f"segment {segment[:60]!r} has {size_bytes} bytes of UTF-8, at most {SEGMENT_BYTES_MAX}")


def _refused(path: str, reason: str) -> InputError:
    shown = path if len(path) <= 80 else f"{path[:77]}..."
    return InputError(f"path {shown!r}: {reason}", code="bad-path")
