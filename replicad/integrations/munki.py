"""Munki repositories: a new catalog or manifest is shown when all that it names is here, and until then its previous version.

A client must never read a catalog that names a package which this node does not have: content arrives in any order, names arrive before content. What is shown follows from what is stored, so a node that
was killed in the middle shows, when it is back, what it may. The layout is Munki's (interop: ``catalogs/``, ``manifests/``, ``pkgs/``, ``icons/``); property lists are read as XML without entities.
"""

from __future__ import annotations

import plistlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.parsers.expat import ExpatError

from replicad.errors import InputError
from replicad.model import paths
from replicad.model.ids import Digest

CATALOGS, MANIFESTS, PACKAGES, ICONS = "catalogs/", "manifests/", "pkgs/", "icons/"
INDEX_BYTES_MAX = 64 << 20
"""Of a catalog; that of 10,000 packages has about 30 MiB."""
_DIGEST_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Reference:
    """A file of the repository that an index names: its path, its collision key (None: no file can be called that), and its hash if the index says it."""

    path: str
    key: str | None
    digest: Digest | None = None


def is_index(key: str) -> bool:
    """Whether a collision key in the repository is that of a catalog or manifest. Files that begin with a dot are none (Munki skips them)."""
    return key.startswith((CATALOGS, MANIFESTS)) and not any(segment.startswith(".") for segment in key.split("/"))


def references(key: str, encoded: bytes, *, root: str = "") -> tuple[Reference, ...]:
    """What the index names: a catalog its packages and icons, a manifest its catalogs. ``key`` is its collision key in the repository, ``root`` the repository's directory in the share, empty or with a
    slash at the end. InputError if it is not what Munki could read.
    """
    try:
        read = plistlib.loads(encoded)
    except (plistlib.InvalidFileException, ExpatError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(f"not a property list{f' ({error})' if isinstance(error, ExpatError) else ''}") from None
    found = _of_catalog(read) if key.startswith(CATALOGS) else _of_manifest(read)
    return tuple(dict.fromkeys(_reference(root + path, digest) for path, digest in found))


def _of_catalog(read: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(read, list) or not all(isinstance(item, dict) for item in read):
        raise InputError("not a catalog: an array of dictionaries expected")
    for item in read:
        if not item.get("PackageURL") and not item.get("PackageCompleteURL"):
            yield from _files(PACKAGES, item, ("installer_item_location",), "installer_item_hash")
            yield from _files(PACKAGES, item, ("uninstaller_item_location",), "uninstaller_item_hash")
        yield from _files(ICONS, item, ("icon_name", "name") if item.get("icon_hash") else ("icon_name",), "icon_hash")


def _of_manifest(read: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(read, dict):
        raise InputError("not a manifest: a dictionary expected")
    catalogs = read.get("catalogs", [])
    for name in catalogs if isinstance(catalogs, list) else []:
        yield _below(CATALOGS, name), None


def _files(folder: str, item: dict[Any, Any], names: Iterable[str], digest: str) -> Iterator[tuple[str, Any]]:
    """The file that the first of these keys names, if any does, and its hash."""
    name = next((value for key in names if (value := item.get(key))), None)
    if name is not None:
        last = str(name).rpartition("/")[2]
        yield _below(folder, f"{name}.png" if folder == ICONS and "." not in last else name), item.get(digest)


def _below(folder: str, name: Any) -> str:
    return folder + str(name).removeprefix("/")


def _reference(path: str, digest: Any) -> Reference:
    try:
        key = paths.key(paths.check(path))
    except InputError:
        key = None
    try:
        known = Digest.parse(digest) if isinstance(digest, str) and len(digest) == _DIGEST_CHARACTERS else None
    except InputError:
        known = None
    return Reference(path, key, known)
