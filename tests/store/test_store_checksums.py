"""Other hashes than SHA-256: of what comes in at once or in parts, and of what lies there. What they must be says hashlib, of the whole content in one call."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest

from replicad.errors import ChecksumError, IntegrityError
from replicad.model.checksums import ALGORITHMS, Checksum, begin, digests, of
from replicad.store.resumable import Safe
from support.storing import MIB, flip, manifest_of, opened_store, pieces, random_bytes, verify_no_trace


def expected(content: bytes, *algorithms: str) -> dict[str, bytes]:
    return {algorithm: hashlib.new(algorithm, content).digest() for algorithm in algorithms or ("md5", "sha512", "sha3_512")}


def test_what_is_not_known_is_left_out() -> None:
    assert of(b"x", ["md5", "blake9", "sha256"]) == expected(b"x", "md5")
    assert sorted(ALGORITHMS) == sorted(expected(b""))


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 17 * MIB + 1])
async def test_of_what_comes_in(tmp_path: Path, size: int, known: bool) -> None:
    content, more = random_bytes(size), begin(ALGORITHMS)
    promise = Checksum("sha512", hashlib.sha512(content).digest())
    async with opened_store(tmp_path) as store:
        assert await store.receive(pieces(content), size=size if known else None, also=promise, more=more) == manifest_of(content)
        assert digests(more) == expected(content)
        with pytest.raises(IntegrityError, match="the upload has sha512"):
            await store.receive(pieces(content + b"x"), size=size + 1 if known else None, also=promise, more=begin(ALGORITHMS))
        await store.remove(manifest_of(content).content)
        verify_no_trace(store, tmp_path)


async def test_of_what_comes_in_parts_over_restarts(tmp_path: Path) -> None:
    content = random_bytes(9 * MIB + 3)
    cuts = [0, 3 * MIB, 5 * MIB + 1, len(content)]
    parts = [content[start:stop] for start, stop in itertools.pairwise(cuts)]
    async with opened_store(tmp_path) as store:
        await store.resumables.create("a", len(content))
        file = await store.resumables.open("a", len(content), Safe(), ALGORITHMS)
        await file.append(store.source(pieces(parts[0])), until=cuts[1], seconds=60)
        assert file.checksums == expected(parts[0])
        with pytest.raises(ChecksumError):
            await file.append_checked(store.source(pieces(parts[1])), Checksum("sha1", bytes(20)), until=cuts[2])
        await file.append_checked(store.source(pieces(parts[1])), Checksum("sha1", hashlib.sha1(parts[1]).digest()), until=cuts[2])
        assert file.checksums == expected(parts[0] + parts[1])
        safe = await file.sync()
        file.close()
    async with opened_store(tmp_path) as store:
        file = await store.resumables.open("a", len(content), safe, ALGORITHMS)
        await file.append(store.source(pieces(parts[2])), until=cuts[3], seconds=60)
        await file.sync()
        assert await file.finish() == manifest_of(content)
        file.close()
        assert file.checksums == expected(content)


async def test_of_what_lies_there(tmp_path: Path) -> None:
    content = random_bytes(17 * MIB + 1)
    async with opened_store(tmp_path) as store:
        manifest = await store.receive(pieces(content), size=None)
        assert await store.checksums(manifest.content, ["sha3_512", "md5"]) == expected(content, "md5", "sha3_512")
        flip(store.path_of(manifest.content), at=16 * MIB + 7)
        with pytest.raises(IntegrityError):
            await store.checksums(manifest.content, ["md5"])
