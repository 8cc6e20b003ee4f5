"""SHA-256 that begins anywhere is the SHA-256 of ``hashlib``, however the bytes come and wherever it was broken off."""

from __future__ import annotations

import ctypes
import hashlib
import struct
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.crypto import states
from replicad.crypto.states import INITIAL, Functions, Sha256

EDGES = [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 1000]
KINDS = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": lambda content: memoryview(bytearray(content)),
    "memoryview that cannot be written": memoryview,
    "part of a memoryview": lambda content: memoryview(bytearray(b"xyz" + content + b"abc"))[3:-3],
}


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def test_it_is_there_where_this_is_tested() -> None:
    assert states.available()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("size", EDGES)
def test_any_buffer_of_any_length(size: int, kind: Any) -> None:
    content = bytes(range(256)) * 4
    hashed = Sha256()
    hashed.update(kind(content[:size]))
    assert (hashed.digest(), hashed.length) == (sha256(content[:size]), size)
    hashed.update(kind(content[size:]))
    assert hashed.digest() == sha256(content)


def test_a_buffer_with_gaps_is_refused() -> None:
    with pytest.raises(BufferError):
        Sha256().update(memoryview(bytearray(100))[::2])


@given(st.binary(max_size=500), st.lists(st.integers(0, 500), max_size=6))
def test_the_pieces_do_not_matter(content: bytes, cuts: list[int]) -> None:
    hashed, start = Sha256(), 0
    for cut in [*sorted(cuts), len(content)]:
        hashed.update(memoryview(content)[start : max(cut, start)])
        start = max(cut, start)
        assert hashed.digest() == sha256(content[:start]), "a digest ends nothing"


@given(st.binary(min_size=64, max_size=1000), st.data())
def test_it_goes_on_from_any_state(content: bytes, data: st.DataObject) -> None:
    at = 64 * data.draw(st.integers(0, len(content) // 64))
    first = Sha256()
    first.update(content[:at])
    other, twin = Sha256(first.state, at), first.copy()
    for hashed in (other, twin):
        hashed.update(content[at:])
        assert (hashed.digest(), hashed.length) == (sha256(content), len(content))
    assert first.digest() == sha256(content[:at]), "a copy is another one"


def test_states_are_those_of_the_standard() -> None:
    """FIPS 180-4, section 5.3.3; and of one block the state is its digest without padding, which ends the message "abc" (section B.1 of FIPS 180-2)."""
    assert Sha256().state == INITIAL
    padded = Sha256()
    padded.update(b"abc\x80" + bytes(59) + b"\x18")
    assert padded.state == sha256(b"abc")


@pytest.mark.parametrize("size", [1, 63, 65, 127])
def test_there_is_no_state_within_a_block(size: int) -> None:
    hashed = Sha256()
    hashed.update(bytes(size))
    with pytest.raises(ValueError, match="whole blocks"):
        _ = hashed.state


@pytest.mark.parametrize(("state", "offset"), [(INITIAL, 1), (INITIAL, -64), (INITIAL, 1 << 61), (INITIAL[:-1], 64), (b"", 0)])
def test_what_is_no_state_is_refused(state: bytes, offset: int) -> None:
    with pytest.raises(ValueError, match="no state"):
        Sha256(state, offset)


@pytest.mark.parametrize("offset", [0, (1 << 29) - 64, 1 << 29, (1 << 32) - 64, (5 << 29) + 128, (1 << 42) - 64])
@pytest.mark.parametrize("size", [0, 5, 64, 100])
def test_lengths_beyond_32_bits_of_bits(offset: int, size: int) -> None:
    """The end of a message of any length is its last block, padded by hand (section 5.1.1) and put through as bytes of a message from the same state."""
    end, state = bytes(range(size)), sha256(b"some state")
    hashed = Sha256(state, offset)
    hashed.update(end)
    zeros = -(size + 9) % 64
    by_hand = Sha256(state, 0)
    by_hand.update(end + b"\x80" + bytes(zeros) + struct.pack(">Q", 8 * (offset + size)))
    assert (hashed.digest(), hashed.length) == (by_hand.state, offset + size)


def test_threads_do_not_disturb_each_other() -> None:
    contents = [bytes([number]) * (3 << 20) for number in range(8)]

    def hashed(content: bytes) -> bytes:
        found = Sha256()
        for start in range(0, len(content), 70_000):
            found.update(memoryview(bytearray(content[start : start + 70_000])))
        return found.digest()

    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(hashed, contents)) == [sha256(content) for content in contents]


def functions() -> Functions:
    found = states._library()
    assert found is not None
    return found


def test_without_the_library_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "_libraries", lambda: iter([SimpleNamespace()]))
    monkeypatch.setattr(states, "_library", states._library.__wrapped__)
    assert not states.available()
    with pytest.raises(RuntimeError):
        Sha256()


def _without_carry(context: Any, content: Any, size: int) -> None:
    functions().update(context, content, size)
    context._obj.high_bits = 0


WRONG = {
    "nothing happens": Functions(lambda *_: 1, lambda *_: 1),
    "another hash": Functions(lambda context, _content, size: functions().update(context, bytes(size), size), lambda *given: functions().final(*given)),
    "another digest": Functions(lambda *given: functions().update(*given), lambda out, _context: ctypes.memset(out, 7, 32)),
    "the length is elsewhere": Functions(_without_carry, lambda *given: functions().final(*given)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_library_that_computes_something_else_is_not_used(wrong: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    assert states.proven(functions())
    assert not states.proven(wrong)
    monkeypatch.setattr(states, "_libraries", lambda: iter([SimpleNamespace(SHA256_Update=Loose(wrong.update), SHA256_Final=Loose(wrong.final))]))
    assert states._library.__wrapped__() is None


class Loose:
    """A function that takes attributes."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, *given: Any) -> Any:
        return self._function(*given)
