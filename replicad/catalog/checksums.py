"""Checksums of held contents, as this node computed them, and which are still to be computed."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

from replicad.catalog.rows import for_all
from replicad.catalog.state import State
from replicad.model.ids import Digest

KNOWN = "SELECT content, algorithm, digest FROM checksum WHERE content IN (?)"
NAMED = """
SELECT entry.content, entry.share FROM entry JOIN held ON held.content = entry.content
WHERE entry.content IN (?) AND entry.counts = 1 AND entry.wins = 1
"""
KEEP = "INSERT INTO checksum (content, algorithm, digest) SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM held WHERE content = ?1) ON CONFLICT DO NOTHING"

Found = Mapping[str, bytes]
"""Algorithm to digest."""


class Checksums(State):
    """Part of ``Catalog``."""

    async def checksums(self, contents: Sequence[Digest]) -> Mapping[Digest, Found]:
        """What is known of these contents; nothing of those that are not held."""
        return await self._database.read(partial(_known, contents=contents))

    async def missing_checksums(self, contents: Sequence[Digest], asked: Mapping[str, Sequence[str]]) -> dict[Digest, list[str]]:
        """Those of the contents that are held and stand under a name of a share that asks for algorithms which are not known of them: which."""
        return await self._database.scan(partial(_missing, contents=contents, asked=asked))

    async def add_checksums(self, found: Mapping[Digest, Found]) -> None:
        """Keep what was computed of contents, as far as they are held."""
        await self._write(partial(_keep, found=found))


def _known(connection: sqlite3.Connection, *, contents: Sequence[Digest]) -> dict[Digest, dict[str, bytes]]:
    found: dict[Digest, dict[str, bytes]] = defaultdict(dict)
    for content, algorithm, digest in for_all(connection, KNOWN, contents):
        found[Digest(content)][algorithm] = digest
    return dict(found)


def _missing(connection: sqlite3.Connection, *, contents: Sequence[Digest], asked: Mapping[str, Sequence[str]]) -> dict[Digest, list[str]]:
    wanted: dict[Digest, set[str]] = defaultdict(set)
    for content, share in for_all(connection, NAMED, contents):
        wanted[Digest(content)].update(asked.get(share, ()))
    known = _known(connection, contents=contents)
    missing = {content: sorted(algorithms - known.get(content, {}).keys()) for content, algorithms in wanted.items()}
    return {content: algorithms for content, algorithms in missing.items() if algorithms}


def _keep(connection: sqlite3.Connection, *, found: Mapping[Digest, Found]) -> None:
    connection.executemany(KEEP, ((content, algorithm, digest) for content, digests in found.items() for algorithm, digest in digests.items()))
