"""Metalink 4 (RFC 5854): one file, its hash and those of its pieces, and where it is; and the Link fields that say the same about an answer (RFC 6249)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote
from xml.sax.saxutils import escape

from replicad.model.entries import Listed
from replicad.model.manifest import Manifest

MEDIA_TYPE = "application/metalink4+xml"
MIRRORS_MAX = 32
"""URLs in a metalink: more than a client opens at once."""
LINKS_MAX = 8
"""Link fields of an answer."""
HASH_NAMES = {"md5": "md5", "sha512": "sha-512"}
"""Of hashlib's names: those in IANA's registry of hash function names, which RFC 5854 refers to. It has no SHA-3."""
MAGIC = "/-/metalink/"
SUFFIX = ".meta4"


def address(base: str, listed: Listed, query: str = "") -> str:
    """Where a node's door at ``base`` has the file. ``query`` is what the client showed, which every node honours."""
    return f"{base}/{listed.share}/{quote(listed.path)}{f'?{query}' if query else ''}"


def render(listed: Listed, manifest: Manifest | None, bases: Sequence[str], *, checksums: Mapping[str, bytes], query: str = "") -> bytes:
    """The document; ``bases`` are the doors of the nodes that hold the file, the best first; ``checksums`` by hashlib's names, of which those that the registry has are said."""
    hashes = [("sha-256", bytes(listed.content)), *((HASH_NAMES[name], digest) for name, digest in sorted(checksums.items()) if name in HASH_NAMES)]
    pieces = "".join(f"<hash>{manifest.chunk_digest(index).hex()}</hash>" for index in range(manifest.count)) if manifest else ""
    urls = "".join(f'    <url priority="{place}">{escape(address(base, listed, query))}</url>\n' for place, base in enumerate(bases[:MIRRORS_MAX], 1))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<metalink xmlns="urn:ietf:params:xml:ns:metalink">\n'
        f"  <generator>replicad</generator>\n  <published>{datetime.fromtimestamp(listed.hlc.ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}</published>\n"
        f'  <file name="{escape(listed.path.rpartition("/")[2])}">\n    <size>{listed.size}</size>\n'
        + "".join(f'    <hash type="{name}">{digest.hex()}</hash>\n' for name, digest in hashes)
        + (f'    <pieces length="{manifest.chunk_size}" type="sha-256">{pieces}</pieces>\n' if manifest and pieces else "")
        + f"{urls}  </file>\n</metalink>\n"
    ).encode()


def links(listed: Listed, others: Sequence[str], *, query: str = "") -> list[str]:
    """The values of the fields that name the same file elsewhere, best first, and the metalink; none if it is nowhere else."""
    if not others:
        return []
    duplicates = [f"<{address(base, listed, query)}>; rel=duplicate; pri={place}" for place, base in enumerate(others[:LINKS_MAX], 1)]
    described = f"{MAGIC}{listed.share}/{quote(listed.path)}{SUFFIX}{f'?{query}' if query else ''}"
    return [*duplicates, f'<{described}>; rel=describedby; type="{MEDIA_TYPE}"']
