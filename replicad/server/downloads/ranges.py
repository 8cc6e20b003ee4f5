"""Which bytes a Range header asks for: RFC 9110 section 14, on GET only.

Pure. A header that is not valid, names another unit or asks for too many ranges is ignored, as section 14.2 allows: the client then gets the whole file, which is never wrong. What is
sent for one header is never more than the whole file and one part's frame: ranges that overlap, touch, or lie closer together than a part's frame costs are joined (section 15.3.7.2).
"""

from __future__ import annotations

import re
from typing import NamedTuple

RANGES_MAX = 64
"""Ranges in one header; Apache's MaxRanges is 200, parallel downloaders send one at a time. Beyond, the header is ignored."""
FRAME_BYTES = 256
"""At least what one part of a multipart/byteranges costs besides its bytes: boundary, Content-Type, Content-Range."""
_DIGITS_MAX = 20
_UNIT = re.compile(r"bytes[ \t]*=[ \t]*", re.IGNORECASE)
_SPEC = re.compile(rf"[ \t]*(?:([0-9]{{1,{_DIGITS_MAX}}})-([0-9]{{0,{_DIGITS_MAX}}})|-([0-9]{{1,{_DIGITS_MAX}}}))[ \t]*")


class Span(NamedTuple):
    """Bytes ``start`` to ``stop - 1``."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.stop - self.start


def select(header: str, size: int) -> tuple[Span, ...] | None:
    """The spans to send of ``size`` bytes, in the order in which the client asked for them; () if none is satisfiable (416); None to ignore the header and send the whole file (200)."""
    unit = _UNIT.match(header)
    if unit is None or not size:
        return None
    specs = [spec for spec in header[unit.end() :].split(",", RANGES_MAX + 1) if spec.strip(" \t")]
    if not 0 < len(specs) <= RANGES_MAX:
        return None
    asked: list[Span] = []
    for spec in specs:
        parsed = _SPEC.fullmatch(spec)
        if parsed is None or _is_backwards(parsed):
            return None
        span = _span(parsed, size)
        if span.start < span.stop:
            asked.append(span)
    return _joined(asked)


def _is_backwards(parsed: re.Match[str]) -> bool:
    first, last = parsed[1], parsed[2]
    return bool(last) and int(last) < int(first)


def _span(parsed: re.Match[str], size: int) -> Span:
    """Possibly empty: then it cannot be satisfied."""
    first, last, suffix = parsed.groups()
    if suffix is not None:
        return Span(max(0, size - int(suffix)), size)
    return Span(int(first), min(size, int(last) + 1) if last else size)


def _joined(asked: list[Span]) -> tuple[Span, ...]:
    """Disjoint spans with more than a frame between them, each where the first of its ranges was asked for."""
    if len(asked) < 2:
        return tuple(asked)
    groups: list[tuple[int, Span]] = []
    for place, span in sorted(enumerate(asked), key=lambda item: item[1]):
        if groups and span.start - groups[-1][1].stop <= FRAME_BYTES:
            earlier, group = groups[-1]
            groups[-1] = (min(earlier, place), Span(group.start, max(group.stop, span.stop)))
        else:
            groups.append((place, span))
    return tuple(span for _, span in sorted(groups))
