"""Range headers: a table, then the laws that hold for any header."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.model.chunks import CONTENT_SIZE_MAX
from replicad.model.ids import Digest
from replicad.server.downloads.answers import Version, _multipart
from replicad.server.downloads.content_type import _TYPES
from replicad.server.downloads.ranges import FRAME_BYTES, RANGES_MAX, Span, select

IGNORED = None
NONE_SATISFIABLE: tuple[Span, ...] = ()

CASES = {
    "first bytes": ("bytes=0-499", 10_000, (Span(0, 500),)),
    "middle": ("bytes=500-999", 10_000, (Span(500, 1000),)),
    "open end": ("bytes=9500-", 10_000, (Span(9500, 10_000),)),
    "suffix": ("bytes=-500", 10_000, (Span(9500, 10_000),)),
    "suffix longer than the file": ("bytes=-20000", 10_000, (Span(0, 10_000),)),
    "last byte beyond the end": ("bytes=9000-20000", 10_000, (Span(9000, 10_000),)),
    "one byte": ("bytes=0-0", 1, (Span(0, 1),)),
    "last byte": ("bytes=-1", 10_000, (Span(9999, 10_000),)),
    "unit in capitals": ("BYTES=0-0", 10_000, (Span(0, 1),)),
    "spaces": ("bytes= 0-0 , 9000-9000 ", 10_000, (Span(0, 1), Span(9000, 9001))),
    "two far apart": ("bytes=0-0,-1", 10_000, (Span(0, 1), Span(9999, 10_000))),
    "asked backwards, sent backwards": ("bytes=-1,0-0", 10_000, (Span(9999, 10_000), Span(0, 1))),
    "overlapping": ("bytes=0-500,400-900", 10_000, (Span(0, 901),)),
    "touching": ("bytes=0-499,500-999", 10_000, (Span(0, 1000),)),
    "inside another": ("bytes=0-999,100-200", 10_000, (Span(0, 1000),)),
    "closer than a frame": (f"bytes=0-0,{FRAME_BYTES + 1}-{FRAME_BYTES + 1}", 10_000, (Span(0, FRAME_BYTES + 2),)),
    "just farther than a frame": (f"bytes=0-0,{FRAME_BYTES + 2}-{FRAME_BYTES + 2}", 10_000, (Span(0, 1), Span(FRAME_BYTES + 2, FRAME_BYTES + 3))),
    "joined ones come where the first was asked": ("bytes=9000-9001,0-9,8999-8999", 10_000, (Span(8999, 9002), Span(0, 10))),
    "unsatisfiable among others": ("bytes=0-0,20000-", 10_000, (Span(0, 1),)),
    "empty elements": ("bytes=,0-0,,", 10_000, (Span(0, 1),)),
    "beyond the end": ("bytes=10000-", 10_000, NONE_SATISFIABLE),
    "empty suffix": ("bytes=-0", 10_000, NONE_SATISFIABLE),
    "all beyond the end": ("bytes=10000-10001,20000-", 10_000, NONE_SATISFIABLE),
    "a number beyond 64 bits": ("bytes=99999999999999999999-", 10_000, NONE_SATISFIABLE),
    "an end beyond 64 bits": ("bytes=1-99999999999999999999", 10_000, (Span(1, 10_000),)),
    "a number too long to read": (f"bytes=0-{'9' * 5000}", 10_000, IGNORED),
    "backwards": ("bytes=5-4", 10_000, IGNORED),
    "backwards among others": ("bytes=0-1,5-4", 10_000, IGNORED),
    "another unit": ("lines=0-1", 10_000, IGNORED),
    "no unit": ("0-1", 10_000, IGNORED),
    "no ranges": ("bytes=", 10_000, IGNORED),
    "only commas": ("bytes=,,", 10_000, IGNORED),
    "letters": ("bytes=a-b", 10_000, IGNORED),
    "a dash alone": ("bytes=-", 10_000, IGNORED),
    "a sign": ("bytes=+1-2", 10_000, IGNORED),
    "digits of another script": ("bytes=٠-١", 10_000, IGNORED),
    "negative twice": ("bytes=--5", 10_000, IGNORED),
    "space inside": ("bytes=0 -5", 10_000, IGNORED),
    "as many as allowed": (
        f"bytes={','.join(f'{n * 1000}-{n * 1000}' for n in range(RANGES_MAX))}",
        1 << 20,
        tuple(Span(n * 1000, n * 1000 + 1) for n in range(RANGES_MAX)),
    ),
    "one too many": (f"bytes={','.join(f'{n * 1000}-{n * 1000}' for n in range(RANGES_MAX + 1))}", 1 << 20, IGNORED),
    "ten thousand": (f"bytes={','.join('0-0' for _ in range(10_000))}", 10_000, IGNORED),
    "an empty file": ("bytes=0-", 0, IGNORED),
    "the end of an empty file": ("bytes=-5", 0, IGNORED),
}


@pytest.mark.parametrize(("header", "size", "expected"), CASES.values(), ids=CASES)
def test_header(header: str, size: int, expected: tuple[Span, ...] | None) -> None:
    assert select(header, size) == expected


bounds = st.integers(0, 3000)
specs = st.one_of(
    st.tuples(bounds, bounds).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    bounds.map(lambda first: f"{first}-"),
    bounds.map(lambda length: f"-{length}"),
)


def bytes_of(spec: str, size: int) -> set[int]:
    """What one spec asks for, by the text of RFC 9110 section 14.1.2."""
    first, last = spec.split("-")
    if not first:
        return set(range(max(0, size - int(last)), size))
    return set(range(int(first), size if not last else min(size, int(last) + 1)))


@given(st.lists(specs, min_size=1, max_size=RANGES_MAX), st.integers(1, 2500))
def test_exactly_what_was_asked_and_small_gaps(asked: list[str], size: int) -> None:
    spans = select(f"bytes={','.join(asked)}", size)
    assert spans is not None
    wanted = set().union(*(bytes_of(spec, size) for spec in asked))
    sent = [set(range(span.start, span.stop)) for span in spans]
    assert wanted <= set().union(*sent)
    assert sum(map(len, sent)) == len(set().union(*sent)), "a byte is sent twice"
    ordered = sorted(spans)
    assert all(after.start - before.stop > FRAME_BYTES for before, after in itertools.pairwise(ordered))
    for span in spans:
        assert {span.start, span.stop - 1} <= wanted, "a span begins and ends with what was asked"
    surplus = set().union(*sent) - wanted
    assert all(any(byte + step in wanted for step in range(FRAME_BYTES + 1)) for byte in surplus)


@given(st.text(max_size=80), st.integers(0, 2500))
def test_any_text_is_bounded(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        spans = select(header, size)
        assert spans is None or all(0 <= span.start < span.stop <= size for span in spans)


def test_a_frame_costs_less_than_assumed() -> None:
    """So that joining spans closer than FRAME_BYTES never sends more than separate parts would, and an answer is never longer than the file and one frame."""
    longest = max(_TYPES.values(), key=len)
    version = Version(Digest(bytes(32)), CONTENT_SIZE_MAX, 0, longest)
    spans = (Span(CONTENT_SIZE_MAX - 500, CONTENT_SIZE_MAX - 499), Span(CONTENT_SIZE_MAX - 1, CONTENT_SIZE_MAX))
    found = _multipart(b"", spans, version, "f" * 32)
    assert all(len(piece.lead) <= FRAME_BYTES for piece in found.pieces)
