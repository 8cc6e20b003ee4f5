"""Manifests: one canonical form for each, with states of the whole hash and without, and nothing else is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import IntegrityError
from replicad.model.chunks import CONTENT_SIZE_MAX, chunk_count, chunk_size_for
from replicad.model.ids import Digest
from replicad.model.manifest import HEADER, MANIFEST_BYTES_MAX, Manifest

MIB = 1 << 20
SIZES = st.one_of(st.integers(0, 5 * MIB), st.integers(0, CONTENT_SIZE_MAX), st.sampled_from([0, MIB, MIB + 1, 4096 * MIB, 4096 * MIB + 1, CONTENT_SIZE_MAX]))


def made(size: int, *, with_states: bool, seed: int = 0) -> Manifest:
    chunk_size = chunk_size_for(size)
    count = chunk_count(size, chunk_size)
    packed = b"".join((seed + number).to_bytes(32, "big") for number in range(2 * count))
    states = packed[32 * count : 32 * (2 * count - 1)] if with_states and count > 1 else b""
    return Manifest(Digest(bytes([seed % 256] * 32)), size, chunk_size, packed[: 32 * count], states)


@given(SIZES, st.booleans(), st.integers(0, 1 << 64))
def test_what_was_encoded_comes_back(size: int, with_states: bool, seed: int) -> None:
    manifest = made(size, with_states=with_states, seed=seed)
    encoded = manifest.encoded
    assert HEADER.size <= len(encoded) <= MANIFEST_BYTES_MAX
    assert Manifest.decode(encoded) == manifest
    assert encoded[4] == (2 if manifest.states else 1)
    assert manifest.bare.encoded == encoded[:4] + b"\x01" + encoded[5 : len(encoded) - len(manifest.states)]
    assert (manifest.bare.id == manifest.id) is (not manifest.states)


def test_the_largest_is_as_large_as_it_may_be() -> None:
    assert len(made(CONTENT_SIZE_MAX, with_states=True).encoded) == len(made(4096 * MIB, with_states=True).encoded) == MANIFEST_BYTES_MAX


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_state_follows_each_chunk_but_the_last(index: int) -> None:
    manifest = made(2 * MIB + 1, with_states=True)
    assert manifest.state_after(index) == ((3 + index).to_bytes(32, "big") if index < 2 else b"")
    assert manifest.bare.state_after(index) == b""


@pytest.mark.parametrize("size", [0, 1, MIB])
def test_one_chunk_has_one_manifest(size: int) -> None:
    content = Digest(bytes(range(32)))
    implied = Manifest.implied(content, size)
    assert implied is not None
    assert (implied.id, implied.encoded[4]) == (Manifest.implied_id(content, size), 1)


BARE, FULL = made(2 * MIB + 1, with_states=False).encoded, made(2 * MIB + 1, with_states=True).encoded
ONE, NONE = made(MIB, with_states=False).encoded, made(0, with_states=False).encoded
WRONG = {
    "states that are said and missing": FULL[:4] + b"\x02" + BARE[5:],
    "states that are there and not said": FULL[:4] + b"\x01" + FULL[5:],
    "one state too few": FULL[:-32],
    "one state too many": FULL + bytes(32),
    "half a state": FULL[:-16],
    "one byte more": FULL + b"x",
    "bare, one digest too few": BARE[:-32],
    "states of one chunk": ONE[:4] + b"\x02" + ONE[5:],
    "a state of one chunk": ONE[:4] + b"\x02" + ONE[5:] + bytes(32),
    "states of nothing": NONE[:4] + b"\x02" + NONE[5:],
    "a state of nothing": NONE[:4] + b"\x02" + NONE[5:] + bytes(32),
    "algorithm 0": FULL[:4] + b"\x00" + FULL[5:],
    "algorithm 3": FULL[:4] + b"\x03" + FULL[5:],
    "another magic": b"RCM2" + FULL[4:],
    "padding that is not zero": FULL[:5] + b"\x01" + FULL[6:],
    "another chunk size": FULL[:8] + (2 * MIB).to_bytes(8, "big") + FULL[16:],
    "too short": FULL[: HEADER.size - 1],
    "nothing": b"",
    "too long": made(CONTENT_SIZE_MAX, with_states=True).encoded + bytes(32),
    "too large": replace(made(CONTENT_SIZE_MAX, with_states=True), size=CONTENT_SIZE_MAX + 1).encoded,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_not_canonical_is_refused(wrong: bytes) -> None:
    with pytest.raises(IntegrityError):
        Manifest.decode(wrong)


@given(st.sampled_from([BARE, FULL, ONE, NONE]), st.integers(0, 400), st.integers(1, 255))
def test_every_byte_counts(encoded: bytes, place: int, flip: int) -> None:
    changed = bytearray(encoded)
    changed[place % len(encoded)] ^= flip
    try:
        found = Manifest.decode(bytes(changed))
    except IntegrityError:
        return
    assert found.encoded == changed
    assert found.id != Manifest.decode(encoded).id
