"""A node that takes a new catalog and its 20 packages is killed before and after every step by which that changes its disk, and started again: what its clients read then."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from munki_world import SHARE, Client, catalog, manifest, package

from replicad.catalog import Catalog
from replicad.crypto.keys import SigningKey
from replicad.integrations.repositories import Repositories
from replicad.model.manifest import Manifest
from replicad.model.records import Entry, Policy
from replicad.protocol.fetch.config import FetchConfig
from replicad.services.reconcile import reconcile
from replicad.store.disk import Disk
from support.data_node import DataNetwork, DataNode, clock_ms, data_network
from support.storing import MIB, opened_store

pytestmark = pytest.mark.timeout(300)
COUNT, LARGE = 20, 2
"""Packages, and how many of them are fetched chunk by chunk; the others come in batches."""
COPIED = ("catalog.sqlite", "catalog.sqlite-wal", "partials")


@dataclass(frozen=True)
class Image:
    """What SIGKILL leaves: copies of what changes, and which blobs there were (nobody writes into a blob)."""

    copies: Path
    blobs: frozenset[Path]


class Killed(Disk):
    """The real disk of a node that does one thing at a time. ``images``: what was there before each step, each state once; ``steps`` the names of all."""

    def __init__(self, home: Path, root: Path) -> None:
        super().__init__()
        self.steps: list[str] = []
        self.images: list[Image] = []
        self.taking = False
        self._home, self._root = home, root
        self._lock = threading.RLock()
        self._last: tuple[object, ...] = ()
        for name in ("write", "allocate", "sync", "rename", "sync_directory"):
            setattr(self, name, self.stepping(name, getattr(self, name)))

    def stepping(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, one at a time, with an image of what was there before."""

        def call(*arguments: object, **named: object) -> Any:
            with self._lock:
                self.take(name)
                return real(*arguments, **named)

        return call

    def take(self, name: str) -> None:
        """Another image, unless nothing has changed since the last one."""
        if not self.taking:
            return
        self.steps.append(name)
        files = [path for top in COPIED for path in (self._home / top, *(self._home / top).glob("*")) if path.is_file()]
        contents = {str(path.relative_to(self._home)): path.read_bytes() for path in files}
        blobs = frozenset(path.relative_to(self._home) for path in (self._home / "blobs").glob("*/*"))
        found = (blobs, *((path, hashlib.sha256(content).digest()) for path, content in contents.items()))
        if found == self._last:
            return
        self._last = found
        image = Image(self._root / f"{len(self.steps)}-{name}", blobs)
        for path, content in contents.items():
            (image.copies / path).parent.mkdir(parents=True, exist_ok=True)
            (image.copies / path).write_bytes(content)
        self.images.append(image)

    def restore(self, image: Image, home: Path) -> None:
        """``home`` is as the node's was. Only blobs that are in every later image, too, may be there already."""
        for top in (*COPIED, "catalog.sqlite-shm"):
            shutil.rmtree(home / top) if (home / top).is_dir() else (home / top).unlink(missing_ok=True)
        shutil.copytree(image.copies, home, dirs_exist_ok=True)
        for blob in image.blobs:
            if not (home / blob).exists():
                (home / blob).parent.mkdir(parents=True, exist_ok=True)
                os.link(self._home / blob, home / blob)


async def started(home: Path, key: SigningKey) -> tuple[int, int]:
    """A start from what was left: the version of the catalog that clients read, and how many contents are held."""
    async with Catalog.open(home / "catalog.sqlite", node=key, clock_ms=clock_ms, random16=lambda: 7) as opened, opened_store(home) as store:
        await reconcile(opened, store)
        client = Client(Repositories(opened, store.open_blob, now_ms=lambda: 0), store)
        held = [content async for content in opened.held_contents()]
        return await client.version(), len(held)


@contextmanager
def watched(sink: DataNode, disk: Killed) -> Iterator[None]:
    """Meanwhile every step of the sink leaves an image, and the end of it another one."""
    database: Any = sink.catalog._database
    database._commit = disk.stepping("commit", database._commit)
    disk.taking = True
    yield
    disk.take("end")
    disk.taking = False
    del database._commit


class Release:
    """A version of the repository at the source, to be named file by file."""

    def __init__(self, network: DataNetwork, source: DataNode, version: int, count: int) -> None:
        self._network, self._source = network, source
        self.packages = [package(number, version, MIB if number < min(LARGE, count - 1) else 0) for number in range(count)]
        self.catalog, self.manifest = catalog(version, self.packages), manifest(version)

    async def name(self, *files: tuple[str, bytes]) -> list[Manifest]:
        """Publish these; their manifests."""
        manifests = [await self._source.add(content) for _, content in files]
        entries = []
        for (path, _), one in zip(files, manifests, strict=True):
            superseded = tuple(await self._source.catalog.live_records(SHARE, path.casefold(), "prod"))
            entries.append(Entry(path, "prod", one.content, one.size, one.id, 1_700_000_000, supersedes=superseded))
        await self._network.author(self._source, SHARE, *entries)
        return manifests


ORDERS: dict[str, Callable[[Release], list[list[tuple[str, bytes]]]]] = {
    "the catalog first": lambda release: [[release.catalog, release.manifest], *(release.packages[start : start + 4] for start in range(0, COUNT, 4))],
    "the catalog last": lambda release: [*(release.packages[start : start + 7] for start in range(0, COUNT, 7)), [release.catalog], [release.manifest]],
}


@pytest.mark.parametrize("order", ORDERS)
async def test_killed_at_every_step(tmp_path: Path, order: str) -> None:
    disk = Killed(tmp_path / "sink", tmp_path / "images")
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source"), await network.node("sink", disk=disk, config=FetchConfig(contents_max=1, requests_per_peer=1))
        await network.author(source, "", Policy(SHARE, public=True, layout="munki"))
        await network.link(source, sink)
        old = Release(network, source, 1, 3)
        await sink.wait_for(*await old.name(*old.packages, old.catalog, old.manifest))
        living = Client(Repositories(sink.catalog, sink.store.open_blob, now_ms=lambda: 0), sink.store)
        assert await living.version() == 1
        new = Release(network, source, 2, COUNT)
        with watched(sink, disk):
            for files in ORDERS[order](new):
                await sink.wait_for(*await new.name(*files))
        assert await living.version() == 2
    found = []
    for image in disk.images:
        disk.restore(image, tmp_path / "again")
        found.append(await started(tmp_path / "again", sink.key))
    versions, held = [version for version, _ in found], [count for _, count in found]
    assert set(disk.steps) == {"allocate", "write", "sync", "rename", "sync_directory", "commit", "end"}
    assert (versions, held) == (sorted(versions), sorted(held)), "what was shown or held stays so"
    assert (found[0], found[-1]) == ((1, 5), (2, 5 + COUNT + 2))
    assert len(set(held)) > LARGE
    assert {path.relative_to(tmp_path / "again") for path in (tmp_path / "again" / "blobs").glob("*/*")} == disk.images[-1].blobs
