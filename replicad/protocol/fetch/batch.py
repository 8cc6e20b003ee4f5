"""The bytes of a batch: many small contents in one request (docs/protocol.md, "Small contents").

Question: per content its digest (32 bytes) and size (32 bits, big-endian), at most ``BATCH_CONTENTS_MAX``. Answer: in the same order per content one byte (``Mark``), HELD followed by exactly ``size``
bytes of content.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum

from replicad.errors import PeerError
from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.model.ids import Digest
from replicad.protocol.fetch.config import BATCH_BYTES_MAX
from replicad.protocol.wire import BATCH_CONTENTS_MAX, Small

_ITEM = struct.Struct(">32sI")
QUESTION_BYTES_MAX = BATCH_CONTENTS_MAX * _ITEM.size


class Mark(IntEnum):
    """What the answer says of a content. ABSENT: it is not held (under that size) or not granted. HELD: here it comes. SPREAD: another was just given it and will pass it on; only whoever asks patiently hears that."""

    ABSENT = 0
    HELD = 1
    SPREAD = 2


def ask(contents: Sequence[Small]) -> bytes:
    """The question."""
    return b"".join(_ITEM.pack(small.content, small.size) for small in contents)


def asked(question: bytes) -> tuple[Small, ...]:
    """What a question asks for; PeerError for one that is malformed or beyond the bounds."""
    if not question or len(question) > QUESTION_BYTES_MAX or len(question) % _ITEM.size:
        raise PeerError(f"batch of {len(question)} bytes", code="bad-request")
    contents = tuple(Small(Digest(content), size) for content, size in _ITEM.iter_unpack(question))
    check(contents)
    return contents


def check(contents: Sequence[Small]) -> None:
    """PeerError for a batch that is too large."""
    if any(small.size > CHUNK_SIZE_MIN for small in contents) or sum(small.size for small in contents) > BATCH_BYTES_MAX:
        raise PeerError(f"batch of more than {BATCH_BYTES_MAX} bytes, or with a content of more than one chunk", code="bad-request")


def answer_bytes_max(contents: Sequence[Small]) -> int:
    """Length of the answer if all of them are held."""
    return len(contents) + sum(small.size for small in contents)


def answered(contents: Sequence[Small], answer: memoryview, *, patient: bool = False) -> list[memoryview | Mark]:
    """The answer's parts, their marks where there are none; PeerError("bad-answer") if it is not exactly of that form, or says SPREAD to one who did not ask patiently."""
    parts: list[memoryview | Mark] = []
    at, most = 0, Mark.SPREAD if patient else Mark.HELD
    for small in contents:
        mark = answer[at] if at < len(answer) else -1
        start = at + 1
        at = start + small.size if mark == Mark.HELD else start
        if not 0 <= mark <= most or at > len(answer):
            raise PeerError("batch answer does not fit its question", code="bad-answer")
        parts.append(answer[start:at] if mark == Mark.HELD else Mark(mark))
    if at != len(answer):
        raise PeerError("batch answer is longer than its question allows", code="bad-answer")
    return parts
