"""Munki repositories for tests: releases of packages with the catalog and the manifest that name them, and what a client reads of them."""

from __future__ import annotations

import os
import plistlib
from typing import Any

from replicad.crypto.hashing import sha256
from replicad.integrations.repositories import Repositories
from replicad.model import paths
from replicad.store.blobs import BlobStore

CATALOG, MANIFEST = "catalogs/all", "manifests/site_default"
SHARE = "munki"


def package(number: int, version: int, size: int = 0) -> tuple[str, bytes]:
    """Path and content, the latter a little longer than ``size``."""
    content = f"package {number} of version {version}".encode() * 40
    return f"pkgs/App{number}-{version}.pkg", content + bytes(size)


def catalog(version: int, packages: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """The index that names these packages, with their hashes."""
    items: list[dict[str, Any]] = [
        {
            "name": path.partition("-")[0],
            "version": str(version),
            "installer_item_location": path.removeprefix("pkgs/"),
            "installer_item_hash": str(sha256(content)),
        }
        for path, content in packages
    ]
    return CATALOG, plistlib.dumps(items)


def manifest(version: int) -> tuple[str, bytes]:
    """What a Mac should have, of that catalog."""
    return MANIFEST, plistlib.dumps({"catalogs": ["all"], "managed_installs": ["App0"], "version": version})


class Client:
    """What the clients of a node are given. ``root``: where in the share the repository begins, empty or with a slash at the end."""

    def __init__(self, repositories: Repositories, store: BlobStore, *, root: str = "") -> None:
        self._repositories = repositories
        self._store = store
        self._root = root

    async def read(self, path: str) -> bytes | None:
        """A file; None for 404."""
        listed = await self._repositories.visible(SHARE, paths.key(self._root + path))
        if listed is None or not listed.available:
            return None
        with os.fdopen(self._store.open_blob(listed.content), "rb") as file:
            return file.read()

    async def version(self) -> int:
        """The version of the catalog that a client reads now, 0 for none; fails if the catalog names what cannot be downloaded, or if the manifest is ahead of it."""
        manifest, encoded = await self.read(MANIFEST), await self.read(CATALOG)
        items = plistlib.loads(encoded) if encoded else []
        for item in items:
            content = await self.read(f"pkgs/{item['installer_item_location']}")
            assert content is not None, item["installer_item_location"]
            assert str(sha256(content)) == item["installer_item_hash"]
        found = int(items[0]["version"]) if items else 0
        assert manifest is None or plistlib.loads(manifest)["version"] <= found
        return found
