"""Apple's manifest for InstallEnterpriseApplication and for declarative package installs: where a package is, its hashes chunk by chunk, and what it is called (device management, ``ManifestURL``)."""

from __future__ import annotations

import hashlib
import os
import plistlib
from collections.abc import Sequence

from replicad.errors import InputError
from replicad.integrations.packages import Package
from replicad.model.chunks import chunk_size_for
from replicad.model.manifest import Manifest

MEDIA_TYPE = "application/xml"
MIB = 1 << 20
CHUNK_SIZES = tuple(sorted({10 * MIB, *(MIB << power for power in range(11))}))
"""That can be asked for: powers of two up to 1 GiB, and the 10 MiB that Apple's own sample has. Few, for another one than our own means reading the whole file once."""
HASHES_MAX = 4096


def chunk_size(asked: str | None, size_bytes: int) -> int:
    """How many bytes of a file of ``size_bytes`` each hash covers: what is asked for (bytes, decimal), else our own chunks; a whole file that is smaller. InputError."""
    if asked is None:
        return min(chunk_size_for(size_bytes), size_bytes)
    if not asked.isdecimal() or len(asked) > 10 or int(asked) not in CHUNK_SIZES or size_bytes > HASHES_MAX * int(asked):
        raise InputError(f"chunk-size: one of {', '.join(map(str, CHUNK_SIZES))} expected, such that there are at most {HASHES_MAX} chunks")
    return min(int(asked), size_bytes)


def known_hashes(manifest: Manifest | None, size: int) -> list[str] | None:
    """The hashes of chunks of that size if they follow from the manifest, which must be the one that the entry names: they are its publisher's word. None if the file must be read."""
    if manifest is None:
        return None
    if size == manifest.size:
        return [str(manifest.content)]
    if size == manifest.chunk_size:
        return [manifest.chunk_digest(index).hex() for index in range(manifest.count)]
    return None


def read_hashes(fd: int, size: int) -> list[str]:
    """The same from the file; closes the descriptor. 1.6 GiB/s: call it in a thread."""
    hashes = []
    with os.fdopen(fd, "rb", buffering=0) as file:
        left, digest = size, hashlib.sha256()
        while block := file.read(min(left, MIB)):
            digest.update(block)
            left -= len(block)
            if not left:
                hashes.append(digest.hexdigest())
                left, digest = size, hashlib.sha256()
        if left != size:
            hashes.append(digest.hexdigest())
    return hashes


def render(package: Package, *, title: str, url: str, size: int, hashes: Sequence[str]) -> bytes:
    """The property list; ``size`` is what each hash covers, ``title`` what the package is called if it does not say it itself."""
    asset = {"kind": "software-package", "url": url, "sha256-size": size, "sha256s": list(hashes)}
    metadata = {"bundle-identifier": package.identifier, "bundle-version": package.version, "kind": "software", "title": package.title or title}
    return plistlib.dumps({"items": [{"assets": [asset], "metadata": metadata}]})
