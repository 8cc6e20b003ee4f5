"""Nouns of the disk: what the store holds, and what was found wrong or needless in it."""

from __future__ import annotations

from msgspec import Struct


class Damaged(Struct, frozen=True):
    """A content whose copy here was found to be wrong or gone. ``name`` is one of its names as SHARE/PATH, empty if it has none. ``aside``: what is left of it is kept."""

    sha256: str
    name: str
    size: int
    found: str
    detail: str
    aside: bool


class Scrubbed(Struct, frozen=True):
    """POST /store/scrub: what was read again, and what of it was damaged."""

    files: int
    bytes: int
    damaged: list[Damaged]


class Amount(Struct, frozen=True):
    """So many contents (or records), so many bytes."""

    files: int
    bytes: int


class Place(Struct, frozen=True):
    """The living files of one stage of a share, and how many of them are held here. A content counts once for each of its names."""

    share: str
    stage: str
    files: int
    bytes: int
    held_files: int
    held_bytes: int


class StoreUsage(Struct, frozen=True):
    """GET /store/usage. ``held`` are whole verified contents, ``partials`` those half fetched, ``uploads`` resumable uploads that are not whole, each with all its room, ``aside`` damaged copies that are kept until the content is whole again. ``used_bytes`` is all of it.
    ``free_bytes`` may still be stored: above ``reserve_bytes`` of the file system's ``total_bytes`` and below ``quota_bytes`` (0: none). ``wanted`` is to be fetched. ``records`` never go.
    """

    used_bytes: int
    free_bytes: int
    total_bytes: int
    reserve_bytes: int
    quota_bytes: int
    held: Amount
    wanted: Amount
    partials: Amount
    uploads: Amount
    aside: Amount
    records: Amount
    places: list[Place]
    damaged: list[Damaged]


class Unneeded(Struct, frozen=True):
    """A content that no file here names any more. ``goes``: not before that."""

    sha256: str
    name: str
    size: int
    since: str
    goes: str


class Collected(Struct, frozen=True):
    """POST /store/gc. ``due`` was removed, or would be with ``dry_run``: the first 1000, and ``files`` and ``bytes`` of all of them. ``waiting`` is in its grace."""

    due: list[Unneeded]
    files: int
    bytes: int
    waiting: Amount
    removed: bool


class Repaired(Struct, frozen=True):
    """POST /store/repair. ``lost``: held, but not on the disk as it should be; ``adopted``: on the disk and wanted, but not known to be held; ``corrupt``: the same, but other bytes (set aside);
    ``unclaimed``: on the disk, and nothing wants them; ``partials``: leftovers of contents half fetched that were removed; ``unreadable``: on the disk and wanted, but they could not be read now: left as they are.
    """

    lost: list[str]
    adopted: list[str]
    corrupt: list[str]
    unclaimed: list[str]
    partials: int
    unreadable: list[str]
